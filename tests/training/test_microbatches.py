"""On a mesh, microbatches sum gradients over `data` once a step, and give the step of one device; 8 virtual devices."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax import sharding
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import linear
from sdit_jax.models import build, initial_variables
from sdit_jax.planner import hlo
from sdit_jax.planner.communication import communications
from sdit_jax.training.step import gradients, noised

# Labels are dropped, and nothing spikes: a spike turns rounding into a difference (test_meshes.py).
FIELDS = {"image_size": 8, "patch_size": 4, "width": 64, "depth": 2, "channels": 1, "neuron": "gelu", "label_dropout": 0.5}
B, M, OBJECTIVE, KEY = 16, 2, Objective(linear(1000)), jax.random.key(3)
MESH = (2, 2, 2)


def compare():
    """Prints the distance of loss and gradients from those of one device, and the collectives over `data`, as JSON."""
    model, rng = build(FIELDS), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), initial_variables(model, 0)
    )
    batch = {"image": rng.integers(0, 256, (B, 8, 8, 1), np.uint8), "label": np.arange(B, dtype=np.int32) % 10}
    examples = noised(OBJECTIVE, batch, KEY)
    alone, expected = jax.jit(lambda v, e: gradients(model, OBJECTIVE, v, e, KEY, M))(variables, examples)

    mesh = sharding.make_mesh(dict(zip(("data", "fsdp", "tensor"), MESH, strict=True)))
    layout = sharding.shardings(mesh, variables, model.layout), sharding.batch_sharding(mesh)

    def on_mesh(variables, examples):
        with sharding.on_mesh(mesh):
            return gradients(model, OBJECTIVE, variables, examples, KEY, M, mesh=mesh)

    program = jax.jit(on_mesh, in_shardings=layout).lower(variables, examples).compile()
    result, grads = program(*jax.device_put((variables, examples), layout))
    distances = [
        float(jnp.linalg.norm(jax.device_get(a) - b) / jnp.linalg.norm(b))
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True)
        if float(jnp.linalg.norm(b)) > 1e-6
    ]
    over_data = [each for each in communications(hlo.parse(program.as_text()), dict(mesh.shape)) if "data" in each.axes]
    print(json.dumps({
        "loss": [float(result.terms["loss"]), float(alone.terms["loss"])], "distance": max(distances),
        "calls": {each.axes: each.calls for each in over_data if each.bytes > 1000},
    }))  # fmt: skip


def test_gradients_are_summed_over_data_once_and_equal_those_of_one_device(virtual_devices):
    done = subprocess.run(
        [sys.executable, __file__], env=virtual_devices(8) | {"JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert abs(found["loss"][0] - found["loss"][1]) < 1e-5 * found["loss"][1]
    assert found["distance"] < 1e-4
    assert found["calls"].get("data") == 1, found


if __name__ == "__main__":
    compare()
