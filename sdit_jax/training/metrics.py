"""Metrics to TensorBoard events and to `metrics.jsonl`, with the method names of clu's metric writers.

clu's own writers need TensorFlow (clu 0.0.12); these need tensorboardX.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from sdit_jax.files import write_text


class MetricWriter:
    """Writes scalars, images, histograms and hyperparameters of a run folder.

    Opening it at step s drops what was written for later steps, which a stopped run had not saved: the same steps will be
    written again.
    """

    def __init__(self, workdir: Path, step: int):
        self.path, self.evaluations = workdir / "metrics.jsonl", workdir / "evaluation.jsonl"
        for path in filter(Path.exists, (self.path, self.evaluations)):
            write_text(path, "".join(line for at, line in _whole_lines(path) if at <= step))
        self.lines = self.path.open("a")
        self.events = SummaryWriter(str(workdir), purge_step=step + 1 if step else None)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        self.lines.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures, uint8 (H, W, 3)."""
        for name, picture in images.items():
            self.events.add_image(name, picture, step, dataformats="HWC")

    def write_evaluation(self, step: int, record: Mapping[str, object]) -> None:
        """What evaluators say of one kind of weights, a line of `evaluation.jsonl`."""
        with self.evaluations.open("a") as lines:
            lines.write(json.dumps({"step": step, **record}) + "\n")

    def write_histograms(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.events.add_histogram(name, array, step)

    def write_hparams(self, hparams: Mapping[str, object]) -> None:
        self.events.add_text("config", "```\n" + json.dumps(hparams, indent=2) + "\n```", 0)

    def flush(self) -> None:
        self.lines.flush()
        self.events.flush()

    def close(self) -> None:
        self.lines.close()
        self.events.close()


class NoWriter:
    """Writes nothing: the writer of all processes but one."""

    def __getattr__(self, name):
        return lambda *_: None

    def close(self) -> None:
        pass


def read_scalars(path: Path) -> dict[int, dict[str, float]]:
    """All scalars of a metrics.jsonl by step, none where there is no file; damaged lines are passed over."""
    steps: dict[int, dict[str, float]] = {}
    for step, line in _whole_lines(path) if path.is_file() else ():
        steps.setdefault(step, {}).update(json.loads(line))
    return {step: {name: value for name, value in steps[step].items() if name != "step"} for step in sorted(steps)}


def last_scalars(path: Path) -> tuple[int, dict[str, float]]:
    """(step, all scalars) of the last step in a metrics.jsonl, (0, {}) where there is none."""
    return max(read_scalars(path).items(), default=(0, {}), key=lambda item: item[0])


def _whole_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(step, line) of those lines that were not cut short, or damaged when power was lost."""
    for line in path.read_text(errors="replace").splitlines(keepends=True):
        with suppress(ValueError, TypeError, KeyError):
            if line.endswith("\n"):
                yield int(json.loads(line)["step"]), line
