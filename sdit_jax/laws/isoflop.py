"""Where the loss at one compute is lowest, without a law: a parabola in log N through the runs of each budget.

Source: Hoffmann et al. 2022 (arXiv 2203.15556), approach 2.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

SAME_BUDGET = 1.1  # Runs are of one budget whose sorted compute nowhere jumps by more than this factor.


@dataclasses.dataclass(frozen=True)
class Valley:
    """The runs of a budget, by their places, and the parabola log L = p2 z^2 + p1 z + p0 in z = log N through them.

    `parameters` and `loss` are those of its lowest point; None where there is none among the runs, for the `reason` given.
    """

    flops: float
    runs: tuple[int, ...]
    parabola: tuple[float, float, float] | None = None
    parameters: float | None = None
    loss: float | None = None
    reason: str = ""


def valleys(parameters: np.ndarray, flops: np.ndarray, losses: np.ndarray) -> list[Valley]:
    """One for each budget, from small to large."""
    order = np.argsort(flops)
    jumps = np.flatnonzero(np.diff(np.log(flops[order])) > np.log(SAME_BUDGET)) + 1
    return [_valley(chosen, parameters[chosen], flops[chosen], losses[chosen]) for chosen in np.split(order, jumps)]


def _valley(chosen, parameters, flops, losses):
    found = Valley(float(np.exp(np.log(flops).mean())), tuple(int(i) for i in chosen[np.argsort(parameters)]))
    if (different := len(np.unique(parameters))) < 3:
        return dataclasses.replace(found, reason=f"{different} network size{'s' * (different > 1)}, 3 are needed")
    z, middle = np.log(parameters), np.log(parameters).mean()
    bend, slope, height = np.polyfit(z - middle, np.log(losses), 2)
    parabola = (float(bend), float(slope - 2 * bend * middle), float(height - slope * middle + bend * middle**2))
    found = dataclasses.replace(found, parabola=parabola)
    lowest = middle - slope / (2 * bend) if bend > 0 else np.inf
    if not z.min() <= lowest <= z.max():
        return dataclasses.replace(found, reason="no lowest point within the range of sizes")
    return dataclasses.replace(found, parameters=float(np.exp(lowest)), loss=float(np.exp(height - slope**2 / (4 * bend))))


def growth(found: Sequence[Valley]) -> float | None:
    """The exponent a of N = C^a through the lowest points, least squares in logarithms; None where there are fewer than two."""
    lowest = [(valley.flops, valley.parameters) for valley in found if valley.parameters]
    if len(lowest) < 2:
        return None
    log_flops, log_parameters = np.log(lowest).T
    return float(np.polyfit(log_flops, log_parameters, 1)[0])
