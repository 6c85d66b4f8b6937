"""What the TPU kernels do with a block of tokens, rows and channels: walks over its tokens, by the equations of `sums`.

A walk keeps the state before each token in VMEM, for the other walk and for the gradient. Between blocks, `Sums` are carried,
or averages at the borders.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu

from sdit_jax.ops.wkv.state import WKVState
from sdit_jax.ops.wkv.sums import Sums, gradient, output

UNROLLED = 2  # Tokens of a loop's body.


class Walk(NamedTuple):
    """n blocks of T tokens, of L in all; the last may have fewer. Bidirectional, n - 1 sweeps come before the results."""

    bidirectional: bool
    backward: bool
    L: int
    T: int
    n: int

    @property
    def sweeps(self) -> int:
        return self.n - 1 if self.bidirectional else 0

    def block(self, step):
        """The block of tokens that a step reads."""
        if not self.bidirectional:
            return self.n - 1 - step if self.backward else step
        return jnp.where(step < self.sweeps, self.n - 1 - step, step - self.sweeps)

    def result(self, step):
        """The block of tokens whose results are in VMEM: in sweeps, that of the first step that has some."""
        return jnp.maximum(step - self.sweeps, 0) if self.bidirectional else self.block(step)

    def tokens(self, block):
        """Tokens of a block."""
        return self.T if self.n * self.T == self.L else jnp.minimum(self.T, self.L - block * self.T)


def scratch(walk: Walk, rows: int, channels: int, dtype) -> list[Any]:
    """The arrays in VMEM that `forward` and `backward` take last."""
    array = lambda *first: tpu.VMEM((*first, rows, channels), dtype)
    kept = [array(walk.T)] * 3
    borders = WKVState(array(walk.n), array(walk.n))
    if not walk.backward:
        return [Sums(*[array()] * 4), *([kept, borders] if walk.bidirectional else [])]
    carry = WKVState(array(), array())
    return [carry, kept, *([kept, borders, [array(walk.T)] * 2] if walk.bidirectional else [])]


def forward(walk: Walk, w_ref, u_ref, k_ref, v_ref, start, y_ref, states, last, past, later=None, borders=None):
    """y; the averages before a block (and after it) in `states`; the last one."""
    step = pl.program_id(2)
    block, dtype = walk.block(step), w_ref.dtype
    w, u = (jnp.broadcast_to(ref[...], start.mean_BC.shape) for ref in (w_ref, u_ref))
    token = lambda t: (k_ref[t].astype(dtype), v_ref[t].astype(dtype))
    each = _loop(walk.tokens(block))

    @pl.when(step == walk.sweeps)
    def _():
        _write(past, Sums.of(*_read(start)))

    if walk.bidirectional:

        @pl.when(step == 0)
        def _():
            _write(borders, _read(start), walk.n - 1)

    if walk.sweeps:

        @pl.when(step < walk.sweeps)
        def _():
            sums = each(lambda t, sums: sums.step(w, *token(t))[0], Sums.of(*_read(borders, block)), reverse=True)
            _write(borders, sums.average(w), block - 1)

    @pl.when(step >= walk.sweeps)
    def _():
        if walk.bidirectional:
            _keep(w, token, each, _read(borders, block), later, reverse=True)
            _write(states[1], _read(borders, block), 0)
        sums = Sums(*_read(past))
        _write(states[0], sums.average(w), 0)

        def ahead(t, sums):
            k, v = token(t)
            y_ref[t] = output(w, u, k, v, sums, _kept(later, t)).astype(y_ref.dtype)
            return sums.step(w, k, v)[0]

        sums = each(ahead, sums)
        _write(past, sums)
        _write(last, sums.average(w))


def backward(
    walk: Walk, w_ref, u_ref, k_ref, v_ref, dy_ref, states, d_last, dk_ref, dv_ref, dw_ref, du_ref, d_start,
    carry, ours, theirs=None, borders=None, parts=None,
):  # fmt: skip
    """The gradients of k and v; those of w, u and the start as sums over tokens."""
    step = pl.program_id(2)
    block, dtype = walk.block(step), w_ref.dtype
    w, u = (jnp.broadcast_to(ref[...], dw_ref.shape) for ref in (w_ref, u_ref))
    token = lambda t: (k_ref[t].astype(dtype), v_ref[t].astype(dtype))
    each, nothing = _loop(walk.tokens(block)), jnp.zeros_like(w)

    def keep_states():
        _keep(w, token, each, _read(states[0], 0), ours)
        if walk.bidirectional:
            _keep(w, token, each, _read(states[1], 0), theirs, reverse=True)

    def adjoint(cotangents, ours, theirs, put, reverse):
        """(M, N, dw, du) of a walk; in the order of the other one."""

        def back(t, carry):
            (k, v), (M, N, dw, du) = token(t), carry
            sums = _kept(ours, t)
            after, a, b = sums.step(w, k, v)
            share = 1 / after.q
            dy, r, keep = dy_ref[t].astype(dtype), b * share, a * sums.q * share
            found = gradient(w, u, k, v, dy, sums, _kept(theirs, t), r, keep, M, N)
            put(t, found)
            return found.M, found.N, dw - found.d_decayed, du + found.d_logit

        return each(back, (*cotangents, nothing, nothing), reverse)

    def put_own(t, found):
        dk, dv = found.dk + found.d_logit, found.dv + found.own
        for ref, x in zip(parts or (dk_ref, dv_ref), (dk, dv), strict=True):
            ref[t] = x.astype(ref.dtype)

    def put_other(t, found):
        for ref, part, x in zip((dk_ref, dv_ref), parts, (found.dk, found.dv), strict=True):
            ref[t] = (part[t] + x).astype(ref.dtype)

    @pl.when(step == 0)
    def _():
        _write((dw_ref, du_ref), (nothing, nothing))
        _write(carry, (nothing, nothing) if walk.bidirectional else _read(d_last))

    if walk.bidirectional:

        @pl.when(step == 0)
        def _():
            _write(borders, _read(d_last), walk.n - 1)

    if walk.sweeps:

        @pl.when(step < walk.sweeps)
        def _():
            keep_states()
            M, N, _, _ = adjoint(_read(borders, block), ours, theirs, lambda t, found: None, reverse=True)
            _write(borders, (M, N), block - 1)

    @pl.when(step >= walk.sweeps)
    def _():
        keep_states()
        before = _read(borders, block) if walk.bidirectional else _read(carry)
        M, N, dw, du = adjoint(before, ours, theirs, put_own, reverse=True)
        if walk.bidirectional:
            M, N, dw_other, _ = adjoint(_read(carry), theirs, ours, put_other, reverse=False)
            dw = dw + dw_other
        _write(carry, (M, N))
        _write(d_start, (M, N))  # Bidirectional, a start has no gradient.
        _write((dw_ref, du_ref), (dw_ref[...] + dw, du_ref[...] + du))


def _keep(w, token, each, state, refs, reverse=False):
    """Writes p, q and the logarithm of their unit before each token of a walk."""

    def ahead(t, sums):
        _write(refs, (sums.p, sums.q, sums.log_unit(w)), t)
        return sums.step(w, *token(t))[0]

    each(ahead, Sums.of(*state), reverse)


def _kept(refs, t) -> Sums | None:
    if refs is None:
        return None
    p, q, log_unit = _read(refs, t)
    return Sums(p, q, log_unit, jnp.zeros_like(p))


def _loop(count):
    """each(step, carry, reverse): carry = step(t, carry) for all tokens of a block."""

    def each(step, carry, reverse=False):
        at = lambda i: count - 1 - i if reverse else i

        def few(i, carry):
            for j in range(UNROLLED):
                carry = step(at(i * UNROLLED + j), carry)
            return carry

        whole = count // UNROLLED if isinstance(count, int) else jax.lax.div(count, UNROLLED)
        carry = jax.lax.fori_loop(0, whole, few, carry)
        return jax.lax.fori_loop(whole * UNROLLED, count, lambda i, carry: step(at(i), carry), carry)

    return each


def _read(refs, *at):
    return jax.tree.map(lambda ref: ref[at or ...], refs)


def _write(refs, values, *at):
    for ref, value in zip(refs, values, strict=True):
        ref[at or ...] = value
