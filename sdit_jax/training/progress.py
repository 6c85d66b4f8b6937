"""Progress for people: a bar on a terminal, lines in a log file; and signals that ask a run to stop."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

import jax
from tqdm import tqdm

from sdit_jax.training.speed import Speed

T = TypeVar("T")
LEFT_BEHIND = "left behind"  # The name of a thread that a stop does not wait for.


class NullStream:
    """A stream that discards what is written to it."""

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


class Progress:
    """Images seen, loss, speed and time left of a run."""

    def __init__(self, total_steps: int, step: int, batch_size: int, speed: Speed, stream=sys.stderr):
        self.batch_size, self.speed, self.stream, self.terminal = batch_size, speed, stream, stream.isatty()
        self.bar = tqdm(
            total=total_steps * batch_size, initial=step * batch_size, unit=" images", unit_scale=True, dynamic_ncols=True,
            file=stream if self.terminal else NullStream(),
        )  # fmt: skip
        self.loss = float("nan")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out of all speeds."""
        with self.speed.paused():
            yield
        self.bar.unpause()

    def advance(self, step: int, loss: float) -> None:
        """Shows one more step."""
        self.loss = loss
        self.bar.set_description_str(f"step {step:,}", refresh=False)
        self.bar.set_postfix_str(f"loss {loss:.4f}{self.speed}", refresh=False)
        self.bar.update(self.batch_size)

    def log(self) -> None:
        """Shows what `speed` has measured; in a log file, prints what the bar would show."""
        self.bar.set_postfix_str(f"loss {self.loss:.4f}{self.speed}", refresh=False)
        if not self.terminal:
            print(str(self.bar), file=self.stream, flush=True)

    def close(self) -> None:
        self.bar.close()


class StopRequest:
    """True after SIGTERM or Ctrl-C, on which the loop saves and ends; a second Ctrl-C interrupts at once. A context manager.

    Only for a single process. Several must stop at the same step, which `Checkpoints.preempted` agrees on.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.requested = False

    def __enter__(self):
        signals = self.SIGNALS if jax.process_count() == 1 else ()
        self.before = {number: signal.signal(number, self._handle) for number in signals}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

    def __bool__(self) -> bool:
        return self.requested

    def interrupting(self, work: Callable[[], T]) -> T | None:
        """The result of `work()`, or None as soon as a stop is requested.

        It runs in a thread, which is left behind: Python handles no signal while XLA compiles.
        """
        result: Future[T] = Future()

        def run():
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

        threading.Thread(target=run, name=LEFT_BEHIND, daemon=True).start()
        while not self.requested:
            try:
                return result.result(timeout=0.1)
            except TimeoutError:
                if result.done():  # The error of the work itself.
                    raise
        return None
