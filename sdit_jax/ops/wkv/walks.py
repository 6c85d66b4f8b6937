"""What the TPU kernels do with a block of tokens, rows and channels: walks over its tokens, by the equations of `sums`.

A walk keeps the state before each token in VMEM, for the other walk and for the gradient. Between blocks, `Sums` are carried,
or averages at the borders.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu

from sdit_jax.ops.wkv.sums import Sums, gradient, output


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


class Tokens(NamedTuple):
    """The tokens of a block, `count` of them."""

    w: jax.Array
    u: jax.Array
    k_ref: Any
    v_ref: Any
    count: Any

    @classmethod
    def of(cls, walk: Walk, step, w_ref, u_ref, k_ref, v_ref) -> "Tokens":
        w, u = (jnp.broadcast_to(ref[...], k_ref.shape[1:]) for ref in (w_ref, u_ref))
        return cls(w, u, k_ref, v_ref, walk.tokens(walk.block(step)))

    def read(self, t):
        """(k, v)"""
        return self.k_ref[t].astype(self.w.dtype), self.v_ref[t].astype(self.w.dtype)

    def each(self, step, carry, reverse=False):
        """carry = step(t, carry) for all tokens, one at a time: the compiler saves no cycles where it has two."""
        at = lambda i: self.count - 1 - i if reverse else i
        return jax.lax.fori_loop(0, self.count, lambda i, carry: step(at(i), carry), carry)

    def walked(self, state, reverse=False, refs=None) -> Sums:
        """The state at the end of a walk; p, q and the logarithm of their unit before each token are written to `refs`."""

        def ahead(t, sums):
            if refs is not None:
                _write(refs, (sums.p, sums.q, sums.log_unit(self.w)), t)
            return sums.step(self.w, *self.read(t))[0]

        return self.each(ahead, Sums.of(*state), reverse)


def scratch(walk: Walk, rows: int, channels: int, dtype) -> list[Any]:
    """The arrays in VMEM that a kernel takes last."""
    array = lambda *first: tpu.VMEM((*first, rows, channels), dtype)
    kept, borders = [array(walk.T)] * 3, [array(walk.n)] * 2
    if not walk.backward:
        return [[array()] * 4, *([kept, borders] if walk.bidirectional else [])]
    return [[array()] * 2, kept, *([kept, borders, [array(walk.T)] * 2] if walk.bidirectional else [])]


def forward(walk: Walk, w_ref, u_ref, k_ref, v_ref, start, y_ref, states, last, past, later=None, borders=None):
    """y; the averages before a block (and after it) in `states`; the last one."""
    step = pl.program_id(2)
    tokens, block = Tokens.of(walk, step, w_ref, u_ref, k_ref, v_ref), walk.block(step)
    w, u = tokens.w, tokens.u

    @pl.when(step == walk.sweeps)
    def _():
        _write(past, Sums.of(*_read(start)))

    if walk.bidirectional:
        _sweep(walk, step, borders, _read(start), lambda: tokens.walked(_read(borders, block), reverse=True).average(w))

    @pl.when(step >= walk.sweeps)
    def _():
        if walk.bidirectional:
            tokens.walked(_read(borders, block), reverse=True, refs=later)
            _write(states[1], _read(borders, block), 0)
        sums = Sums(*_read(past))
        _write(states[0], sums.average(w), 0)

        def ahead(t, sums):
            k, v = tokens.read(t)
            others = _kept(later, t) if walk.bidirectional else None
            y_ref[t] = output(w, u, k, v, sums, others).astype(y_ref.dtype)
            return sums.step(w, k, v)[0]

        sums = tokens.each(ahead, sums)
        _write(past, sums)
        _write(last, sums.average(w))


def backward(
    walk: Walk, w_ref, u_ref, k_ref, v_ref, dy_ref, states, d_last, dk_ref, dv_ref, dw_ref, du_ref, d_start, carry, ours
):
    """The gradients of k and v; those of w, u and the start as sums over tokens."""
    step = pl.program_id(2)
    tokens = Tokens.of(walk, step, w_ref, u_ref, k_ref, v_ref)

    @pl.when(step == 0)
    def _():
        _write(carry, _read(d_last))
        _write((dw_ref, du_ref), [jnp.zeros_like(tokens.w)] * 2)

    def put(t, found):
        _put((dk_ref, dv_ref), t, found.dk + found.d_logit, found.dv + found.own)

    tokens.walked(_read(states[0], 0), refs=ours)
    M, N, dw, du = _adjoint(tokens, dy_ref, _read(carry), ours, None, put, reverse=True)
    _write(carry, (M, N))
    _write(d_start, (M, N))
    _write((dw_ref, du_ref), (dw_ref[...] + dw, du_ref[...] + du))


def backward_both_ways(
    walk: Walk, w_ref, u_ref, k_ref, v_ref, dy_ref, states, d_last, dk_ref, dv_ref, dw_ref, du_ref, d_start,
    carry, ours, theirs, borders, parts,
):  # fmt: skip
    """As `backward`, of both walks; a start has no gradient."""
    step = pl.program_id(2)
    tokens, block = Tokens.of(walk, step, w_ref, u_ref, k_ref, v_ref), walk.block(step)

    def put(t, found):
        _put(parts, t, found.dk + found.d_logit, found.dv + found.own)

    def put_sum(t, found):
        _put((dk_ref, dv_ref), t, parts[0][t] + found.dk, parts[1][t] + found.dv)

    def first():
        tokens.walked(_read(states[0], 0), refs=ours)
        tokens.walked(_read(states[1], 0), reverse=True, refs=theirs)
        return _adjoint(tokens, dy_ref, _read(borders, block), ours, theirs, put, reverse=True)

    _sweep(walk, step, borders, _read(d_last), lambda: first()[:2])

    @pl.when(step == walk.sweeps)
    def _():
        for refs in (carry, (dw_ref, du_ref), d_start):
            _write(refs, [jnp.zeros_like(tokens.w)] * 2)

    @pl.when(step >= walk.sweeps)
    def _():
        _, _, dw, du = first()
        M, N, dw_other, _ = _adjoint(tokens, dy_ref, _read(carry), theirs, ours, put_sum, reverse=False)
        _write(carry, (M, N))
        _write((dw_ref, du_ref), (dw_ref[...] + dw + dw_other, du_ref[...] + du))


def _sweep(walk: Walk, step, borders, end, before):
    """Fills `borders` from the last block on: `end`, then `before()` each block."""

    @pl.when(step == 0)
    def _():
        _write(borders, end, walk.n - 1)

    if walk.sweeps:

        @pl.when(step < walk.sweeps)
        def _():
            _write(borders, before(), walk.block(step) - 1)


def _adjoint(tokens: Tokens, dy_ref, cotangents, ours, theirs, put, reverse):
    """(M, N, dw, du) of a walk, from its end to its start; put(t, gradient of token t)."""
    w, u = tokens.w, tokens.u

    def back(t, carry):
        (k, v), (M, N, dw, du) = tokens.read(t), carry
        sums, others = _kept(ours, t), None if theirs is None else _kept(theirs, t)
        after, a, b = sums.step(w, k, v)
        share = 1 / after.q
        found = gradient(w, u, k, v, dy_ref[t].astype(w.dtype), sums, others, b * share, a * sums.q * share, M, N)
        put(t, found)
        return found.M, found.N, dw - found.d_decayed, du + found.d_logit

    nothing = jnp.zeros_like(w)
    return tokens.each(back, (*cotangents, nothing, nothing), reverse)


def _kept(refs, t) -> Sums:
    p, q, log_unit = _read(refs, t)
    return Sums(p, q, log_unit, jnp.zeros_like(p))


def _put(refs, t, *values):
    for ref, value in zip(refs, values, strict=True):
        ref[t] = value.astype(ref.dtype)


def _read(refs, *at):
    return tuple(ref[at or ...] for ref in refs)


def _write(refs, values, *at):
    for ref, value in zip(refs, values, strict=True):
        ref[at or ...] = value
