"""Scores beside what real images score once they are changed a little: what a number means, as a table and a chart."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sdit_jax.evaluation.report import charts
from sdit_jax.evaluation.report.numbers import number, quantity

SAMPLES = "these samples"
MEANINGS = {
    "fid": ("lower", "Fréchet distance between features of Inception, each cloud taken as a Gaussian"),
    "fd": ("lower", "Fréchet distance between features of a classifier of this data set; not comparable with FID"),
    "kid": ("lower", "squared maximum mean discrepancy of the same features under a cubic kernel; zero on average for equals"),
    "precision": ("higher", "the fraction of samples that lie among the real images, so of good ones"),
    "recall": ("higher", "the fraction of real images that lie among the samples, so how much of their variety is there"),
    "is": ("higher", "Inception Score: how sure the network is of each image, and how varied they are; at most the classes"),
    "accuracy": ("higher", "how often the network reads the label that was asked for"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """What one set of images scores."""

    name: str
    scores: Mapping[str, float]
    stds: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Scores by one network against one reference, yardsticks and samples sorted by `distance`, and its chart."""

    names: Sequence[str]
    rows: Sequence[Row]
    reference: Mapping[str, Any]
    made_of: str  # How many images of what, and by which network they are compared.
    distance: str | None
    chart: Markup | None
    sentence: str

    @property
    def samples(self) -> Row:
        return next(row for row in self.rows if row.name == SAMPLES)


def ladders(results: Sequence[Mapping[str, Any]], yardsticks: Sequence[Mapping[str, Any]]) -> list[Ladder]:
    """One ladder per network and reference, in the order of the results (their fields are those of `report.Report`).

    Scores that need no reference join every ladder of their network; where it has none, they make one of their own.
    """
    by_features: dict[str, dict[str, list]] = {}
    for result in results:
        key = [json.dumps(result.get(name), sort_keys=True) for name in ("features", "reference")]
        by_features.setdefault(key[0], {}).setdefault(key[1], []).append(result)
    found = []
    for by_reference in by_features.values():
        alone = by_reference.pop("null", []) if len(by_reference) > 1 else []
        found += [_ladder([*records, *alone], yardsticks) for records in by_reference.values()]
    return found


def meaning(name: str) -> tuple[str, str]:
    """("lower" or "higher" is better, what it is) of a score; two empty texts for an unknown one."""
    return MEANINGS.get(name.partition("_")[0], ("", ""))


def _ladder(records, yardsticks):
    first = records[0]
    names = list(dict.fromkeys(record["name"] for record in records))
    reference = first.get("reference") or {}
    known = [name for name in names if name.partition("_")[0] in ("fd", "fid")]
    distance = next((record["name"] for record in records if record.get("distance")), known[0] if known else None)
    stds = {record["name"]: record["std"] for record in records if record.get("std") is not None}
    chosen = Row(SAMPLES, {record["name"]: record["value"] for record in records}, stds)
    fitting = [
        yard
        for yard in yardsticks
        if yard.get("reference") in (None, reference.get("split")) and set(_scores(yard)) & {distance or names[0]}
    ]
    real = list(dict.fromkeys(yard["images"] for yard in fitting if yard.get("images")))
    rows = [chosen, *(Row(_name(yard, len(real) == 1), _scores(yard)) for yard in fitting)]
    if distance:
        rows.sort(key=lambda row: row.scores[distance])
    counts = {yard["n"] for yard in fitting if yard.get("n")}
    made_of = _made_of(first.get("n"), reference, real, counts, first.get("features") or {})
    drawing = _drawing(rows, distance) if distance and fitting else (None, "")
    return Ladder(names, rows, reference, made_of, distance, *drawing)


def _made_of(n, reference, real, counts, features):
    parts = []
    if n:
        parts.append(f"{number(n)} samples")
    if reference.get("n"):
        digest = f" (sha256 {reference['sha256'][:12]}…)" if reference.get("sha256") else ""
        parts.append(f"{number(reference['n'])} real images{digest}")
    if real:
        many = f"{' and '.join(number(count) for count in sorted(counts))} images of " if counts else ""
        fewer = ", fewer than the samples, which makes their distances greater" if n and counts and max(counts) < n else ""
        parts.append(f"Yardsticks: {many}{', '.join(real)}, changed as the line says{fewer}")
    facts = {name: value[:12] + "…" if name == "sha256" else value for name, value in features.items()}
    return ". ".join([*parts, *([f"Compared by {quantity('', facts)}"] if facts else [])]) + "." * bool(parts or facts)


def _scores(yard):
    return yard.get("scores") or yard.get("metrics") or {}


def _name(yard, short):
    return yard["name"] if "name" in yard else yard["change"] if short else f"{yard['images']}, {yard['change']}"


def _drawing(rows, distance):
    """The chart, and between which yardsticks the samples are."""
    chart = Markup(charts.ladder([(row.name, row.scores[distance]) for row in rows], SAMPLES, number))
    place = next(i for i, row in enumerate(rows) if row.name == SAMPLES)
    told = [f"“{row.name}” ({number(row.scores[distance])})" for row in rows]
    if place == 0:
        return chart, f"nearer than real images {told[1]}"
    if place == len(rows) - 1:
        return chart, f"farther than real images {told[-2]}"
    return chart, f"between real images {told[place - 1]} and {told[place + 1]}"
