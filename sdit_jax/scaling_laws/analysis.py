"""The analysis of finished runs: a power law of the loss, isoFLOP minima, and notes on what the runs do not determine."""

import dataclasses
import math

import numpy as np

from sdit_jax.scaling_laws.collect import Collected, Run, differing
from sdit_jax.scaling_laws.isoflop import Minimum, growth, minima
from sdit_jax.scaling_laws.power import EXPONENTS, NOTHING, PowerLaw, bootstrap, fit_power_law, interval

VARIABLES = {"N": "parameters", "D": "images", "T": "spiking_steps"}
COLLINEAR = 0.999  # Variables whose logarithms correlate more than this have no separate exponents.


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Everything that was computed from the runs.

    `numbers` holds those of the law, "optimum": the exponent of the best N in compute, and "error": the median relative
    deviation of the runs from the law. `intervals` are 95 % intervals of `numbers`.
    """

    runs: list[Run]
    loss: str
    spiking_steps: int  # Of the runs in `minima`: the most common number.
    law: PowerLaw | None
    numbers: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    resamples: int
    seed: int
    cost: tuple[float, float] | None  # (k, p) of `flops`; None where all networks have one size.
    minima: list[Minimum]
    growth: float | None
    notes: list[str]

    def flops(self, N):
        """Training FLOPs per image of a network of N parameters: k N^p, fitted to the runs."""
        k, p = self.cost or (math.nan, 0.0)
        return k * N**p


def analyse(collected: Collected, resamples: int, seed: int) -> Analysis:
    """The law of all runs, and the minima of those with the most common number of spiking steps."""
    runs, notes = collected.runs, [f"left out: {line}" for line in collected.left_out]
    if others := differing(runs):
        notes.append(f"fields outside the law that differ between runs: {', '.join(others)}")
    values = {name: np.array([getattr(run, field) for run in runs], float) for name, field in VARIABLES.items()}
    losses = np.array([run.losses[collected.loss] for run in runs])
    flops = np.array([run.flops for run in runs])
    x, missing = choose_variables(values)
    notes += missing
    p, log_k = np.polyfit(np.log(values["N"]), np.log(flops / values["D"]), 1) if "N" in x else (0.0, None)

    law, numbers, intervals = None, {}, {}
    try:
        law = fit_power_law(x, losses) if x else None
    except ValueError as error:
        notes.append(f"no law is fitted: {error}")
    if law:
        numbers = _numbers(law, p)
        resampled = [_numbers(one, p) for one in bootstrap(x, losses, law, resamples, seed)]
        intervals = {name: interval(np.array([one[name] for one in resampled])) for name in numbers}
        notes += _undetermined(intervals, losses.min())
        numbers["error"] = float(np.median(np.abs(law(**x) / losses - 1)))

    steps = [run.spiking_steps for run in runs]
    common = max(sorted(set(steps)), key=steps.count)
    same = np.flatnonzero(np.array(steps) == common)
    found = minima(values["N"][same], flops[same], losses[same])
    found = [dataclasses.replace(minimum, runs=tuple(int(same[i]) for i in minimum.runs)) for minimum in found]
    notes += [f"isoFLOP {minimum.flops:.3g}: {minimum.reason}" for minimum in found if minimum.reason]
    return Analysis(
        runs=runs,
        loss=collected.loss,
        spiking_steps=common,
        law=law,
        numbers=numbers,
        intervals=intervals,
        resamples=resamples if law else 0,
        seed=seed,
        cost=None if log_k is None else (float(np.exp(log_k)), float(p)),
        minima=found,
        growth=growth(found),
        notes=notes,
    )


def choose_variables(values: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The variables that a law can have a term in, and a note for each other one."""
    chosen, notes = {}, []
    for name, x in values.items():
        different = len(np.unique(x))
        collinear = [other for other, y in chosen.items() if different > 1 and _correlation(x, y) > COLLINEAR]
        if different < 3:
            notes.append(f"no term in {name}: the runs have {different} different value{'s' * (different > 1)}, 3 are needed")
        elif collinear:
            notes.append(f"no term in {name}: it is proportional to a power of {collinear[0]} in these runs")
        else:
            chosen[name] = x
    return chosen, notes


def _correlation(x, y):
    return abs(np.corrcoef(np.log(x), np.log(y))[0, 1])


def _numbers(law, p):
    """The numbers of a law; with N and D, also the exponent of the best N at compute N^p D: a_D / (a_N + p a_D)."""
    numbers = law.numbers()
    if {"N", "D"} <= set(law.A):
        a_N, a_D = law.exponents["N"], law.exponents["D"]
        numbers["optimum"] = a_D / (a_N + p * a_D)
    return numbers


def _undetermined(intervals, least_loss):
    """A note for each number whose interval reaches the bounds of the fit."""
    lowest, highest = EXPONENTS
    notes = [
        f"{name}: not determined by these runs, its interval reaches the bounds {lowest} .. {highest} of the fit"
        for name, (low, high) in intervals.items()
        if name.startswith("exponent") and (low < 1.01 * lowest or high > 0.99 * highest)
    ]
    if intervals["E"][0] < 10 * NOTHING * least_loss:
        notes.append("E: not distinguishable from zero by these runs")
    return notes
