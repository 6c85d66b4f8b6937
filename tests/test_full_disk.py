"""A full disk is a line and exit code 2: nothing is left half written, and what was there before is used after some is freed.

The disk is a small tmpfs, which only the superuser of Linux can mount; the tests are skipped elsewhere.
"""

import json
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest

from sdit_jax.checkpoint import Checkpoints
from sdit_jax.errors import InputError
from sdit_jax.sampling.verify import verify
from sdit_jax.training.setup import make_setup
from sdit_jax.training.state import TrainState

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax warns about its own affairs.
KiB = 2**10


@pytest.fixture
def disk(tmp_path):
    """A folder that is a file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk, free):
    """Writes a file that leaves so many bytes."""
    left = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(left.f_bavail * left.f_bsize - free))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file())


def refused(done, path):
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {path}") and "No space left on device" in line, done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), np.uint8), labels=np.arange(80) % 10)
    return path


@pytest.mark.parametrize("free", [0, 8 * KiB])
@pytest.mark.parametrize(
    "verb, flags, out",
    [
        ("sample", "--workdir={run} --n=200 --steps=1", "out"),
        ("export", "--workdir={run}", "out/weights.safetensors"),
        ("evaluate", "--samples={samples} --reference=digits --noyardsticks", "out"),
        ("evaluate", "--workdir={run} --n=200 --steps=1 --noyardsticks --noreport", "out"),
    ],
    ids=["sample", "export", "evaluate samples", "evaluate a run"],
)
def test_what_does_not_fit_is_named_and_nothing_is_left(small, trained, samples, disk, verb, flags, out, free):
    fill(disk, free)
    place = disk / out
    done = small.run(verb, *flags.format(run=trained.workdir, samples=samples).split(), f"--out={place}", preset=False)
    refused(done, disk / "out")
    assert files(disk) == ["filler"]


def test_a_run_that_does_not_fit_is_named(small, disk):
    fill(disk, 0)
    refused(small.run("train", f"--workdir={disk / 'run'}"), disk / "run")
    assert files(disk) == ["filler"]


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 100 * KiB])
def test_a_run_on_a_disk_that_fills_up_ends_with_a_line_and_resumes_when_there_is_room(small, trained, disk, tmp_path, free):
    """Before its first record, or before a checkpoint."""
    workdir = disk / "run"
    shutil.copytree(trained.workdir, workdir)
    fill(disk, free)
    flags = (f"--workdir={workdir}", "--config.duration=8 steps", "--config.checkpoint.keep=9")
    refused(small.run("train", *flags), workdir)
    assert "can be resumed, sampled and evaluated from step" in verify(workdir).use
    assert not list(workdir.glob("damaged_*"))
    (disk / "filler").unlink()
    done = small.run("train", *flags)
    assert done.returncode == 0, done.stderr
    straight = small.run("train", f"--workdir={tmp_path / 'straight'}", *flags[1:])
    assert straight.returncode == 0, straight.stderr
    config = small.config(duration="8 steps")
    states = []
    for place in (workdir, tmp_path / "straight"):
        with Checkpoints(place) as checkpoints:
            states.append(checkpoints.restore(like=make_setup(config).abstract_state()))
    jax.tree.map(np.testing.assert_array_equal, *states)
    records = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert records == list(range(1, 9))


@pytest.mark.parametrize("free", [0, 40 * KiB])
def test_a_disk_that_fills_up_in_the_middle_of_a_save_is_named_and_the_checkpoint_before_is_kept(disk, monkeypatch, free):
    leaf = jax.random.normal(jax.random.key(0), (100, 100))
    state = lambda step: TrainState(
        jax.numpy.int32(step), {"params": {"kernel": leaf + step}}, None, {"count": jax.numpy.int32(step)}
    )
    with Checkpoints(disk / "run") as checkpoints:
        checkpoints.save(state(2))
    fill(disk, free)
    monkeypatch.setattr(Checkpoints, "_check_room", lambda *_: None)  # As another program takes the room after it was seen.
    with (
        pytest.raises(InputError, match=f"^{disk}/run/checkpoints: No space left on device; make room"),
        Checkpoints(disk / "run") as checkpoints,
    ):
        checkpoints.save(state(4))
    (disk / "filler").unlink()
    with Checkpoints(disk / "run") as checkpoints:
        found = checkpoints.restore(like=state(0))
        assert found is not None
        jax.tree.map(np.testing.assert_array_equal, found, state(2))
        checkpoints.save(state(4))
    with Checkpoints(disk / "run") as checkpoints:
        assert checkpoints.newest() == 4
