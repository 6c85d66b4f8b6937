"""How processes join each other, and errors in the input that are raised before waiting."""

import socket
import time

import jax
import pytest
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from sdit_jax.errors import InputError, TrainingFailed
from sdit_jax.sharding import processes


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` was called with; nothing is really started, and this machine is in no cluster."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(processes, "_on_tpu", lambda: False)
    for name in ("NUM_TASKS", "NUM_NODES"):
        monkeypatch.delenv(f"SLURM_STEP_{name}", raising=False)
    return calls


def test_a_process_alone_joins_nobody(joined):
    processes.start()
    processes.start(processes=1)
    assert joined == []


def test_arguments_are_passed_on(joined, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    processes.start("host:1234", 4, 3)
    (call,) = joined
    assert (call["coordinator_address"], call["num_processes"], call["process_id"]) == ("host:1234", 4, 3)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}, {}),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "2"}, {"local_device_ids": [0, 1]}),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"}, {}),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # The batch script, which srun did not start.
    ],
)  # fmt: skip
def test_under_slurm_a_task_with_a_node_for_itself_drives_all_of_its_gpus(joined, monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.start()
    passed = [{name: call[name] for name in call if name == "local_device_ids"} for call in joined]
    assert passed == ([] if expected is None else [expected])


def test_tpus_find_each_other(joined, monkeypatch):
    monkeypatch.setattr(processes, "_on_tpu", lambda: True)
    processes.start()
    assert len(joined) == 1 and "coordinator_address" not in joined[0]


def test_tpus_in_no_pod_work_alone_and_say_so(joined, monkeypatch, caplog):
    def fail(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes, "_on_tpu", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", fail)
    processes.start()
    assert "works alone" in caplog.text
    with pytest.raises(InputError, match="--processes: found 4, but 1 were started"):
        processes.start(processes=4, prefix="--")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("host", 2, 0), "--coordinator: found 'host', must be host:port"),
        (("host:", 2, 0), "--coordinator: found 'host:', must be host:port"),
        (("host:port", 2, 0), "--coordinator: found 'host:port', must be host:port"),
        (("host:70000", 2, 0), "--coordinator: found 'host:70000', whose port cannot be opened"),
        (("host:1", 0, 0), "--processes: found 0"),
        (("host:1", 2, 2), "--process: found 2, allowed are 0..1"),
        (("host:1", 2, -1), "--process: found -1"),
        (("", 0, 1), "--process: found 1, needs a --coordinator"),
        (("", 4, -1), "--processes: found 4, but 1 were started"),
    ],
)
def test_what_cannot_be_is_refused_at_once(joined, arguments, words):
    with pytest.raises(InputError, match=words):
        processes.start(*arguments, prefix="--")
    assert joined == []


def test_a_port_in_use_is_named_by_the_process_that_would_listen_there(joined, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^--coordinator: found '{address}', whose port cannot be opened here .*in use"):
            processes.start(address, 2, 0, prefix="--")
        assert joined == []
        processes.start(address, 2, 1)
        assert len(joined) == 1


def test_processes_that_do_not_come_are_one_line(joined, monkeypatch):
    def fail(**_):
        raise RuntimeError("DEADLINE_EXCEEDED: barrier timed out\nmany more lines")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError, match="did not find each other .*num_processes 2.*: DEADLINE_EXCEEDED: barrier timed out$"):
        processes.start("host:1", 2, 1)


def test_a_long_wait_says_what_it_waits_for(monkeypatch, caplog):
    monkeypatch.setattr(processes, "PATIENCE_S", 0.05)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: time.sleep(0.5))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    processes.start("host:1", 2, 1)
    assert "waiting for the other processes to start (coordinator_address host:1, num_processes 2" in caplog.text
    met = []
    monkeypatch.setattr(multihost, "get_barrier_sync_fn", lambda: lambda **_: time.sleep(0.5))
    monkeypatch.setattr(multihost_utils, "sync_global_devices", met.append)
    processes.wait_for_all("the first step")
    assert met == ["the first step"]  # They communicate when all are there, not before.
    assert "process 0 waits for the others before the first step, up to 3600 s" in caplog.text


def test_processes_that_do_not_meet_are_one_line(monkeypatch):
    def fail(**_):
        raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out\nmany more lines")

    processes.wait_for_all("the start")  # Alone.
    monkeypatch.setattr(multihost, "get_barrier_sync_fn", lambda: fail)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(TrainingFailed, match="did not meet before the start: DEADLINE_EXCEEDED: Barrier timed out$"):
        processes.wait_for_all("the start")
