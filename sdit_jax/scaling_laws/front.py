"""Evaluations against each other: distance against energy of an image, and their Pareto front."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from sdit_jax.errors import InputError
from sdit_jax.scaling_laws.style import INK, MUTED, draw_panels

ACCOUNTS = {"pJ": "by the convention", "with_memory_pJ": "with memory"}
COLUMNS = ("name", "n", "calls", "distance", "accuracy", "mJ by convention", "mJ with memory")


class Point(NamedTuple):
    """One evaluation: `energy` of an image in J by account, `distance` of `n` samples, `accuracy` None without labels."""

    name: str
    n: int
    calls: int
    distance: float
    accuracy: float | None
    energy: dict[str, float]


def read(paths: Sequence[Path], distance: str) -> list[Point]:
    """The evaluations in these files, or in evaluation.json of these folders, by energy.

    `distance` is a score with its split, such as "fd_classifier/train". Raises InputError for a file that is missing, is
    damaged, or has no such score or no energy.
    """
    return sorted((_read(path / "evaluation.json" if path.is_dir() else path, distance) for path in paths), key=_energy)


def _read(path, distance):
    try:
        stored = json.loads(path.read_text())
        scores = {_name(record): record["value"] for record in stored["values"]}
        image, n = stored["energy"]["per_image"], stored["protocol"]["n"]
        energy = {account: 1e-12 * image[account] for account in ACCOUNTS if account in image}
        calls = image["forward_passes"]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an evaluation of a network with its energy ({type(error).__name__} {error})") from None
    if distance not in scores or not energy:
        raise InputError(f"{path}: has no {distance}, but {', '.join(sorted(scores))}")
    accuracy = next((value for name, value in scores.items() if name.startswith("accuracy")), None)
    name = path.parent.name if path.name == "evaluation.json" else path.stem
    return Point(name, n, calls, scores[distance], accuracy, energy)


def _name(record):
    return record["name"] + (f"/{record['reference']['split']}" if record["reference"] else "")


def _energy(point, account="pJ"):
    return point.energy.get(account, float("inf"))


def front(points: Sequence[Point], account: str = "pJ") -> list[Point]:
    """The Pareto front, by energy: no other point has a smaller distance at no more energy."""
    found: list[Point] = []
    for point in sorted(
        (point for point in points if account in point.energy), key=lambda p: (_energy(p, account), p.distance)
    ):
        if not found or point.distance < found[-1].distance:
            found.append(point)
    return found


def to_json(points: Sequence[Point], distance: str) -> dict[str, Any]:
    """Points and fronts as plain values."""
    fronts = {account: [point.name for point in front(points, account)] for account in ACCOUNTS}
    return {"distance": distance, "points": [point._asdict() for point in points], "front": fronts}


def to_markdown(points: Sequence[Point]) -> str:
    """A table."""
    millijoule = lambda point, account: f"{1e3 * point.energy[account]:.3g}" if account in point.energy else "-"
    rows = [
        (
            point.name, f"{point.n:,}", point.calls, f"{point.distance:.3g}",
            "-" if point.accuracy is None else f"{point.accuracy:.1%}", *(millijoule(point, account) for account in ACCOUNTS),
        )
        for point in points
    ]  # fmt: skip
    line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
    return "\n".join([line(COLUMNS), "|" + "---|" * len(COLUMNS), *map(line, rows)])


def draw(points: Sequence[Point], path: Path, distance: str) -> None:
    """Writes a PNG: distance against energy of an image in both accounts, on logarithmic axes, with the Pareto front."""

    def fill(axes: Axes, account: str):
        there = [point for point in points if account in point.energy]
        best = front(there, account)
        axes.set(xscale="log", yscale="log", title=f"Energy {ACCOUNTS[account]}", xlabel="mJ an image", ylabel=distance)
        axes.plot([1e3 * p.energy[account] for p in best], [p.distance for p in best], "--", color=MUTED)
        for point in there:
            x = 1e3 * point.energy[account]
            axes.plot(x, point.distance, "o", markersize=5, color=INK if point in best else MUTED)
            axes.annotate(
                f"{point.name} ({point.calls})", (x, point.distance), xytext=(4, 3), textcoords="offset points", fontsize=7
            )

    draw_panels(path, [account for account in ACCOUNTS if any(account in point.energy for point in points)], fill)
