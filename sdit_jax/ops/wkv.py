"""WKV, the linear attention of RWKV-4: an average of values whose weights grow with the key and decay with distance.

For every channel, with w > 0 the decay rate and u the bonus of the current token (PAPER section 4),

    y_t = ( sum_{i<t} exp(k_i - (t-1-i) w) v_i + exp(u + k_t) v_t )
        / ( sum_{i<t} exp(k_i - (t-1-i) w)     + exp(u + k_t)     )

What token t needs of its past is one weighted average and the logarithm of its weight,

    mean_t = sum_{i<t} exp(k_i - (t-1-i) w) v_i / sum_{i<t} exp(k_i - (t-1-i) w)        log_mass_t = log of that denominator

which are stepped without ever forming a large number, for keys of any size:

    r_t          = sigmoid(k_t - (log_mass_t - w))              the weight of token t in the next average
    mean_{t+1}   = (1 - r_t) mean_t + r_t v_t
    log_mass_{t+1} = logaddexp(log_mass_t - w, k_t)
    y_t          = mean_t + sigmoid(u + k_t - log_mass_t) (v_t - mean_t)

An empty past has log_mass = -1e38. In terms of the (p, q, o) state of other implementations, mean = p/q, log_mass = o + log q;
unlike (p, q, o) this state is unique, so that states and their gradients can be compared between implementations.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

IMPLEMENTATIONS = ("auto", "sequential", "associative")
EMPTY = -1e38


class WKVState(NamedTuple):
    """Everything the next token needs of the past, float32: the average of the values and the log of its total weight."""

    mean_BC: jax.Array
    log_mass_BC: jax.Array


def initial_state(batch: int, channels: int, dtype=jnp.float32) -> WKVState:
    """The state before the first token: no mass."""
    return WKVState(jnp.zeros((batch, channels), dtype), jnp.full((batch, channels), EMPTY, dtype))


def wkv(
    w_C: jax.Array,
    u_C: jax.Array,
    k_BLC: jax.Array,
    v_BLC: jax.Array,
    *,
    state: WKVState | None = None,
    bidirectional: bool = False,
    implementation: str = "auto",
) -> tuple[jax.Array, WKVState | None]:
    """WKV of a sequence (equation above), and the state after its last token.

    Bidirectional: y_t averages over all tokens i with decay |t-i|-1, and bonus u on i = t; the returned state is None.

    Args:
      w_C: decay rate per token, > 0 (exp(time_decay)).
      u_C: bonus of the current token (time_first).
      k_BLC, v_BLC: keys and values.
      state: state after the tokens that precede this sequence; None for none.
      bidirectional: whether every token sees all others.
      implementation: "sequential" (a loop over tokens, the reference), "associative" (`jax.lax.associative_scan`, logarithmic
        depth for accelerators) or "auto": sequential on CPU, associative elsewhere. All give the same outputs, states and
        gradients to rounding.

    Returns:
      (y_BLC, state): y in the dtype of `v_BLC`; at least float32 inside, whatever comes in.

    Raises:
      ValueError: unknown implementation, shapes that do not fit, or a state together with `bidirectional`.
    """
    B, L, C = k_BLC.shape
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"wkv implementation: found {implementation!r}, allowed are {', '.join(IMPLEMENTATIONS)}")
    if v_BLC.shape != k_BLC.shape or w_C.shape != (C,) or u_C.shape != (C,) or L < 1:
        shapes = f"w {w_C.shape}, u {u_C.shape}, k {k_BLC.shape}, v {v_BLC.shape}"
        raise ValueError(f"wkv shapes: found {shapes}; need w (C,), u (C,), k and v (B, L, C) with L >= 1")
    if bidirectional and state is not None:
        raise ValueError("wkv: a bidirectional pass has no state; pass state=None")
    if implementation == "auto":
        implementation = "sequential" if jax.default_backend() == "cpu" else "associative"

    inner = jnp.promote_types(v_BLC.dtype, jnp.float32)
    w, u, k, v = (a.astype(inner) for a in (w_C, u_C, k_BLC, v_BLC))
    start = initial_state(B, C, inner) if state is None else WKVState(*(s.astype(inner) for s in state))
    mean, log_mass, last = _past(implementation, w, k, v, start)  # pyright: ignore[reportGeneralTypeIssues]
    if bidirectional:
        future = _past(implementation, w, k[:, ::-1], v[:, ::-1], start)
        mean_f, log_mass_f, _ = future  # pyright: ignore[reportGeneralTypeIssues]
        mean, log_mass = _merge(mean, log_mass, mean_f[:, ::-1], log_mass_f[:, ::-1])
        last = None
    y = mean + jax.nn.sigmoid(u + k - log_mass) * (v - mean)
    return y.astype(v_BLC.dtype), last


def _merge(mean_a, log_mass_a, mean_b, log_mass_b):
    """The average over two disjoint sets of tokens, from the average and log mass of each."""
    return mean_a + jax.nn.sigmoid(log_mass_b - log_mass_a) * (mean_b - mean_a), jnp.logaddexp(log_mass_a, log_mass_b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _past(implementation, w_C, k_BLC, v_BLC, start: WKVState) -> tuple[jax.Array, jax.Array, WKVState]:
    """mean_t and log_mass_t for every token, and the state after the last one.

    The gradient is analytic. With r_t as above and M_t, N_t the cotangents of mean_t and log_mass_t, the adjoint recurrences
    run backwards in time with the same coefficient 1 - r_t, which lies in [0, 1] and so is safe for keys of any size:

        M_t <- M_t + (1 - r_t) M_{t+1}
        N_t <- N_t + (1 - r_t) (N_{t+1} - e_t M_{t+1}),       e_t = r_t (v_t - mean_t)
        dk_t = r_t N_{t+1} + (1 - r_t) e_t M_{t+1},   dv_t = r_t M_{t+1},   dw = -sum_t (1 - r_t) (N_{t+1} - e_t M_{t+1})

    It keeps k, v, mean and log_mass: four arrays of (B, L, C), whatever the implementation.
    """
    forward = _past_sequential if implementation == "sequential" else _past_associative
    return forward(w_C, k_BLC, v_BLC, start)


def _past_fwd(implementation, w_C, k_BLC, v_BLC, start):
    mean, log_mass, last = _past(implementation, w_C, k_BLC, v_BLC, start)  # pyright: ignore[reportGeneralTypeIssues]
    return (mean, log_mass, last), (w_C, k_BLC, v_BLC, mean, log_mass)


def _past_bwd(implementation, residuals, cotangents):
    return _bwd_sequential(residuals, cotangents) if implementation == "sequential" else _bwd_associative(residuals, cotangents)


_past.defvjp(_past_fwd, _past_bwd)


def _past_sequential(w, k_BLC, v_BLC, start):
    # log_mass is carried as a sum of two floats (compensated summation): its rounding would otherwise add up over the tokens.
    def step(t, carry):
        (mean, log_mass), rest, mean_BLC, log_mass_BLC = carry
        k, v = _at(k_BLC, t), _at(v_BLC, t)
        decayed = log_mass - w
        rest = rest + ((log_mass - decayed) - w)
        gap = k - (decayed + rest)
        larger = jnp.maximum(decayed, k)
        grown = jnp.log1p(jnp.exp(-jnp.abs(gap))) + jnp.where(gap > 0, 0, rest)
        total = larger + grown
        state = WKVState(mean + jax.nn.sigmoid(gap) * (v - mean), total)
        return state, grown - (total - larger), _put(mean_BLC, mean, t), _put(log_mass_BLC, log_mass, t)

    rest, empty = jnp.zeros_like(start.mean_BC), jnp.zeros_like(k_BLC)
    last, _, mean, log_mass = jax.lax.fori_loop(0, k_BLC.shape[1], step, (start, rest, empty, empty))
    return mean, log_mass, last


def _bwd_sequential(residuals, cotangents):
    """All of the adjoint recurrences in one pass backwards through the tokens."""
    w, k_BLC, v_BLC, mean_BLC, log_mass_BLC = residuals
    d_mean_BLC, d_log_mass_BLC, d_last = cotangents
    L = k_BLC.shape[1]

    def step(i, carry):
        M, N, dw, dk_BLC, dv_BLC = carry
        t = L - 1 - i
        mean, logit = _at(mean_BLC, t), _at(k_BLC, t) - (_at(log_mass_BLC, t) - w)
        r, keep = jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)
        e = r * (_at(v_BLC, t) - mean)
        d_decayed = keep * (N - e * M)
        dk_BLC, dv_BLC = _put(dk_BLC, r * N + keep * e * M, t), _put(dv_BLC, r * M, t)
        return _at(d_mean_BLC, t) + keep * M, _at(d_log_mass_BLC, t) + d_decayed, dw - d_decayed, dk_BLC, dv_BLC

    empty = jnp.zeros_like(k_BLC)
    start = (d_last.mean_BC, d_last.log_mass_BC, jnp.zeros_like(d_last.mean_BC), empty, empty)
    M_0, N_0, dw_BC, dk, dv = jax.lax.fori_loop(0, L, step, start)
    return dw_BC.sum(0), dk, dv, WKVState(M_0, N_0)


# Tokens stay on axis 1: transposing to the front and back, as a scan wants it, costs as much as the recurrence.
def _at(x_BLC, t):
    return jax.lax.dynamic_index_in_dim(x_BLC, t, 1, keepdims=False)


def _put(x_BLC, x_BC, t):
    return jax.lax.dynamic_update_index_in_dim(x_BLC, x_BC, t, 1)


def _past_associative(w, k_BLC, v_BLC, start):
    # An element is a run of tokens: its length, average and log mass. The start is the element before the first token.
    def combine(left, right):
        (n_l, mean_l, mass_l), (n_r, mean_r, mass_r) = left, right
        mean, mass = _merge(mean_l, mass_l - n_r * w, mean_r, mass_r)
        return n_l + n_r, mean, mass

    B, L, C = k_BLC.shape
    n = jnp.ones((1, L + 1, 1), k_BLC.dtype)
    mean = jnp.concatenate([start.mean_BC[:, None], v_BLC], 1)
    mass = jnp.concatenate([start.log_mass_BC[:, None], k_BLC], 1)
    _, mean, mass = jax.lax.associative_scan(combine, (n, mean, mass), axis=1)
    return mean[:, :-1], mass[:, :-1], WKVState(mean[:, -1], mass[:, -1])


def _bwd_associative(residuals, cotangents):
    w, k, v, mean, log_mass = residuals
    d_mean, d_log_mass, d_last = cotangents
    logit = k - (log_mass - w)
    r, keep = jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)
    e = r * (v - mean)
    M_0, M_next = _adjoint(keep, d_mean, d_last.mean_BC)
    N_0, N_next = _adjoint(keep, d_log_mass - keep * e * M_next, d_last.log_mass_BC)
    d_decayed = keep * (N_next - e * M_next)
    dk = r * N_next + keep * e * M_next
    return -d_decayed.sum((0, 1)), dk, r * M_next, WKVState(M_0, N_0)


def _adjoint(keep_BLC, d_BLC, d_last_BC):
    """x_t = d_t + keep_t x_{t+1} from the end, x_L = d_last: returns x_0, and x_{t+1} for every t."""

    def combine(right, left):
        (a_r, b_r), (a_l, b_l) = right, left
        return a_l * a_r, b_l + a_l * b_r

    a = jnp.concatenate([keep_BLC, jnp.zeros_like(keep_BLC[:, :1])], 1)
    b = jnp.concatenate([d_BLC, d_last_BC[:, None]], 1)
    _, x = jax.lax.associative_scan(combine, (a, b), axis=1, reverse=True)
    return x[:, 0], x[:, 1:]
