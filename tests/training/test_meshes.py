"""Any mesh gives the same training, to float32 rounding, and takes up any checkpoint, to the bit; 8 virtual devices."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MESHES = ((8, 1, 1), (1, 8, 1), (4, 2, 1), (2, 2, 2))
WIDTH = 64  # From here on there are arrays large enough to be split over fsdp.

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorBoard warn of their own affairs.


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)])


def sized(mesh):
    return {f"mesh__{axis}": size for axis, size in zip(("data", "fsdp", "tensor"), mesh, strict=True)}


def config_of(make, mesh):
    return make(model__width=WIDTH, **sized(mesh))


def in_this_process(make, folder):
    """Trains on every mesh; then takes up the checkpoint of the last one on every other. Run where there are 8 devices."""
    from sdit_jax.checkpoint import Checkpoints
    from sdit_jax.training.loop import train_and_evaluate
    from sdit_jax.training.plan import make_plan

    assert jax.device_count() == 8
    trained = {}
    for mesh in MESHES:
        state = train_and_evaluate(config_of(make, mesh), folder / "x".join(map(str, mesh)))
        trained[mesh] = flat((state.params, state.ema))
        split = {axis for leaf in jax.tree.leaves(state.params) for axis in leaf.sharding.spec if axis}
        assert split == {axis for axis, size in zip(("fsdp", "tensor"), mesh[1:], strict=True) if size > 1}
    np.savez(folder / "trained.npz", **{"x".join(map(str, mesh)): value for mesh, value in trained.items()})
    for mesh in MESHES[:-1]:
        with Checkpoints(folder / "2x2x2") as checkpoints:
            found = checkpoints.restore(like=make_plan(config_of(make, mesh)).new_state())
        np.testing.assert_array_equal(flat((found.params, found.ema)), trained[2, 2, 2])


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The run folders of 8 devices, one per mesh, and `trained.npz`."""
    folder = tmp_path_factory.mktemp("meshes")
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "NPROC": "16"}
    done = subprocess.run(
        [sys.executable, __file__, folder], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def one(small, tmp_path_factory):
    """(run folder, state) of the same training on one device."""
    from sdit_jax.training.loop import train_and_evaluate

    workdir = tmp_path_factory.mktemp("one")
    return workdir, train_and_evaluate(config_of(small.config, (1, 1, 1)), workdir)


@pytest.mark.parametrize("mesh", ["x".join(map(str, mesh)) for mesh in MESHES])
def test_every_mesh_trains_as_one_device_does(eight, one, mesh):
    workdir, state = one
    # Over all parameters: where a gradient vanishes, Adam divides its rounding by itself.
    ours, theirs = flat((state.params, state.ema)), np.load(eight / "trained.npz")[mesh]
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(ours)
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (workdir, eight / mesh)]
    for here, there in zip(*lines, strict=True):
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(here[name], there[name], rtol=1e-5, err_msg=name)


def test_a_checkpoint_of_eight_devices_is_taken_up_by_one_to_the_bit(eight, small, one):
    from sdit_jax.checkpoint import Checkpoints

    _, like = one
    with Checkpoints(eight / "2x2x2") as checkpoints:
        found = checkpoints.restore(like=like)
        _, weights = checkpoints.restore_weights("ema", like.ema)
    expected = np.load(eight / "trained.npz")["2x2x2"]
    np.testing.assert_array_equal(flat((found.params, found.ema)), expected)
    np.testing.assert_array_equal(flat((found.params, weights)), expected)


if __name__ == "__main__":
    file = importlib.util.spec_from_file_location("conftest", ROOT / "tests" / "conftest.py")
    conftest = importlib.util.module_from_spec(file)
    file.loader.exec_module(conftest)
    in_this_process(conftest._config, Path(sys.argv[1]))
