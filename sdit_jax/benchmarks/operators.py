"""WKV in each of its forms, and neurons against passes over the same memory: forward and backward."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sdit_jax.benchmarks.measure import in_turn, rotating
from sdit_jax.ops import firing_rate, wkv
from sdit_jax.ops.wkv import FORMER, IMPLEMENTATIONS, KERNELS, resolve

WKV_SHAPES = ((64, 34, 64), (16, 394, 384), (64, 394, 384), (8, 4096, 384))
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096)
BY_TOKENS_BATCHES = (8, 64)  # Of 8, the shortest sequences fit in a cache; of 64, none does.
LIF_SHAPES, SPIKING_STEPS = ((16, 394, 384), (64, 394, 384)), 4


def _normal(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def differentiated_scan(w_C, u_C, k_BLC, v_BLC):
    """The baseline: WKV in (p, q, o) form by `jax.lax.scan`, with JAX's own gradient."""

    def step(state, kv):
        (p, q, o), (k, v) = state, kv
        now = jnp.maximum(o, u_C + k)
        past, own = jnp.exp(o - now), jnp.exp(u_C + k - now)
        y = (past * p + own * v) / (past * q + own)
        now = jnp.maximum(o - w_C, k)
        past, own = jnp.exp(o - w_C - now), jnp.exp(k - now)
        return (past * p + own * v, past * q + own, now), y

    zero = jnp.zeros_like(k_BLC[:, 0])
    _, y_LBC = jax.lax.scan(step, (zero, zero, zero - 1e38), (k_BLC.swapaxes(0, 1), v_BLC.swapaxes(0, 1)))
    return y_LBC.swapaxes(0, 1)


def bench_wkv(runs: int = 21) -> dict:
    """Forward + backward by form and shape, float32, one call of each form in turn; then by number of tokens, with memory."""
    interpreted = [form for form, platform in KERNELS.items() if platform != jax.default_backend()]
    forms = [form for form in IMPLEMENTATIONS if form not in ("auto", *FORMER, *interpreted)]
    results = {}
    for B, L, C in WKV_SHAPES:
        chosen = [form for form in forms if form != "associative" or B * L * C < 4e6 or jax.default_backend() != "cpu"]
        functions = {form: _gradient(form, C) for form in ("differentiated_scan", *chosen)}
        timed = in_turn(functions, rotating(*[_kvg(i, B, L, C) for i in range(3)]), runs)
        best = min(timed[form]["median_s"] for form in chosen)
        auto = timed[resolve("auto")]["median_s"]
        speedup = timed["differentiated_scan"]["median_s"] / auto
        results[f"{B}x{L}x{C}"] = timed | {"auto": resolve("auto"), "auto_over_best": auto / best, "speedup_of_auto": speedup}
    return {"forward_backward_float32_BLC": results, "by_tokens": [_by_tokens(runs, B) for B in BY_TOKENS_BATCHES]}


def _kvg(seed, B, L, C):
    return tuple(_normal(seed + 10 * i, B, L, C) for i in range(3))


def _gradient(form, C):
    w, u = jnp.exp(jnp.linspace(-5, 3, C)), jnp.zeros(C)
    run = differentiated_scan if form == "differentiated_scan" else lambda *a: wkv(*a, implementation=form)[0]
    return jax.jit(lambda k, v, g: jax.vjp(run, w, u, k, v)[1](g))


def _by_tokens(runs, B, C=384):
    """Seconds and bytes (arguments, results and temporary memory, as compiled) by number of tokens; 2 per doubling is linear.

    An elementwise pass over arrays of the same sizes shows the cost of leaving a cache.
    """
    rows = []
    for L in TOKENS:
        program = _gradient("auto", C).lower(*_kvg(0, B, L, C)).compile()
        memory: Any = program.memory_analysis()
        total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
        functions = {"wkv": program, "elementwise": jax.jit(lambda k, v, g: (k * g, v * g))}
        timed = in_turn(functions, rotating(*[_kvg(i, B, L, C) for i in range(3)]), runs)
        rows.append({"tokens": L, "bytes": total} | timed)
    doubling = [
        {"tokens": b["tokens"], "memory": b["bytes"] / a["bytes"]}
        | {name: b[name]["median_s"] / a[name]["median_s"] for name in ("wkv", "elementwise")}
        for a, b in itertools.pairwise(rows)
    ]
    return {"BC": (B, C), "rows": rows, "cost_of_doubling": doubling}


def bench_lif(runs: int = 61) -> dict:
    """Forward + backward of the firing rate of a constant current, against elementwise passes that move the same bytes.

    Both read x and write an array of its size, then read x and the cotangent and write a gradient.
    """
    results = {}
    for shape in LIF_SHAPES:
        passes = lambda x, g: (2 * x, x * g)
        functions = {"lif": partial(_both, lambda x: firing_rate(x, SPIKING_STEPS)), "elementwise": passes}
        inputs = [(_normal(i, *shape), _normal(i + 10, *shape)) for i in range(3)]
        timed = in_turn({name: jax.jit(function) for name, function in functions.items()}, rotating(*inputs), runs)
        ratio = timed["lif"]["median_s"] / timed["elementwise"]["median_s"]
        results["x".join(map(str, shape))] = timed | {"ratio": ratio}
    return {"spiking_steps": SPIKING_STEPS, "forward_backward_float32_BLC": results}


def _both(function, x, g):
    y, pull = jax.vjp(function, x)
    return y, pull(g)
