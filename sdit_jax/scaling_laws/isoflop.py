"""IsoFLOP minima: the network size of lowest loss at a compute budget, by a parabola in log N through the runs of the budget.

Source: Hoffmann et al. 2022 (arXiv 2203.15556), approach 2.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

SAME_BUDGET = 1.1  # A budget ends where the compute of the sorted runs jumps by more than this factor.


@dataclasses.dataclass(frozen=True)
class Minimum:
    """The fit of one budget: log L = p2 z^2 + p1 z + p0 with z = log N.

    `flops` is the geometric mean of the budget's runs and `runs` their indices, from the smallest network to the largest.
    `parameters` and `loss` are those of the parabola's minimum. They are None, with a `reason`, where there is no minimum
    within the range of sizes.
    """

    flops: float
    runs: tuple[int, ...]
    parabola: tuple[float, float, float] | None = None
    parameters: float | None = None
    loss: float | None = None
    reason: str = ""


def minima(parameters: np.ndarray, flops: np.ndarray, losses: np.ndarray) -> list[Minimum]:
    """The minimum of each budget, from the smallest budget to the largest."""
    order = np.argsort(flops)
    jumps = np.flatnonzero(np.diff(np.log(flops[order])) > np.log(SAME_BUDGET)) + 1
    return [_fit(chosen, parameters[chosen], flops[chosen], losses[chosen]) for chosen in np.split(order, jumps)]


def _fit(chosen, parameters, flops, losses):
    found = Minimum(float(np.exp(np.log(flops).mean())), tuple(int(i) for i in chosen[np.argsort(parameters)]))
    different = len(np.unique(parameters))
    if different < 3:
        return dataclasses.replace(found, reason=f"{different} network size{'s' * (different > 1)}, 3 are needed")
    z, center = np.log(parameters), np.log(parameters).mean()
    p2, p1, p0 = np.polyfit(z - center, np.log(losses), 2)  # Centered: better conditioned.
    parabola = (float(p2), float(p1 - 2 * p2 * center), float(p0 - p1 * center + p2 * center**2))
    found = dataclasses.replace(found, parabola=parabola)
    z_lowest = center - p1 / (2 * p2) if p2 > 0 else np.inf
    if not z.min() <= z_lowest <= z.max():
        return dataclasses.replace(found, reason="no minimum within the range of sizes")
    return dataclasses.replace(found, parameters=float(np.exp(z_lowest)), loss=float(np.exp(p0 - p1**2 / (4 * p2))))


def growth(found: Sequence[Minimum]) -> float | None:
    """The exponent a of N = k C^a through the minima, least squares in logarithms; None where there are fewer than two."""
    lowest = [(minimum.flops, minimum.parameters) for minimum in found if minimum.parameters]
    if len(lowest) < 2:
        return None
    log_flops, log_parameters = np.log(lowest).T
    return float(np.polyfit(log_flops, log_parameters, 1)[0])
