"""The analysis as text: JSON with everything, Markdown to read, CSV of the runs for other programs."""

import csv
import dataclasses
import io

from sdit_jax.sampling.provenance import versions
from sdit_jax.scaling_laws.analysis import VARIABLES, Analysis
from sdit_jax.scaling_laws.collect import Run

COLUMNS = ("name", "width", "depth", "spiking_steps", "seed", "parameters", "images", "flops")


def row(analysis: Analysis, run: Run) -> dict:
    """A run as plain numbers; `loss` is the analysed one, `law` the prediction of the law.

    A column that the network's configuration does not have is left out.
    """
    found = {name: value for name in COLUMNS if (value := getattr(run, name)) is not None} | {"loss": run.losses[analysis.loss]}
    if analysis.law:
        found["law"] = float(analysis.law(**{name: getattr(run, field) for name, field in VARIABLES.items()}))
    return found


def to_json(analysis: Analysis) -> dict:
    """All runs and numbers, with the method and the versions that gave them."""
    return {
        "loss": analysis.loss,
        "runs": [row(analysis, run) for run in analysis.runs],
        "law": analysis.law and dataclasses.asdict(analysis.law),
        "numbers": analysis.numbers,
        "intervals": {"level": 0.95, "by": "percentiles of a bootstrap over runs", "resamples": analysis.resamples,
            "seed": analysis.seed, "values": analysis.intervals},
        "flops_per_image": analysis.cost and dict(zip(("k", "exponent_N"), analysis.cost, strict=True)),
        "isoflop": {"spiking_steps": analysis.spiking_steps, "growth": analysis.growth,
            "minima": [
                dataclasses.asdict(minimum) | {"runs": [analysis.runs[place].name for place in minimum.runs]}
                for minimum in analysis.minima
            ]},
        "notes": analysis.notes,
        "versions": versions(),
    }  # fmt: skip


def to_csv(analysis: Analysis) -> str:
    """One line per run."""
    rows = [row(analysis, run) for run in analysis.runs]
    text = io.StringIO()
    columns = dict.fromkeys(name for found in rows for name in found)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(analysis: Analysis) -> str:
    """Tables of the numbers, the minima and the runs, and the notes."""
    parts = [f"Loss: `{analysis.loss}` at the last step; {len(analysis.runs)} runs."]
    if analysis.law:
        terms = "".join(f" + {A:.3g} ({name} / {analysis.law.centers[name]:.3g})^-{analysis.law.exponents[name]:.3g}"
            for name, A in analysis.law.A.items())  # fmt: skip
        parts += [
            f"    L = {analysis.law.E:.4g}{terms}",
            f"Median deviation of the runs: {analysis.numbers['error']:.2%}.",
            f"Intervals: 95 %, percentiles of {analysis.resamples:,} bootstraps over the runs, seed {analysis.seed}.",
            _table(("", "value", "interval"), [
                (NAMES.get(name, name), f"{value:.4g}", "{:.3g} .. {:.3g}".format(*analysis.intervals[name]))
                for name, value in analysis.numbers.items() if name in analysis.intervals
            ]),
        ]  # fmt: skip
    if analysis.minima:
        parts.append(_table(("compute, FLOPs", "runs", "best parameters", "loss there"), [
            (f"{minimum.flops:.3g}", len(minimum.runs),
                f"{minimum.parameters:,.0f}" if minimum.parameters else "-", f"{minimum.loss:.4f}" if minimum.loss else "-")
            for minimum in analysis.minima
        ]))  # fmt: skip
    if analysis.growth is not None:
        parts.append(f"The best parameters grow as C^{analysis.growth:.2f}.")
    parts += analysis.notes
    header = ("width", "depth", "T", "seed", "parameters", "images", "FLOPs", "loss", *(["law"] if analysis.law else []))
    parts.append(_table(header, [_texts(row(analysis, run)) for run in analysis.runs]))
    return "\n\n".join(parts) + "\n"


NAMES = {"optimum": "exponent of the best N in compute, by the law"}


def _texts(found):
    """The cells of a run in the Markdown table."""
    plain = [found.get(name, "-") for name in ("width", "depth", "spiking_steps", "seed")]
    losses = [f"{found[name]:.4f}" for name in ("loss", "law") if name in found]
    return [*plain, f"{found['parameters']:,}", f"{found['images']:,}", f"{found['flops']:.3g}", *losses]


def _table(header, rows):
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (header, ["---"] * len(header), *rows))
