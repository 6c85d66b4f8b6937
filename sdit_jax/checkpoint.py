"""Asynchronous checkpoints with Orbax: `checkpoints/STEP/ITEM`.

| item | tree |
|---|---|
| `params`, `ema` | the parameters, and their average where one is kept |
| `optimizer` | the state of the optimizer |
| `batch_stats`, `ema_batch_stats`, ... | any other collection of variables that the network has, and its average |

Items are separate, so that sampling reads only the weights it needs. `sha256.json` in the folder of a step has the hashes of
its items' files, which process 0 compares before they are used. It is written before the folder gets its final name, so that
every complete step has it; steps that are older than hashes are used without.
"""

import enum
import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.options import AsyncOptions

from sdit_jax import hashes
from sdit_jax.errors import InputError
from sdit_jax.files import on_store

# Status codes of tensorstore that say nothing about the file itself.
TRANSIENT = re.compile(
    r"\b(CANCELLED|UNKNOWN|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|RESOURCE_EXHAUSTED|ABORTED|INTERNAL|UNAVAILABLE):"
)
FULL, REMEDY = os.strerror(errno.ENOSPC), "make room and rerun to resume from the newest checkpoint"
OVERHEAD = 2**19  # Bytes of a checkpoint beyond its arrays.
TEMPORARY = ".orbax-checkpoint-tmp"  # Behind the step, in the name of a folder that is not complete.
log = logging.getLogger(__name__)


class State(Protocol):
    """A training state: `variables` maps collections to trees, `ema` is of the same structure or None."""

    step: Any
    variables: Any
    ema: Any
    optimizer: Any

    def replace(self, **changes: Any) -> Any: ...


S = TypeVar("S", bound=State)
T = TypeVar("T")


class Outcome(enum.IntEnum):
    """How a process fared with a checkpoint. Only DAMAGED is a fault of the checkpoint."""

    READ = 0
    DAMAGED = 1
    FAILED = 2


class Newest(NamedTuple):
    """The newest step that all processes read, what they read, and the newer steps that are damaged."""

    step: int
    value: Any
    damaged: list[int]


class Checkpoints:
    """The checkpoints of a run folder. A context manager: leaving it waits for saves.

    The newest `keep` remain, and with `keep_every` those of all steps that are multiples of it.

    All processes of a run save and restore together, each its own shards.
    """

    def __init__(self, workdir: Path, keep: int = 2, keep_every: int = 0):
        self.folder = (workdir if on_store(workdir) else workdir.absolute()) / "checkpoints"
        self._unsealed = list[int]()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, keep_period=keep_every or None, create=True, enable_async_checkpointing=True,
            async_options=AsyncOptions(post_finalization_callback=self._seal),
        )  # fmt: skip
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait()
        self.manager.close()

    def preempted(self, step: int) -> bool:
        """Whether any process was notified of a preemption: true for all of them at the same step. Call it at every step."""
        return jax.process_count() > 1 and self.manager.reached_preemption(step)

    def save(self, state: State) -> None:
        """Starts to save a state; does nothing if its step is already saved. Raises InputError where the disk is full."""
        step = int(state.step)
        if step in self.manager.all_steps():
            return
        trees = items(state.variables, "raw") | {"optimizer": state.optimizer}
        if state.ema is not None:
            trees |= items(state.ema, "ema")
        self._check_room(sum(leaf.nbytes for leaf in jax.tree.leaves(trees)))
        self._unsealed.append(step)
        args = {name: ocp.args.StandardSave(tree) for name, tree in trees.items() if jax.tree.leaves(tree)}
        with self._full_disk_named():
            self.manager.save(step, args=ocp.args.Composite(**args), force=True)

    def steps(self) -> list[int]:
        """The finished steps, oldest first."""
        return sorted(self.manager.all_steps())

    def newest(self) -> int | None:
        """The newest finished step, without reading it."""
        return self.manager.latest_step()

    def wait(self) -> None:
        """Waits until the last save is finished. Raises InputError where the disk is full."""
        with self._full_disk_named():
            self.manager.wait_until_finished()
            self._seal()

    def _check_room(self, nbytes: int) -> None:
        """Raises InputError, in all processes, where one of them sees no room for a checkpoint."""
        if on_store(self.folder):
            return
        free = shutil.disk_usage(self.folder).free
        if jax.process_count() > 1:
            free = int(multihost_utils.process_allgather(np.float32(free)).min())
        if free < nbytes + OVERHEAD:
            raise InputError(
                f"{self.folder}: {FULL}: a checkpoint takes {nbytes + OVERHEAD:,} bytes, {free:,} are free; {REMEDY}"
            )

    @contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        """Within it, an error of a full disk, of which Orbax and tensorstore raise many kinds, is an InputError."""
        try:
            yield
        except Exception as error:
            if any(FULL in str(cause) for cause in causes(error)):
                raise InputError(f"{self.folder}: {FULL}; {REMEDY}") from None
            raise

    def _seal(self) -> None:
        """Hashes the items that are complete, on process 0. Orbax calls it before it renames the temporary folder of a step."""
        for step in list(self._unsealed) if jax.process_index() == 0 else ():
            there = [path for path in (self.folder / str(step), *self.folder.glob(f"{step}{TEMPORARY}*")) if path.is_dir()]
            for folder in there:  # A run that was killed may have left another temporary one.
                hashes.seal(folder)
            if there:
                self._unsealed.remove(step)

    def restore(self, like: S) -> S | None:
        """The newest readable state, laid out as `like` whatever devices saved it; None where there is no checkpoint.

        A step is used only if every process can read it. Newer steps, which at least one process found damaged, are then moved
        to `damaged_checkpoint_STEP` in the run folder, so that training can save them again. An error that is no damage (see
        `is_damage`) is raised, and nothing is moved.

        Raises InputError if all checkpoints are damaged, or hold weights only.
        """
        steps = self.manager.all_steps()
        if steps and not any((self.folder / str(step) / "optimizer").is_dir() for step in steps):
            raise InputError(f"{self.folder}: holds weights only, as imported; they can be sampled, not trained further")

        def read(step):
            self._check(step, None)
            ema = None if like.ema is None else self._read(step, like.ema, "ema")
            optimizer = self._read_item(step, "optimizer", like.optimizer)
            return like.replace(variables=self._read(step, like.variables, "raw"), ema=ema, optimizer=optimizer)

        found = self._newest_readable(read)
        if found is None:
            return None
        if found.damaged:
            self._set_aside(found.damaged)
        return found.value.replace(step=jax.device_put(jnp.asarray(found.step, jnp.int32), like.step.sharding))

    def restore_weights(self, which: str, like: Any, step: int | None = None) -> tuple[int, Any]:
        """(step, variables) of the newest readable checkpoint, or of one step, on this process' first device. Moves nothing.

        `which` is "raw" or "ema", `like` the variables as shapes. Raises InputError where there is no checkpoint, and as
        `restore` does.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
        names = [item(collection, which) for collection in like]

        def read(step):
            self._check(step, names)
            return self._read(step, like, which)

        found = self._newest_readable(read, step)
        if found is None:
            raise InputError(f"{self.folder}: holds no finished checkpoint yet")
        return found.step, found.value

    def _check(self, step: int, names: list[str] | None) -> None:
        """Compares the hashes of some items, or all; process 0 does. Raises hashes.Damaged."""
        if jax.process_index() == 0 and not hashes.check(self.folder / str(step), names):
            log.info("checkpoint %s has no hashes: used without a check", self.folder / str(step))

    def _read(self, step: int, like: Any, which: str) -> dict[str, Any]:
        """Variables of a step, collection by collection."""
        names = {collection: item(collection, which) for collection in like}
        return {collection: self._read_item(step, name, like[collection]) for collection, name in names.items()}

    def _read_item(self, step: int, name: str, like: Any) -> Any:
        """One item. `CheckpointManager.restore` ends in a barrier, where processes would wait for one that failed."""
        path: Any = self.folder / str(step) / name
        return ocp.StandardCheckpointHandler().restore(path, args=ocp.args.StandardRestore(like))

    def _newest_readable(self, read: Callable[[int], T], only: int | None = None) -> Newest | None:
        """Reads one step after the other, from the newest on, until all processes succeed; or `only` one.

        Processes exchange their outcomes after every attempt, so that all of them use the same step or raise. `read` must not
        communicate: a process that fails would leave the others waiting.
        """
        damaged: dict[int, str] = {}
        for step in self._agreed_steps() if only is None else [only]:
            value, error = None, None
            try:
                value = read(step)
            except Exception as caught:  # Orbax and tensorstore raise many kinds for a damaged file.
                error = caught
            outcomes = multihost_utils.process_allgather(np.int32(outcome_of(error))).reshape(-1).tolist()
            path = self.folder / str(step)
            if Outcome.FAILED in outcomes:
                if error is not None and not is_damage(error):
                    raise error
                raise RuntimeError(f"{path}: process {outcomes.index(Outcome.FAILED)} could not read it; nothing was changed")
            if Outcome.DAMAGED not in outcomes:
                return Newest(step, value, list(damaged))
            damaged[step] = f"damaged for process {outcomes.index(Outcome.DAMAGED)}" if error is None else first_line(error)
            log.warning("checkpoint %s cannot be read (%s)", path, damaged[step])
        if damaged:
            step, reason = next(iter(damaged.items()))
            which = "none of its checkpoints can be read; the newest, " if only is None else ""
            raise InputError(f"{self.folder}: {which}{step}: {reason}")
        return None

    def _agreed_steps(self) -> list[int]:
        """The finished steps, newest first, as process 0 sees them: a shared file system may show others later."""
        steps = np.array(sorted(self.manager.all_steps(), reverse=True), np.int32)
        count = int(multihost_utils.broadcast_one_to_all(np.int32(len(steps))))
        return multihost_utils.broadcast_one_to_all(np.resize(steps, count)).tolist() if count else []

    def _set_aside(self, steps):
        """Moves checkpoints out of the way; process 0 does, and the others wait for it."""
        for step in steps if jax.process_index() == 0 else ():
            name = f"damaged_checkpoint_{step}"
            taken = len(list(self.folder.parent.glob(f"{name}*")))
            (self.folder / str(step)).rename(self.folder.parent / (f"{name}_{taken}" if taken else name))
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self.manager.reload()


def item(collection: str, which: str) -> str:
    """The name of the item that holds a collection of the raw or the averaged variables."""
    if collection == "params":
        return "params" if which == "raw" else "ema"
    return collection if which == "raw" else f"ema_{collection}"


def items(variables: dict[str, Any], which: str) -> dict[str, Any]:
    """Variables by item."""
    return {item(collection, which): tree for collection, tree in variables.items()}


def outcome_of(error: Exception | None) -> Outcome:
    if error is None:
        return Outcome.READ
    return Outcome.DAMAGED if is_damage(error) else Outcome.FAILED


def is_damage(error: BaseException) -> bool:
    """Whether an error while reading means a damaged checkpoint, which no retry would mend.

    It does not if it, or an error it was raised from, is a lack of memory (host or device), an error of the operating system
    other than a missing file, or a status of storage such as DEADLINE_EXCEEDED.
    """
    for cause in causes(error):
        missing = isinstance(cause, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if isinstance(cause, MemoryError | OSError | jax.errors.JaxRuntimeError) and not missing:
            return False
        if TRANSIENT.search(str(cause)):
            return False
    return True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """The first line of an error's message, cut to 200 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
