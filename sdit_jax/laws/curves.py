"""Scalars of many runs against the images they have seen."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdit_jax import config as fields
from sdit_jax.config import InputError
from sdit_jax.laws.style import COLORS, draw_panels
from sdit_jax.training.metrics import read_scalars


@dataclasses.dataclass(frozen=True)
class Curves:
    """One run: for each scalar (images seen, value), in order, empty where it was never measured."""

    run: str
    scalars: dict[str, list[tuple[int, float]]]


def read_curves(folder: Path, scalars: Sequence[str]) -> list[Curves]:
    """Curves of all runs right inside of a folder, by name, or of the run that the folder is.

    A scalar is one of metrics.jsonl; or what evaluation calls it, "fd_classifier/train", of averaged weights where there are
    such, else of the raw ones; or the mean of those below a name, "firing_rate".
    Raises InputError where there is no such folder, no run, no scalar, or one that no run has.
    """
    if not scalars:
        raise InputError("--scalars: found none, name at least one")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = [folder] if (folder / "config.json").is_file() else sorted(path.parent for path in folder.glob("*/config.json"))
    if not paths:
        raise InputError(f"{folder}: holds no run folder")
    found, known = [], set()
    for path in paths:
        batch_size, steps = fields.load(path).batch_size, read_scalars(path / "metrics.jsonl")
        known |= {name for values in steps.values() for name in values}
        curve = lambda name, n=batch_size, steps=steps: [(n * step, value) for step, value in _values(steps, name)]
        found.append(Curves(path.name, {name: curve(name) for name in scalars}))
    for name in scalars:
        if not any(run.scalars[name] for run in found):
            raise InputError(f"--scalars: found {name!r}, no run has it; there are {', '.join(sorted(known)) or 'none'}")
    return found


def _values(steps, name):
    """(step, value) of a scalar, by the first of its names that the run has."""
    for full in (name, f"evaluation/ema/{name}", f"evaluation/raw/{name}"):
        if found := [(step, values[full]) for step, values in steps.items() if full in values]:
            return found
    below = ((step, [values[key] for key in values if key.startswith(f"{name}/")]) for step, values in steps.items())
    return [(step, float(np.mean(values))) for step, values in below if values]


def to_json(found: Sequence[Curves]) -> list[dict]:
    """Everything, plain: a run's name, and under each scalar its pairs of images seen and value."""
    return [{"run": one.run, "scalars": one.scalars} for one in found]


def to_markdown(found: Sequence[Curves]) -> str:
    """The last value of each scalar, as a table."""
    names = list(found[0].scalars)
    rows = [["run", "images", *names], ["---"] * (2 + len(names))]
    for one in found:
        images = max((values[-1][0] for values in one.scalars.values() if values), default=0)
        last = [f"{values[-1][1]:.4g}" if values else "-" for values in one.scalars.values()]
        rows.append([one.run, f"{images:,}", *last])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def draw(found: Sequence[Curves], path: Path) -> None:
    """Writes a PNG with a panel for each scalar; values that span more than a factor of five are on a logarithmic axis."""

    def fill(axes, name):
        for i, one in enumerate(found):
            images, values = zip(*one.scalars[name], strict=True) if one.scalars[name] else ((), ())
            color = COLORS(0.92 * i / max(1, len(found) - 1))
            axes.plot(images, values, "o-", markersize=2.5, color=color, label=one.run)
        every = [value for one in found for _, value in one.scalars[name] if np.isfinite(value)]
        axes.set(title=name, xlabel="images seen", xscale="log")
        if every and min(every) > 0 and max(every) > 5 * min(every):
            axes.set_yscale("log")
        if name == names[-1]:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1.02))

    names = list(found[0].scalars)
    draw_panels(path, names, fill)
