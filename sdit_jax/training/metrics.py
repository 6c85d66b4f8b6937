"""Metrics of a run folder: TensorBoard events, `metrics.jsonl` and `evaluation.jsonl`.

The method names are those of clu's metric writers, which need TensorFlow (clu 0.0.12); these need tensorboardX.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from sdit_jax.errors import InputError
from sdit_jax.files import on_store, write_text


class MetricWriter:
    """Writes scalars, images, evaluations and hyperparameters.

    Opening it at step s drops the records of later steps: a run that resumes from s writes them again. Objects of a store
    cannot grow: there `metrics.jsonl` and the events grow on this machine, and each flush sends all of them.
    """

    def __init__(self, workdir: Path, step: int):
        self.path, self.evaluations = workdir / "metrics.jsonl", workdir / "evaluation.jsonl"
        for path in (self.path, self.evaluations):
            if path.exists():
                write_text(path, "".join(line for at, line in _complete_lines(path) if at <= step))
        self.workdir = self.growing = workdir
        if on_store(workdir):
            self.temporary = tempfile.TemporaryDirectory()
            self.growing = Path(self.temporary.name)
            if self.path.exists():
                (self.growing / self.path.name).write_bytes(self.path.read_bytes())
        self.lines = (self.growing / self.path.name).open("a")
        self.events = _summary_writer()(str(self.growing), purge_step=step + 1 if step else None)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        self.lines.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures, uint8 (H, W, 3)."""
        for name, picture in images.items():
            self.events.add_image(name, picture, step, dataformats="HWC")

    def write_evaluation(self, step: int, records: Sequence[Mapping[str, object]]) -> None:
        """The evaluation of a step, in the place of an earlier one: a line of `evaluation.jsonl` per kind of weights."""
        lines = [line for at, line in _complete_lines(self.evaluations) if at != step]
        lines += [json.dumps({"step": step, **record}) + "\n" for record in records]
        write_text(self.evaluations, "".join(lines))

    def write_hparams(self, hparams: Mapping[str, object]) -> None:
        self.events.add_text("config", "```\n" + json.dumps(hparams, indent=2) + "\n```", 0)

    def flush(self) -> None:
        """Raises InputError where the file cannot be written."""
        with self._named():
            self.lines.flush()
        self.events.flush()
        self._send()

    def close(self) -> None:
        with self._named():
            self.lines.close()
        self.events.close()
        self._send()
        if self.growing != self.workdir:
            self.temporary.cleanup()

    def _send(self):
        for path in self.growing.iterdir() if self.growing != self.workdir else ():
            (self.workdir / path.name).write_bytes(path.read_bytes())

    @contextmanager
    def _named(self):
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from None


class NoWriter(MetricWriter):
    """Writes nothing: the writer of all processes but one."""

    def __init__(self):
        pass

    def write_scalars(self, step, scalars):
        pass

    def write_images(self, step, images):
        pass

    def write_evaluation(self, step, records):
        pass

    def write_hparams(self, hparams):
        pass

    def flush(self):
        pass

    def close(self):
        pass


def read_scalars(path: Path) -> dict[int, dict[str, float]]:
    """All scalars of a metrics.jsonl by step; none where there is no file. Damaged lines are skipped."""
    steps: dict[int, dict[str, float]] = {}
    for step, line in _complete_lines(path):
        steps.setdefault(step, {}).update(json.loads(line))
    return {step: {name: value for name, value in steps[step].items() if name != "step"} for step in sorted(steps)}


def last_scalars(path: Path) -> tuple[int, dict[str, float]]:
    """(step, all scalars) of the last step in a metrics.jsonl, (0, {}) where there is none."""
    return max(read_scalars(path).items(), default=(0, {}), key=lambda item: item[0])


def read_evaluations(workdir: Path, step: int) -> list[dict[str, Any]]:
    """The records of `evaluation.jsonl` for a step."""
    return [json.loads(line) for at, line in _complete_lines(workdir / "evaluation.jsonl") if at == step]


def _summary_writer():
    """tensorboardX.SummaryWriter, whose module imports torch where that is installed: seconds for nothing that is used here."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # An import of it raises ImportError.
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def _complete_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(step, line) of the lines that are JSON with a step; a crash may cut the last one short or damage others."""
    lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True) if path.is_file() else []
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            if line.endswith("\n"):
                yield int(json.loads(line)["step"]), line
