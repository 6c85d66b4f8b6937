"""WKV, the linear attention of RWKV-4: an average of values whose weights grow with the key and decay with distance.

For every channel, with w > 0 the decay rate and u the bonus of the current token (PAPER section 4),

    y_t = ( sum_{i<t} exp(k_i - (t-1-i) w) v_i + exp(u + k_t) v_t )
        / ( sum_{i<t} exp(k_i - (t-1-i) w)     + exp(u + k_t)     )

The state before token t is one weighted average and the logarithm of its total weight,

    mean_t = sum_{i<t} exp(k_i - (t-1-i) w) v_i / sum_{i<t} exp(k_i - (t-1-i) w)        log_mass_t = log of that denominator

which are stepped without forming a large number, for keys of any size:

    r_t          = sigmoid(k_t - (log_mass_t - w))              the weight of token t in the next average
    mean_{t+1}   = (1 - r_t) mean_t + r_t v_t
    log_mass_{t+1} = logaddexp(log_mass_t - w, k_t)
    y_t          = mean_t + sigmoid(u + k_t - log_mass_t) (v_t - mean_t)

An empty past has log_mass = -1e38. In terms of the (p, q, o) state of other implementations, mean = p/q, log_mass = o + log q;
unlike (p, q, o) this state is unique, so that states and their gradients can be compared between implementations.
"""

import importlib

import jax
import jax.numpy as jnp

from sdit_jax.ops.backend import backend
from sdit_jax.ops.marks import WKV, mark
from sdit_jax.ops.wkv import linear, past
from sdit_jax.ops.wkv.state import WKVState, initial_state

IMPLEMENTATIONS = ("auto", "sequential", "associative", "linear", "triton", "mosaic", "pallas")
FORMER = {"pallas": "triton"}  # Names in saved configurations.
KERNELS = {"triton": "gpu", "mosaic": "tpu"}  # And the platform of each; others interpret it.


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
      implementation: one of IMPLEMENTATIONS. "sequential": a loop over tokens, the reference. "linear": the same loop as two
        linear recurrences with one exponential per element, for keys of limited range. "associative":
        `jax.lax.associative_scan`, of logarithmic depth, for accelerators. "mosaic" and "triton": one kernel each way, for TPUs
        and for NVIDIA GPUs; other devices interpret them, slowly. "pallas": the former name of "triton". "auto": see `resolve`.
        All give the same outputs, states and gradients to rounding.

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

    inner = jnp.promote_types(v_BLC.dtype, jnp.float32)
    w, u = w_C.astype(inner), u_C.astype(inner)
    start = initial_state(B, C, inner) if state is None else WKVState(*(s.astype(inner) for s in state))
    implementation = resolve(implementation)
    # Multiply-accumulates of a token and channel: the sums of numerator and denominator, in each direction, and the bonus. The
    # values are marked and not the averages, of which the gradient would then keep two copies.
    v_BLC = mark(v_BLC, WKV, 5 if bidirectional else 3)
    with jax.named_scope("wkv"):
        return _averages(implementation, w, u, k_BLC, v_BLC, start, bidirectional)


def _averages(implementation, w, u, k_BLC, v_BLC, start, bidirectional):
    """(y_BLC, state) by an implementation that exists; the scope around it names its instructions in a compiled program."""
    if implementation in KERNELS:  # Imported here, as this costs 0.1 s that no other implementation needs.
        kernel = importlib.import_module(f"{__name__}.{implementation}")
        y, last = kernel.averages(w, u, k_BLC, v_BLC, start, bidirectional)
        return y, None if bidirectional else last

    k, v = k_BLC.astype(w.dtype), v_BLC.astype(w.dtype)
    if implementation == "linear":
        y, last = linear.averages(w, u, k, v, start, bidirectional)
    else:
        y, last = past.averages(implementation, w, u, k, v, start, bidirectional)
    return y.astype(v_BLC.dtype), None if bidirectional else last


def resolve(implementation: str) -> str:
    """The implementation that "auto" stands for, by the platform of the devices that a program is compiled for (`backend`).

    On CPU "linear", the fastest at every shape measured; on TPU "mosaic", by what the compiler makes of it; else "associative".
    Nothing was timed on an accelerator. Measurements: docs/performance.md.

    XLA cannot divide a kernel: where arrays are split over devices, `sharding.on_mesh` must say how, as in all programs of this
    package. "associative" needs none of it.
    """
    if implementation != "auto":
        return FORMER.get(implementation, implementation)
    return {"cpu": "linear", "tpu": "mosaic"}.get(backend(), "associative")


__all__ = ["IMPLEMENTATIONS", "WKVState", "initial_state", "resolve", "wkv"]
