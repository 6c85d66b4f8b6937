"""Batches gathered on the devices equal those gathered on the host, to the bit."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from sdit_jax import sharding
from sdit_jax.data.datasets import Images
from sdit_jax.data.in_memory import host_batch
from sdit_jax.data.on_device import OnDeviceLoader
from sdit_jax.data.order import Order

STEPS = (0, 1, 2, 30, 1)


def assert_same_batches(devices):
    """For every kind of order, on all devices."""
    assert jax.device_count() == devices
    rng, mesh = np.random.default_rng(0), sharding.make_mesh()
    images = Images(rng.integers(0, 256, (37, 7, 9, 3), np.uint8), rng.integers(0, 10, 37).astype(np.int32))
    for fields in ({}, {"flip": True}, {"margin": 2}, {"flip": True, "margin": 3}):
        order = Order(len(images), batch_size=16, seed=3, **fields)
        loader = OnDeviceLoader(images, order, mesh)
        for step in STEPS:
            found, expected = loader(step), host_batch(images, order, step)
            assert found.keys() == expected.keys()
            for name in expected:
                assert found[name].dtype == expected[name].dtype
                assert found[name].sharding.is_equivalent_to(sharding.batch_sharding(mesh), found[name].ndim)
                np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} of step {step} with {fields}")


def test_one_device():
    assert_same_batches(1)


@pytest.mark.filterwarnings("ignore")
def test_four_devices(virtual_devices):
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=virtual_devices(4), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    assert_same_batches(4)
