"""WKV in each of its forms, and the neuron against a pass over the same memory: forward and backward."""

from functools import partial

import jax
import jax.numpy as jnp

from sdit_jax.benchmarks.measure import rotating, seconds
from sdit_jax.ops import lif, wkv

WKV_SHAPES = ((64, 34, 64), (16, 394, 384))
LIF_SHAPE, TIMESTEPS = (16, 394, 384), 4


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def bench_wkv(runs: int = 10) -> dict:
    """Forward + backward at the digits' and at the MNIST preset's shape, seconds by implementation."""
    results = {}
    for B, L, C in WKV_SHAPES:
        inputs = [(_normal(i, B, L, C), _normal(i + 10, B, L, C)) for i in range(3)]
        results[f"{B}x{L}x{C}"] = {
            form: seconds(jax.jit(jax.grad(partial(_wkv_loss, form), (0, 1))), rotating(*inputs), runs)
            for form in ("sequential", "associative")
        }
    return {"forward_backward_float32_BLC": results}


def _wkv_loss(form, k_BLC, v_BLC):
    C = k_BLC.shape[-1]
    y_BLC, _ = wkv(jnp.exp(jnp.linspace(-5, 3, C)), jnp.zeros(C), k_BLC, v_BLC, implementation=form)
    return jnp.square(y_BLC).sum()


def bench_lif(runs: int = 10) -> dict:
    """Forward + backward of the mean firing rate over T steps of a constant current, beside one elementwise pass."""

    def rate(current):
        return lif(jnp.broadcast_to(current, (TIMESTEPS, *current.shape)))[0].mean(0)

    inputs = [(_normal(i, *LIF_SHAPE), _normal(i + 10, *LIF_SHAPE)) for i in range(3)]
    neuron = seconds(jax.jit(lambda x, g: jax.vjp(rate, x)[1](g)), rotating(*inputs), runs)
    copy = seconds(jax.jit(lambda x, g: x * g), rotating(*inputs), runs)
    ratio = neuron["median_s"] / copy["median_s"]
    return {"shape_BLC": LIF_SHAPE, "timesteps": TIMESTEPS, "lif": neuron, "elementwise": copy, "ratio": ratio}
