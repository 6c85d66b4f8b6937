"""WKV as one kernel each way, for TPUs: blocks of tokens pass through VMEM, and the state stays there.

Arrays are (L, B, C) here: batch rows lie on the 8 sublanes and channels on the 128 lanes of a register, so that a token of a
block is whole registers, and any number of tokens needs no padding. The compiler turns the axes by giving the arrays around the
kernel another layout, where it can. `walks` has the programs of a block of tokens, rows and channels.

The grid is (blocks of rows, blocks of channels, steps); steps follow each other. With n blocks of tokens,

    forward         blocks 0, 1, ..., n-1
    backward        blocks n-1, ..., 0, each from the state before it, which the forward pass kept
    bidirectional   both ways: blocks n-1, ..., 1, for the state (the cotangents) that each block gets from what comes after it;
                    then blocks 0, ..., n-1 for the results

So k, v and y cross memory once, backward k, v, dy, dk and dv; bidirectional too where the tokens are one block, which they are
while they fit, and else what is read is read twice. The states before (and after) each block add 8 / T bytes per element.

XLA cannot divide a kernel among devices: it runs on each one's rows and channels (`sharding.on_parts`).
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu

from sdit_jax import sharding
from sdit_jax.ops.wkv import walks
from sdit_jax.ops.wkv.state import WKVState
from sdit_jax.ops.wkv.walks import Walk

SUBLANES, LANES = 8, 128
REGISTERS = 4  # That hold a token of a block, of 64: enough to hide the latency of operations.
TOKENS = 64  # Of a block, where more have no use.
BUDGET, LIMIT = 32 * 2**20, 48 * 2**20  # Bytes of VMEM: for the blocks of a kernel, and what it may use.
# Arrays of a block of tokens in the backward pass, the larger one: what comes and goes is there twice, as the next block is
# copied while one is used; states of the walk or of both.
ARRAYS = {False: 2 * 5 + 3, True: 2 * 5 + 2 * 3 + 2}
AXES = {1: ("inner",), 2: ("batch", "inner"), 3: ("tokens", "batch", "inner")}  # Of an array, by their number.


class Blocks(NamedTuple):
    """Sizes of a block: tokens T, rows and channels; and the number n of blocks of tokens."""

    T: int
    rows: int
    channels: int
    n: int


def blocks(L: int, B: int, C: int, *, bidirectional: bool) -> Blocks:
    """The blocks of both passes, which share the states at their borders."""

    def sized(rows, channels):
        token = 4 * _whole(rows, SUBLANES) * _whole(channels, LANES)
        T = BUDGET // (ARRAYS[bidirectional] * token)
        # Bidirectional, two arrays at the borders of all blocks stay in VMEM: they get a quarter of it.
        T = max(T, pl.cdiv(8 * L * token, BUDGET)) if bidirectional else min(T, TOKENS)
        n = pl.cdiv(L, T)
        return Blocks(pl.cdiv(L, n), rows, channels, n)

    channels = min(C, REGISTERS * LANES)
    found = sized(min(B, SUBLANES * max(1, REGISTERS * LANES // _whole(channels, LANES))), channels)
    if bidirectional and found.n > 1:
        found = sized(min(B, SUBLANES), min(C, LANES))
    return found


def _whole(size: int, tile: int) -> int:
    return pl.cdiv(size, tile) * tile


def averages(w_C, u_C, k_BLC, v_BLC, start: WKVState, bidirectional: bool) -> tuple[jax.Array, WKVState]:
    """(y_BLC, last), as `past.averages`; but k and v may have any float dtype, in which they are read, and y has that of v."""
    k_LBC, v_LBC = k_BLC.swapaxes(0, 1), v_BLC.swapaxes(0, 1)
    y_LBC, last = _averages(bidirectional, w_C, u_C, k_LBC, v_LBC, start)  # pyright: ignore[reportGeneralTypeIssues]
    return y_LBC.swapaxes(0, 1), last


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _averages(bidirectional, w_C, u_C, k_LBC, v_LBC, start):
    return _forward(bidirectional, w_C, u_C, k_LBC, v_LBC, start)[0]


def _forward(bidirectional, w_C, u_C, k_LBC, v_LBC, start):
    def part(w, u, k, v, start):
        to = blocks(*k.shape, bidirectional=bidirectional)
        walk = Walk(bidirectional, backward=False, L=k.shape[0], T=to.T, n=to.n)
        border = jax.tree.map(lambda x: jax.ShapeDtypeStruct((to.n, *x.shape), x.dtype), start)
        states = (border, border) if bidirectional else (border,)
        return _call(walk, to, (w, u, k, v, start), (v, states, start))

    inputs = w_C, u_C, k_LBC, v_LBC, start
    y_LBC, states, last = sharding.on_parts(part, inputs, AXES)
    return (y_LBC, last), (w_C, u_C, k_LBC, v_LBC, states)


def _backward(bidirectional, residuals, cotangents):
    def part(w, u, k, v, dy, states, d_last):
        to = blocks(*k.shape, bidirectional=bidirectional)
        walk = Walk(bidirectional, backward=True, L=k.shape[0], T=to.T, n=to.n)
        d_mean = d_last.mean_BC  # dw and du are as this.
        return _call(walk, to, (w, u, k, v, dy, states, d_last), (k, v, d_mean, d_mean, d_last))

    *inputs, states = residuals
    dy_LBC, d_last = cotangents
    dk_LBC, dv_LBC, dw_BC, du_BC, d_start = sharding.on_parts(part, (*inputs, dy_LBC, states, d_last), AXES)
    return dw_BC.sum(0), du_BC.sum(0), dk_LBC, dv_LBC, d_start


_averages.defvjp(_forward, _backward)


def _call(walk: Walk, to: Blocks, inputs: Any, results: Any):
    """Runs a kernel of `walks`. Arrays are (C,), (B, C), (n, B, C) for the borders of blocks, and (L, B, C)."""
    w, u, k, *others = inputs
    _, B, C = k.shape
    inputs = w[None], u[None], k, *others

    kernel = walks.forward
    if walk.backward:
        kernel = walks.backward_both_ways if walk.bidirectional else walks.backward

    def spec(block_of, x):
        tokens = walk.T if x.shape[0] == walk.L else 1
        if x.ndim == 3:
            return pl.BlockSpec((tokens, to.rows, to.channels), lambda b, c, step: (block_of(step), b, c))
        one = x.shape[0] == 1
        return pl.BlockSpec((1 if one else to.rows, to.channels), lambda b, c, step: (0 if one else b, c))

    def run(interpret, *inputs):
        return pl.pallas_call(
            functools.partial(kernel, walk),
            grid=(pl.cdiv(B, to.rows), pl.cdiv(C, to.channels), walk.sweeps + walk.n),
            in_specs=jax.tree.map(functools.partial(spec, walk.block), inputs),
            out_specs=jax.tree.map(functools.partial(spec, walk.result), results),
            out_shape=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), results),
            scratch_shapes=walks.scratch(walk, to.rows, to.channels, w.dtype),
            compiler_params=tpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=LIMIT
            ),
            interpret=interpret,
            name="wkv_backward" if walk.backward else "wkv_forward",
        )(*inputs)

    return jax.lax.platform_dependent(*inputs, tpu=functools.partial(run, False), default=functools.partial(run, True))
