"""Predicted memory against what the compiler allocates for the real training step, on CPU."""

import re

import jax
import pytest

from sdit_jax import sharding
from sdit_jax.planner.memory import memory

SLOW = pytest.mark.slow
CASES = [("none", 1), ("blocks", 1), pytest.param("elementwise", 1, marks=SLOW)]
CASES += [pytest.param(remat, 4, marks=SLOW) for remat in ("none", "elementwise", "blocks")]


def predicted(real, mesh=None, **fields):
    config = real.config(**fields)
    model, objective, _, _, state = real.abstract(config)
    return memory(model, objective, state, mesh or sharding.make_mesh(), config.batch_size, config.microbatches)


def check(real, remat, microbatches, tolerance, **fields):
    fields |= {"model__remat": remat, "microbatches": microbatches}
    assert predicted(real, **fields).total == pytest.approx(real.allocated(real.program(**fields)), rel=tolerance)


@pytest.mark.parametrize(("remat", "microbatches"), CASES)
def test_memory_is_what_the_compiler_allocates(real, remat, microbatches):
    check(real, remat, microbatches, 0.15)


@SLOW
@pytest.mark.parametrize("remat", ["none", "elementwise", "blocks"])
def test_also_at_the_releases_width_and_in_a_deep_network(real, remat):
    check(real, remat, 1, 0.15, model__width=384)
    check(real, remat, 1, 0.2, model__depth=16)


@SLOW
def test_also_in_networks_that_the_constants_were_not_chosen_for(real):
    other = {"model__bidirectional": True, "model__dtype": "bfloat16", "model__patch_size": 4, "batch_size": 32}
    check(real, "none", 1, 0.15, model__width=128, model__depth=8, batch_size=8)
    check(real, "blocks", 1, 0.15, model__width=48, model__depth=6, **other)


@SLOW
def test_rematerialisation_and_microbatches_save_what_is_predicted(real):
    """Ratios, as one chooses by: each to 15 %."""
    for a, b in ((("none", 1), ("elementwise", 1)), (("elementwise", 1), ("blocks", 1)), (("none", 1), ("none", 4))):
        totals = [predicted(real, model__remat=remat, microbatches=M).total for remat, M in (a, b)]
        sizes = [real.allocated(real.program(model__remat=remat, microbatches=M)) for remat, M in (a, b)]
        assert sizes[0] > 1.3 * sizes[1]
        assert totals[0] / totals[1] == pytest.approx(sizes[0] / sizes[1], rel=0.15)


def test_the_state_is_what_the_arguments_take(real):
    """All but the batch of images, labels, and averages."""
    held, program = predicted(real), real.program(model__remat="none", microbatches=1)
    batch = 16 * (28 * 28 * 3 + 4)
    assert held.state + batch == pytest.approx(program.memory_analysis().argument_size_in_bytes, rel=1e-3)


def test_full_sharding_leaves_each_device_its_part(real):
    """An eighth of the arrays that are large enough to split, which most of the numbers are in."""
    config = real.config(model__width=256)
    model, objective, _, _, state = real.abstract(config)
    of = lambda fsdp: memory(model, objective, state, jax.sharding.AbstractMesh((1, fsdp, 1), ("data", "fsdp", "tensor")), 2)
    one, eight = of(1), of(8)
    assert eight.parameters == eight.ema == eight.gradients
    assert eight.parameters == pytest.approx(one.parameters / 8, rel=0.15)
    assert eight.optimizer == pytest.approx(2 * eight.parameters, rel=1e-3)
    assert eight.kept == one.kept


@SLOW
def test_tensor_parallelism_splits_the_residuals_of_the_mixing_layers(real, on_eight_devices):
    """Twice the batch that fits one device's half of them: to 15 %, where whole residuals would be more than that too many."""
    fields = {"batch_size": 32, "model__depth": 2, "mesh__data": 1, "mesh__tensor": 8}
    allocated = int(re.match(r"allocated (\d+)", on_eight_devices(**fields))[1])
    mesh = jax.sharding.AbstractMesh((1, 1, 8), ("data", "fsdp", "tensor"))
    assert predicted(real, mesh, **fields).total == pytest.approx(allocated, rel=0.15)
