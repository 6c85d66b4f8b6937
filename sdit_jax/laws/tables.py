"""An analysis as files: `scaling.json` with everything, `scaling.md` to read, `runs.csv` for other programs."""

import csv
import dataclasses
import io

from sdit_jax.laws.analysis import VARIABLES, Analysis
from sdit_jax.laws.collect import Run
from sdit_jax.sampling.protocol import versions

COLUMNS = ("name", "width", "depth", "timesteps", "seed", "parameters", "images", "flops")


def row(analysis: Analysis, run: Run) -> dict:
    """What is known of a run, plain numbers; `loss` is the one that was analysed, `law` what the law says of it."""
    found = {name: getattr(run, name) for name in COLUMNS} | {"loss": run.losses[analysis.loss]}
    if analysis.law:
        found["law"] = float(analysis.law(**{name: getattr(run, field) for name, field in VARIABLES.items()}))
    return found


def to_json(analysis: Analysis) -> dict:
    """All runs and numbers, with how they were had."""
    return {
        "loss": analysis.loss,
        "runs": [row(analysis, run) for run in analysis.runs],
        "law": analysis.law and dataclasses.asdict(analysis.law),
        "numbers": analysis.numbers,
        "intervals": {"level": 0.95, "by": "percentiles of a bootstrap over runs", "resamples": analysis.resamples,
            "seed": analysis.seed, "values": analysis.intervals},
        "flops_per_image": analysis.cost and dict(zip(("k", "exponent_N"), analysis.cost, strict=True)),
        "isoflop": {"timesteps": analysis.timesteps, "growth": analysis.growth,
            "valleys": [
                dataclasses.asdict(valley) | {"runs": [analysis.runs[place].name for place in valley.runs]}
                for valley in analysis.valleys
            ]},
        "notes": analysis.notes,
        "versions": versions(),
    }  # fmt: skip


def to_csv(analysis: Analysis) -> str:
    """One line per run."""
    rows = [row(analysis, run) for run in analysis.runs]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(analysis: Analysis) -> str:
    """Tables of the numbers, the valleys and the runs, and the notes."""
    parts = [f"Loss: `{analysis.loss}` at the last step; {len(analysis.runs)} runs."]
    if analysis.law:
        terms = "".join(f" + {A:.3g} ({name} / {analysis.law.centers[name]:.3g})^-{analysis.law.exponents[name]:.3g}"
            for name, A in analysis.law.A.items())  # fmt: skip
        parts += [
            f"    L = {analysis.law.E:.4g}{terms}",
            f"Runs miss it by {analysis.numbers['error']:.2%} (median). Intervals: 95 %, percentiles of {analysis.resamples:,} "
            f"bootstraps over the runs, seed {analysis.seed}.",
            _table(("", "value", "interval"), [
                (NAMES.get(name, name), f"{value:.4g}", "{:.3g} .. {:.3g}".format(*analysis.intervals[name]))
                for name, value in analysis.numbers.items() if name in analysis.intervals
            ]),
        ]  # fmt: skip
    if analysis.valleys:
        parts.append(_table(("compute, FLOPs", "runs", "best parameters", "its loss"), [
            (f"{valley.flops:.3g}", len(valley.runs), *((f"{valley.parameters:,.0f}", f"{valley.loss:.4f}")
                if valley.parameters and valley.loss else ("-", "-")))
            for valley in analysis.valleys
        ]))  # fmt: skip
    if analysis.growth is not None:
        parts.append(f"Best parameters grow as C^{analysis.growth:.2f} through these points.")
    parts += analysis.notes
    header = ("width", "depth", "T", "seed", "parameters", "images", "FLOPs", "loss", *(["law"] if analysis.law else []))
    parts.append(_table(header, [_texts(row(analysis, run)) for run in analysis.runs]))
    return "\n\n".join(parts) + "\n"


NAMES = {"optimum": "exponent of the best N in compute, by the law"}


def _texts(found):
    """A run's row as it is shown."""
    plain = [found[name] for name in ("width", "depth", "timesteps", "seed")]
    losses = [f"{found[name]:.4f}" for name in ("loss", "law") if name in found]
    return [*plain, f"{found['parameters']:,}", f"{found['images']:,}", f"{found['flops']:.3g}", *losses]


def _table(header, rows):
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (header, ["---"] * len(header), *rows))
