"""Predicted FLOPs against the products of the traced program and against the compiler's own count; bytes against the floor."""

import jax
import pytest

from sdit_jax.benchmarks.floor import floor
from sdit_jax.costs.arithmetic import arithmetic
from sdit_jax.training.step import gradients, noised

NOTHING = {"weights": 0, "updated": 0}
KEY = jax.random.key(0)


@pytest.mark.parametrize(("remat", "microbatches"), [("none", 1), ("elementwise", 1), ("blocks", 1), ("blocks", 4)])
def test_flops_are_those_of_the_products_in_the_traced_step(real, program_macs, remat, microbatches):
    config = real.config(model__remat=remat)
    model, objective, _, _, state = real.abstract(config)
    batch = {"image": jax.ShapeDtypeStruct((16, 28, 28, 3), "uint8"), "label": jax.ShapeDtypeStruct((16,), "int32")}
    step = lambda params, batch: gradients(model, objective, params, noised(objective, batch, KEY), KEY, microbatches)
    traced = 2 * program_macs(jax.make_jaxpr(step)(state.params, batch).jaxpr)
    assert arithmetic(model, 16, microbatches, **NOTHING).flops == pytest.approx(traced, rel=0.02)


@pytest.mark.slow
def test_the_compiler_counts_as_much_and_as_much_more_for_rematerialised_blocks(real):
    """It counts the bodies of loops once, which with rematerialisation leaves three blocks, as at depth 2; and additions etc.

    Of those the same number with "elementwise" and "blocks", so that the difference is that of products alone.
    """
    counted = {remat: real.program(model__remat=remat, microbatches=1).cost_analysis()["flops"] for remat in ("none", "blocks")}
    flops = lambda remat, depth: (
        arithmetic(real.abstract(real.config(model__remat=remat, model__depth=depth))[0], 16, **NOTHING).flops
    )
    assert flops("none", 4) == pytest.approx(counted["none"], rel=0.12)
    assert flops("none", 4) < counted["none"]
    assert flops("blocks", 2) == pytest.approx(counted["blocks"], rel=0.12)
    saved = real.program(model__remat="elementwise", microbatches=1).cost_analysis()["flops"]
    assert flops("blocks", 2) - flops("elementwise", 2) == pytest.approx(counted["blocks"] - saved, rel=0.03)


def test_on_one_device_it_is_the_floor_of_the_benchmarks(real):
    model, _, _, _, state = real.abstract(real.config())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    found = arithmetic(model, 16, weights=parameters, updated=parameters)
    least = floor(model, 16, {"flops_per_s": 1, "bytes_per_s": 1})["training"]
    assert (found.flops, found.bytes) == (least["flops"] - least["saved_flops"], least["bytes"])


def test_tensor_parallelism_divides_the_mixing_layers_products(real):
    """By hand, for one image: 4 products of time mix, and key and value of channel mix, of 394 tokens of 64, in 5 blocks."""
    model = real.abstract(real.config())[0]
    whole, halves = (arithmetic(model, 1, tensor=tensor, **NOTHING).flops for tensor in (1, 2))
    projected = 3 * 394 * 64**2
    split = 5 * (projected + 394 * 64**2 + 2 * 394 * 64 * 256)
    assert whole - halves == 2 * 3 * split / 2
