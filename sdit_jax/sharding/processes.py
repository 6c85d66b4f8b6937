"""Start-up of a program that runs as many processes, before anything else is done with JAX.

On TPU pods and under Slurm `jax.distributed` finds the others by itself; elsewhere each process is given the address of
process 0, the number of processes, and its own index.
"""

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

import jax

from sdit_jax.errors import InputError

STOPPED = 75  # Exit code of a run that was stopped before its end: rerun to resume (EX_TEMPFAIL).
WAIT_S, HEARTBEAT_S = 300, 60  # For all processes to start; for a sign of life of each.
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
        if ":" not in coordinator:
            raise InputError(f"{prefix}coordinator: found {coordinator!r}, must be host:port of process 0")
        if processes < 1:
            raise InputError(f"{prefix}processes: found {processes}, must be at least 1 with a {prefix}coordinator")
        if not 0 <= process < processes:
            raise InputError(f"{prefix}process: found {process}, allowed are 0..{processes - 1}")
        _initialize(coordinator_address=coordinator, num_processes=processes, process_id=process)
    elif process >= 0:
        raise InputError(f"{prefix}process: found {process}, needs a {prefix}coordinator")
    elif (found := _under_slurm()) is not None:
        _initialize(**found)
    elif _on_tpu():
        _initialize(may_be_alone=True)
    if processes and jax.process_count() != processes:
        raise InputError(f"{prefix}processes: found {processes}, but {jax.process_count()} were started")


def _initialize(may_be_alone: bool = False, **arguments: Any):
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=WAIT_S, heartbeat_timeout_seconds=HEARTBEAT_S)
    except (RuntimeError, ValueError) as error:
        if may_be_alone and isinstance(error, ValueError):  # JAX raises it outside of a pod.
            log.warning("no TPU pod found: this process works alone")
            return
        given = ", ".join(f"{name} {value}" for name, value in arguments.items()) or "by themselves"
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
    here = any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()
    return here and importlib.util.find_spec("libtpu") is not None
