"""Figure of the runs and their law: loss against compute, against parameters at each budget, against spiking steps."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from sdit_jax.scaling_laws.analysis import Analysis
from sdit_jax.scaling_laws.style import COLORS, INK, draw_panels, short


def draw(analysis: Analysis, path: Path) -> None:
    """Writes a PNG of the panels that have runs; all axes are logarithmic."""
    panels = [_against_compute]
    if any(minimum.parabola for minimum in analysis.minima):
        panels.append(_minima)
    if _at_several_spiking_steps(analysis):
        panels.append(_against_spiking_steps)

    def fill(axes, panel):
        axes.set(xscale="log", yscale="log")
        panel(axes, analysis)

    draw_panels(path, panels, fill)


def _loss(analysis, run):
    return run.losses[analysis.loss]


def _against_compute(axes: Axes, analysis: Analysis):
    """A line per network, coloured by size; the lowest loss of the law at each compute."""
    networks = defaultdict(list)
    for run in analysis.runs:
        if run.spiking_steps == analysis.spiking_steps:
            networks[run.parameters, run.width, run.blocks].append(run)
    for i, ((N, width, blocks), runs) in enumerate(sorted(networks.items())):
        runs.sort(key=lambda run: run.flops)
        axes.plot(
            [run.flops for run in runs], [_loss(analysis, run) for run in runs], "o-", markersize=4.5,
            color=COLORS(0.92 * i / max(1, len(networks) - 1)), label=f"{short(N)}  ({width} x {blocks})",
        )  # fmt: skip
    if analysis.law and {"N", "D"} <= set(analysis.law.A):
        flops = np.geomspace(*_ends([run.flops for run in analysis.runs]), 40)
        sizes = np.geomspace(*_ends([run.parameters for run in analysis.runs]), 200)
        losses = analysis.law(N=sizes, D=flops[:, None] / analysis.flops(sizes), T=analysis.spiking_steps)
        axes.plot(flops, losses.min(1), color=INK, linestyle="--", linewidth=1.8, label="lowest by the law")
    axes.set(title="Loss against compute", xlabel="training compute, FLOPs", ylabel=f"loss ({_words(analysis.loss)})")
    axes.legend(title="parameters  (width x blocks)", title_fontsize=8.5, loc="upper left", bbox_to_anchor=(1, 1.02))


def _minima(axes: Axes, analysis: Analysis):
    """The runs of each budget, their parabola and its minimum."""
    budgets = [(minimum, minimum.parabola) for minimum in analysis.minima if minimum.parabola]
    for i, (minimum, parabola) in enumerate(budgets):
        color = COLORS(0.85 * i / max(1, len(budgets) - 1))
        runs = [analysis.runs[place] for place in minimum.runs]
        sizes = np.geomspace(*_ends([run.parameters for run in runs]), 100)
        axes.plot(sizes, np.exp(np.polyval(parabola, np.log(sizes))), color=color)
        axes.plot(
            [run.parameters for run in runs], [_loss(analysis, run) for run in runs], "o", markersize=4.5, color=color,
            label=f"{short(minimum.flops)} FLOPs",
        )  # fmt: skip
        if minimum.parameters and minimum.loss:
            axes.plot(minimum.parameters, minimum.loss, "*", markersize=12, color=color, markeredgecolor="white")
    axes.set(title="IsoFLOP: loss against size", xlabel="parameters", ylabel="loss")
    axes.legend()


def _at_several_spiking_steps(analysis):
    """Groups of runs, by (parameters, images), that have more than one number of spiking steps."""
    groups = defaultdict(list)
    for run in analysis.runs:
        groups[run.parameters, run.images].append(run)
    return {key: runs for key, runs in sorted(groups.items()) if len({run.spiking_steps for run in runs}) > 1}


def _against_spiking_steps(axes: Axes, analysis: Analysis):
    groups = _at_several_spiking_steps(analysis)
    for i, ((N, D), runs) in enumerate(groups.items()):
        color = COLORS(0.3 + 0.6 * i / len(groups))
        runs.sort(key=lambda run: run.spiking_steps)
        label = f"{short(N)} parameters, {short(D)} images"
        axes.plot([run.spiking_steps for run in runs], [_loss(analysis, run) for run in runs], "o", color=color, label=label)
        if analysis.law and "T" in analysis.law.A:
            steps = np.geomspace(runs[0].spiking_steps, runs[-1].spiking_steps, 60)
            axes.plot(steps, analysis.law(N=N, D=D, T=steps), "--", color=INK, label="the law")
    axes.set(title="Loss against spiking steps", xlabel="spiking steps T", ylabel="loss")
    seen = sorted({run.spiking_steps for runs in groups.values() for run in runs})
    axes.set_xticks(seen, labels=map(str, seen))
    axes.legend()


def _ends(values):
    return min(values), max(values)


def _words(loss):
    return {
        "evaluation/ema/loss/test": "test images, averaged weights",
        "evaluation/raw/loss/test": "test images, raw weights",
    }.get(loss, "training, last window" if loss == "loss" else loss)
