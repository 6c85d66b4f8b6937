"""Start-up of a program that runs as many processes, before anything else is done with JAX.

On TPU pods and under Slurm `jax.distributed` finds the others by itself; elsewhere each process is given the address of
process 0, the number of processes, and its own index.
"""

import importlib.util
import logging
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from sdit_jax.errors import InputError, TrainingFailed
from sdit_jax.progress import progress as shown
from sdit_jax.progress import saying

STOPPED = 75  # Exit code of a run that was stopped before its end: rerun to resume (EX_TEMPFAIL).
WAIT_S, HEARTBEAT_S = 300, 60  # For all processes to start; for a sign of life of each.
APART_S, PATIENCE_S = 3600, 10  # From the first process at a point of a run to the last one; until a log says who waits.
# libtpu then asks no metadata server about the machine, and locks no chips.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-8", "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}  # fmt: skip
log = logging.getLogger(__name__)


def start(coordinator: str = "", processes: int = 0, process: int = -1, prefix: str = "") -> None:
    """Joins the processes of a run; does nothing where there is only one.

    Args:
      coordinator: host:port of process 0; "" under Slurm and on TPUs, where JAX finds it.
      processes: the number of processes that must join; 0 accepts any.
      process: the index of this process, needed with a coordinator.
      prefix: stands before the names of these arguments in messages.

    Raises InputError for arguments that contradict each other, another number of processes than `processes`, and a time-out.
    """
    if coordinator:
        if not coordinator.rpartition(":")[2].isdecimal() or ":" not in coordinator:
            raise InputError(f"{prefix}coordinator: found {coordinator!r}, must be host:port of process 0")
        if processes < 1:
            raise InputError(f"{prefix}processes: found {processes}, must be at least 1 with a {prefix}coordinator")
        if not 0 <= process < processes:
            raise InputError(f"{prefix}process: found {process}, allowed are 0..{processes - 1}")
        if process == 0:
            _check_port(coordinator, f"{prefix}coordinator")
        _initialize(coordinator_address=coordinator, num_processes=processes, process_id=process)
    elif process >= 0:
        raise InputError(f"{prefix}process: found {process}, needs a {prefix}coordinator")
    elif (found := _under_slurm()) is not None:
        _initialize(**found)
    elif _on_tpu():
        _initialize(may_be_alone=True)
    if processes and jax.process_count() != processes:
        raise InputError(f"{prefix}processes: found {processes}, but {jax.process_count()} were started")


def wait_for_all(point: str) -> None:
    """Waits until every process is at a point of the run, such as "the first step"; does nothing where there is only one.

    Then they communicate: for the first time they must do so within 30 s of each other on CPUs, later they may be apart. Raises
    TrainingFailed where one does not come within APART_S.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils
    from orbax.checkpoint import multihost

    with saying(f"process {jax.process_index()} waits for the others before {point}, up to {APART_S} s", PATIENCE_S):
        try:
            multihost.get_barrier_sync_fn()(key=point, timeout_ms=1000 * APART_S)
        except jax.errors.JaxRuntimeError as error:
            raise TrainingFailed(f"the processes did not meet before {point}: {str(error).splitlines()[0]}") from None
    multihost_utils.sync_global_devices(point)


def progress(items: Iterable, name: str, **how: Any) -> Any:
    """The items, in process 0 with their progress as `sdit_jax.progress.progress` shows it."""
    return shown(items, name, **how) if jax.process_index() == 0 else items


def _check_port(coordinator: str, field: str) -> None:
    """Raises InputError where this machine cannot listen at the port, with which JAX crashes."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # One that was closed a moment ago is free.
        try:
            listening.bind(("", int(coordinator.rpartition(":")[2])))
        except (OSError, OverflowError) as error:
            raise InputError(f"{field}: found {coordinator!r}, whose port cannot be opened here ({error})") from None


def _initialize(may_be_alone: bool = False, **arguments: Any):
    given = ", ".join(f"{name} {value}" for name, value in arguments.items()) or "by themselves"
    try:
        with saying(f"waiting for the other processes to start ({given}), up to {WAIT_S} s", PATIENCE_S):
            jax.distributed.initialize(**arguments, initialization_timeout=WAIT_S, heartbeat_timeout_seconds=HEARTBEAT_S)
    except (RuntimeError, ValueError) as error:
        if may_be_alone and isinstance(error, ValueError):  # JAX raises it outside of a pod.
            log.warning("no TPU pod found: this process works alone")
            return
        raise InputError(f"the processes did not find each other ({given}): {str(error).splitlines()[0]}") from None


def _under_slurm() -> dict[str, Any] | None:
    """Arguments for JAX in a Slurm step of several tasks; None elsewhere, also in the batch script itself.

    JAX gives each task one GPU; a task that has a node for itself drives all of its GPUs.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if tasks < 2:
        return None
    alone = tasks == int(os.environ.get("SLURM_STEP_NUM_NODES") or 1)
    gpus = int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    return {"local_device_ids": list(range(gpus))} if alone and gpus else {}


def _on_tpu():
    """Whether JAX will run on TPUs. JAX itself must not be used yet."""
    return _has_chips() and importlib.util.find_spec("libtpu") is not None


def _has_chips():
    return any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()


def expect_no_tpu(compiling: bool = False) -> None:
    """Sets what libtpu reads when JAX loads it where it finds no TPUs, or is `compiling` for others: it then logs no errors."""
    if compiling or not _has_chips():
        for variable, value in NO_TPU.items():
            os.environ.setdefault(variable, value)
