"""FLOPs against the products of the traced program and the compiler's own count; bytes against sums by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from sdit_jax.analysis.operations import forward
from sdit_jax.planner.arithmetic import arithmetic, noised_batch, training_program
from sdit_jax.sharding.mesh import AXES
from sdit_jax.training.step import gradients


def program(real, images, microbatches=1, tensor=1, **fields):
    model, objective, _, _, state = real.abstract(real.config(**fields))
    return training_program(model, objective, state.variables, images, microbatches, AbstractMesh((1, 1, tensor), AXES))


def training(real, images, microbatches=1, tensor=1, updated=0, ema=False, **fields):
    found = program(real, images, microbatches, tensor, **fields)
    return arithmetic(found, images // microbatches, tensor=tensor, updated=updated, ema=ema)


def sampling(real, images, **fields):
    return arithmetic(forward(real.abstract(real.config(**fields))[0], images), images)


@pytest.mark.parametrize(
    ("remat", "microbatches"),
    [
        ("none", 1),
        ("blocks", 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("elementwise", 1), ("blocks", 4))),
    ],
)
def test_flops_are_those_of_the_products_in_the_traced_step(real, program_macs, remat, microbatches):
    model, objective, _, _, state = real.abstract(real.config(model__remat=remat))
    step = lambda variables, examples, key: gradients(model, objective, variables, examples, key, microbatches)
    examples = noised_batch(model, objective, 16)
    traced = 2 * program_macs(jax.make_jaxpr(step)(state.variables, examples, jax.random.key(0)).jaxpr)
    # Those for gradients of the image and of the sinusoid are not used.
    unused = 2 * 16 * 64 * (14 * 14 * 12 + 256)
    assert training(real, 16, microbatches, model__remat=remat).flops == traced - unused


def test_model_flops_leave_out_what_is_computed_again(real):
    kept, again = (program(real, 16, model__remat=remat) for remat in ("none", "blocks"))
    assert again.model_flops == kept.model_flops == kept.flops < again.flops


@pytest.mark.slow
def test_the_compiler_counts_as_much_and_as_much_more_for_rematerialised_blocks(real):
    """It counts the bodies of loops once, which with rematerialisation leaves three blocks, as at depth 2; and additions etc.

    Of those the same number with "elementwise" and "blocks", so that the difference is that of products alone.
    """
    counted = {remat: real.program(model__remat=remat, microbatches=1).cost_analysis()["flops"] for remat in ("none", "blocks")}
    flops = lambda remat, depth: training(real, 16, model__remat=remat, model__depth=depth).flops
    assert flops("none", 4) == pytest.approx(counted["none"], rel=0.12)
    assert flops("none", 4) < counted["none"]
    assert flops("blocks", 2) == pytest.approx(counted["blocks"], rel=0.12)
    saved = real.program(model__remat="elementwise", microbatches=1).cost_analysis()["flops"]
    assert flops("blocks", 2) - flops("elementwise", 2) == pytest.approx(counted["blocks"] - saved, rel=0.03)


@pytest.mark.parametrize("shift", ["1d", "2d"])
def test_flops_of_sampling_are_those_of_the_products_in_the_traced_pass(real, program_macs, shift):
    model, _, _, _, state = real.abstract(real.config(model__token_shift=shift))
    apply = lambda variables, x, t: model.apply(variables, x, t, jnp.zeros(16, jnp.int32))
    x_t = jnp.zeros((16, 28, 28, model.channels))
    traced = 2 * program_macs(jax.make_jaxpr(apply)(state.variables, x_t, jnp.zeros(16)).jaxpr)
    found = sampling(real, 16, model__token_shift=shift)
    assert found.flops == traced
    once = 197 - (shift == "1d")  # Tokens of each of 5 blocks that three products see once, and not for 15 further images.
    assert found.spared == 2 * 15 * 5 * 3 * once * 64**2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_of_two_blocks_are_those_summed_by_hand(real, dtype):
    """What depth 4 moves beyond depth 2: two blocks of width 64, 197 tokens and as many of reconstruction, one with a skip.

    196 of the reconstruction tokens are projected to keys, values and receptances once, not for each of 3 images.
    """
    fields = [{"model__depth": depth, "model__dtype": dtype} for depth in (4, 2)]
    deep, shallow = (training(real, 3, **each).activations for each in fields)
    state, wide, gate = 3 * 394 * 64, 3 * 394 * 256, 3 * (197 * 64 + 197 * 197)
    projected = (3 * 198 + 196) * 64
    block = 3 * 2 * projected + 2 * state + (state + wide) + 2 * state + (wide + state) + 2 * gate
    products, size = 2 * block + 3 * 197 * (128 + 64), jnp.dtype(dtype).itemsize
    assert deep - shallow == size * (3 * products + 2 * 8 * state) + 4 * 2 * 2 * 5 * state
    deep, shallow = (sampling(real, 3, **each).activations for each in fields)
    assert deep - shallow == size * (products + 2 * 3 * state) + 4 * 2 * 2 * 2 * state


@pytest.mark.slow
def test_bytes_of_weights_follow_what_reads_and_updates_them(real):
    """Of the matrices of two blocks, three and four passes; those of shared tokens read theirs once more in each."""
    fields = lambda depth: {"model__depth": depth, "model__reconstruction": False}
    moved = lambda count, **more: (
        (count(real, 8, **fields(4), **more).weights - count(real, 8, **fields(2), **more).weights) / 4
    )
    matrices = 2 * (4 * 64**2 + 2 * 64 * 256 + 64**2) + 128 * 64  # Of two blocks, and one skip.
    assert moved(sampling) == matrices
    assert moved(training) == 3 * matrices
    assert moved(training, microbatches=4) == 4 * 3 * matrices
    assert moved(training, model__remat="blocks") == 4 * matrices
    assert training(real, 8, updated=1).updates == 4 * 7
    assert training(real, 8, updated=1, ema=True).updates == 4 * 9
    assert sampling(real, 8).updates == 0


def test_tensor_parallelism_divides_the_mixing_layers_products(real):
    """By hand, for one image: 4 products of time mix, and key and value of channel mix, of 394 tokens of 64, in 5 blocks.

    And in the backward pass the sums over images of the gradients of 3 projections of 196 tokens.
    """
    whole, halves = (training(real, 1, tensor=tensor).flops for tensor in (1, 2))
    projected = 3 * 394 * 64**2
    split = 5 * (projected + 394 * 64**2 + 2 * 394 * 64 * 256)
    assert whole - halves == 2 * (3 * split + 5 * 3 * 196 * 64) / 2
