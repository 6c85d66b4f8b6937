"""Comparisons: scores of samples next to those of perturbed real images, as a table and a chart."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sdit_jax.report import charts
from sdit_jax.report.numbers import number, quantity

SAMPLES = "these samples"
MEANINGS = {
    "fid": ("lower", "Fréchet distance between Gaussian fits to features of Inception"),
    "fd": ("lower", "Fréchet distance between features of a classifier of this data set; not comparable with FID"),
    "kid": (
        "lower",
        "squared maximum mean discrepancy of the same features under a cubic kernel; 0 on average if distributions are equal",
    ),
    "precision": ("higher", "the fraction of samples within the manifold of real images (quality)"),
    "recall": ("higher", "the fraction of real images within the manifold of samples (variety)"),
    "is": ("higher", "Inception Score: confidence and variety of predicted classes; at most the number of classes"),
    "accuracy": ("higher", "the fraction of samples classified as their label"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Scores of one set of images."""

    name: str
    scores: Mapping[str, float]
    stds: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Scores by one extractor against one reference, of samples and yardsticks, sorted by `distance`, and a chart."""

    names: Sequence[str]
    rows: Sequence[Row]
    reference: Mapping[str, Any]
    made_of: str  # Numbers of images, and the extractor.
    distance: str | None
    chart: Markup | None
    sentence: str

    @property
    def samples(self) -> Row:
        return next(row for row in self.rows if row.name == SAMPLES)


def comparisons(results: Sequence[Mapping[str, Any]], yardsticks: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """One comparison per extractor and reference, in the order of the results (with the fields in `report.Report`).

    Scores without a reference are in every comparison of their extractor, or in one of their own.
    """
    by_features: dict[str, dict[str, list]] = {}
    for result in results:
        key = [json.dumps(result.get(name), sort_keys=True) for name in ("features", "reference")]
        by_features.setdefault(key[0], {}).setdefault(key[1], []).append(result)
    found = []
    for by_reference in by_features.values():
        alone = by_reference.pop("null", []) if len(by_reference) > 1 else []
        found += [_comparison([*records, *alone], yardsticks) for records in by_reference.values()]
    return found


def meaning(name: str) -> tuple[str, str]:
    """("lower" or "higher" is better, definition) of a score; two empty texts for an unknown one."""
    return MEANINGS.get(name.partition("_")[0], ("", ""))


def _comparison(records, yardsticks):
    first = records[0]
    names = list(dict.fromkeys(record["name"] for record in records))
    reference = first.get("reference") or {}
    distance = next((record["name"] for record in records if record.get("distance")), None)
    stds = {record["name"]: record["std"] for record in records if record.get("std") is not None}
    chosen = Row(SAMPLES, {record["name"]: record["value"] for record in records}, stds)
    fitting = [
        yard for yard in yardsticks if yard["reference"] == reference.get("split") and (distance or names[0]) in yard["scores"]
    ]
    real = list(dict.fromkeys(yard["images"] for yard in fitting))
    name = lambda yard: yard["change"] if len(real) == 1 else f"{yard['images']}, {yard['change']}"
    rows = [chosen, *(Row(name(yard), yard["scores"]) for yard in fitting)]
    if distance:
        rows.sort(key=lambda row: row.scores[distance])
    counts = {yard["n"] for yard in fitting if yard.get("n")}
    made_of = _made_of(first.get("n"), reference, real, counts, first.get("features") or {})
    drawing = _drawing(rows, distance) if distance and fitting else (None, "")
    return Comparison(names, rows, reference, made_of, distance, *drawing)


def _made_of(n, reference, real, counts, features):
    parts = []
    if n:
        parts.append(f"{number(n)} samples")
    if reference.get("n"):
        digest = f" (sha256 {reference['sha256'][:12]}…)" if reference.get("sha256") else ""
        parts.append(f"{number(reference['n'])} real images{digest}")
    if real:
        many = f"{' and '.join(number(count) for count in sorted(counts))} images of " if counts else ""
        fewer = ", fewer than the samples, which increases their distances" if n and counts and max(counts) < n else ""
        parts.append(f"Yardsticks: {many}{', '.join(real)}, perturbed as named{fewer}")
    facts = {name: value[:12] + "…" if name == "sha256" else value for name, value in features.items()}
    return ". ".join([*parts, *([f"Compared by {quantity('', facts)}"] if facts else [])]) + "." * bool(parts or facts)


def _drawing(rows, distance):
    """The chart, and a sentence with the neighbouring yardsticks of the samples."""
    chart = Markup(charts.comparison([(row.name, row.scores[distance]) for row in rows], SAMPLES, number))
    place = next(i for i, row in enumerate(rows) if row.name == SAMPLES)
    named = [f"“{row.name}” ({number(row.scores[distance])})" for row in rows]
    if place == 0:
        return chart, f"nearer than real images {named[1]}"
    if place == len(rows) - 1:
        return chart, f"farther than real images {named[-2]}"
    return chart, f"between real images {named[place - 1]} and {named[place + 1]}"
