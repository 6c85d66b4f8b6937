"""Any mesh gives the same training, to float32 rounding, and restores any checkpoint, to the bit; 8 virtual devices.

A spike is a step function: where a membrane is within rounding of the threshold, a neuron fires on one mesh and not on another,
and weights then differ by far more than rounding (by 1.2e-4 of their norm after 4 steps, measured on one device for thresholds
2e-7 apart). The bound is therefore float32 rounding for the non-spiking baseline, on all meshes, and that of single spikes for
the spiking network, on a mesh with all three axes. A mesh that ignores half of the batch is 2.5e-2 away.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MESHES = ((8, 1, 1), (1, 8, 1), (4, 2, 1), (2, 2, 2))
WIDTH = 64  # The smallest with arrays large enough to be split over fsdp.
RUNS = [("gelu", mesh) for mesh in MESHES] + [("lif", MESHES[-1])]
NEAR = {"gelu": 1e-5, "lif": 5e-3}  # Largest distance of the weights, relative to their norm.

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorBoard warn about their own affairs.


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)])


def sized(mesh):
    return {f"mesh__{axis}": size for axis, size in zip(("data", "fsdp", "tensor"), mesh, strict=True)}


def named(neuron, mesh):
    return neuron + "-" + "x".join(map(str, mesh))


def config_of(make, mesh, neuron="lif"):
    return make(model__width=WIDTH, model__neuron=neuron, checkpoint__every="never", **sized(mesh))  # Saved at the end.


def on_one_device(make, folder):
    """Trains without a mesh."""
    from sdit_jax.training.loop import train_and_evaluate

    assert jax.device_count() == 1
    states = {neuron: train_and_evaluate(config_of(make, (1, 1, 1), neuron), folder / neuron) for neuron in NEAR}
    np.savez(folder / "one.npz", **{neuron: flat((state.params, state.ema)) for neuron, state in states.items()})


def on_eight_devices(make, folder):
    """Trains on every mesh, then restores the checkpoint of the last one on every other."""
    from sdit_jax.checkpoint import Checkpoints
    from sdit_jax.training.loop import train_and_evaluate
    from sdit_jax.training.setup import make_setup

    assert jax.device_count() == 8
    trained = {}
    for neuron, mesh in RUNS:
        name = named(neuron, mesh)
        state = train_and_evaluate(config_of(make, mesh, neuron), folder / name)
        trained[name] = flat((state.params, state.ema))
        split = {axis for leaf in jax.tree.leaves(state.params) for axis in leaf.sharding.spec if axis}
        assert split == {axis for axis, size in zip(("fsdp", "tensor"), mesh[1:], strict=True) if size > 1}
    np.savez(folder / "trained.npz", **trained)
    for mesh in MESHES[:-1]:
        with Checkpoints(folder / "lif-2x2x2") as checkpoints:
            found = checkpoints.restore(like=make_setup(config_of(make, mesh)).abstract_state())
        np.testing.assert_array_equal(flat((found.params, found.ema)), trained["lif-2x2x2"])


@pytest.mark.slow
def test_every_mesh_trains_as_one_device_does_and_restores_any_checkpoint_to_the_bit(small, virtual_devices, tmp_path):
    """One test, because the runs that it compares take minutes to compile."""
    from sdit_jax.checkpoint import Checkpoints
    from sdit_jax.training.setup import make_setup

    for devices in (1, 8):
        done = subprocess.run(
            [sys.executable, __file__, str(devices), tmp_path],
            env=virtual_devices(devices), capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    trained, one = np.load(tmp_path / "trained.npz"), np.load(tmp_path / "one.npz")
    for neuron, mesh in RUNS:
        name = named(neuron, mesh)
        # Over all parameters: where a gradient vanishes, Adam divides its rounding by itself.
        ours = one[neuron]
        assert np.linalg.norm(ours - trained[name]) < NEAR[neuron] * np.linalg.norm(ours), name
        folders = tmp_path / neuron, tmp_path / name
        lines = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in folders]
        for here, there in zip(*lines, strict=True):
            for scalar in ("loss", "gradient_norm"):
                np.testing.assert_allclose(here[scalar], there[scalar], rtol=NEAR[neuron], err_msg=f"{name}: {scalar}")

    like = make_setup(config_of(small.config, (1, 1, 1))).abstract_state()
    with Checkpoints(tmp_path / "lif-2x2x2") as checkpoints:
        found = checkpoints.restore(like=like)
        _, weights = checkpoints.restore_weights("ema", like.variables)
    np.testing.assert_array_equal(flat((found.params, found.ema)), trained["lif-2x2x2"])
    np.testing.assert_array_equal(flat((found.params, weights)), trained["lif-2x2x2"])


if __name__ == "__main__":
    file = importlib.util.spec_from_file_location("conftest", ROOT / "tests" / "conftest.py")
    conftest = importlib.util.module_from_spec(file)
    file.loader.exec_module(conftest)
    {"1": on_one_device, "8": on_eight_devices}[sys.argv[1]](conftest._config, Path(sys.argv[2]))
