"""Batches are a pure function of (seed, step)."""

from functools import partial

import numpy as np
import pytest

from sdit_jax.data.datasets import Images
from sdit_jax.data.in_memory import host_batch
from sdit_jax.data.order import Order

N = 50
DATA = Images(np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1), np.arange(N, dtype=np.int32) % 10)


def batches_of(**order):
    return partial(host_batch, DATA, Order(N, **order))


def shown(batches, steps):
    """The images in the batches of some steps, in order."""
    return np.concatenate([batches(step)["image"].ravel() for step in steps])


@pytest.mark.parametrize("batch_size", [7, 10, 50, 80])
def test_every_epoch_shows_each_image_once(batch_size):
    batches = batches_of(batch_size=batch_size, seed=0)
    row = shown(batches, range(4 * N // batch_size + 1))[: 3 * N].reshape(3, N)
    np.testing.assert_array_equal(np.sort(row, 1), np.tile(np.arange(N), (3, 1)))
    assert not (row[0] == np.arange(N)).all() and not (row[0] == row[1]).all() and not (row[1] == row[2]).all()


def test_images_keep_their_labels():
    batch = batches_of(batch_size=16, seed=0)(3)
    np.testing.assert_array_equal(batch["label"], batch["image"].ravel() % 10)
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32


def test_a_step_is_the_same_whatever_was_asked_before():
    steps = [31, 0, 7, 200, 8, 7, 0, 31]
    asked = batches_of(batch_size=8, seed=3)
    for step in steps:
        np.testing.assert_array_equal(asked(step)["image"], batches_of(batch_size=8, seed=3)(step)["image"])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_rows_of_all_processes_make_up_the_global_batch_in_order(processes):
    whole, rows = batches_of(batch_size=8, seed=1), np.split(np.arange(8), processes)
    parts = [batches_of(batch_size=8, seed=1, rows=part) for part in rows]
    for step in (0, 6, 29):  # The batch of step 6 spans two epochs.
        for name, expected in whole(step).items():
            np.testing.assert_array_equal(np.concatenate([part(step)[name] for part in parts]), expected)


def test_seeds_give_different_orders():
    orders = {tuple(shown(batches_of(batch_size=10, seed=seed), range(5))) for seed in range(8)}
    assert len(orders) == 8
