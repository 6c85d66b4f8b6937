"""The TPU kernel: interpreted against the definition, divided over devices, and compiled for TPUs that are not at hand."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax import sharding
from sdit_jax.ops import WKVState, wkv
from sdit_jax.ops.backend import assumed, backend
from sdit_jax.ops.wkv import mosaic, resolve
from sdit_jax.planner import topology

LIBTPU = pytest.mark.skipif(not topology.is_installed(), reason="there is no libtpu for this platform")


def definition(w, u, k, v, mean, log_mass, bidirectional):
    """y, and the state after the last token, by the quadratic sum; the past is one more token, of which `direct` has none."""
    L = k.shape[1]
    gap = jnp.arange(L)[:, None] - jnp.arange(L)
    weight = k[:, None] - (jnp.abs(gap)[..., None] - 1) * w
    weight = jnp.where((gap == 0)[..., None], u + k[:, None], weight)
    if bidirectional:
        return (jnp.einsum("btic,bic->btc", jax.nn.softmax(weight, 2), v),)
    weight = jnp.where((gap >= 0)[..., None], weight, -jnp.inf)
    past, values = log_mass[:, None] - jnp.arange(L + 1)[:, None] * w, jnp.concatenate([mean[:, None], v], 1)
    y = jnp.einsum("btic,bic->btc", jax.nn.softmax(jnp.concatenate([past[:, :-1, None], weight], 2), 2), values)
    last = jnp.concatenate([past[:, -1:], k - jnp.arange(L)[::-1, None] * w], 1)
    return y, (jax.nn.softmax(last, 1) * values).sum(1), jax.nn.logsumexp(last, 1)


def kernel(w, u, k, v, mean, log_mass, bidirectional):
    start = None if bidirectional else WKVState(mean, log_mass)
    y, last = wkv(w, u, k, v, state=start, bidirectional=bidirectional, implementation="mosaic")
    return (y,) if last is None else (y, *last)


def pulled(function, arrays, cotangents, bidirectional):
    """Outputs, then the gradients of all arrays; bidirectional there is no start, and no gradient of it."""

    @jax.jit
    def both(arrays, cotangents):
        outputs, pull = jax.vjp(lambda *a: function(*a, bidirectional), *arrays)
        return *outputs, *pull(tuple(cotangents[: len(outputs)]))[: 4 if bidirectional else 6]

    return both(arrays, cotangents)


def numbers(B, L, C, dtype=jnp.float32):
    """Arrays (w, u, k, v, mean, log_mass) with huge keys among them, and cotangents of (y, mean, log_mass)."""
    rng = np.random.default_rng(0)
    k = rng.normal(size=(B, L, C)) + rng.choice([0, 0, 0, 100, -300], (B, L, C))
    arrays = [np.exp(rng.normal(-1, 1, C)), rng.normal(size=C), k, rng.normal(size=k.shape), *rng.normal(size=(2, B, C))]
    cotangents = [rng.normal(size=k.shape), *rng.normal(size=(2, B, C))]
    narrow = lambda xs: [jnp.asarray(x, dtype if x.ndim == 3 else jnp.float32) for x in xs]
    return narrow(arrays), narrow(cotangents)


@pytest.mark.parametrize(
    ("shape", "dtype", "bidirectional", "budget", "blocks"),
    [
        # Three blocks of tokens, the last one shorter; two of rows and two of channels, with less in the last ones.
        ((9, 7, 129), jnp.bfloat16, False, 13 * 2**12 * 3, (3, 8, 128, 3)),
        ((9, 7, 129), jnp.bfloat16, True, 18 * 2**12 * 3, (3, 8, 128, 3)),
        ((3, 5, 6), jnp.float32, True, mosaic.BUDGET, (5, 3, 6, 1)),
    ],
)
def test_blocks_of_any_size_equal_the_definition(monkeypatch, shape, dtype, bidirectional, budget, blocks):
    """Outputs, states and every gradient, from bfloat16 too, with keys that differ by hundreds."""
    monkeypatch.setattr(mosaic, "BUDGET", budget)
    monkeypatch.setattr(mosaic, "REGISTERS", 1)
    B, L, C = shape
    assert mosaic.blocks(L, B, C, bidirectional=bidirectional) == blocks
    arrays, cotangents = numbers(B, L, C, dtype)
    found = pulled(kernel, arrays, cotangents, bidirectional)
    with jax.enable_x64(True):
        wide = [[jnp.asarray(np.asarray(x, np.float64)) for x in xs] for xs in (arrays, cotangents)]
        expected = [np.asarray(x) for x in pulled(definition, *wide, bidirectional)]
    assert [x.dtype for x in found if x.ndim == 3] == 3 * [dtype]  # y, dk, dv.
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        tolerance = 3e-3 if a.dtype == jnp.bfloat16 else 3e-5  # Keys of 300 are known to 3e-5 in float32.
        assert np.linalg.norm(np.asarray(a, np.float64) - b) <= tolerance * np.linalg.norm(b), f"array {i}"


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("L, B, C", [(1, 1, 1), (50, 32, 160), (394, 256, 384), (394, 3, 2048), (200_000, 16, 512)])
def test_blocks_cover_the_tokens_and_fit_into_memory(L, B, C, bidirectional):
    T, rows, channels, n = mosaic.blocks(L, B, C, bidirectional=bidirectional)
    assert n * T >= L > (n - 1) * T
    assert rows == B or rows % 8 == 0
    assert channels == C or channels % 128 == 0
    token = 4 * -(-rows // 8) * 8 * -(-channels // 128) * 128
    borders = 2 * n if bidirectional else 0
    assert token * (mosaic.ARRAYS[bidirectional] * T + borders) <= mosaic.LIMIT


def test_auto_is_chosen_by_the_devices_that_a_program_is_for():
    with assumed("tpu"):
        assert resolve("auto") == "mosaic"
    with assumed("gpu"):
        assert resolve("auto") == "associative"
    with assumed("cpu"):
        assert resolve("auto") == "linear"
    device = jax.sharding.AbstractDevice("TPU v5 lite", None, "tpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((2,), ("data",), abstract_device=device)):
        assert backend() == "tpu"
    assert backend() == jax.default_backend()
    assert resolve("pallas") == "triton"  # In configurations of earlier runs.


def divided(fields, bidirectional, arrays, cotangents, devices=None):
    """`pulled` as a jitted function on a mesh, with batches split as in a training step."""
    mesh = sharding.make_mesh(fields, devices)

    def both(arrays, cotangents):
        with sharding.on_mesh(mesh):
            return pulled(kernel, arrays, cotangents, bidirectional)

    batch = sharding.batch_sharding(mesh)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    to = lambda xs: [batch if x.ndim > 1 and len(x) % parts == 0 else sharding.replicated(mesh) for x in xs]
    return jax.jit(both, in_shardings=(to(arrays), to(cotangents)))


def test_it_runs_on_each_device_of_a_mesh(virtual_devices):
    """Batches over data and fsdp, channels over tensor; whole where they do not divide. In microbatches too."""
    done = subprocess.run(
        [sys.executable, __file__, "mesh"], env=virtual_devices(4), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def on_a_mesh():
    for fields, (B, C), bidirectional in (({"data": 2, "tensor": 2}, (4, 6), True), ({"fsdp": 4}, (3, 5), False)):
        arrays, cotangents = numbers(B, 3, C)
        expected = pulled(kernel, arrays, cotangents, bidirectional)
        found = divided(fields, bidirectional, arrays, cotangents)(arrays, cotangents)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2})
    (w, u, k, v, *_), _ = numbers(4, 3, 5)

    def mean(whole, rows):
        return wkv(w, u, *rows, implementation="mosaic")[0].mean()

    with sharding.on_mesh(mesh):
        found = jax.jit(sharding.averaged(mean, mesh))((), (k, v))
    np.testing.assert_allclose(found, mean((), (k, v)), rtol=1e-5)


@LIBTPU
@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:2x4", "v5p:2x2x1", "v6e:2x4"])
def test_it_compiles_for_tpus(name):
    """Both ways, causal and bidirectional, on one chip and divided: two kernels, which read k and v and write y once."""
    done = subprocess.run(
        [sys.executable, __file__, name], env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for case, arrays in json.loads(done.stdout.splitlines()[-1]).items():
        assert arrays == [3, 5], case  # k, v, y; k, v, dy, dk, dv.


def compiled(name):
    """By case, the arrays of (L, B, C) that each kernel reads and writes in the program for the chips of a topology."""
    from sdit_jax.planner import hlo

    _, devices = topology.devices(name)
    found = {}
    for (B, L, C), dtype, bidirectional, fields in (
        ((9, 67, 130), jnp.bfloat16, False, None),
        ((16, 50, 160), jnp.float32, True, None),
        ((3, 2, 5), jnp.float32, False, None),
        ((2, 2048, 256), jnp.float32, True, None),
        ((16, 50, 160), jnp.float32, True, {"data": -1, "tensor": 2}),
    ):
        shapes = jax.eval_shape(lambda B=B, L=L, C=C, dtype=dtype: numbers(B, L, C, dtype))
        program = divided(fields or {}, bidirectional, *shapes, devices if fields else devices[:1]).lower(*shapes).compile()
        read, large, calls = hlo.parse(program.as_text()), 2 if fields else 1, []
        for each, here, _ in read.runs:
            if each.attribute("custom_call_target") == "tpu_custom_call":
                arrays = [here[operand].results[0] for operand in each.operands] + list(each.results)
                calls.append(sum(array.shape[0] == L and array.shape[-1] == C // large for array in arrays))
        found[f"{B}x{L}x{C} {fields}"] = calls
    return found


if __name__ == "__main__":
    if sys.argv[1] == "mesh":
        on_a_mesh()
    else:
        print(json.dumps(compiled(sys.argv[1])))
