"""Blocks in a U: half of them, one in the middle, and half that fuse what the first gave (U-ViT, Bao et al. 2022, 2209.12152).

A block is a flax module with the field `fuses_skip`, called as block(x_BLC, skip_BLC, cond_BC, layer) and returning its result
twice: as the input of the next block and as a skip. `skip_BLC` is None unless it fuses one; `layer` counts blocks of its half.
A block with membranes (`layers.streaming`) gets them as a fifth argument and returns (skip, membranes) in place of the skip.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.linear import WEIGHTED, XAVIER, Linear
from sdit_jax.layers.streaming import Membranes

MAX_UNROLL = 4
# What the backward pass of a block keeps: everything, only the results of its products, nothing.
REMAT = {
    "none": None,
    "elementwise": jax.checkpoint_policies.save_only_these_names(WEIGHTED),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}
BLOCKS = ("in_blocks", "mid_block", "out_blocks")
STACKED = r"(in|out)_blocks/"  # Paths of parameters whose first axis counts blocks, for a `Layout`.


def u_shape(
    block: Callable[..., Any],
    x_BLC: jax.Array,
    cond_BC: jax.Array | None,
    *,
    depth: int,
    skips: bool = True,
    remat: str = "none",
    membranes: Membranes | None = None,
    **fields: Any,
) -> Any:
    """`depth` blocks and one in the middle, for the compact method of a network; skips are last in, first out.

    `fields` are the blocks' own. Each half is one scan over stacked parameters: compiled once, the same checkpoint however it
    is unrolled. The parameters are "in_blocks", "mid_block" and "out_blocks". With `membranes`, those of blocks by these names,
    the result is (x_BLC, membranes after the step).
    """
    half, layers = depth // 2, jnp.arange(depth // 2)
    if remat != "none":
        block = nn.remat(block, prevent_cse=False, policy=REMAT[remat])  # pyright: ignore[reportArgumentType]

    stateful = membranes is not None
    before = lambda name: [membranes.get(name, {})] if membranes is not None else []

    def stack(name, fuses_skip=False):
        scan = nn.scan(
            block,  # pyright: ignore[reportArgumentType]
            variable_axes={"params": 0, "spikes": 0, "raster": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=(0 if fuses_skip else nn.broadcast, nn.broadcast, *[0] * (2 if stateful else 1)),  # pyright: ignore[reportArgumentType]
            length=half,
            unroll=min(half, MAX_UNROLL) if remat == "none" else 1,  # One at a time, or memory is not saved.
        )
        return scan(**fields, fuses_skip=fuses_skip, name=name)

    x_BLC, first = stack("in_blocks")(x_BLC, None, cond_BC, layers, *before("in_blocks"))
    x_BLC, middle = block(**fields, name="mid_block")(x_BLC, None, cond_BC, half, *before("mid_block"))
    given = (first[0] if stateful else first)[::-1]
    x_BLC, last = stack("out_blocks", skips)(x_BLC, given, cond_BC, layers, *before("out_blocks"))
    if not stateful:
        return x_BLC
    return x_BLC, {name: after for name, (_, after) in zip(BLOCKS, (first, middle, last), strict=True)}


def fused(x_BLC: jax.Array, skip_BLC: jax.Array, dtype: Any) -> jax.Array:
    """Linear([x ; skip]), in the dtype of x; its parameters are those of "skip"."""
    fuse = Linear(x_BLC.shape[-1], dtype=dtype, out_dtype=x_BLC.dtype, kernel_init=XAVIER, name="skip")
    return fuse(jnp.concatenate([x_BLC, skip_BLC], -1))


def layer_norm(x___C: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-6) over channels, without learned parameters."""
    return nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False)(x___C)


def adaln(cond_BC: jax.Array | None, width: int, inputs: int) -> list[Callable[[jax.Array], jax.Array]]:
    """`layer_norm` for each of so many inputs of a block; with `cond`, scaled and shifted by it.

        LN(x) * (1 + scale) + shift        all scales and shifts are one Linear of cond, "modulation", that starts at zero

    Source: Peebles and Xie 2023, arXiv 2212.09748, section 3.2.
    """
    if cond_BC is None:
        return [layer_norm] * inputs
    scales = Linear(2 * inputs * width, kernel_init=nn.initializers.zeros, name="modulation")(cond_BC)[:, None]
    parts = jnp.split(scales, 2 * inputs, -1)
    modulated = lambda scale, shift: lambda x: layer_norm(x) * (1 + scale) + shift
    return [modulated(scale, shift) for scale, shift in zip(parts[::2], parts[1::2], strict=True)]
