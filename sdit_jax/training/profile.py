"""The trace of some steps of a run, for xprof or TensorBoard's profiler, in the folder `profile` of the run."""

import logging
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger(__name__)


class Profile:
    """Traces what process 0 and its devices do from the first to the last of `steps`; nothing without them.

    The trace is written on this machine and copied at its end, as a bucket needs it. `close` ends one that was cut short.
    `pause()` is entered while one begins and while it is written, which take a second each.
    """

    def __init__(self, steps: tuple[int, int] | None, workdir: Path, pause: Callable[[], Any] = nullcontext):
        self.first, self.last = steps if steps and jax.process_index() == 0 else (1, 0)
        self.folder, self.pause = workdir / "profile", pause
        self._temporary: tempfile.TemporaryDirectory | None = None

    def call(self, step: int, work: Callable, *arguments: Any) -> Any:
        """work(*arguments), the work of a step."""
        if not self.first <= step <= self.last:
            return work(*arguments)
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory()
            with self.pause():
                jax.profiler.start_trace(self._temporary.name)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            found = work(*arguments)
        if step == self.last:
            jax.block_until_ready(found)
            self.close()
        return found

    def close(self) -> None:
        """Ends a trace and writes it."""
        if self._temporary is None:
            return
        with self.pause(), self._temporary as name:
            jax.profiler.stop_trace()
            for path in (path for path in Path(name).rglob("*") if path.is_file()):
                target = self.folder / str(path.relative_to(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        self._temporary = None
        log.info("%s has the trace of steps %d to %d", self.folder, self.first, self.last)
