"""A power law of the loss, fitted robustly to finished runs, with bootstrap intervals of its numbers.

    L(x) = E + sum over k of A_k (x_k / c_k)^(-a_k)        x: parameters N, images D and, where they vary, spiking steps T

c_k is the geometric mean of x_k over the runs, so that A_k is the contribution of x_k at that point; E is the irreducible
loss. Source: Hoffmann et al. 2022 (arXiv 2203.15556), approach 3, which has N and D.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import logsumexp, softmax

HUBER = 1e-3  # Residuals of log L beyond it count linearly.
EXPONENTS = (0.001, 4.0)  # Bounds of the fit.
NOTHING = 1e-6  # Lower bound of E and A, as a fraction of the lowest loss.
STARTS = {"E": (0.1, 0.5, 0.9), "exponent": (0.25, 1.0)}  # E as a fraction of the lowest loss.


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """L(x) = E + sum A_k (x_k / c_k)^(-a_k); A, a and c are keyed by the variable."""

    E: float
    A: dict[str, float]
    exponents: dict[str, float]
    centers: dict[str, float]

    def __call__(self, **x: Any) -> Any:
        """The loss at the variables, numbers or arrays given by keyword."""
        return self.E + sum(A * (x[name] / self.centers[name]) ** -self.exponents[name] for name, A in self.A.items())

    def numbers(self) -> dict[str, float]:
        """The fitted numbers by name: "E", "A_N", "exponent_N", ..."""
        flat = {f"A_{name}": A for name, A in self.A.items()} | {f"exponent_{name}": a for name, a in self.exponents.items()}
        return {"E": self.E} | flat


def fit_power_law(x: Mapping[str, np.ndarray], losses: np.ndarray, start: PowerLaw | None = None) -> PowerLaw:
    """The law with the lowest Huber loss on log L: the best of several starting points, or of `start` alone.

    Raises ValueError unless there are more runs than fitted numbers.
    """
    K, least = len(x), float(np.min(losses))
    if len(losses) <= 1 + 2 * K:
        raise ValueError(f"{len(losses)} runs, more than {1 + 2 * K} are needed")
    centers = start.centers if start else {name: float(np.exp(np.log(values).mean())) for name, values in x.items()}
    z_KN = np.stack([np.log(values / centers[name]) for name, values in x.items()])
    log_losses, ones = np.log(losses), np.ones((1, len(losses)))
    lower = np.repeat([np.log(least * NOTHING), EXPONENTS[0]], (K + 1, K))
    upper = np.repeat([np.inf, EXPONENTS[1]], (K + 1, K))

    def log_terms(theta):  # theta: log E, log A_k, a_k.
        return np.concatenate([theta[0] * ones, theta[1 : K + 1, None] - theta[K + 1 :, None] * z_KN])

    def residuals(theta):
        return logsumexp(log_terms(theta), axis=0) - log_losses

    def slopes(theta):
        shares = softmax(log_terms(theta), axis=0)
        return np.concatenate([shares, -shares[1:] * z_KN]).T

    if start:
        guesses = [[np.log(start.E), *np.log(list(start.A.values())), *start.exponents.values()]]
    else:
        guesses = [
            [np.log(part * least), *[np.log((1 - part) * least / K)] * K, *exponents]
            for part in STARTS["E"] for exponents in itertools.product(STARTS["exponent"], repeat=K)
        ]  # fmt: skip
    options: dict[str, Any] = {"jac": slopes, "bounds": (lower, upper), "loss": "huber", "f_scale": HUBER}
    found = (least_squares(residuals, np.clip(guess, lower, upper), **options) for guess in guesses)
    theta = min(found, key=lambda fit: fit.cost).x
    A = dict(zip(x, np.exp(theta[1 : K + 1]).tolist(), strict=True))
    exponents = dict(zip(x, theta[K + 1 :].tolist(), strict=True))
    return PowerLaw(float(np.exp(theta[0])), A, exponents, centers)


def bootstrap(x: Mapping[str, np.ndarray], losses: np.ndarray, law: PowerLaw, resamples: int, seed: int) -> list[PowerLaw]:
    """Laws of resamples of the runs, drawn with replacement, each fitted from `law`. Source: Efron 1979."""
    drawn = np.random.default_rng(seed).integers(0, len(losses), (resamples, len(losses)))
    return [fit_power_law({name: values[chosen] for name, values in x.items()}, losses[chosen], law) for chosen in drawn]


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrapped values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
