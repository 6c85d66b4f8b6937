"""Checkpoints survive damage: the newest readable one is used, a damaged one is named, and any other error changes nothing."""

import errno
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sdit_jax import hashes
from sdit_jax.checkpoint import Checkpoints, is_damage
from sdit_jax.errors import InputError
from sdit_jax.training.state import TrainState

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax warns about its own affairs.


def weights(value):
    return {"kernel": value + jax.random.normal(jax.random.key(0), (64, 64))}  # Noise does not compress.


def state(step, value):
    """A state of a network without running statistics."""
    variables, ema = {"params": weights(value)}, {"params": weights(value + 100)}
    return TrainState(jnp.asarray(step, jnp.int32), variables, ema, {"count": jnp.asarray(step)})


@pytest.fixture
def workdir(tmp_path):
    """A run folder with checkpoints of steps 2, 4 and 6."""
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (2, 4, 6):
            checkpoints.save(state(step, float(step)))
    return tmp_path


def damage(workdir, step):
    """Cuts every array file of a checkpoint in half."""
    folder = workdir / "checkpoints" / str(step)
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 400]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def restored(workdir):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(like=state(0, 0.0))


def assert_equal(found, expected):
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def names(workdir):
    return sorted(path.name for folder in (workdir, workdir / "checkpoints") for path in folder.iterdir())


def test_the_newest_is_restored_to_the_bit(workdir):
    assert_equal(restored(workdir), state(6, 6.0))


def test_on_disk_parameters_and_their_average_are_items_without_the_collection(workdir):
    """As every earlier version wrote them; read by Orbax itself."""
    folder = workdir / "checkpoints" / "6"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"params", "ema", "optimizer"}
    read = ocp.StandardCheckpointHandler().restore
    for item, expected in (("params", weights(6.0)), ("ema", weights(106.0))):
        assert_equal(read(folder / item, args=ocp.args.StandardRestore(expected)), expected)


def test_running_statistics_are_items_of_their_own(tmp_path):
    statistics = {"norm": {"mean": jnp.arange(3.0)}}
    plain = state(2, 2.0)
    saved = plain.replace(
        variables=plain.variables | {"batch_stats": statistics},
        ema=plain.ema | {"batch_stats": jax.tree.map(jnp.negative, statistics)},
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(saved)
        checkpoints.wait()
        assert_equal(checkpoints.restore(like=jax.tree.map(jnp.zeros_like, saved)), saved)
        for which, expected in (("raw", saved.variables), ("ema", saved.ema)):
            assert_equal(checkpoints.restore_weights(which, expected), (2, expected))
    folder = tmp_path / "checkpoints" / "2"
    items = {"params", "ema", "optimizer", "batch_stats", "ema_batch_stats"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == items


@pytest.mark.parametrize("steps", [(6,), (6, 4)])
def test_damaged_newest_ones_are_named_set_aside_and_the_one_before_used(workdir, caplog, steps):
    for step in steps:
        damage(workdir, step)
    good = min(steps) - 2
    with Checkpoints(workdir) as checkpoints:
        found = checkpoints.restore(like=state(0, 0.0))
        checkpoints.save(state(6, 66.0))
    assert_equal(found, state(good, float(good)))
    for step in steps:
        assert str(workdir / "checkpoints" / str(step)) in caplog.text
        assert (workdir / f"damaged_checkpoint_{step}").is_dir()
    assert_equal(restored(workdir), state(6, 66.0))


@pytest.mark.parametrize("which", ["raw", "ema"])
def test_reading_weights_falls_back_but_changes_nothing(workdir, caplog, which):
    damage(workdir, 6)
    before, expected = names(workdir), state(4, 4.0)
    with Checkpoints(workdir) as checkpoints:
        step, found = checkpoints.restore_weights(which, expected.variables)
    assert step == 4 and "cannot be read" in caplog.text
    assert_equal(found, expected.ema if which == "ema" else expected.variables)
    assert names(workdir) == before


def flip(path, place):
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place // 8 % len(content)] ^= 1 << place % 8
    path.write_bytes(content)


def test_no_flipped_bit_is_used(workdir):
    """Of any item's files, and of the hashes."""
    folder, rng = workdir / "checkpoints" / "6", np.random.default_rng(0)
    files = [folder / "sha256.json", *sorted(path for path in folder.glob("*/**/*") if path.is_file() and path.stat().st_size)]
    assert hashes.check(folder) and len(files) > 20
    for path in [*files, *rng.choice(files, 120)]:
        place = int(rng.integers(8 * path.stat().st_size))
        flip(path, place)
        with pytest.raises(hashes.Damaged):
            hashes.check(folder)
        flip(path, place)
    assert hashes.check(folder)
    flip(max(files, key=lambda path: path.stat().st_size), 12345)
    assert_equal(restored(workdir), state(4, 4.0))


def test_every_complete_step_has_its_hashes(tmp_path):
    """Also the newest one, before anything waits for it: a run may be killed at any time."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2, 3):
        checkpoints.save(state(step, float(step)))
        folder = tmp_path / "checkpoints" / str(step)
        while not folder.exists():
            time.sleep(0.005)
        assert hashes.check(folder)
    checkpoints.manager.close()


def test_weights_are_read_past_damage_of_what_they_do_not_need(workdir):
    flip(next((workdir / "checkpoints" / "6" / "optimizer").rglob("manifest.ocdbt")), 99)
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.restore_weights("ema", state(0, 0.0).variables)[0] == 6


def test_a_checkpoint_without_hashes_is_used(workdir, caplog):
    (workdir / "checkpoints" / "6" / "sha256.json").unlink()
    with caplog.at_level("INFO"):
        assert_equal(restored(workdir), state(6, 6.0))
    assert "6 has no hashes" in caplog.text


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(workdir):
    for step in (2, 4, 6):
        damage(workdir, step)
    for _ in range(2):  # The second attempt finds what the first found: nothing was moved.
        with pytest.raises(InputError, match="none of its checkpoints can be read; the newest, 6"):
            restored(workdir)


def test_the_same_step_damaged_twice_is_set_aside_twice(workdir):
    for _ in range(2):
        damage(workdir, 6)
        with Checkpoints(workdir) as checkpoints:
            checkpoints.restore(like=state(0, 0.0))
            checkpoints.save(state(6, 6.0))
    assert len(list(workdir.glob("damaged_checkpoint_6*"))) == 2


def chained(error, cause):
    """An error raised from another, as Orbax wraps those of tensorstore."""
    error.__cause__ = cause
    return error


OUT_OF_MEMORY = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
TRANSIENT = [
    MemoryError(),
    TimeoutError("timed out"),
    *(OSError(number, "of the operating system") for number in (errno.ENOSPC, errno.ETIMEDOUT, errno.EIO, errno.EACCES)),
    OUT_OF_MEMORY,
    *(ValueError(f"{code}: Error reading") for code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE")),
    chained(Exception("Encountered error while reading array"), ValueError("UNAVAILABLE: Error reading")),
]
DAMAGE = [
    FileNotFoundError(errno.ENOENT, "no such file"),
    KeyError("tree_metadata"),
    *(ValueError(f"{code}: Error opening driver") for code in ("DATA_LOSS", "NOT_FOUND", "FAILED_PRECONDITION")),
    chained(Exception("Encountered error while reading array"), ValueError("FAILED_PRECONDITION: Truncated")),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "next one damaged"])
def test_an_error_that_is_no_damage_is_raised_and_nothing_is_moved(workdir, monkeypatch, error, damaged):
    """Neither the checkpoint that could not be read nor a newer, damaged one."""
    unreadable = "4" if damaged else "6"
    if damaged:
        damage(workdir, 6)
    before, read = names(workdir), ocp.StandardCheckpointHandler.restore

    def restore(handler, directory, *args, **kwargs):
        if directory.parent.name == unreadable:
            raise error
        return read(handler, directory, *args, **kwargs)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", restore)
    with pytest.raises(type(error)) as raised:
        restored(workdir)
    assert raised.value is error and names(workdir) == before
    monkeypatch.undo()
    assert_equal(restored(workdir), state(4, 4.0) if damaged else state(6, 6.0))


@pytest.mark.parametrize("error", DAMAGE, ids=repr)
def test_what_a_retry_would_not_mend_is_damage(error):
    assert is_damage(error)


def test_some_are_kept_for_ever_and_any_can_be_opened(tmp_path):
    with Checkpoints(tmp_path, keep=1, keep_every=4) as checkpoints:
        for step in range(1, 11):
            checkpoints.save(state(step, float(step)))
        checkpoints.wait()
        assert checkpoints.steps() == [4, 8, 10]
        step, found = checkpoints.restore_weights("raw", state(0, 0.0).variables, 4)
        assert step == 4
        assert_equal(found, state(4, 4.0).variables)
    damage(tmp_path, 4)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError, match="checkpoints: 4: "):
        checkpoints.restore_weights("raw", state(0, 0.0).variables, 4)


def test_a_save_that_was_cut_short_is_ignored(workdir):
    (workdir / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()
    assert_equal(restored(workdir), state(6, 6.0))


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
            checkpoints.restore_weights("raw", state(0, 0.0).variables)
