"""Counted FLOPs against the products of the traced program and the compiler's own count; bytes against a sum by hand."""

import jax
import jax.numpy as jnp
import pytest

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


@pytest.mark.parametrize("shift", ["1d", "2d"])
def test_flops_of_sampling_are_those_of_the_products_in_the_traced_pass(real, program_macs, shift):
    model, _, _, _, state = real.abstract(real.config(model__token_shift=shift))
    forward = lambda params, x, t: model.apply({"params": params}, x, t, jnp.zeros(16, jnp.int32))
    x_t = jnp.zeros((16, 28, 28, model.channels))
    traced = 2 * program_macs(jax.make_jaxpr(forward)(state.params, x_t, jnp.zeros(16)).jaxpr)
    found = arithmetic(model, 16, kind="sampling", **NOTHING)
    assert found.flops == traced
    once = 197 - (shift == "1d")  # Tokens of each of 5 blocks that three products see once, and not for 15 further images.
    assert found.spared == 2 * 15 * 5 * 3 * once * 64**2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_of_two_blocks_are_those_summed_by_hand(real, dtype):
    """What depth 6 moves beyond depth 4: two blocks of width 64, 197 tokens and as many of reconstruction, one with a skip."""
    deep, shallow = (real.abstract(real.config(model__depth=depth, model__dtype=dtype))[0] for depth in (6, 4))
    moved = lambda kind: arithmetic(deep, 3, kind=kind, **NOTHING).bytes - arithmetic(shallow, 3, kind=kind, **NOTHING).bytes
    state, wide, gate = 394 * 64, 394 * 256, 197 * 64 + 197 * 197
    block = 4 * 2 * state + (state + wide) + 2 * state + (wide + state) + 2 * gate
    products, size = 2 * block + 197 * (128 + 64), jnp.dtype(dtype).itemsize
    assert moved("sampling") == 3 * (size * (products + 2 * 3 * state) + 4 * 2 * 2 * 2 * state)
    assert moved("training") == 3 * (size * (3 * products + 2 * 8 * state) + 4 * 2 * 2 * 5 * state)


def test_bytes_of_weights_follow_what_reads_and_updates_them(real):
    model = real.abstract(real.config())[0]

    def passes(*microbatches, network=model, **fields):
        alone = arithmetic(network, 8, *microbatches, **(fields | NOTHING)).bytes
        return (arithmetic(network, 8, *microbatches, **(NOTHING | fields)).bytes - alone) / 4

    assert passes(weights=1) == 3
    assert passes(4, weights=1) == 4 * 3
    assert passes(weights=1, network=model.clone(remat="blocks")) == 4
    assert passes(updated=1) == 7
    assert passes(updated=1, ema=True) == 9
    assert passes(kind="sampling", weights=1, updated=1) == 1


def test_tensor_parallelism_divides_the_mixing_layers_products(real):
    """By hand, for one image: 4 products of time mix, and key and value of channel mix, of 394 tokens of 64, in 5 blocks."""
    model = real.abstract(real.config())[0]
    whole, halves = (arithmetic(model, 1, tensor=tensor, **NOTHING).flops for tensor in (1, 2))
    projected = 3 * 394 * 64**2
    split = 5 * (projected + 394 * 64**2 + 2 * 394 * 64 * 256)
    assert whole - halves == 2 * 3 * split / 2
