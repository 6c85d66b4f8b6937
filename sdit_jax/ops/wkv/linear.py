"""WKV as two linear recurrences with one exponential per element: the fastest loop over tokens, for keys of limited range.

With a_t = exp(k_t - m), m the largest key of the channel (and log mass of the state), b_t = exp(u) a_t and d = exp(-w),

    p_{t+1} = d p_t + a_t v_t      q_{t+1} = d q_t + a_t      y_t = v_t + (p_t - q_t v_t) / (q_t + b_t)

(bidirectional: p and q of what comes after token t are added to those of what came before). As a <= 1 nothing overflows, but
small keys vanish where the keys of a channel differ by more than float32's range. Where they differ, with the bonus, by at most
RANGE, none vanishes: a, b and every sum of them that y is divided by are at least exp(-RANGE) = 9e-27, and the reciprocals that
the gradient sums are at most exp(RANGE) = 1e26, 12 decades below float32's largest number. `fits` tests this; for keys of a
larger range `lax.cond` falls back to `past`.

The gradient, with g_t = dL/dy_t / (q_t + b_t), runs backwards in time:

    P_t = d P_{t+1} + g_t             dv_t = a_t P_{t+1} + b_t g_t
    Q_t = d Q_{t+1} - g_t y_t         dk_t = a_t (v_t P_{t+1} + Q_{t+1}) + b_t g_t (v_t - y_t)
    du = sum_t b_t g_t (v_t - y_t)    dw = -d sum_t (p_t P_{t+1} + q_t Q_{t+1})

Exponentials and divisions outside of the recurrences stand outside of the loops over tokens, where the compiler spreads them
over the cores. The gradient keeps a, v, y and q, from which p follows; bidirectional, also the sums over later tokens. The
decay is applied as x + (d - 1) x with d - 1 = expm1(-w), since the rounding of a d near 1 would add up over the tokens. For d
below a half it is applied as d x, since the rounding of that sum would be larger than the result.
"""

import functools

import jax
import jax.numpy as jnp

from sdit_jax.ops.wkv import past
from sdit_jax.ops.wkv.state import WKVState, at, put

RANGE = 60.0
LN_2 = 0.6931


def averages(w_C, u_C, k_BLC, v_BLC, start: WKVState, bidirectional: bool) -> tuple[jax.Array, WKVState]:
    """(y_BLC, last), as `past.averages`."""
    return _averages(bidirectional, w_C, u_C, k_BLC, v_BLC, start)  # pyright: ignore[reportReturnType]


def fits(u_C, k_BLC, start: WKVState):
    """(whether the linear recurrences are exact to rounding, the largest key of every channel (B, C))."""
    top_BC = jnp.maximum(k_BLC.max(1), start.log_mass_BC)
    return (top_BC - k_BLC.min(1) + jnp.abs(u_C)).max() <= RANGE, top_BC


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _averages(bidirectional, w_C, u_C, k_BLC, v_BLC, start):
    return _forward(bidirectional, w_C, u_C, k_BLC, v_BLC, start)[0]


def _forward(bidirectional, w_C, u_C, k_BLC, v_BLC, start):
    fitting, top_BC = fits(u_C, k_BLC, start)
    inputs = w_C, u_C, k_BLC, v_BLC, start

    def safe():
        kept = (jnp.zeros_like(k_BLC),) * (4 if bidirectional else 2)
        return past.averages("sequential", *inputs, bidirectional), kept

    result, kept = jax.lax.cond(fitting, lambda: _linear(bidirectional, top_BC, *inputs), safe)
    return result, (fitting, top_BC, inputs, result, kept)


def _backward(bidirectional, residuals, cotangents):
    fitting, top_BC, inputs, result, kept = residuals

    def safe():
        return jax.vjp(lambda w, u, k, v, start: past.averages("sequential", w, u, k, v, start, bidirectional), *inputs)[1](
            cotangents
        )

    return jax.lax.cond(fitting, lambda: _linear_gradient(bidirectional, top_BC, inputs, result, kept, cotangents), safe)


_averages.defvjp(_forward, _backward)


def _faded(w):
    """(x, more) -> exp(-w) x + more, exact to rounding for any w: kept x + (part x + more), kept 1 or 0."""
    fast = w > LN_2
    kept, part = jnp.where(fast, 0.0, 1.0).astype(w.dtype), jnp.where(fast, jnp.exp(-w), jnp.expm1(-w))
    return lambda x, more: kept * x + (part * x + more)


def _to_fill(like):
    """Two arrays for a loop to fill. Their values differ, or the compiler would make one and copy it."""
    return jnp.zeros_like(like), jnp.ones_like(like)


def _linear(bidirectional, top_BC, w, u, k_BLC, v_BLC, start):
    """((y, last), kept): a and q; bidirectional also p and q of what comes after each token."""
    L, to_fill = k_BLC.shape[1], _to_fill(k_BLC)
    faded, bonus, nothing = _faded(w), jnp.exp(u), jnp.zeros_like(top_BC)
    a_BLC = jnp.exp(k_BLC - top_BC[:, None])

    def moved(p, q, t):
        a = at(a_BLC, t)
        return a, faded(p, a * at(v_BLC, t)), faded(q, a)

    def back(i, carry):
        p, q, p_BLC, q_BLC = carry
        t = L - 1 - i
        _, p_next, q_next = moved(p, q, t)
        return p_next, q_next, put(p_BLC, p, t), put(q_BLC, q, t)

    after = jax.lax.fori_loop(0, L, back, (nothing, nothing, *to_fill))[2:] if bidirectional else []

    def ahead(t, carry):
        p, q, y_BLC, q_BLC = carry
        a, p_next, q_next = moved(p, q, t)
        p_after, q_after = (at(x_BLC, t) for x_BLC in after) if bidirectional else (nothing, nothing)
        v = at(v_BLC, t)
        y = v + (p + p_after - (q + q_after) * v) / (q + q_after + bonus * a)
        return p_next, q_next, put(y_BLC, y, t), put(q_BLC, q, t)

    q = jnp.exp(start.log_mass_BC - top_BC)
    p, q, y_BLC, q_BLC = jax.lax.fori_loop(0, L, ahead, (q * start.mean_BC, q, *to_fill))
    return (y_BLC, WKVState(p / q, top_BC + jnp.log(q))), (a_BLC, q_BLC, *after)


def _linear_gradient(bidirectional, top_BC, inputs, result, kept, cotangents):
    w, u, _, v_BLC, start = inputs
    (y_BLC, last), (a_BLC, q_BLC, *after), (dy_BLC, d_last) = result, kept, cotangents
    L, to_fill = v_BLC.shape[1], _to_fill(v_BLC)
    faded, bonus, nothing = _faded(w), jnp.exp(u), jnp.zeros_like(top_BC)
    g_BLC = dy_BLC / (q_BLC + (after[1] if bidirectional else 0) + bonus * a_BLC)

    def seen(t):
        a, v, y, q = at(a_BLC, t), at(v_BLC, t), at(y_BLC, t), at(q_BLC, t)
        p_after, q_after = (at(x_BLC, t) for x_BLC in after) if bidirectional else (nothing, nothing)
        others = q + q_after
        p = (y - v) * (others + bonus * a) + others * v - p_after
        g = at(g_BLC, t)
        return a, v, y, q, p, p_after, q_after, bonus * a * g, g

    def back(i, carry):
        P, Q, dw, du, dk_BLC, dv_BLC = carry
        t = L - 1 - i
        a, v, y, q, p, _, _, own, g = seen(t)
        du_t = own * (v - y)
        dk_BLC, dv_BLC = put(dk_BLC, a * (v * P + Q) + du_t, t), put(dv_BLC, a * P + own, t)
        return faded(P, g), faded(Q, -g * y), dw + (p * P + q * Q), du + du_t, dk_BLC, dv_BLC

    def ahead(t, carry):
        P, Q, dw, dk_BLC, dv_BLC = carry
        a, v, y, _, _, p, q, _, g = seen(t)
        dk_BLC, dv_BLC = put(dk_BLC, at(dk_BLC, t) + a * (v * P + Q), t), put(dv_BLC, at(dv_BLC, t) + a * P, t)
        return faded(P, g), faded(Q, -g * y), dw + (p * P + q * Q), dk_BLC, dv_BLC

    q_last = jnp.exp(last.log_mass_BC - top_BC)
    P = d_last.mean_BC / q_last
    Q = d_last.log_mass_BC / q_last - P * last.mean_BC
    P, Q, dw, du, dk_BLC, dv_BLC = jax.lax.fori_loop(0, L, back, (P, Q, nothing, nothing, *to_fill))
    if bidirectional:
        _, _, dw, dk_BLC, dv_BLC = jax.lax.fori_loop(0, L, ahead, (nothing, nothing, dw, dk_BLC, dv_BLC))
    q_start = jnp.exp(start.log_mass_BC - top_BC)
    d_start = WKVState(q_start * P, q_start * (start.mean_BC * P + Q))
    return -(jnp.exp(-w) * dw).sum(0), du.sum(0), dk_BLC, dv_BLC, d_start
