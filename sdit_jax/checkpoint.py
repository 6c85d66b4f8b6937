"""Asynchronous checkpoints with Orbax: `checkpoints/STEP/{params,ema,optimizer}`.

The parts are separate items, so that sampling reads only the weights it wants.
"""

import logging
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import save_decision_policy as decide

from sdit_jax.config import InputError

PARTS = ("params", "ema", "optimizer")
log = logging.getLogger(__name__)


class State(Protocol):
    """What is kept of a run: the step, and the parts; a part may be None or empty."""

    step: Any
    params: Any
    ema: Any
    optimizer: Any

    def replace(self, **changes: Any) -> Any: ...


S = TypeVar("S", bound=State)


class Checkpoints:
    """The checkpoints of a run folder; the newest `keep` are kept. Use as a context manager: leaving waits for saves.

    Any number of processes writes and reads them together, each its own shards of the arrays.
    """

    def __init__(self, workdir: Path, keep: int = 2, every: int = 0):
        now_and_then = [decide.FixedIntervalPolicy(every)] if every else []
        self.folder = workdir.absolute() / "checkpoints"
        self.manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={part: ocp.StandardCheckpointHandler() for part in PARTS},
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                enable_async_checkpointing=True,
                save_decision_policy=decide.AnySavePolicy([*now_and_then, decide.PreemptionCheckpointingPolicy()]),
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.manager.wait_until_finished()
        self.manager.close()

    def due(self, step: int) -> bool:
        """Whether Orbax wants this step: every `every`-th, and that at which a preemption was announced. Ask at every step."""
        return self.manager.should_save(step)

    def preempted(self, step: int) -> bool:
        """Whether a preemption was announced to any process: true for all of them at the same step."""
        return jax.process_count() > 1 and self.manager.reached_preemption(step)

    def save(self, state: State) -> None:
        """Starts to save a state, due or not; does nothing for a step that is already kept."""
        step = int(state.step)
        if step in self.manager.all_steps():
            return
        parts = {"params": state.params, "optimizer": state.optimizer, "ema": state.ema}
        args = {name: ocp.args.StandardSave(part) for name, part in parts.items() if jax.tree.leaves(part)}
        self.manager.save(step, args=ocp.args.Composite(**args), force=True)

    def newest(self) -> int | None:
        """The newest finished step, without reading it."""
        return self.manager.latest_step()

    def wait(self) -> None:
        self.manager.wait_until_finished()

    def restore(self, like: S) -> S | None:
        """The newest state that can be read, laid out as `like`, however it was saved; None where there is no checkpoint.

        A damaged checkpoint is named in a warning and set aside, and the one before is used. Raises InputError if all are, or
        if they hold weights only.
        """
        steps = self.manager.all_steps()
        if steps and not any((self.folder / str(step) / "optimizer").is_dir() for step in steps):
            raise InputError(f"{self.folder}: holds weights only, as imported; they can be sampled, not trained further")

        def read(step):
            parts = {"params": like.params, "optimizer": like.optimizer, "ema": like.ema}
            args = {name: ocp.args.StandardRestore(part) for name, part in parts.items() if part is not None}
            found = self.manager.restore(step, args=ocp.args.Composite(**args))
            placed = jax.device_put(jnp.asarray(step, jnp.int32), like.step.sharding)
            return like.replace(step=placed, params=found["params"], ema=found.get("ema"), optimizer=found["optimizer"])

        return self._newest_readable(read, set_aside=True)

    def restore_weights(self, which: str, like: Any) -> tuple[int, Any]:
        """(step, weights) of the newest readable checkpoint, on the first device, whatever devices it was saved from.

        `which` is "params" or "ema", `like` a tree of shapes. Raises InputError where there is no checkpoint.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)

        def read(step):
            args = ocp.args.Composite(**{which: ocp.args.StandardRestore(like)})
            return step, self.manager.restore(step, args=args)[which]

        found = self._newest_readable(read, set_aside=False)
        if found is None:
            raise InputError(f"{self.folder}: holds no finished checkpoint yet")
        return found

    def _newest_readable(self, read, set_aside):
        damaged = {}
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                found = read(step)
            except Exception as error:  # Orbax and tensorstore raise many kinds for a damaged file.
                damaged[step] = (str(error).splitlines() or [type(error).__name__])[0][:200]
                log.warning("checkpoint %s cannot be read (%s); trying the one before", self.folder / str(step), damaged[step])
                continue
            if set_aside and damaged:  # Only now is it sure that the fault is theirs, and there is something to go on with.
                for bad in damaged if jax.process_index() == 0 else ():
                    self._set_aside(bad)
                multihost_utils.sync_global_devices("damaged checkpoints are set aside")
                self.manager.reload()
            return found
        if damaged:
            step, reason = next(iter(damaged.items()))
            raise InputError(f"{self.folder}: none of its checkpoints can be read; the newest, {step}: {reason}")
        return None

    def _set_aside(self, step):
        name = f"damaged_checkpoint_{step}"
        taken = len(list(self.folder.parent.glob(f"{name}*")))
        (self.folder / str(step)).rename(self.folder.parent / (f"{name}_{taken}" if taken else name))
