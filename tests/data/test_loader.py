"""`make_loader` chooses a loader by the fields; all of them give the same batches."""

import ml_collections
import numpy as np
import pytest

from sdit_jax import sharding
from sdit_jax.data import loader as room
from sdit_jax.data import sources
from sdit_jax.data.in_memory import InMemoryLoader
from sdit_jax.data.loader import make_loader
from sdit_jax.data.on_device import OnDeviceLoader
from sdit_jax.data.streaming import StreamingLoader
from sdit_jax.errors import InputError

FIELDS = {"flip": True, "resize": "bicubic", "margin": 2, "memory_GiB": 4.0, "resident": "auto"}


def make(name, directory="", **changes):
    fields = ml_collections.ConfigDict(FIELDS | changes)
    data = sources.open_source(name, "train", directory)
    return make_loader(data, fields, sharding.make_mesh(), size=8, channels=3, batch_size=4, seed=1)


def test_all_loaders_give_the_same_batches(pictures):
    folder, _ = pictures
    loaders = {
        "in memory": make("folder", folder),
        "on the devices": make("folder", folder, resident="always"),
        "decoded while training": make("folder", folder, memory_GiB=0.0),
    }
    assert [type(loader) for loader in loaders.values()] == [InMemoryLoader, OnDeviceLoader, StreamingLoader]
    for step in (0, 1, 9):
        expected = {name: np.asarray(array) for name, array in loaders["in memory"](step).items()}
        assert expected["image"].shape == (4, 8, 8, 3) and expected["image"].dtype == np.uint8
        for place, loader in loaders.items():
            for name, array in loader(step).items():
                np.testing.assert_array_equal(array, expected[name], err_msg=f"{name} {place}")
    for place, loader in loaders.items():
        assert loader.num_images == 12
        assert loader.describe() == f"12 images of (10, 10, 3), {place}"
        loader.close()


@pytest.mark.parametrize("nbytes, kind", [(12 * 10 * 10 * 3, InMemoryLoader), (12 * 10 * 10 * 3 - 1, StreamingLoader)])
def test_examples_are_streamed_where_they_take_more_than_the_memory(pictures, nbytes, kind):
    folder, _ = pictures
    assert type(make("folder", folder, memory_GiB=nbytes / 2**30)) is kind


def test_images_in_memory_are_never_streamed():
    assert type(make("digits", memory_GiB=0.0)) is InMemoryLoader


@pytest.mark.parametrize(
    "memory, kind", [(5 * 1438 * 300, OnDeviceLoader), (5 * 1438 * 300 - 1, InMemoryLoader), (0, InMemoryLoader)]
)
def test_auto_puts_images_on_the_devices_where_they_take_a_fifth_of_the_memory(monkeypatch, memory, kind):
    monkeypatch.setattr(room, "_accelerator_memory", lambda: memory)
    assert type(make("digits")) is kind
    assert type(make("digits", resident="never")) is InMemoryLoader


def test_a_cpu_has_no_memory_of_its_own():
    assert room._accelerator_memory() == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"resident": "maybe"}, "config.data.resident: found 'maybe', allowed are auto, always, never"),
        ({"resize": "sinc"}, "config.data.resize: found 'sinc', allowed are bilinear"),
        ({"resident": "always", "memory_GiB": 0.0}, "config.data.resident: found 'always', but .* config.data.memory_GiB is 0"),
    ],
)
def test_fields_that_are_wrong_or_contradict_each_other(pictures, changes, message):
    folder, _ = pictures
    with pytest.raises(InputError, match=f"^{message}"):
        make("folder", folder, **changes)
