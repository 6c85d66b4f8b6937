"""Speeds of a run between two records: images, arithmetic of each device, and what the loop waited for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# Scalars that differ from run to run. All others are functions of the configuration and the step.
SPEEDS = ("images_per_second", "tflops_per_device", "mfu", "input_share", "checkpoint_share")


class Speed:
    """Measures from one `restart` to the next; the time within `paused` is left out.

    `flops` are those of a step's products on one device, without what is computed again for the backward pass, and `peak` is
    the device's stated rate in FLOP/s, None where there is none. The share of the peak is then the model FLOPs utilisation of
    Chowdhery et al. 2022 (arXiv 2204.02311), appendix B.
    """

    def __init__(self, step: int, images: int, flops: float, peak: float | None):
        self.images, self.flops, self.peak, self.last = images, flops, peak, dict[str, float]()
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts to measure after a step."""
        self._first, self._clock, self._waited = step, time.monotonic(), {"input": 0.0, "checkpoint": 0.0}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out of all speeds."""
        began = time.monotonic()
        yield
        self._clock += time.monotonic() - began

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Counts the time inside as waiting for "input" or "checkpoint"."""
        began = time.monotonic()
        yield
        self._waited[what] += time.monotonic() - began

    def scalars(self, step: int) -> dict[str, float]:
        """The SPEEDS from the last `restart` to a step, "mfu" only with a peak; none where no step lies between."""
        steps, seconds = step - self._first, time.monotonic() - self._clock
        if not steps:
            return {}
        rate = steps * self.flops / seconds
        self.last = {"images_per_second": steps * self.images / seconds, "tflops_per_device": rate / 1e12}
        if self.peak:
            self.last["mfu"] = rate / self.peak
        self.last |= {f"{what}_share": waited / seconds for what, waited in self._waited.items()}
        return self.last

    def __str__(self) -> str:
        """What was measured last, but for images, for a log; "" before that."""
        if not self.last:
            return ""
        peak = f", {self.last['mfu']:.1%} of peak" if self.peak else ""
        waited = f"input {self.last['input_share']:.1%}, checkpoints {self.last['checkpoint_share']:.1%}"
        return f", {self.last['tflops_per_device']:.3g} TFLOP/s a device{peak}, {waited}"
