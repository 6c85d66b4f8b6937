"""Scalars of many runs against images seen."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdit_jax import config as fields
from sdit_jax.errors import InputError
from sdit_jax.scaling_laws.style import COLORS, draw_panels
from sdit_jax.training.metrics import read_scalars


@dataclasses.dataclass(frozen=True)
class Curves:
    """One run. `scalars` maps a name to its (images seen, value) pairs in order, empty where it was never measured."""

    run: str
    scalars: dict[str, list[tuple[int, float]]]


def read_curves(folder: Path, scalars: Sequence[str], field: str = "scalars") -> list[Curves]:
    """Curves of all runs directly inside a folder, sorted by name, or of the folder itself where it is a run folder.

    A scalar is named as in metrics.jsonl; or without its prefix, "fd_classifier/train", for averaged weights where they were
    evaluated, else for raw weights; or by a group, "firing_rate", whose members are averaged.
    Raises InputError where there is no such folder, no run, no scalar, or a scalar that no run has; `field` names `scalars`
    in the message.
    """
    if not scalars:
        raise InputError(f"{field}: found none, name at least one")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = [folder] if (folder / "config.json").is_file() else sorted(path.parent for path in folder.glob("*/config.json"))
    if not paths:
        raise InputError(f"{folder}: holds no run folder")
    found, known = [], set()
    for path in paths:
        batch_size, steps = fields.load(path).batch_size, read_scalars(path / "metrics.jsonl")
        known |= {name for values in steps.values() for name in values}
        curves = {name: [(batch_size * step, value) for step, value in _values(steps, name)] for name in scalars}
        found.append(Curves(path.name, curves))
    for name in scalars:
        if not any(run.scalars[name] for run in found):
            raise InputError(f"{field}: found {name!r}, no run has it; there are {', '.join(sorted(known)) or 'none'}")
    return found


def _values(steps, name):
    """(step, value) pairs of a scalar under the first of its full names that the run has."""
    for full in (name, f"evaluation/ema/{name}", f"evaluation/raw/{name}"):
        if found := [(step, values[full]) for step, values in steps.items() if full in values]:
            return found
    below = ((step, [values[key] for key in values if key.startswith(f"{name}/")]) for step, values in steps.items())
    return [(step, float(np.mean(values))) for step, values in below if values]


def to_json(found: Sequence[Curves]) -> list[dict]:
    """The curves as plain lists."""
    return [{"run": one.run, "scalars": one.scalars} for one in found]


def to_markdown(found: Sequence[Curves]) -> str:
    """A table of the last value of each scalar."""
    names = list(found[0].scalars)
    rows = [["run", "images", *names], ["---"] * (2 + len(names))]
    for one in found:
        images = max((values[-1][0] for values in one.scalars.values() if values), default=0)
        last = [f"{values[-1][1]:.4g}" if values else "-" for values in one.scalars.values()]
        rows.append([one.run, f"{images:,}", *last])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def draw(found: Sequence[Curves], path: Path) -> None:
    """Writes a PNG with a panel per scalar. The axis is logarithmic where positive values span more than a factor of 5."""

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
