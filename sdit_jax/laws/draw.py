"""Runs and their law as one figure: loss against compute, against parameters at each budget, against spiking steps."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from sdit_jax.laws.analysis import Analysis
from sdit_jax.laws.style import COLORS, INK, draw_panels, short


def draw(analysis: Analysis, path: Path) -> None:
    """Writes a PNG of those panels for which there are runs; all axes are logarithmic."""
    panels = [_against_compute]
    if any(valley.parabola for valley in analysis.valleys):
        panels.append(_valleys)
    if _at_several_timesteps(analysis):
        panels.append(_against_timesteps)

    def fill(axes, panel):
        axes.set(xscale="log", yscale="log")
        panel(axes, analysis)

    draw_panels(path, panels, fill)


def _loss(analysis, run):
    return run.losses[analysis.loss]


def _against_compute(axes: Axes, analysis: Analysis):
    """The runs of a network joined, coloured by size; the law's least loss at each compute."""
    networks = defaultdict(list)
    for run in analysis.runs:
        if run.timesteps == analysis.timesteps:
            networks[run.parameters, run.width, run.depth].append(run)
    for i, ((N, width, depth), runs) in enumerate(sorted(networks.items())):
        runs.sort(key=lambda run: run.flops)
        axes.plot(
            [run.flops for run in runs], [_loss(analysis, run) for run in runs], "o-", markersize=4.5,
            color=COLORS(0.92 * i / max(1, len(networks) - 1)), label=f"{short(N)}  ({width} x {depth + 1})",
        )  # fmt: skip
    if analysis.law and {"N", "D"} <= set(analysis.law.A):
        flops = np.geomspace(*_ends([run.flops for run in analysis.runs]), 40)
        sizes = np.geomspace(*_ends([run.parameters for run in analysis.runs]), 200)
        losses = analysis.law(N=sizes, D=flops[:, None] / analysis.flops(sizes), T=analysis.timesteps)
        axes.plot(flops, losses.min(1), color=INK, linestyle="--", linewidth=1.8, label="least by the law")
    axes.set(title="Loss against compute", xlabel="training compute, FLOPs", ylabel=f"loss ({_words(analysis.loss)})")
    axes.legend(title="parameters  (width x blocks)", title_fontsize=8.5, loc="upper left", bbox_to_anchor=(1, 1.02))


def _valleys(axes: Axes, analysis: Analysis):
    """Each budget's runs, its parabola and its lowest point."""
    budgets = [(valley, valley.parabola) for valley in analysis.valleys if valley.parabola]
    for i, (valley, parabola) in enumerate(budgets):
        color = COLORS(0.85 * i / max(1, len(budgets) - 1))
        runs = [analysis.runs[place] for place in valley.runs]
        sizes = np.geomspace(*_ends([run.parameters for run in runs]), 100)
        axes.plot(sizes, np.exp(np.polyval(parabola, np.log(sizes))), color=color)
        axes.plot(
            [run.parameters for run in runs], [_loss(analysis, run) for run in runs], "o", markersize=4.5, color=color,
            label=f"{short(valley.flops)} FLOPs",
        )  # fmt: skip
        if valley.parameters and valley.loss:
            axes.plot(valley.parameters, valley.loss, "*", markersize=12, color=color, markeredgecolor="white")
    axes.set(title="IsoFLOP: loss against size", xlabel="parameters", ylabel="loss")
    axes.legend()


def _at_several_timesteps(analysis):
    """Lists of runs that differ in their spiking steps alone."""
    groups = defaultdict(list)
    for run in analysis.runs:
        groups[run.parameters, run.images].append(run)
    return {key: runs for key, runs in sorted(groups.items()) if len({run.timesteps for run in runs}) > 1}


def _against_timesteps(axes: Axes, analysis: Analysis):
    groups = _at_several_timesteps(analysis)
    for i, ((N, D), runs) in enumerate(groups.items()):
        color = COLORS(0.3 + 0.6 * i / len(groups))
        runs.sort(key=lambda run: run.timesteps)
        label = f"{short(N)} parameters, {short(D)} images"
        axes.plot([run.timesteps for run in runs], [_loss(analysis, run) for run in runs], "o", color=color, label=label)
        if analysis.law and "T" in analysis.law.A:
            steps = np.geomspace(runs[0].timesteps, runs[-1].timesteps, 60)
            axes.plot(steps, analysis.law(N=N, D=D, T=steps), "--", color=INK, label="the law")
    axes.set(title="Loss against spiking steps", xlabel="spiking steps T", ylabel="loss")
    seen = sorted({run.timesteps for runs in groups.values() for run in runs})
    axes.set_xticks(seen, labels=map(str, seen))
    axes.legend()


def _ends(values):
    return min(values), max(values)


def _words(loss):
    return {
        "evaluation/ema/loss/test": "test images, averaged weights",
        "evaluation/raw/loss/test": "test images, raw weights",
    }.get(loss, "training, last window" if loss == "loss" else loss)
