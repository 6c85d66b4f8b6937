"""Two processes with four devices each train as one: to the bit after one was killed, and both stop where one is told to."""

import json
import os
import signal
import socket
import subprocess
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from sdit_jax.checkpoint import Checkpoints
from sdit_jax.sharding.processes import STOPPED
from sdit_jax.training.plan import make_plan

ENVIRONMENT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "NPROC": "8"}
MESH = ("--config.mesh.data=2", "--config.mesh.fsdp=4", "--config.model.width=64")

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorBoard warn of their own affairs.


def free_port():
    with socket.socket() as at:
        at.bind(("localhost", 0))
        return at.getsockname()[1]


@pytest.fixture
def start(small, tmp_path):
    """start(workdir, duration): both processes of a run, ended with the test; each writes to its own log."""
    started = []

    def both(workdir, duration, *flags):
        port, run = free_port(), SimpleNamespace(processes=[], logs=[tmp_path / f"{len(started)}.{i}.log" for i in range(2)])
        for i, log in enumerate(run.logs):
            told = (f"--coordinator=localhost:{port}", "--processes=2", f"--process={i}")
            flags_i = (f"--workdir={workdir}", f"--config.duration={duration} steps", *MESH, *told, *flags)
            with log.open("w") as file:
                process = subprocess.Popen(
                    small.command("train", *flags_i), cwd=small.root, env=os.environ | ENVIRONMENT, stdout=file, stderr=file
                )
            run.processes.append(process)
        started.append(run)
        return run

    yield both
    for process in (process for run in started for process in run.processes):
        process.kill()
        process.wait()


def steps(workdir):
    """The steps logged so far, of a file that is being written."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def wait_for_step(workdir, step, run, seconds=300):
    for _ in range(seconds * 10):
        if steps(workdir)[-1:] >= [step]:
            return
        assert all(process.poll() is None for process in run.processes), [log.read_text() for log in run.logs]
        time.sleep(0.1)
    raise AssertionError("timed out")


def codes(run, seconds=300):
    return [process.wait(timeout=seconds) for process in run.processes]


def weights(small, workdir):
    """Everything of the newest checkpoint, read by this process alone."""
    like = make_plan(small.config(model__width=64)).new_state()
    with Checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(like=like)
    return int(state.step), np.concatenate(
        [np.ravel(leaf) for leaf in jax.tree.leaves((state.params, state.ema, state.optimizer))]
    )


def test_one_is_killed_both_start_again_and_end_where_an_undisturbed_run_does(small, start, tmp_path):
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    run = start(killed, 100_000)
    wait_for_step(killed, 5, run)
    run.processes[1].send_signal(signal.SIGKILL)
    run.processes[1].wait()
    run.processes[0].kill()  # It would end by itself, when the other one is missed.
    run.processes[0].wait()
    with Checkpoints(killed) as checkpoints:
        kept = checkpoints.newest()
    goal = kept + 2
    assert kept >= 4

    run = start(killed, goal)
    assert codes(run) == [0, 0], [log.read_text() for log in run.logs]
    first, second = (log.read_text() for log in run.logs)
    for i, log in enumerate((first, second)):
        assert f"process {i} of 2, 8 devices (cpu), mesh data 2 x fsdp 4 x tensor 1, batch 16" in log
    assert f"starting at step {kept}" in first and "starting" not in second and "step" not in second
    assert steps(killed) == list(range(1, goal + 1))  # By one process only.
    assert (killed / "samples" / f"{goal:08d}.png").is_file()

    run = start(straight, goal)
    assert codes(run) == [0, 0]
    (step, found), (_, expected) = weights(small, killed), weights(small, straight)
    assert step == goal
    np.testing.assert_array_equal(found, expected)


def test_a_notice_to_one_stops_both_at_the_same_step_with_the_exit_code_for_again(small, start, tmp_path):
    workdir = tmp_path / "run"
    run = start(workdir, 100_000, "--config.checkpoint.every=never")
    wait_for_step(workdir, 3, run)
    run.processes[1].send_signal(signal.SIGTERM)
    assert codes(run) == [STOPPED, STOPPED], [log.read_text() for log in run.logs]
    with Checkpoints(workdir) as checkpoints:
        saved = checkpoints.newest()
    assert saved == steps(workdir)[-1] >= 3
    assert all(f"saved step {saved}; the same command goes on" in log.read_text() for log in run.logs)
    assert weights(small, workdir)[0] == saved


def test_a_process_too_many_is_refused_at_once(small, tmp_path):
    done = small.run("train", f"--workdir={tmp_path / 'run'}", "--coordinator=localhost:1", "--processes=2", "--process=2")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --process: found 2, must be in 0..1, as --processes is 2"
    assert not (tmp_path / "run").exists()
