"""Batches decoded while training runs equal those gathered from memory, to the bit."""

import threading
import time
from functools import partial

import numpy as np
import pytest

from sdit_jax import sharding
from sdit_jax.data import sources
from sdit_jax.data.in_memory import host_batch
from sdit_jax.data.order import Order
from sdit_jax.data.streaming import StreamingLoader
from sdit_jax.errors import InputError

FIELDS = {"batch_size": 8, "seed": 2, "flip": True, "margin": 3}


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]


@pytest.fixture
def streams(pictures):
    """streams(**order): a streaming loader and the same batches from memory; every loader is closed at the end."""
    folder, _ = pictures
    images = sources.load("folder", "train", folder, 9, 3)
    examples = sources.open_source("folder", "train", folder)
    opened = []

    def make(**changes):
        order = Order(len(images), **(FIELDS | changes))
        opened.append(StreamingLoader(examples, order, sharding.make_mesh(), size=9, channels=3, threads=3))
        return opened[-1], partial(host_batch, images, order)

    yield make
    for streamed in opened:
        streamed.close()
    for _ in range(100):
        if not threads():
            break
        time.sleep(0.05)
    assert not threads()


def assert_same(streamed, expected_batch, steps):
    for step in steps:
        found, expected = streamed.host_batch(step), expected_batch(step)
        assert found.keys() == expected.keys()
        for name in expected:
            assert found[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} of step {step}")


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("rows", [None, [0, 1], [3]])
def test_streamed_equals_in_memory(streams, first, rows):
    assert_same(*streams(rows=rows), range(first, first + 6))


def test_the_batch_on_the_devices_is_that_of_the_host(streams):
    streamed, expected_batch = streams()
    batch, expected = streamed(4), expected_batch(4)
    for name in expected:
        np.testing.assert_array_equal(batch[name], expected[name])
        assert batch[name].sharding.is_equivalent_to(sharding.batch_sharding(streamed.mesh), batch[name].ndim)


def test_without_flips_and_margin(streams):
    assert_same(*streams(flip=False, margin=0), range(4))


def test_any_step_may_be_asked_for(streams):
    assert_same(*streams(), [5, 6, 6, 2, 3, 50, 0, 1])


def test_steps_in_a_row_are_decoded_ahead_by_the_same_threads(streams):
    streamed, _ = streams()
    streamed(0)
    before = {thread.ident for thread in threads()}
    for step in range(1, 5):
        streamed(step)
    assert before and before <= {thread.ident for thread in threads()} and len(threads()) <= 3
    streamed.close()
    streamed.close()


def test_prepared_examples_are_streamed_too(stand_in):
    """What tensorflow-datasets holds as grey PNG, enlarged and repeated to RGB."""
    name, folder, _ = stand_in("mnist")
    examples = sources.open_source(f"tfds:{name}", "train", folder)
    images = sources.load(f"tfds:{name}", "train", folder, 31, 3)
    order = Order(len(images), **FIELDS)
    streamed = StreamingLoader(examples, order, sharding.make_mesh(), size=31, channels=3)
    assert_same(streamed, partial(host_batch, images, order), [3, 4, 5])
    streamed.close()


def test_a_file_that_breaks_in_mid_run_is_named(streams, pictures):
    folder, _ = pictures
    streamed, batches = streams(batch_size=4, flip=False, margin=0)
    assert_same(streamed, batches, [0])
    for path in folder.rglob("*.png"):
        path.write_bytes(b"gone")
    with pytest.raises(InputError, match=f"^{folder}/.*png: not a picture that can be read") as error:
        [streamed(step) for step in range(1, 20)]
    assert "\n" not in str(error.value)
