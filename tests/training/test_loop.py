"""Training resumes to the bit, survives kill -9 and SIGTERM at any time, and never saves what is not finite."""

import json
import os
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from sdit_jax import memory
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.errors import InputError, Stopped, TrainingFailed
from sdit_jax.files import exclusive
from sdit_jax.sharding.processes import STOPPED
from sdit_jax.training.loop import check_health, train_and_evaluate
from sdit_jax.training.setup import make_setup
from sdit_jax.training.speed import SPEEDS
from sdit_jax.training.state import TrainState
from sdit_jax.training.step import Health

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorBoard warn about their own affairs.


def assert_equal(a, b):
    leaves = zip(jax.tree_util.tree_leaves_with_path(a), jax.tree_util.tree_leaves_with_path(b), strict=True)
    for (path, x), (_, y) in leaves:
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def restored(config, workdir):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(like=make_setup(config).abstract_state())


def metrics(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for(condition, process, seconds=240):
    """Polls until the condition holds; fails if the process ends first."""
    for _ in range(seconds * 20):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("timed out")


def test_two_steps_and_two_more_equal_four_to_the_bit(small, trained, tmp_path):
    train_and_evaluate(small.config(duration="2 steps", profile="2:2"), tmp_path)
    traced = list(files(tmp_path / "profile"))
    state = train_and_evaluate(small.config(profile="1:2"), tmp_path)
    assert traced == list(files(tmp_path / "profile")) and any(path.name.endswith(".xplane.pb") for path in traced)
    assert_equal(state, trained.state)
    assert_equal(restored(trained.config, tmp_path), trained.state)
    lines, others = metrics(tmp_path), metrics(trained.workdir)
    assert {*others[-1]} & {*SPEEDS} == {*SPEEDS} - {"mfu"}  # A CPU has no stated peak.
    kept = [{k: v for k, v in line.items() if k not in SPEEDS} for line in lines]
    assert kept == [{k: v for k, v in line.items() if k not in SPEEDS} for line in others]


def test_kill_9_loses_at_most_the_steps_since_the_last_checkpoint(small, tmp_path):
    workdir = tmp_path / "run"
    command = small.command("train", f"--workdir={workdir}", "--config.duration=100000 steps")
    process = subprocess.Popen(command, cwd=small.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: metrics_steps(workdir) >= 7, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Checkpoints(workdir) as checkpoints:
        kept = checkpoints.newest()
    assert kept is not None and kept >= 2

    goal = kept + 3
    done = small.run("train", f"--workdir={workdir}", f"--config.duration={goal} steps")
    assert done.returncode == 0, done.stderr
    assert f"starting at step {kept}" in done.stderr
    config = small.config(duration=f"{goal} steps")
    assert_equal(restored(config, workdir), train_and_evaluate(config, tmp_path / "straight"))
    assert [line["step"] for line in metrics(workdir)] == list(range(1, goal + 1))


def metrics_steps(workdir):
    """Steps logged so far, of a file that is being written."""
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_sigterm_saves_and_exits_75_and_the_same_command_ends_where_an_undisturbed_run_does(small, tmp_path):
    """With the recipe's own schedule, whose learning rate depends on the step and on the duration."""
    changes = {"duration": "400 steps", "checkpoint.every": "never", "optimizer.schedule": "cosine", "optimizer.warmup": "5%"}
    flags = (f"--workdir={tmp_path / 'run'}", *(f"--config.{name}={value}" for name, value in changes.items()))
    process = subprocess.Popen(
        small.command("train", *flags), cwd=small.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: metrics_steps(tmp_path / "run") >= 3, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # Schedulers repeat themselves.
    _, errors = process.communicate(timeout=30)
    assert process.returncode == STOPPED, errors
    assert "rerun to resume" in errors
    assert "Traceback" not in errors
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert 3 <= checkpoints.newest() == metrics_steps(tmp_path / "run") < 400

    done = small.run("train", *flags)
    assert done.returncode == 0, done.stderr
    config = small.config(**{name.replace(".", "__"): value for name, value in changes.items()})
    assert_equal(restored(config, tmp_path / "run"), train_and_evaluate(config, tmp_path / "straight"))


def test_sigterm_while_the_step_is_compiled_ends_within_seconds(small, tmp_path):
    """Of a network whose step takes minutes to compile."""
    flags = (
        "--config=configs/mnist.py",
        "--config.data.name=digits",
        f"--workdir={tmp_path / 'run'}",
        "--config.batch_size=64",
    )
    process = subprocess.Popen(
        small.command("train", *flags, preset=False), cwd=small.root, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": ""},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "compiling" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(timeout=60) == STOPPED and time.monotonic() - began < 20
    assert "stopped before step 1: nothing new to save; rerun to resume" in process.stderr.read()


def test_a_step_that_does_not_fit_into_memory_is_refused(small, tmp_path, monkeypatch):
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.free(jax.devices()[0]) < total
    monkeypatch.setattr(memory, "free", lambda device: 2**10)
    with pytest.raises(
        InputError, match="batch_size: found 16, for which a step needs .* GiB, and 9.537e-07 GiB are free; lower"
    ):
        train_and_evaluate(small.config(), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text()


def test_two_processes_in_one_run_folder_are_refused(small, tmp_path):
    with exclusive(tmp_path, "waits"), pytest.raises(InputError, match="another process is training"):
        train_and_evaluate(small.config(), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_good(small, trained, tmp_path):
    shutil.copytree(trained.workdir, tmp_path, dirs_exist_ok=True)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["optimizer"]["learning_rate"] = 1e15
    (tmp_path / "config.json").write_text(json.dumps(saved))
    config = small.config(duration="8 steps", checkpoint__every="1 steps", optimizer__learning_rate=1e15)
    with pytest.raises(TrainingFailed, match="step .*not finite.*|step .*loss term.*") as failure:
        train_and_evaluate(config, tmp_path)
    last_good = int(str(failure.value).split("last good checkpoint is step ")[1].split()[0])
    assert last_good >= 4
    assert files(tmp_path / "checkpoints" / "2") == files(trained.workdir / "checkpoints" / "2")
    state = restored(config, tmp_path)
    assert int(state.step) == last_good
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("terms", "bad_leaf", "words"),
    [
        ({"mse": 1.0, "vb": float("inf"), "loss": float("inf")}, -1, "step 7: loss term 'vb' is inf"),
        ({"mse": 1.0, "loss": 1.0}, 0, "step 7: batch_stats norm/mean is not finite"),
        ({"mse": 1.0, "loss": 1.0}, 2, "step 7: parameter head/kernel is not finite"),
    ],
)
def test_the_first_bad_term_or_variable_is_named(tmp_path, terms, bad_leaf, words):
    params = {"head": {"bias": np.zeros(1), "kernel": np.full(1, np.nan)}, "position": np.zeros(1)}
    variables = {"batch_stats": {"norm": {"mean": np.zeros(1)}}, "params": params}
    state = TrainState(np.int32(7), variables, None, {})
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(TrainingFailed, match=words):
        check_health(7, Health(terms, np.int32(bad_leaf)), state, checkpoints)


def test_the_run_folder_holds_all_that_sampling_needs_and_the_grids(trained):
    assert json.loads((trained.workdir / "config.json").read_text()) == trained.config.to_dict()
    assert (trained.workdir / "samples" / "00000004.png").is_file()
    last = metrics(trained.workdir)[-1]
    rates = {name: value for name, value in last.items() if name.startswith("firing_rate/")}
    assert len(rates) == 6 and all(0 < value < 1 for value in rates.values())
    assert "firing_rate/out_blocks.0.channel_neurons" in rates


OFTEN = {
    "log__every": "1 steps", "samples__every": "1 steps", "samples__n": 2,
    "evaluation__every": "1 steps", "evaluation__names": "loss",
}  # fmt: skip


def outputs(workdir):
    """The steps of all pictures, and of all evaluation records in order."""
    records = (workdir / "evaluation.jsonl").read_text().splitlines() if (workdir / "evaluation.jsonl").exists() else []
    pictures = sorted(int(path.stem) for path in (workdir / "samples").glob("*.png"))
    return pictures, [(record["step"], record["weights"]) for record in map(json.loads, records)]


def both(*steps):
    return list(steps), [(step, weights) for step in steps for weights in ("ema", "raw")]


@pytest.mark.parametrize("stop", [3, 4])
def test_a_stop_saves_at_once_and_the_rerun_makes_the_outputs_that_are_left(small, trained, tmp_path, monkeypatch, stop):
    """At any step, the last one too: pictures and evaluations may take longer than there is time until a kill."""
    config = small.config(**OFTEN, checkpoint__every="never")
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "preempted", lambda _, step: step == stop)
        with pytest.raises(Stopped, match=f"saved step {stop} of 4; rerun to resume"):
            train_and_evaluate(config, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.newest() == stop
    assert outputs(tmp_path) == both(*range(1, stop))
    assert_equal(train_and_evaluate(config, tmp_path), trained.state)
    assert outputs(tmp_path) == both(1, 2, 3, 4)
    logged = [line["step"] for line in metrics(tmp_path) if "loss" in line]
    assert logged == [1, 2, 3, 4]


def test_a_run_killed_while_it_draws_its_last_picture_is_completed_by_the_rerun(small, trained, tmp_path):
    """Kill -9, after the last state was saved and before the picture is there."""
    workdir = tmp_path / "run"
    slow = ("--config.samples.n=20000", "--config.samples.steps=1000")
    process = subprocess.Popen(
        small.command("train", f"--workdir={workdir}", *slow), cwd=small.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(lambda: (workdir / "checkpoints" / "4").is_dir(), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list((workdir / "samples").glob("*.png"))
    done = small.run("train", f"--workdir={workdir}")
    assert done.returncode == 0 and "missing of step 4" in done.stderr, done.stderr
    picture = workdir / "samples" / "00000004.png"
    assert picture.read_bytes() == (trained.workdir / "samples" / "00000004.png").read_bytes()
    assert_equal(restored(trained.config, workdir), trained.state)
    assert "nothing to do" in small.run("train", f"--workdir={workdir}").stderr


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, STOPPED), (signal.SIGKILL, -signal.SIGKILL)], ids=["term", "kill"])
def test_a_stop_in_a_long_evaluation_loses_no_step(small, tmp_path, number, code):
    """The state is saved before, whatever the interval of checkpoints, and SIGTERM does not wait for the evaluation to end."""
    workdir, flags = tmp_path / "run", ("--config.duration=5 steps", "--config.checkpoint.every=never")
    flags += (f"--workdir={workdir}", "--config.evaluation.every=3 steps", "--config.evaluation.n=20000")
    process = subprocess.Popen(
        small.command("train", *flags, "--config.evaluation.steps=1000"), cwd=small.root, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: (workdir / "checkpoints" / "3").is_dir(), process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code and ("saved step 3 of 5" in errors) == (code == STOPPED), errors
    assert not (workdir / "evaluation.jsonl").exists()
    done = small.run("train", *flags, "--config.evaluation.names=loss")
    assert done.returncode == 0 and "missing of step 3" in done.stderr and "starting at step 3" in done.stderr, done.stderr
    assert outputs(workdir) == ([5], both(3, 5)[1])


def test_an_evaluation_that_was_cut_short_is_done_again_as_a_whole(small, tmp_path, monkeypatch):
    config = small.config(**OFTEN | {"evaluation__every": "4 steps", "samples__every": "never"})
    kinds = []

    def cut_short(evaluators, params):
        kinds.append(params)
        if len(kinds) == 2:
            raise KeyboardInterrupt
        yield "loss/test", 1.0

    with monkeypatch.context() as patched:
        patched.setattr("sdit_jax.training.evaluators.Evaluators.__call__", cut_short)
        with pytest.raises(KeyboardInterrupt):
            train_and_evaluate(config, tmp_path)
    assert outputs(tmp_path) == ([4], [])
    train_and_evaluate(config, tmp_path)
    assert outputs(tmp_path) == both(4)
    evaluated = [line for line in metrics(tmp_path) if "evaluation/raw/loss/test" in line]
    assert len(evaluated) == 1 and evaluated[0]["evaluation/raw/loss/test"] != 1.0


def test_a_finished_run_is_left_alone(small, trained, caplog):
    before = {path: path.stat().st_mtime_ns for path in trained.workdir.rglob("[!.]*") if path.is_file()}
    caplog.set_level("INFO")
    assert_equal(train_and_evaluate(trained.config, trained.workdir), trained.state)
    assert "nothing to do" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_configuration_in_the_same_folder_is_refused(small, trained):
    before = (trained.workdir / "config.json").read_bytes()
    with pytest.raises(InputError, match="config.model.spiking_steps: found 8, the run in .* has 4"):
        train_and_evaluate(small.config(model__spiking_steps=8), trained.workdir)
    assert (trained.workdir / "config.json").read_bytes() == before


def test_a_dry_run_prints_what_it_would_do_and_writes_nothing(small, tmp_path, capsys):
    assert train_and_evaluate(small.config(), tmp_path / "run", dry_run=True) is None
    printed = capsys.readouterr().out
    assert "4 steps" in printed and "time_mix/key/kernel" in printed and "spiking_steps: 4" in printed
    assert os.listdir(tmp_path) == []
