"""The mathematics of the kernels: one token's step of a walk, its output and its gradient, safe for keys of any size.

A walk goes over the tokens, and has sums over those so far in units of exp(top - age w), where top is the key of the largest
weight and age the number of tokens since:

    p_t = sum_{i<t} exp(k_i - (t-1-i) w - (top - age w)) v_i      q_t = the same without v_i
    mean_t = p_t / q_t                                            log_mass_t = top - age w + log q_t

    gap = k_t - (top - (age + 1) w),   a = exp(min(-gap, 0)),   b = exp(min(gap, 0))
    p_{t+1} = a p_t + b v_t            q_{t+1} = a q_t + b        age one more; but top = k_t, age = 0 if gap > 0

Nothing overflows, for keys of any size, as 1 <= q_t <= t + 1; and the exponent's rounding does not add up, as top is a key and
age a count. The gradient is that of `past`, with r_t = b / q_{t+1} and 1 - r_t = a q_t / q_{t+1}.

Bidirectional, a second walk goes from the last token to the first. The sums of both before a token are joined for its output,
and the gradient is the sum of one walk in either direction.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sdit_jax.ops.wkv.state import WKVState


class Sums(NamedTuple):
    """The state of a walk, by the equations above."""

    p: jax.Array
    q: jax.Array
    top: jax.Array
    age: jax.Array

    @classmethod
    def of(cls, mean, log_mass) -> "Sums":
        return cls(mean, jnp.ones_like(mean), log_mass, jnp.zeros_like(mean))

    def log_unit(self, w):
        return self.top - self.age * w

    def average(self, w) -> WKVState:
        """(mean, log_mass)."""
        return WKVState(self.p / self.q, self.log_unit(w) + jnp.log(self.q))

    def step(self, w, k, v):
        """(the state after one more token, a, b)."""
        gap = k - (self.top - (self.age + 1) * w)
        a, b = _weights(gap)
        top, age = jnp.where(gap > 0, k, self.top), jnp.where(gap > 0, 0, self.age + 1)
        return Sums(a * self.p + b * v, a * self.q + b, top, age), a, b


def _weights(gap):
    """Weights of two things, the greater one 1, when the logarithm of the second is `gap` above that of the first."""
    less = jnp.exp(-jnp.abs(gap))
    return jnp.where(gap > 0, less, 1), jnp.where(gap > 0, 1, less)


def _joined(w, ours: Sums, theirs: Sums | None):
    """Of the tokens of both walks: p, q, the logarithm of their unit, and our part of q."""
    if theirs is None:
        return ours.p, ours.q, ours.log_unit(w), 1
    a, b = _weights(theirs.log_unit(w) - ours.log_unit(w))
    q = a * ours.q + b * theirs.q
    return a * ours.p + b * theirs.p, q, jnp.maximum(ours.log_unit(w), theirs.log_unit(w)), a * ours.q / q


def output(w, u, k, v, ours: Sums, theirs: Sums | None):
    """y of a token, from the state before it, of one walk or two."""
    p, q, log_unit, _ = _joined(w, ours, theirs)
    a, b = _weights(u + k - log_unit)
    return (a * p + b * v) / (a * q + b)


class TokenGradient(NamedTuple):
    """Of one token in one walk: cotangents (M, N) of the state before it, and its parts of the gradients.

    `d_decayed` is that of -w. What the token has of itself in y, the same in both walks, is apart: `d_logit`, a part of dk and
    du, and `own`, a part of dv.
    """

    M: jax.Array
    N: jax.Array
    dk: jax.Array
    dv: jax.Array
    d_decayed: jax.Array
    d_logit: jax.Array
    own: jax.Array


def gradient(w, u, k, v, dy, ours: Sums, theirs: Sums | None, r, keep, M, N) -> TokenGradient:
    """From the cotangents of y and, M and N, of the state after the token; r and keep = 1 - r are its weights in that state."""
    p, q, log_unit, part = _joined(w, ours, theirs)
    mean, mean_all = ours.p / ours.q, p / q
    a, b = _weights(u + k - log_unit)
    own, d_mean = b / (a * q + b), a * q / (a * q + b) * dy
    d_logit = own * (v - mean_all) * d_mean
    e = r * (v - mean)
    d_decayed = keep * (N - e * M)
    dk, dv = r * N + keep * e * M, r * M
    M_before, N_before = part * d_mean + keep * M, part * (d_mean * (mean - mean_all) - d_logit) + d_decayed
    return TokenGradient(M_before, N_before, dk, dv, d_decayed, d_logit, own * dy)
