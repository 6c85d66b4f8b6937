"""WKV through the state before every token, an average and the log of its weight: safe for keys of any size.

`past` has two implementations, "sequential" and "associative", and one analytic gradient.
"""

import functools

import jax
import jax.numpy as jnp

from sdit_jax.ops.wkv.state import WKVState, at, put


def averages(implementation, w_C, u_C, k_BLC, v_BLC, start: WKVState, bidirectional: bool) -> tuple[jax.Array, WKVState]:
    """(y_BLC, last) of float arrays of one dtype: the equations of `sdit_jax.ops.wkv`. Bidirectional: last is meaningless."""
    mean, log_mass, last = past(implementation, w_C, k_BLC, v_BLC, start)  # pyright: ignore[reportGeneralTypeIssues]
    if bidirectional:
        future = past(implementation, w_C, k_BLC[:, ::-1], v_BLC[:, ::-1], start)
        mean_f, log_mass_f, _ = future  # pyright: ignore[reportGeneralTypeIssues]
        mean, log_mass = _merge(mean, log_mass, mean_f[:, ::-1], log_mass_f[:, ::-1])
    return mean + jax.nn.sigmoid(u_C + k_BLC - log_mass) * (v_BLC - mean), last


def _merge(mean_a, log_mass_a, mean_b, log_mass_b):
    """The average over two disjoint sets of tokens, from the average and log mass of each."""
    return mean_a + jax.nn.sigmoid(log_mass_b - log_mass_a) * (mean_b - mean_a), jnp.logaddexp(log_mass_a, log_mass_b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def past(implementation, w_C, k_BLC, v_BLC, start: WKVState) -> tuple[jax.Array, jax.Array, WKVState]:
    """mean_t and log_mass_t for every token, and the state after the last one.

    The gradient is analytic. With r_t as in `sdit_jax.ops.wkv` and M_t, N_t the cotangents of mean_t and log_mass_t, the
    adjoint recurrences run backwards in time with the same coefficient 1 - r_t, which lies in [0, 1] and so is safe for keys of
    any size:

        M_t <- M_t + (1 - r_t) M_{t+1}
        N_t <- N_t + (1 - r_t) (N_{t+1} - e_t M_{t+1}),       e_t = r_t (v_t - mean_t)
        dk_t = r_t N_{t+1} + (1 - r_t) e_t M_{t+1},   dv_t = r_t M_{t+1},   dw = -sum_t (1 - r_t) (N_{t+1} - e_t M_{t+1})

    It keeps k, v, mean and log_mass: four arrays of (B, L, C), whatever the implementation.
    """
    forward = _past_sequential if implementation == "sequential" else _past_associative
    return forward(w_C, k_BLC, v_BLC, start)


def _past_fwd(implementation, w_C, k_BLC, v_BLC, start):
    mean, log_mass, last = past(implementation, w_C, k_BLC, v_BLC, start)  # pyright: ignore[reportGeneralTypeIssues]
    return (mean, log_mass, last), (w_C, k_BLC, v_BLC, mean, log_mass)


def _past_bwd(implementation, residuals, cotangents):
    return _bwd_sequential(residuals, cotangents) if implementation == "sequential" else _bwd_associative(residuals, cotangents)


past.defvjp(_past_fwd, _past_bwd)


def _past_sequential(w, k_BLC, v_BLC, start):
    # log_mass is carried as a sum of two floats (compensated summation): its rounding would otherwise add up over the tokens.
    def step(t, carry):
        (mean, log_mass), rest, mean_BLC, log_mass_BLC = carry
        k, v = at(k_BLC, t), at(v_BLC, t)
        decayed = log_mass - w
        rest = rest + ((log_mass - decayed) - w)
        gap = k - (decayed + rest)
        larger = jnp.maximum(decayed, k)
        grown = jnp.log1p(jnp.exp(-jnp.abs(gap))) + jnp.where(gap > 0, 0, rest)
        total = larger + grown
        state = WKVState(mean + jax.nn.sigmoid(gap) * (v - mean), total)
        return state, grown - (total - larger), put(mean_BLC, mean, t), put(log_mass_BLC, log_mass, t)

    rest, empty = jnp.zeros_like(start.mean_BC), jnp.zeros_like(k_BLC)
    last, _, mean, log_mass = jax.lax.fori_loop(0, k_BLC.shape[1], step, (start, rest, empty, empty))
    return mean, log_mass, last


def _bwd_sequential(residuals, cotangents):
    """The adjoint recurrences in one pass backwards over the tokens."""
    w, k_BLC, v_BLC, mean_BLC, log_mass_BLC = residuals
    d_mean_BLC, d_log_mass_BLC, d_last = cotangents
    L = k_BLC.shape[1]

    def step(i, carry):
        M, N, dw, dk_BLC, dv_BLC = carry
        t = L - 1 - i
        mean, logit = at(mean_BLC, t), at(k_BLC, t) - (at(log_mass_BLC, t) - w)
        r, keep = jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)
        e = r * (at(v_BLC, t) - mean)
        d_decayed = keep * (N - e * M)
        dk_BLC, dv_BLC = put(dk_BLC, r * N + keep * e * M, t), put(dv_BLC, r * M, t)
        return at(d_mean_BLC, t) + keep * M, at(d_log_mass_BLC, t) + d_decayed, dw - d_decayed, dk_BLC, dv_BLC

    empty = jnp.zeros_like(k_BLC)
    start = (d_last.mean_BC, d_last.log_mass_BC, jnp.zeros_like(d_last.mean_BC), empty, empty)
    M_0, N_0, dw_BC, dk, dv = jax.lax.fori_loop(0, L, step, start)
    return dw_BC.sum(0), dk, dv, WKVState(M_0, N_0)


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
