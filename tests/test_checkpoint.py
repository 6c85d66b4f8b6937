"""Checkpoints survive damage: the newest that can be read is used, and the damaged one is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import InputError
from sdit_jax.training.state import TrainState


def state(step, value):
    weights = {"kernel": value + jax.random.normal(jax.random.key(0), (64, 64))}  # Noise does not compress.
    return TrainState(
        jnp.asarray(step, jnp.int32), weights, jax.tree.map(lambda w: w + 100, weights), {"count": jnp.asarray(step)}
    )


@pytest.fixture
def workdir(tmp_path):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (2, 4):
            checkpoints.save(state(step, float(step)))
    return tmp_path


def damage(folder):
    """Cuts every array file of a checkpoint in half."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 400]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_newest_is_restored_to_the_bit(workdir):
    with Checkpoints(workdir) as checkpoints:
        found = checkpoints.restore(like=state(0, 0.0))
    jax.tree.map(np.testing.assert_array_equal, found, state(4, 4.0))


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_newest_is_named_set_aside_and_the_one_before_used(workdir, caplog):
    damage(workdir / "checkpoints" / "4")
    with Checkpoints(workdir) as checkpoints:
        found = checkpoints.restore(like=state(0, 0.0))
        assert str(workdir / "checkpoints" / "4") in caplog.text
        checkpoints.save(state(4, 44.0))
    jax.tree.map(np.testing.assert_array_equal, found, state(2, 2.0))
    assert (workdir / "damaged_checkpoint_4").is_dir()
    with Checkpoints(workdir) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(like=state(0, 0.0)), state(4, 44.0))


@pytest.mark.filterwarnings("ignore")
def test_reading_weights_falls_back_but_changes_nothing(workdir, caplog):
    damage(workdir / "checkpoints" / "4")
    before = sorted(workdir.rglob("*"))
    with Checkpoints(workdir) as checkpoints:
        step, weights = checkpoints.restore_weights("ema", state(0, 0.0).ema)
    assert step == 2 and "cannot be read" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, weights, state(2, 2.0).ema)
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.filterwarnings("ignore")
def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(workdir):
    for step in (2, 4):
        damage(workdir / "checkpoints" / str(step))
    for _ in range(2):  # The second attempt finds what the first found: nothing was moved.
        with Checkpoints(workdir) as checkpoints, pytest.raises(InputError, match="none of its checkpoints"):
            checkpoints.restore(like=state(0, 0.0))


@pytest.mark.filterwarnings("ignore")
def test_the_same_step_damaged_twice_is_set_aside_twice(workdir):
    for _ in range(2):
        damage(workdir / "checkpoints" / "4")
        with Checkpoints(workdir) as checkpoints:
            checkpoints.restore(like=state(0, 0.0))
            checkpoints.save(state(4, 4.0))
    assert len(list(workdir.glob("damaged_checkpoint_4*"))) == 2


def test_a_save_that_was_cut_short_is_ignored(workdir):
    (workdir / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(workdir) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(like=state(0, 0.0)), state(4, 4.0))


def test_imported_weights_are_not_trained_further_and_not_moved(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state(0, 1.0).replace(optimizer={}, ema=None))
        checkpoints.wait()
        with pytest.raises(InputError, match="weights only"):
            checkpoints.restore(like=state(0, 0.0))
    assert (tmp_path / "checkpoints" / "0").is_dir()


def test_an_empty_folder_restores_nothing_and_has_no_weights(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(like=state(0, 0.0)) is None
        with pytest.raises(InputError, match="no finished checkpoint"):
            checkpoints.restore_weights("params", state(0, 0.0).params)
