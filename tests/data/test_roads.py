"""The road that batches take follows from the fields; all roads lead to the same batches."""

import ml_collections
import numpy as np
import pytest

from sdit_jax import sharding
from sdit_jax.config import InputError
from sdit_jax.data import roads, sources
from sdit_jax.data.batches import Batches
from sdit_jax.data.resident import Resident
from sdit_jax.data.roads import make_batches
from sdit_jax.data.streaming import Streamed

FIELDS = {"flip": True, "resize": "bicubic", "margin": 2, "memory_GiB": 4.0, "resident": "auto"}


def feed(name, directory="", **changes):
    config = ml_collections.ConfigDict(FIELDS | changes)
    data = sources.open_source(name, "train", directory)
    return make_batches(data, config, sharding.make_mesh(), size=8, channels=3, batch_size=4, seed=1)


def test_all_roads_give_the_same_batches(pictures):
    folder, _ = pictures
    made = {
        Batches: feed("folder", folder),
        Resident: feed("folder", folder, resident="always"),
        Streamed: feed("folder", folder, memory_GiB=0.0),
    }
    for step in (0, 1, 9):
        expected = {name: np.asarray(array) for name, array in made[Batches](step).items()}
        assert expected["image"].shape == (4, 8, 8, 3) and expected["image"].dtype == np.uint8
        for kind, road in made.items():
            assert isinstance(road.road, kind)
            for name, array in road(step).items():
                np.testing.assert_array_equal(array, expected[name], err_msg=f"{name} by {kind.__name__}")
    for road, words in zip(made.values(), ("in memory", "on the devices", "decoded while training"), strict=True):
        assert road.describe() == f"12 images of (10, 10, 3), {words}"
        road.close()


@pytest.mark.parametrize("pixels, kind", [(12 * 10 * 10 * 3, Batches), (12 * 10 * 10 * 3 - 1, Streamed)])
def test_examples_are_streamed_where_they_take_more_than_the_memory(pictures, pixels, kind):
    folder, _ = pictures
    assert isinstance(feed("folder", folder, memory_GiB=pixels / 2**30).road, kind)


def test_what_is_in_memory_already_stays_there():
    assert isinstance(feed("digits", memory_GiB=0.0).road, Batches)


@pytest.mark.parametrize("memory, kind", [(5 * 1438 * 300, Resident), (5 * 1438 * 300 - 1, Batches), (0, Batches)])
def test_auto_puts_what_takes_a_fifth_of_the_memory_on_the_devices(monkeypatch, memory, kind):
    monkeypatch.setattr(roads, "_accelerator_memory", lambda: memory)
    assert isinstance(feed("digits").road, kind)
    assert isinstance(feed("digits", resident="never").road, Batches)


def test_a_cpu_has_no_memory_of_its_own():
    assert roads._accelerator_memory() == 0


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
        feed("folder", folder, **changes)
