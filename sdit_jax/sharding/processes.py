"""Many processes, one program: they find each other before anything else is done with JAX.

On TPU pods and under Slurm `jax.distributed` finds the others by itself; elsewhere each process is told where process 0
listens, how many there are, and which one it is.
"""

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

import jax

from sdit_jax.config import InputError

STOPPED = 75  # The exit code of a run that was stopped before its end, and goes on when it is started again (EX_TEMPFAIL).
WAIT_S, HEARTBEAT_S = 300, 60  # For the other processes to come; until one that says nothing is taken for dead.
log = logging.getLogger(__name__)


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the processes of a run; does nothing where there is only one.

    Args:
      coordinator: host:port on which process 0 listens; "" to find out (Slurm, TPU).
      processes: how many there must be; 0 for as many as are found.
      process: which one this is, needed with a coordinator.

    Raises InputError for arguments that contradict each other, another number of processes than `processes`, and processes
    that do not come.
    """
    if coordinator:
        if ":" not in coordinator:
            raise InputError(f"--coordinator: found {coordinator!r}, must be host:port of process 0")
        if processes < 1:
            raise InputError(f"--processes: found {processes}, must be the number of processes, with a --coordinator")
        if not 0 <= process < processes:
            raise InputError(f"--process: found {process}, must be in 0..{processes - 1}, as --processes is {processes}")
        _initialize(coordinator_address=coordinator, num_processes=processes, process_id=process)
    elif process >= 0:
        raise InputError(f"--process: found {process}, needs a --coordinator")
    elif (found := _under_slurm()) is not None:
        _initialize(**found)
    elif _on_tpu():
        _initialize(may_be_alone=True)
    if processes and jax.process_count() != processes:
        raise InputError(f"--processes: found {processes}, but {jax.process_count()} were started")


def _initialize(may_be_alone: bool = False, **arguments: Any):
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=WAIT_S, heartbeat_timeout_seconds=HEARTBEAT_S)
    except (RuntimeError, ValueError) as error:
        if may_be_alone and isinstance(error, ValueError):  # What JAX raises where nothing tells it of a pod.
            log.warning("these TPUs belong to no pod that is known: this process works alone")
            return
        told = ", ".join(f"{name} {value}" for name, value in arguments.items()) or "by themselves"
        raise InputError(f"the processes did not find each other ({told}): {str(error).splitlines()[0]}") from None


def _under_slurm() -> dict[str, Any] | None:
    """What JAX must be told in a step of several tasks (it finds the rest); None elsewhere, also in the batch script itself.

    JAX gives each task one GPU; a task that has a node for itself drives all of its GPUs.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if tasks < 2:
        return None
    alone = tasks == int(os.environ.get("SLURM_STEP_NUM_NODES") or 1)
    gpus = int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    return {"local_device_ids": list(range(gpus))} if alone and gpus else {}


def _on_tpu():
    """Whether JAX will run on TPUs, which it must not be asked yet."""
    here = any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()
    return here and importlib.util.find_spec("libtpu") is not None
