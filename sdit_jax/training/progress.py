"""Progress for a person: a bar on a terminal, a line now and then in a log file, and a wish to stop heard in time."""

import signal
import sys

import jax
from tqdm import tqdm


class Nowhere:
    """A stream that keeps nothing."""

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


class Progress:
    """Images seen, loss, images/s and time left; its clock starts with the first step shown, so that compiling is left out."""

    def __init__(self, total_images: int, seen_images: int, stream=sys.stderr):
        self.terminal = stream.isatty()
        self.stream = stream
        self.bar = tqdm(
            total=total_images, initial=seen_images, unit=" images", unit_scale=True, dynamic_ncols=True,
            file=stream if self.terminal else Nowhere(),
        )  # fmt: skip

    def advance(self, images: int, step: int, loss: float) -> None:
        self.bar.set_description_str(f"step {step:,}", refresh=False)
        self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self.bar.update(images)

    def restart_clock(self) -> None:
        """Forgets the time until now (compiling, drawing samples) in the speed shown."""
        self.bar.unpause()

    def log(self) -> None:
        """In a log file, where no bar can move: one line with what the bar would show."""
        if not self.terminal:
            print(str(self.bar), file=self.stream, flush=True)

    def close(self) -> None:
        self.bar.close()


class StopRequest:
    """True once SIGTERM or Ctrl-C came: the loop then saves and ends. A second Ctrl-C interrupts at once.

    For a process alone: many must stop at the same step, which is what `Checkpoints.preempted` agrees on.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.requested = False

    def __enter__(self):
        heard = self.SIGNALS if jax.process_count() == 1 else ()
        self.before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _hear(self, number, frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

    def __bool__(self) -> bool:
        return self.requested
