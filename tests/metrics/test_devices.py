"""Samples, features and references are the same on one device, on four, and in two processes of two devices, to the bit."""

import dataclasses
import socket
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.data import sources
from sdit_jax.diffusion import schedule
from sdit_jax.diffusion.objective import Objective
from sdit_jax.errors import InputError
from sdit_jax.metrics.features import classifier_features, extract
from sdit_jax.metrics.reference import make_reference
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.how import Sampling
from sdit_jax.sharding import processes
from sdit_jax.sharding.agreement import together

N, DRAWN, READ = 70, 16, 40  # Images, and how many of them a device draws and reads at once: the last batches are not full.


class Toy(nn.Module):
    """A network, small enough to compile at once."""

    image_size: int = 8
    channels: int = 1
    num_classes: int = 10
    dtype = "float32"

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B, train=False):
        hidden = nn.Conv(4, (3, 3))(x_BHWC) + nn.Embed(11, 4)(y_B)[:, None, None] + (t_B / 1000)[:, None, None, None]
        return nn.Conv(1, (3, 3))(nn.gelu(hidden))

    def is_rounded(self, path):
        return False


def found():
    """What scores are computed from, on the devices that there are."""
    model = Toy()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, int))
    sampler = make_sampler(model, Objective(schedule.cosine(1000)), Sampling("ddpm", 4, 1.0, clip_x0=True))
    drawn = generate(sampler, variables, example_labels(N, 10), seed=7, batch_size=DRAWN)
    extractor = dataclasses.replace(classifier_features("digits"), batch_size=READ)
    extracted, real = extract(extractor, drawn), make_reference(extractor, sources.load("digits", "test", ""), "digits", "test")
    return {
        "drawn": drawn, "features": extracted.features_ND, "probabilities": extracted.probabilities_NK,
        "mean": real.mean_D, "covariance": real.covariance_DD, "kept": real.kept_MD,
    }  # fmt: skip


def in_this_process(process, count, port, out):
    """Joins the others, and writes what is found, and the error of process 1 as this process meets it."""
    if count > 1:
        processes.start(f"localhost:{port}", count, process)
    processes.wait_for_all("the start")
    assert jax.device_count() == 4
    arrays, said = found(), ""
    try:
        with together("the end"):
            if process:
                raise InputError("no such folder")
    except InputError as error:
        said = str(error)
    np.savez(out, **arrays, said=said)


def started(virtual_devices, folder, count, caches):
    """What processes with four devices in all have found; each has a cache of its own."""
    with socket.socket() as at:
        at.bind(("localhost", 0))
        port = str(at.getsockname()[1])
    run = [
        subprocess.Popen(
            [sys.executable, __file__, str(i), str(count), port, folder / f"{i}.npz"],
            env=virtual_devices(4 // count) | {"SDIT_JAX_CACHE": str(caches[i])}, stderr=subprocess.PIPE, text=True,
        )
        for i in range(count)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=200)[1] for process in run]
    finally:
        for process in run:
            process.kill()
    assert [process.returncode for process in run] == [0] * count, said
    return [dict(np.load(folder / f"{i}.npz")) for i in range(count)]


def assert_equal(here, there):
    for name, array in here.items():
        np.testing.assert_array_equal(there[name], array, err_msg=name)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """(What one device finds, the cache that holds its reference.)"""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDIT_JAX_CACHE", str(folder))
        return found(), folder


def test_four_devices_find_what_one_finds(virtual_devices, tmp_path, one):
    (four,) = started(virtual_devices, tmp_path, 1, [tmp_path / "cache"])
    assert_equal(one[0], four)


def test_two_processes_find_what_one_finds_also_where_one_has_it_in_its_cache(virtual_devices, tmp_path, one):
    pair = started(virtual_devices, tmp_path, 2, [one[1], tmp_path / "cache"])
    for process in pair:
        assert_equal(one[0], process)
    assert [str(process["said"]) for process in pair] == ["process 1: no such folder", "no such folder"]


if __name__ == "__main__":
    in_this_process(*map(int, sys.argv[1:3]), *sys.argv[3:])
