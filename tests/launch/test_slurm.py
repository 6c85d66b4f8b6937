"""slurm.sh and slurm_array.sh with mock Slurm programs: what is submitted, what a job runs, and when it is requeued."""

import re
import shutil
import signal
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent.parent / "launch"
# Runs the command in its own session, as on another machine. On SIGTERM it kills the step, as the real srun does.
SRUN = """trap 'kill -KILL $step; echo srun killed the step >> $ROOT/calls; exit 143' TERM
while [ "${1#--}" != "$1" ]; do shift; done
setsid "$@" & step=$!
echo $step > $ROOT/step
wait $step"""
TRAINING = """trap 'echo saved >> $ROOT/calls; exit 75' TERM
touch $ROOT/up
while :; do sleep 0.05; done"""


@pytest.fixture
def slurm(checkout):
    """A checkout with copies of the scripts in a spool folder, as Slurm makes them; `job` holds the variables of a job."""
    checkout.without_environment()
    checkout.fake("srun", SRUN)
    checkout.fake("scancel", 'kill -s "${1#--signal=}" $(cat $ROOT/step)')
    checkout.fake("squeue", "echo ${STATE:-RUNNING}")
    checkout.fake("scontrol", "exit 0")
    checkout.fake("sbatch", "exit 0")
    spool = checkout.path / "spool"
    spool.mkdir()
    for name in ("slurm.sh", "slurm_array.sh"):
        shutil.copy(LAUNCH / name, spool)
    checkout.job = {
        "SLURM_JOB_ID": "42", "SLURM_SUBMIT_DIR": str(checkout.path), "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "8",
    }  # fmt: skip
    return checkout


def directives(name):
    """#SBATCH lines above the first command, the only ones that sbatch reads."""
    top = re.split(r"^[^#\n]", (LAUNCH / name).read_text(), maxsplit=1, flags=re.M)[0]
    return re.findall(r"^#SBATCH (.+)$", top, flags=re.M)


@pytest.mark.parametrize("name", ["slurm.sh", "slurm_array.sh"])
def test_a_job_is_warned_in_time_and_keeps_one_log(name):
    assert {"--ntasks-per-node=1", "--signal=B:TERM@120", "--requeue", "--open-mode=append"} <= set(directives(name))


def test_on_a_login_node_it_submits_itself(slurm):
    done = slurm.run("launch/slurm.sh", "--config=a b", "--workdir=c", SBATCH="--nodes=4 --time=1:00:00")
    assert done.returncode == 0, done.stderr
    assert slurm.calls() == ["environment cuda", "sbatch --nodes=4 --time=1:00:00 launch/slurm.sh --config=a b --workdir=c"]
    assert (slurm.path / "runs").is_dir()  # Slurm does not make the log's folder.


@pytest.mark.parametrize(
    "code, state, queued", [(75, "RUNNING", 1), (75, "CANCELLED", 0), *((c, "RUNNING", 0) for c in (0, 1, 2, 137))]
)
def test_only_a_run_stopped_before_its_end_is_queued_again(slurm, code, state, queued):
    slurm.answers("python", code)
    done = slurm.run("slurm.sh", "--config=a b", cwd=slurm.path / "spool", STATE=state, **slurm.job)
    assert done.returncode == code, done.stderr
    assert slurm.calls("scontrol") == ["scontrol requeue 42"] * queued
    command = "python -m sdit_jax train --config=a b --processes=2"
    assert slurm.calls("python") == [command]
    assert slurm.calls("srun") == [f"srun --kill-on-bad-exit=0 --cpus-per-task=8 {command}"]


def test_the_warning_reaches_the_step_and_not_srun(slurm):
    slurm.fake("python", TRAINING)
    process = slurm.start("slurm.sh", cwd=slurm.path / "spool", **slurm.job)
    slurm.wait_for("up")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 75
    assert slurm.calls()[-4:] == [
        "scancel --signal=TERM 42",
        "saved",
        "squeue --noheader --jobs=42 --format=%T",
        "scontrol requeue 42",
    ]
    assert not slurm.calls("srun killed")


def test_a_sweep_is_an_array_with_a_task_for_each_run(slurm):
    slurm.fake("python", "printf '%s\\n' 0 1 2")
    done = slurm.run("launch/slurm_array.sh", "--config=a b", "--workdir=c", SBATCH="--partition=gpu", AT_ONCE="2")
    assert done.returncode == 0, done.stderr
    assert slurm.calls() == [
        "environment cuda",
        "python -m sdit_jax sweep --config=a b --workdir=c --list",
        "sbatch --array=0-2%2 --partition=gpu launch/slurm_array.sh --config=a b --workdir=c",
    ]


def test_a_mistake_in_the_sweep_submits_nothing(slurm):
    slurm.fake("python", "echo error: config.model.widht >&2; exit 2")
    done = slurm.run("launch/slurm_array.sh", "--config=a")
    assert (done.returncode, done.stderr) == (2, "error: config.model.widht\n")
    assert not slurm.calls("sbatch")


def test_a_task_trains_its_run(slurm):
    slurm.answers("python", 75)
    done = slurm.run("slurm_array.sh", "--config=a", cwd=slurm.path / "spool", SLURM_ARRAY_TASK_ID="2", **slurm.job)
    assert done.returncode == 75, done.stderr
    assert slurm.calls("python") == ["python -m sdit_jax sweep --config=a --index=2"]
    assert slurm.calls("scontrol") == ["scontrol requeue 42"]
