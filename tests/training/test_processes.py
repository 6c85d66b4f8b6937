"""Two processes with four devices each train as one: they resume to the bit, stop together, and agree on what they restore."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sdit_jax.checkpoint import Checkpoints
from sdit_jax.sharding import make_mesh, processes, replicated
from sdit_jax.sharding.processes import STOPPED
from sdit_jax.training.setup import make_setup
from sdit_jax.training.state import TrainState

MESH = ("--config.mesh.data=2", "--config.mesh.fsdp=4", "--config.model.width=64")

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorBoard warn about their own affairs.


def free_port():
    with socket.socket() as at:
        at.bind(("localhost", 0))
        return at.getsockname()[1]


@pytest.fixture
def start(small, virtual_devices, tmp_path):
    """start(workdir, duration): both processes of a run, ended with the test; each writes to its own log.

    `late` makes the command of process 1.
    """
    started = []

    def both(workdir, duration, *flags, late=small.command):
        port, run = free_port(), SimpleNamespace(processes=[], logs=[tmp_path / f"{len(started)}.{i}.log" for i in range(2)])
        for i, log in enumerate(run.logs):
            where = (f"--coordinator=localhost:{port}", "--processes=2", f"--process={i}")
            flags_i = (f"--workdir={workdir}", f"--config.duration={duration} steps", *MESH, *where, *flags)
            with log.open("w") as file:
                process = subprocess.Popen(
                    (late if i else small.command)("train", *flags_i),
                    cwd=small.root, env=virtual_devices(4), stdout=file, stderr=file,
                )  # fmt: skip
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
    like = make_setup(small.config(model__width=64)).abstract_state()
    with Checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(like=like)
    return int(state.step), np.concatenate(
        [np.ravel(leaf) for leaf in jax.tree.leaves((state.variables, state.ema, state.optimizer))]
    )


@pytest.mark.slow
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
    assert f"starting at step {kept}" in first and "starting" not in second and "images/s" not in second
    assert second.splitlines()[-1] == f"process 1 of 2: ended at step {goal}"
    assert steps(killed) == list(range(1, goal + 1))  # By one process only.
    assert (killed / "samples" / f"{goal:08d}.png").is_file()

    run = start(straight, goal)
    assert codes(run) == [0, 0]
    (step, found), (_, expected) = weights(small, killed), weights(small, straight)
    assert step == goal
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_a_notice_to_one_stops_both_at_the_same_step_with_the_exit_code_for_again(small, start, tmp_path):
    workdir = tmp_path / "run"
    run = start(workdir, 100_000, "--config.checkpoint.every=never")
    wait_for_step(workdir, 3, run)
    run.processes[1].send_signal(signal.SIGTERM)
    assert codes(run) == [STOPPED, STOPPED], [log.read_text() for log in run.logs]
    with Checkpoints(workdir) as checkpoints:
        saved = checkpoints.newest()
    assert saved == steps(workdir)[-1] >= 3
    assert all(f"saved step {saved} of 100000; rerun to resume" in log.read_text() for log in run.logs)
    assert weights(small, workdir)[0] == saved


def test_a_process_too_many_is_refused_at_once(small, tmp_path):
    done = small.run("train", f"--workdir={tmp_path / 'run'}", "--coordinator=localhost:1", "--processes=2", "--process=2")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --process: found 2, allowed are 0..1"
    assert not (tmp_path / "run").exists()


LATE = """
import sys, time
from sdit_jax.training import loop

def late(seconds, work):
    def call(*arguments):
        done = work(*arguments)
        time.sleep(seconds)  # After the work, which takes both processes the same time.
        return done
    return call

loop.make_setup, loop._compile = late(15, loop.make_setup), late(35, loop._compile)
sys.argv = ["sdit_jax", *sys.argv[1:]]
from sdit_jax.commands.command_line import main
main()
"""


@pytest.mark.slow
def test_a_process_that_is_late_is_waited_for(small, start, tmp_path):
    """At the start, and before the first step by more than the 30 s after which processes on CPUs give up to connect."""
    command = lambda *flags: [sys.executable, "-c", LATE, *small.command(*flags)[3:]]
    run = start(tmp_path / "run", 2, late=command)
    assert codes(run) == [0, 0], [log.read_text() for log in run.logs]
    said = run.logs[0].read_text()
    assert all(f"process 0 waits for the others before {point}" in said for point in ("the start", "the first step"))


FULL = """
import collections, sys
from sdit_jax import checkpoint

class Full:
    asked = 0

    def disk_usage(self, folder):
        self.asked += 1  # Before each checkpoint: there is room for the first.
        return collections.namedtuple("Usage", "free")(10**9 if self.asked == 1 else 1000)

checkpoint.shutil = Full()
sys.argv = ["sdit_jax", *sys.argv[1:]]
from sdit_jax.commands.command_line import main
main()
"""


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_stops_both_and_the_checkpoint_before_is_kept(small, start, tmp_path):
    command = lambda *flags: [sys.executable, "-c", FULL, *small.command(*flags)[3:]]
    run = start(tmp_path / "run", 8, late=command)
    assert codes(run) == [2, 2], [log.read_text() for log in run.logs]
    for log in run.logs:
        assert "No space left on device: a checkpoint takes" in log.read_text().splitlines()[-1]
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.newest() == 2


def state(step, value):
    """A state in all processes of this run."""
    made = TrainState(jnp.int32(step), {"params": {"kernel": jnp.full((8, 8), value)}}, None, {"count": jnp.int32(step)})
    return jax.device_put(made, replicated(make_mesh()))


DAMAGE, TIMEOUT = ValueError("DATA_LOSS: cut short"), TimeoutError("storage timed out")
# By name: what a process finds when it reads a step.
FAULTS = {
    "damage": {(1, 6): DAMAGE},
    "two damaged": {(1, 6): DAMAGE, (0, 4): DAMAGE},
    "timeout": {(1, 6): TIMEOUT},
    "damage, then a timeout": {(1, 6): DAMAGE, (0, 4): TIMEOUT},
}


def restore_in_this_process(process, port, workdir, name):
    """Restores steps 2, 4 and 6, of which processes find some at fault; writes what becomes of it to a file.

    Not to stdout, where Gloo's threads print too, in the middle of a line.
    """
    out = workdir.with_suffix(f".{process}")
    processes.start(f"localhost:{port}", 2, process)
    processes.wait_for_all("the start")
    read = ocp.StandardCheckpointHandler.restore

    def restore(handler, directory, *args, **kwargs):
        fault = FAULTS[name].get((process, int(directory.parent.name)))
        if fault is not None:
            raise fault
        return read(handler, directory, *args, **kwargs)

    with Checkpoints(workdir, keep=3) as checkpoints:
        for step in (2, 4, 6):
            checkpoints.save(state(step, float(step)))
        checkpoints.wait()
        ocp.StandardCheckpointHandler.restore = restore
        try:
            found = checkpoints.restore(like=state(0, 0.0))
        except Exception as error:
            out.write_text(f"{type(error).__name__}: {error}\n")
        else:
            first = int(found.step), float(found.params["kernel"].addressable_data(0)[0, 0])
            checkpoints.save(state(6, 66.0))
            checkpoints.wait()
            ocp.StandardCheckpointHandler.restore = read
            again = checkpoints.restore(like=state(0, 0.0)).params["kernel"].addressable_data(0)[0, 0]
            out.write_text(f"{first[0]} {first[1]}\n{again}\n")


FAILED = "RuntimeError: {workdir}/checkpoints/%d: process %d could not read it; nothing was changed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "written", "folders"),
    [
        ("damage", [["4 4.0", "66.0"]] * 2, ["checkpoints", "damaged_checkpoint_6"]),
        ("two damaged", [["2 2.0", "66.0"]] * 2, ["checkpoints", "damaged_checkpoint_4", "damaged_checkpoint_6"]),
        ("timeout", [[FAILED % (6, 1)], ["TimeoutError: storage timed out"]], ["checkpoints"]),
        ("damage, then a timeout", [["TimeoutError: storage timed out"], [FAILED % (4, 0)]], ["checkpoints"]),
    ],
)
def test_what_one_process_cannot_read_no_process_uses(virtual_devices, tmp_path, fault, written, folders):
    """Damage is set aside for all of them; any other error stops all of them and changes nothing."""
    workdir, port = tmp_path / "run", free_port()
    workdir.mkdir()
    run = [
        subprocess.Popen(
            [sys.executable, __file__, str(process), str(port), workdir, fault],
            env=virtual_devices(4), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120) for process in run]
    finally:
        for process in run:
            process.kill()
    assert [process.returncode for process in run] == [0, 0], said
    lines = [workdir.with_suffix(f".{process}").read_text().splitlines() for process in range(2)]
    assert lines == [[line.format(workdir=workdir) for line in expected] for expected in written]
    assert sorted(os.listdir(workdir)) == folders


if __name__ == "__main__":
    restore_in_this_process(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
