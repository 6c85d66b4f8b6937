"""All that finished runs tell together: the law, valleys, and in a line each what could not be had."""

import dataclasses
import math

import numpy as np

from sdit_jax.laws.collect import Collected, Run, differing
from sdit_jax.laws.isoflop import Valley, growth, valleys
from sdit_jax.laws.power import EXPONENTS, NOTHING, PowerLaw, bootstrap, fit_power_law, interval

VARIABLES = {"N": "parameters", "D": "images", "T": "timesteps"}
TOGETHER = 0.999  # Variables whose logarithms correlate more than this cannot be told apart.


@dataclasses.dataclass(frozen=True)
class Analysis:
    """`law` is None where there is none; `intervals` are of 95 %, by the names of `numbers`; `notes` are for a person.

    `numbers` holds those of the law, "optimum", the exponent of the best N in compute by the law, and "error", the median
    relative deviation of the runs from it.
    """

    runs: list[Run]
    loss: str
    timesteps: int  # Spiking steps of the valleys: those of most runs.
    law: PowerLaw | None
    numbers: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    resamples: int
    seed: int
    cost: tuple[float, float] | None  # None where all networks are of one size.
    valleys: list[Valley]
    growth: float | None
    notes: list[str]

    def flops(self, N):
        """FLOPs of an image of a network of N parameters: k N^p through the runs, with (k, p) in `cost`."""
        k, p = self.cost or (math.nan, 0.0)
        return k * N**p


def analyse(collected: Collected, resamples: int, seed: int) -> Analysis:
    """The law from all runs, valleys from those with the most common number of spiking steps."""
    runs, notes = collected.runs, [f"left out: {line}" for line in collected.left_out]
    if others := differing(runs):
        notes.append(f"fields of which the law does not know, but that differ between runs: {', '.join(others)}")
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
        again = bootstrap(x, losses, law, resamples, seed)
        numbers, resampled = _numbers(law, p), [_numbers(one, p) for one in again]
        intervals = {name: interval(np.array([one[name] for one in resampled])) for name in numbers}
        notes += [
            f"{name}: these runs do not tell it, its interval reaches the bounds {EXPONENTS[0]} .. {EXPONENTS[1]} of the fit"
            for name, (low, high) in intervals.items()
            if name.startswith("exponent") and (low < 1.01 * EXPONENTS[0] or high > 0.99 * EXPONENTS[1])
        ]
        if intervals["E"][0] < 10 * NOTHING * losses.min():
            notes.append("E: these runs do not tell it from nothing")
        numbers["error"] = float(np.median(np.abs(law(**x) / losses - 1)))

    steps = [run.timesteps for run in runs]
    common = max(sorted(set(steps)), key=steps.count)
    same = np.flatnonzero(np.array(steps) == common)
    found = valleys(values["N"][same], flops[same], losses[same])
    found = [dataclasses.replace(valley, runs=tuple(int(same[i]) for i in valley.runs)) for valley in found]
    notes += [f"isoFLOP {valley.flops:.3g}: {valley.reason}" for valley in found if valley.reason]
    cost = None if log_k is None else (float(np.exp(log_k)), float(p))
    return Analysis(
        runs, collected.loss, common, law, numbers, intervals, resamples if law else 0, seed, cost, found, growth(found), notes
    )


def choose_variables(values: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those variables in which a law can be fitted, and a line for each other one."""
    chosen, notes = {}, []
    for name, x in values.items():
        different = len(np.unique(x))
        twins = [other for other, y in chosen.items() if different > 1 and _correlation(x, y) > TOGETHER]
        if different < 3:
            notes.append(f"no term in {name}: the runs have {different} different value{'s' * (different > 1)}, 3 are needed")
        elif twins:
            notes.append(f"no term in {name}: it moves with {twins[0]}, so that they cannot be told apart")
        else:
            chosen[name] = x
    return chosen, notes


def _correlation(x, y):
    return abs(np.corrcoef(np.log(x), np.log(y))[0, 1])


def _numbers(law, p):
    """Those of a law; with N and D, also the exponent of the best N at compute N^p D: a_D / (a_N + p a_D)."""
    numbers = law.numbers()
    if {"N", "D"} <= set(law.A):
        a_N, a_D = law.exponents["N"], law.exponents["D"]
        numbers["optimum"] = a_D / (a_N + p * a_D)
    return numbers
