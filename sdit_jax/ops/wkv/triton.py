"""WKV as one kernel each way, for NVIDIA GPUs: the state stays in registers, and each array crosses memory once.

A program walks the tokens of BLOCK channels of one batch row by the equations of `sums`. The gradient keeps k, v, and the state
before each chunk of CHUNK tokens, from which those inside the chunk are computed again. So the forward pass moves k, v, y, the
gradient k, v, dy, dk, dv, and each of them 8 / CHUNK bytes per element more, for the states.

Bidirectional, a walk from the last token to the first stores the state after each chunk for the walk from the first, and the
gradient is the sum of one walk in either direction.

It is tested interpreted on a CPU and has never been timed on a GPU, so that "auto" does not choose it. XLA cannot divide a
kernel among devices: where the batch is sharded, call it within `jax.shard_map(..., check_vma=False)`. The former name of this
implementation is "pallas".
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from sdit_jax.ops.wkv.state import WKVState
from sdit_jax.ops.wkv.sums import Sums, gradient, output

BLOCK = 32  # Channels of a program: one for each thread of a warp.
CHUNK = 8  # Tokens that a program holds in registers.


def averages(w_C, u_C, k_BLC, v_BLC, start: WKVState, bidirectional: bool) -> tuple[jax.Array, WKVState]:
    """(y_BLC, last), as `past.averages`; but k and v may have any float dtype, in which they are read, and y has that of v."""
    return _averages(bidirectional, w_C, u_C, k_BLC, v_BLC, start)  # pyright: ignore[reportReturnType]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _averages(bidirectional, w_C, u_C, k_BLC, v_BLC, start):
    return _forward(bidirectional, w_C, u_C, k_BLC, v_BLC, start)[0]


def _forward(bidirectional, w_C, u_C, k_BLC, v_BLC, start):
    B, L, C = k_BLC.shape
    y = jax.ShapeDtypeStruct(v_BLC.shape, v_BLC.dtype)
    states = [jax.tree.map(lambda x, s=s: jax.ShapeDtypeStruct(s, x.dtype), start) for s in ((B, pl.cdiv(L, CHUNK), C), (B, C))]
    inputs = w_C, u_C, k_BLC, v_BLC, start
    after = _call(_walk, True, (*inputs, None), (None, *states))[1] if bidirectional else None
    y_BLC, before, last = _call(_walk, False, (*inputs, after), (y, *states))
    return (y_BLC, last), (w_C, u_C, k_BLC, v_BLC, before, after)


def _backward(bidirectional, residuals, cotangents):
    w_C, u_C, k_BLC, v_BLC, before, after = residuals
    dy_BLC, d_last = cotangents
    like = lambda x, dtype: jax.ShapeDtypeStruct(x.shape, dtype)
    # What is yet to be summed is not rounded to the dtypes of k and v.
    dk, dv = (like(x, w_C.dtype if bidirectional else x.dtype) for x in (k_BLC, v_BLC))
    d_start = jax.tree.map(lambda x: like(x, x.dtype), d_last)
    inputs, outputs = (w_C, u_C, k_BLC, v_BLC, dy_BLC), (dk, dv, *d_start, d_start)  # dw and du are as d_start, (B, C).
    found = _call(_walk_back, False, (*inputs, before, after, d_last), outputs)
    if bidirectional:
        nothing = jax.tree.map(jnp.zeros_like, d_last)
        found = jax.tree.map(jnp.add, found, _call(_walk_back, True, (*inputs, after, before, nothing), outputs))
    dk_BLC, dv_BLC, dw_BC, du_BC, d_start = found
    return dw_BC.sum(0), du_BC.sum(0), dk_BLC.astype(k_BLC.dtype), dv_BLC.astype(v_BLC.dtype), d_start


_averages.defvjp(_forward, _backward)


def _call(kernel, reverse: bool, inputs, outputs):
    """Runs a kernel for every block of channels of every batch row. Its arrays are (C,), (B, C) or (B, anything, C)."""
    B, _, C = inputs[2].shape

    def run(interpret, *inputs):
        block = min(BLOCK, C) if interpret else BLOCK  # Compiled, it is a power of two.

        def spec(x):
            shape = (None, *x.shape[1:-1], block)[-x.ndim :]
            return pl.BlockSpec(shape, lambda c, b: (b, *(0,) * (x.ndim - 2), c)[-x.ndim :])

        return pl.pallas_call(
            functools.partial(kernel, reverse, C),
            grid=(pl.cdiv(C, block), B),
            in_specs=jax.tree.map(spec, inputs),
            out_specs=jax.tree.map(spec, outputs),
            out_shape=outputs,
            interpret=interpret,
            compiler_params=triton.CompilerParams(num_warps=1),
        )(*inputs)

    return jax.lax.platform_dependent(*inputs, cpu=functools.partial(run, True), default=functools.partial(run, False))


def _walk(reverse, C, w_ref, u_ref, k_ref, v_ref, start, theirs, y_ref, ours, last):
    """The state before each chunk and the last one; y, where it is asked for. Theirs: as ours, of the other walk."""
    read, write = _rows(C, w_ref.shape[0], w_ref.dtype)
    w, u = read(w_ref), read(u_ref)

    def chunk(i, tokens, sums):
        write(ours, sums.average(w), i)
        ks, vs = ([read(ref, t) for t in tokens] for ref in (k_ref, v_ref))
        others = _others(read, w, ks, vs, theirs, i)
        for t, k, v, other in zip(tokens, ks, vs, others, strict=True):
            if y_ref is not None:
                write(y_ref, output(w, u, k, v, sums, other), t)
            sums, _, _ = sums.step(w, k, v)
        return sums

    sums = _chunks(k_ref.shape[0], reverse, chunk, Sums.of(*read(start)))
    write(last, sums.average(w))


def _walk_back(reverse, C, w_ref, u_ref, k_ref, v_ref, dy_ref, ours, theirs, d_last, dk_ref, dv_ref, dw_ref, du_ref, d_start):
    """The gradient of a walk, from its end to its start. What a token has of itself is counted in the walk from the first."""
    read, write = _rows(C, w_ref.shape[0], w_ref.dtype)
    w, u = read(w_ref), read(u_ref)

    def chunk(i, tokens, carry):
        M, N, dw, du = carry
        tokens = tokens[::-1]  # In the order of the walk.
        ks, vs, dys = ([read(ref, t) for t in tokens] for ref in (k_ref, v_ref, dy_ref))
        others = _others(read, w, ks, vs, theirs, i)
        after, steps = Sums.of(*read(ours, i)), []
        for k, v in zip(ks, vs, strict=True):
            sums, (after, a, b) = after, after.step(w, k, v)
            steps.append((sums, b / after.q, a * sums.q / after.q))

        for t, k, v, dy, other, (sums, r, keep) in reversed(list(zip(tokens, ks, vs, dys, others, steps, strict=True))):
            M, N, dk, dv, d_decayed, d_logit, own = gradient(w, u, k, v, dy, sums, other, r, keep, M, N)
            dw = dw - d_decayed
            if not reverse:
                dk, dv, du = dk + d_logit, dv + own, du + d_logit
            write(dk_ref, dk, t)
            write(dv_ref, dv, t)
        return M, N, dw, du

    nothing = jnp.zeros_like(w)
    M, N, dw, du = _chunks(k_ref.shape[0], not reverse, chunk, (*read(d_last), nothing, nothing))
    write(d_start, WKVState(M, N))
    write(dw_ref, dw)
    write(du_ref, du)


def _others(read, w, ks, vs, theirs, i) -> list[Sums | None]:
    """The state of the other walk before each token of chunk i."""
    if theirs is None:
        return [None] * len(ks)
    states = [Sums.of(*read(theirs, i))]
    for k, v in zip(ks[:0:-1], vs[:0:-1], strict=True):
        states.append(states[-1].step(w, k, v)[0])
    return [*reversed(states)]


def _chunks(L: int, reverse: bool, chunk, carry):
    """carry = chunk(i, its tokens, carry) for all chunks from the first to the last, or in reverse."""
    whole, rest = divmod(L, CHUNK)

    def run(first, end, size, carry):
        tokens = lambda i: [i * CHUNK + t for t in range(size)][:: -1 if reverse else 1]
        at = lambda i: end - 1 - i + first if reverse else i
        return jax.lax.fori_loop(first, end, lambda i, carry: chunk(at(i), tokens(at(i)), carry), carry)

    # The last one, if it is shorter, is a loop too: the interpreter wants indices that are no constants.
    parts = [(0, whole, CHUNK), (whole, whole + 1, rest)] if rest else [(0, whole, CHUNK)]
    for part in reversed(parts) if reverse else parts:
        carry = run(*part, carry)
    return carry


def _rows(C: int, block: int, dtype):
    """read(refs, row) in `dtype` and write(refs, values, row) in theirs; the last block may lack channels."""
    mask = None if C % block == 0 else pl.program_id(0) * block + jnp.arange(block) < C
    get = lambda ref: triton.load(ref, mask=mask).astype(dtype)
    put = lambda ref, x: triton.store(ref, x.astype(ref.dtype), mask=mask)
    at = lambda refs, row: jax.tree.map(lambda ref: ref.at[*row, :], refs)
    return lambda refs, *row: jax.tree.map(get, at(refs, row)), lambda refs, x, *row: jax.tree.map(put, at(refs, row), x)
