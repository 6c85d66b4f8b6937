"""tpu_pod.sh with a mock of gcloud and preempted machines; tpu_worker.sh on this machine."""

import contextlib
import os
import signal
import subprocess

import pytest

POD = {"NAME": "sdit", "ZONE": "z", "TYPE": "v6e-16", "BUCKET": "b"}
# `describe` and the workers' `outcome` answer with the lines of two files; a line of outcomes has one per worker.
GCLOUD = """next() { head -n 1 $ROOT/$1; sed -i 1d $ROOT/$1; }
case "$*" in
  *describe*) state=$(next states); echo $state; [ $state != NOT_FOUND ];;
  *outcome*) printf 'outcome=%s\\n' $(next outcomes);;
  "storage cp"*) cat > /dev/null;;
  *" create "*) echo create >> $ROOT/steps; exit ${CREATE:-0};;
  *" delete "*) echo delete >> $ROOT/steps;;
  *"worker.sh setup"*) echo setup >> $ROOT/steps; exit ${SETUP:-0};;
  *"worker.sh run"*) echo run >> $ROOT/steps;;
esac"""


@pytest.fixture
def pod(checkout):
    """`pod.up(states, outcomes)` returns the exit code, the steps taken and the messages."""
    checkout.fake("gcloud", GCLOUD)
    checkout.fake("git", "echo c0ffee")

    def up(states, outcomes, **environment):
        (checkout.path / "states").write_text("".join(f"{line}\n" for line in states))
        (checkout.path / "outcomes").write_text("".join(f"{line}\n" for line in outcomes))
        done = checkout.run("launch/tpu_pod.sh", "up", "--config=a b", **POD, **environment)
        assert not (checkout.path / "states").read_text(), "not all states were read"
        return done.returncode, (checkout.path / "steps").read_text().split(), done.stderr

    checkout.up = up
    return checkout


def test_it_is_queued_set_up_trained_on_and_deleted(pod):
    states = ("NOT_FOUND", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE")
    code, steps, _ = pod.up(states, ("", "running running", "75 running", "0 0"))
    assert (code, steps) == (0, ["create", "setup", "run", "delete"])
    assert any(line.endswith("gs://b/code/c0ffee.tar.gz") for line in pod.calls("gcloud"))
    assert any(line.endswith("tpu_worker.sh run '--config=a b'") for line in pod.calls("gcloud"))


@pytest.mark.parametrize("gone", ["SUSPENDED", "FAILED", "PREEMPTED"])
def test_after_preemption_it_is_made_anew(pod, gone):
    states = ("NOT_FOUND", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDING", gone, "NOT_FOUND", "ACTIVE", "ACTIVE")
    code, steps, said = pod.up(states, ("", "running", "", "0"))
    assert (code, steps) == (0, ["create", "setup", "run", "delete", "create", "setup", "run", "delete"])
    assert f"sdit: {gone}: restart 1 of at most 100" in said


@pytest.mark.parametrize("outcomes, end", [("2 137", 2), ("1 1", 1), ("130 130", 130)])
def test_failed_training_ends_it_and_keeps_the_machines(pod, outcomes, end):
    code, steps, said = pod.up(("ACTIVE", "ACTIVE"), ("", outcomes))
    assert (code, steps) == (end, ["setup", "run"])
    assert f"training ended with {end}" in said


@pytest.mark.parametrize("outcomes", ["75 75", "137 137", "75 1", "1 134", "0 137"])
def test_training_that_was_stopped_or_lost_a_process_runs_again(pod, outcomes):
    code, steps, _ = pod.up(("ACTIVE",) * 4, ("", outcomes, "", "0 0"))
    assert (code, steps) == (0, ["setup", "run", "setup", "run", "delete"])


def test_started_again_it_watches_what_runs(pod):
    code, steps, _ = pod.up(("ACTIVE", "ACTIVE"), ("running running", "0 0"))
    assert (code, steps) == (0, ["delete"])


def test_what_cannot_be_made_or_set_up_ends_it(pod):
    code, steps, _ = pod.up(("NOT_FOUND",), (), CREATE="1")
    assert (code, steps) == (1, ["create"])
    code, steps, said = pod.up(("ACTIVE", "ACTIVE"), ("",), SETUP="1")
    assert (code, steps) == (1, ["create", "setup"]) and "could not be set up" in said


def test_restarts_have_an_end(pod):
    code, steps, _ = pod.up(("FAILED", "NOT_FOUND", "FAILED"), (), RESTARTS="1")
    assert (code, steps) == (75, ["delete", "create"])


TRAINING = """trap 'exit 75' TERM
echo "step 1"; touch $ROOT/up
while :; do sleep 0.05; done"""


@pytest.fixture
def worker(checkout):
    """`worker.sh(VERB, ...)` runs tpu_worker.sh with its own home folder and a finished environment."""
    environment = checkout.path / ".venv" / "bin"
    environment.mkdir(parents=True)
    checkout.fake("python", TRAINING)
    (checkout.bin / "python").rename(environment / "python")
    checkout.without_environment()
    checkout.sh = lambda *arguments: checkout.run("launch/tpu_worker.sh", *arguments, HOME=str(checkout.path))
    checkout.outcome = lambda: checkout.sh("outcome").stdout.strip()
    yield checkout
    kill(checkout)


def kill(worker):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int((worker.path / "train.pid").read_text()), signal.SIGKILL)


def ended(worker):
    pid = (worker.path / "train.pid").read_text().strip()
    subprocess.run(["tail", "--sleep-interval=0.1", f"--pid={pid}", "-f", "/dev/null"], timeout=20, check=True)
    return worker.outcome()


def test_training_outlives_the_call_and_leaves_its_exit_code(worker):
    assert worker.sh("run", "--config=a b").returncode == 0
    worker.wait_for("up")
    assert worker.outcome() == "outcome=running"
    again = worker.sh("run")
    assert (again.returncode, again.stderr) == (2, "error: training is already running\n")
    assert worker.calls("python") == ["python -m sdit_jax train --config=a b"]
    assert (worker.path / "train.log").read_text() == "step 1\n"
    assert worker.sh("stop").returncode == 0
    assert ended(worker) == "outcome=75"


def test_killed_training_says_so_and_not_how_it_ended_before(worker):
    (worker.path / "train.exit").write_text("75\n")
    worker.sh("run")
    worker.wait_for("up")
    kill(worker)
    assert ended(worker) == "outcome=137"


def test_the_bucket_is_mounted_once(checkout):
    checkout.without_environment()
    checkout.fake("sudo", "exit 0")
    checkout.fake("mountpoint", "[ -e $ROOT/mounted ]")
    checkout.fake("gcsfuse", "touch $ROOT/mounted")
    checkout.fake("python3", "case $* in *find*) echo /a/python3.12;; esac")
    for _ in range(2):
        done = checkout.run("launch/tpu_worker.sh", "setup", "my-bucket")
        assert done.returncode == 0, done.stderr
    (mount,) = checkout.calls("gcsfuse")
    assert mount.endswith(" my-bucket /mnt/bucket") and "--metadata-cache-ttl-secs=0" in mount
    assert checkout.calls("environment") == ["environment tpu"] * 2
