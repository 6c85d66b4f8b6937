"""Evaluations against each other: distance against energy of an image, and their Pareto front."""

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from sdit_jax import files
from sdit_jax.errors import InputError
from sdit_jax.scaling_laws.style import COLORS, INK, MUTED, draw_panels

ACCOUNTS = {"pJ": "by the convention", "with_memory_pJ": "with memory"}
COLUMNS = ("data", "network", "drawn", "n", "calls", "distance", "accuracy", "mJ by convention", "mJ with memory")


class Point(NamedTuple):
    """One evaluation: `distance` of `n` samples to images of `data`, `accuracy` None without labels, `energy` of an image in J.

    `network` is what the points of a colour share; `name` is how the images were drawn, or that of the file.
    """

    network: str
    name: str
    data: str
    n: int
    calls: int
    distance: float
    accuracy: float | None
    energy: dict[str, float]


def read(places: Sequence[str], distance: str) -> list[Point]:
    """The evaluations at these places, by data set and energy.

    A place is a file, a folder with evaluation.json, or a pattern of them, after "NETWORK=" if they are to be seen as one
    network; or a compare.json. `distance` is a score with its split, such as "fd_classifier/train". Raises InputError for a
    file that is missing, is damaged, or has no such score or no energy.
    """
    found = []
    for place in places:
        network, pattern = "", place
        if "=" in place and not glob.glob(place):  # Folders of a sweep have a = in their names.
            network, _, pattern = place.partition("=")
        for path in map(files.as_path, sorted(glob.glob(pattern)) or [pattern]):
            path = path / "evaluation.json" if path.is_dir() else path
            found += _read(path, network, distance)
    return sorted(found, key=lambda point: (point.data, _energy(point)))


def _read(path, network, distance):
    try:
        stored = json.loads(path.read_text())
        if "points" in stored:
            points = [Point(**point) for point in stored["points"]]
            known = {stored["distance"]} if all(point.energy for point in points) else set()
        else:
            points, known = _of_evaluation(stored, path, network, distance)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an evaluation of a network with its energy ({type(error).__name__} {error})") from None
    if distance not in known:
        raise InputError(f"{path}: has no {distance}, but {', '.join(sorted(known))}")
    return points


def _of_evaluation(stored, path, network, distance):
    """([the point], the names of all scores); no point where this distance is not among them."""
    records = {_name(record): record for record in stored["values"]}
    image, n = stored["energy"]["per_image"], stored["protocol"]["n"]
    energy = {account: 1e-12 * image[account] for account in ACCOUNTS if account in image}
    calls = image["forward_passes"]
    if distance not in records or not energy:
        return [], set(records)
    accuracy = next((record["value"] for name, record in records.items() if name.startswith("accuracy")), None)
    name = path.parent.name if path.name == "evaluation.json" else path.stem
    record = records[distance]
    source = record["reference"]["source"] if record["reference"] else ""
    return [Point(network or name, name, source, n, calls, record["value"], accuracy, energy)], set(records)


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


def of_data(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each data set: others cannot be compared."""
    return {data: [point for point in points if point.data == data] for data in dict.fromkeys(point.data for point in points)}


def to_json(points: Sequence[Point], distance: str) -> dict[str, Any]:
    """Points and fronts as plain values."""
    named = lambda points: [{"network": point.network, "name": point.name} for point in points]
    fronts = {data: {account: named(front(found, account)) for account in ACCOUNTS} for data, found in of_data(points).items()}
    return {"distance": distance, "points": [point._asdict() for point in points], "front": fronts}


def to_markdown(points: Sequence[Point]) -> str:
    """A table."""
    millijoule = lambda point, account: f"{1e3 * point.energy[account]:.3g}" if account in point.energy else "-"
    rows = [
        (
            point.data, point.network, point.name, f"{point.n:,}", point.calls, f"{point.distance:.3g}",
            "-" if point.accuracy is None else f"{point.accuracy:.1%}", *(millijoule(point, account) for account in ACCOUNTS),
        )
        for point in points
    ]  # fmt: skip
    line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
    return "\n".join([line(COLUMNS), "|" + "---|" * len(COLUMNS), *map(line, rows)])


def draw(
    points: Sequence[Point], path: Path, distance: str, *, accounts: Sequence[str] = tuple(ACCOUNTS),
    lines: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    """Writes a PNG: distance against energy of an image, a row for each account and a column for each data set.

    Axes are logarithmic. A dashed line joins the Pareto front, whose points have their number of calls; `lines` are energies
    in J by their name, of networks whose distance is not known.
    """
    networks = list(dict.fromkeys(point.network for point in points))
    color = {network: COLORS(0.9 * i / max(1, len(networks) - 1)) for i, network in enumerate(networks)}
    panels = [
        (data, account, found)
        for account in accounts
        for data, found in of_data([point for point in points if account in point.energy]).items()
    ]
    rows = len(dict.fromkeys(account for _, account, _ in panels))

    def fill(axes: Axes, panel: tuple[str, str, list[Point]]):
        data, account, found = panel
        best = front(found, account)
        axes.set(xscale="log", yscale="log", title=data, xlabel=f"mJ an image {ACCOUNTS[account]}", ylabel=distance)
        axes.plot([1e3 * p.energy[account] for p in best], [p.distance for p in best], "--", color=INK, linewidth=1)
        for network in networks:
            own = [point for point in found if point.network == network]
            axes.plot(
                [1e3 * p.energy[account] for p in own], [p.distance for p in own], "o", markersize=5, color=color[network],
                label=network,
            )  # fmt: skip
        for point in best:
            calls = f"{point.calls} call" + "s" * (point.calls != 1)
            at = 1e3 * point.energy[account], point.distance
            axes.annotate(calls, at, xytext=(4, 4), textcoords="offset points", fontsize=7.5, color=INK)
        for name, energy in (lines or {}).items():
            axes.axvline(1e3 * energy, color=MUTED, linestyle=":", label=name)
        if panel is panels[-1]:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1.02))

    draw_panels(path, panels, fill, rows=rows)
