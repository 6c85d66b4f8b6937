"""The report: results, samples and charts in one self-contained HTML page."""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from sdit_jax import files
from sdit_jax.metrics.neighbours import Neighbours
from sdit_jax.report import charts, pictures
from sdit_jax.report.comparison import comparisons, meaning
from sdit_jax.report.numbers import number, quantity, si, words

MOST_SAMPLES, MOST_PATHS = 100, 6
# The accounts of energy, by what they compare: the names of this network's energy and of the other network's.
ACCOUNTS = {
    ("convention", "float32 arithmetic, against the non-spiking baseline"): ("pJ", "twin_pJ"),
    ("with memory", "the same, and numbers moved on the chip"): ("with_memory_pJ", "twin_with_memory_pJ"),
    ("integers", "arithmetic, against quantised activations"): ("quantised_pJ", "rival_pJ"),
    ("integers with memory", "the same, and numbers moved on the chip"): ("quantised_with_memory_pJ", "rival_with_memory_pJ"),
}
IN_BARS = [name for pair in ACCOUNTS.values() for name in pair if name != "pJ"]
PARTS = {
    "results": "Results", "samples": "Samples", "frames": "From noise to image", "neighbours": "Nearest training images",
    "losses": "Loss by timestep", "firing_rates": "Firing rates", "raster": "Spikes", "energy": "Energy",
    "protocol": "Protocol",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Report:
    """Content of a page. A part that is None is left out; `missing` may hold the reason, by the name of the field.

    Images are uint8 with 1 or 3 channels. `results` are records with "name", "value", "n", and optionally "std", "reference"
    (source, split, n, sha256), "features" (facts of the extractor) and "distance" (whether the yardsticks are sorted by it).
    `yardsticks` are scores of perturbed real images: "images", "change", "scores" by name, the split of the "reference" or
    None, and optionally "n". `energy` is that of `Energy.to_dict`: "summary", "layers", "neurons", "left_out", and groups of
    numbers.
    """

    title: str
    subtitle: str = ""
    results: Sequence[Mapping[str, Any]] | None = None
    yardsticks: Sequence[Mapping[str, Any]] = ()
    samples: np.ndarray | None = None  # (N, H, W, C)
    labels: Sequence[Any] | np.ndarray | None = None
    frames: np.ndarray | None = None  # (F, N, H, W, C), from noise to image
    frame_timesteps: Sequence[int] | np.ndarray = ()
    frames_caption: str = "The predicted clean image at each timestep."
    neighbours: Neighbours | None = None
    timesteps: Sequence[int] = ()  # Of losses and firing_rates.
    losses: Mapping[str, Sequence[float] | np.ndarray] | None = None
    firing_rates: Mapping[str, Sequence[float] | np.ndarray] | None = None
    raster: np.ndarray | None = None  # (T, L, C), 0 or 1
    raster_caption: str = ""
    spikes: Mapping[str, np.ndarray] | None = None  # (T, L, C) by layer of neurons, -1, 0 or 1; shown with the raster.
    energy: Mapping[str, Any] | None = None
    protocol: Mapping[str, Any] | None = None
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write_report(path: Path, report: Report) -> None:
    """Writes the page atomically. Raises InputError if the file cannot be written."""
    files.write_text(path, render(report))


def render(report: Report) -> str:
    """The page as text. Raises ValueError if labels, timesteps and images differ in number."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(number=number, si=si, words=words, png=pictures.png, label=_label)
    environment.globals.update(quantity=quantity, meaning=meaning, len=len)
    template = environment.from_string(resources.files("sdit_jax.report").joinpath("page.html").read_text("utf-8"))
    there = [part for part in PARTS if getattr(report, part) is not None]
    groups = _groups(report)
    return template.render(
        report=report, parts=PARTS, there=there, left_out=[part for part in PARTS if part not in there],
        comparisons=comparisons(report.results or (), report.yardsticks), names=_names(report.results), groups=groups,
        shown=sum(len(images) for _, images in groups), columns=_columns(report),
        copies=_copies(report.neighbours), loss_chart=_loss_chart(report), rates=_rates(report),
        raster=None if report.raster is None else [pictures.panel(step_LC) for step_LC in report.raster],
        strips=pictures.strips(report.spikes or {}),
        energy=_energy(report.energy), accounts=list(ACCOUNTS),
    )  # fmt: skip


def _names(results):
    return list(dict.fromkeys(result["name"] for result in results or ()))


def _label(label):
    return str(label.item() if isinstance(label, np.generic) else label)


def _groups(report):
    """[(label, images)] of at most MOST_SAMPLES samples, evenly over the labels; without labels one group, (None, images)."""
    if report.samples is None:
        return []
    if report.labels is None:
        return [(None, report.samples[:MOST_SAMPLES])]
    by_label = {}
    for image, label in zip(report.samples, report.labels, strict=True):
        by_label.setdefault(_label(label), []).append(image)
    most = max(1, MOST_SAMPLES // len(by_label)) if by_label else 0
    order = sorted(by_label, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))
    return [(label, by_label[label][:most]) for label in order[:MOST_SAMPLES]]


def _columns(report):
    """[(timestep, images)] of the denoising path."""
    if report.frames is None:
        return []
    return [(int(t), frame[:MOST_PATHS]) for t, frame in zip(report.frame_timesteps, report.frames, strict=True)]


def _copies(found):
    """The medians, and their chart."""
    if found is None:
        return None
    series = {"samples": found.samples_N} | ({} if found.real_M is None else {"real test images": found.real_M})
    medians = {name: float(np.median(values)) for name, values in series.items()}
    return medians, Markup(charts.densities(series, "distance to the nearest training image, grey levels"))


def _loss_chart(report):
    if report.losses is None:
        return None
    for name, values in report.losses.items():
        if len(values) != len(report.timesteps):
            raise ValueError(f"losses: found {len(values)} of {name!r} at {len(report.timesteps)} timesteps")
    return Markup(charts.lines(report.timesteps, report.losses, "timestep (0 is clean)"))


def _rates(report):
    """[(layer, [(rate, rate / greatest rate)])]"""
    if report.firing_rates is None:
        return []
    greatest = max((max(rates) for rates in report.firing_rates.values()), default=0) or 1
    return [
        (layer, [(float(rate), float(rate / greatest)) for _, rate in zip(report.timesteps, rates, strict=True)])
        for layer, rates in report.firing_rates.items()
    ]


def _energy(energy):
    """(summary, groups of numbers by name, bars by layer, layers, greatest pJ of a layer, operations left out)."""
    if energy is None:
        return None
    rest = {name: value for name, value in energy.items() if name not in ("summary", "layers", "neurons", "left_out")}
    singles = {name: value for name, value in rest.items() if not isinstance(value, Mapping)}
    groups = {name: value for name, value in rest.items() if isinstance(value, Mapping)}
    groups |= {"other": singles} if singles else {}
    layers = list(energy.get("layers") or [])
    columns = [{name: value for name, value in layer.items() if name not in IN_BARS} for layer in layers]
    greatest = max((layer.get("pJ") or 0 for layer in layers), default=0) or 1
    return energy.get("summary", ""), groups, _bars(energy), columns, greatest, list(energy.get("left_out") or [])


def _bars(energy):
    """[(layer, [(pJ, share of the greatest, pJ of the other network, its share) for each of ACCOUNTS])], totals last."""
    lines = [(line["name"], line) for line in energy.get("layers") or []]
    if not lines or any(name not in line for _, line in lines for pair in ACCOUNTS.values() for name in pair):
        return []
    membranes = sum(line["with_memory_pJ"] for line in energy.get("neurons") or [])
    if membranes:
        lines.append(("all membranes", {"with_memory_pJ": membranes, "quantised_with_memory_pJ": membranes}))
    values = {name: [line.get(name) or 0 for _, line in lines] for pair in ACCOUNTS.values() for name in pair}
    greatest = {pair: max(*values[pair[0]], *values[pair[1]]) or 1 for pair in ACCOUNTS.values()}
    rows = [
        (name, [tuple(x for each in pair for x in (values[each][i], values[each][i] / greatest[pair])) for pair in greatest])
        for i, (name, _) in enumerate(lines)
    ]
    return [*rows, ("in all", [(sum(values[first]), 0, sum(values[second]), 0) for first, second in greatest])]
