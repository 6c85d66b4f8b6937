"""A run folder in a bucket: what training writes there, resumes from it, and reads of it are those of a local folder."""

import json
import signal
import subprocess
import time

import fsspec
import jax
import numpy as np
import pytest
from etils import epath

from sdit_jax import hashes
from sdit_jax.errors import InputError
from sdit_jax.files import as_path, exclusive
from sdit_jax.sampling.run import open_run
from sdit_jax.sampling.verify import verify
from sdit_jax.training.loop import train_and_evaluate
from sdit_jax.training.metrics import read_evaluations, read_scalars

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax, TensorBoard and gcsfs warn about their own affairs.


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def losses(workdir):
    return {step: values["loss"] for step, values in read_scalars(workdir / "metrics.jsonl").items()}


@pytest.fixture(scope="module")
def resumed(small, bucket):
    """A run of 2 and 2 more steps in a bucket: its folder and its last state."""
    workdir = as_path(f"{bucket}/resumed")
    train_and_evaluate(small.config(duration="2 steps"), workdir)
    return workdir, train_and_evaluate(small.config(), workdir)


def test_two_steps_and_two_more_in_a_bucket_equal_four_in_a_folder(resumed, trained):
    workdir, state = resumed
    assert_equal(state, trained.state)
    assert losses(workdir) == losses(trained.workdir) and list(losses(workdir)) == [1, 2, 3, 4]
    for name in ("config.json", "dataset.sha256", "samples/00000004.png"):
        assert (workdir / name).read_bytes() == (trained.workdir / name).read_bytes()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4"]
    assert hashes.check(workdir / "checkpoints" / "4")
    events = [path.read_bytes() for path in workdir.glob("events.*")]
    assert len(events) == 2 and all(b"loss" in written for written in events)


def test_it_is_read_as_a_local_folder_is(resumed, trained):
    workdir, _ = resumed
    assert_equal(open_run(str(workdir)).variables, open_run(trained.workdir).variables)
    found, local = verify(str(workdir)), verify(trained.workdir)
    assert found.sound and found.use == local.use
    assert {*found.findings} - {*local.findings} == {("samples/00000002.png", "readable", True)}  # From before the stop.


@pytest.fixture
def workdir(resumed, bucket, request):
    """A copy of the run, to be changed."""
    source, _ = resumed
    target = as_path(f"{bucket}/{request.node.name}")
    fsspec.filesystem("gcs").copy(f"{source}/", f"{target}/", recursive=True)
    return target


def test_a_checkpoint_that_was_cut_short_is_no_checkpoint(small, trained, workdir):
    """Orbax finishes one in a bucket with `commit_success.txt`, as folders cannot be renamed there."""
    (workdir / "checkpoints" / "4" / "commit_success.txt").unlink()
    (workdir / "checkpoints" / "4" / "optimizer" / "manifest.ocdbt").unlink()
    assert [finding.part for finding in verify(str(workdir)).findings if "checkpoint" in finding.part] == ["checkpoints/2"]
    assert open_run(str(workdir)).step == 2
    assert_equal(train_and_evaluate(small.config(), workdir), trained.state)
    assert verify(str(workdir)).sound and open_run(str(workdir)).step == 4


def test_a_damaged_checkpoint_is_set_aside_and_made_again(small, trained, workdir):
    path = next(iter((workdir / "checkpoints" / "4" / "ema" / "d").iterdir()))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert not verify(str(workdir)).sound
    assert_equal(train_and_evaluate(small.config(), workdir), trained.state)
    assert (workdir / "damaged_checkpoint_4" / "sha256.json").is_file()
    assert verify(str(workdir)).sound


def test_old_checkpoints_are_deleted_and_evaluations_recorded(small, bucket):
    workdir = as_path(f"{bucket}/old")
    changes = {
        "checkpoint__every": "1 steps",
        "checkpoint__keep": 2,
        "evaluation__every": "4 steps",
        "evaluation__names": "loss",
    }
    train_and_evaluate(small.config(**changes), workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["3", "4"]
    assert {record["weights"] for record in read_evaluations(workdir, 4)} == {"ema", "raw"}


def test_another_process_of_this_machine_cannot_train_there(bucket):
    workdir = as_path(f"{bucket}/locked")
    with exclusive(workdir, "trains"), pytest.raises(InputError, match="^gs://bucket/locked: another process trains$"):
        exclusive(as_path(f"{bucket}/locked/"), "trains").__enter__()
    with exclusive(workdir, "trains"):
        pass


@pytest.mark.slow
def test_kill_9_loses_the_steps_since_the_last_checkpoint_and_the_same_command_resumes(small, bucket):
    workdir = as_path(f"{bucket}/killed")
    command = small.command("train", f"--workdir={workdir}", "--config.duration=100000 steps")
    process = subprocess.Popen(command, cwd=small.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(1200):
        if max(losses(workdir), default=0) >= 7:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = open_run(str(workdir)).step
    done = small.run("train", f"--workdir={workdir}", f"--config.duration={kept + 2} steps")
    assert done.returncode == 0 and f"starting at step {kept}" in done.stderr, done.stderr
    straight = as_path(f"{bucket}/straight")
    train_and_evaluate(small.config(duration=f"{kept + 2} steps"), straight)
    assert_equal(open_run(str(workdir)).variables, open_run(str(straight)).variables)
    assert losses(workdir) == losses(straight)


def test_commands_read_and_write_there(small, resumed, trained, bucket, tmp_path):
    """Each with a local run folder and local output beside it."""
    workdir, _ = resumed
    out = as_path(f"{bucket}/out")

    def run(verb, *flags):
        done = small.run(verb, *flags, preset=False)
        assert done.returncode == 0, done.stderr

    for source, place in ((workdir, out), (trained.workdir, tmp_path)):
        run("sample", f"--workdir={source}", f"--out={place / 'samples'}", "--n=4", "--steps=1")
        run("export", f"--workdir={source}", f"--out={place / 'weights.safetensors'}")
        run("curves", source, f"--out={place / 'curves'}")
    for name in ("samples/samples.npz", "samples/grid.png", "weights.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes(), name
    curves = [json.loads((place / "curves/curves.json").read_text()) for place in (out, tmp_path)]
    assert curves[0][0]["scalars"] == curves[1][0]["scalars"]
    assert verify(out / "weights.safetensors").sound

    run("evaluate", f"--workdir={workdir}", "--n=70", "--steps=1", "--batch_size=40", "--noreport", "--noyardsticks")
    (folder,) = (workdir / "evaluation").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.json", "samples.npz"]
    run("evaluate", f"--samples={folder / 'samples.npz'}", "--reference=digits", "--noyardsticks", "--noreport")
    again = epath.Path(folder) / "samples_against_digits" / "evaluation.json"
    values = lambda path: [(record["name"], record["value"]) for record in json.loads(path.read_text())["values"]]
    assert values(again) == values(folder / "evaluation.json")
