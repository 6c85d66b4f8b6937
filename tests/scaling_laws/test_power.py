"""Fits of known laws: exact without noise, within the intervals with noise, robust to a bad run."""

import numpy as np
import pytest
from scipy import optimize, stats

from sdit_jax.scaling_laws.power import bootstrap, fit_power_law, interval

N, D, T = np.meshgrid([2e4, 5e4, 1e5, 3e5], [1e4, 5e4, 2e5], [1.0, 2.0, 4.0], indexing="ij")
GRID = {"N": N.ravel(), "D": D.ravel(), "T": T.ravel()}


def chinchilla(x):
    """L of a (N, D, T) law, in its usual form."""
    return 0.15 + 30 * x["N"] ** -0.6 + 8 * x["D"] ** -0.4 + 0.02 * x["T"] ** -1.2


def test_the_fit_is_exact_without_noise():
    law = fit_power_law(GRID, chinchilla(GRID))
    assert law.exponents == pytest.approx({"N": 0.6, "D": 0.4, "T": 1.2}, rel=1e-4)
    assert pytest.approx(0.15, rel=1e-4) == law.E
    elsewhere = {"N": 1e6, "D": 1e7, "T": 16.0}
    assert law(**elsewhere) == pytest.approx(chinchilla(elsewhere), rel=1e-4)
    assert law.A["D"] == pytest.approx(8 * law.centers["D"] ** -0.4, rel=1e-3)


def test_the_intervals_cover_the_true_exponent():
    """Intervals of 95 % in at least 16 of 20 sets of runs (19 expected), and not because they are wide."""
    sizes, covered, widths = np.geomspace(1e4, 1e6, 12), 0, []
    for seed in range(20):
        noise = np.exp(0.01 * np.random.default_rng(seed).standard_normal(12))
        losses = (0.2 + 0.3 * (sizes / 1e5) ** -0.5) * noise
        law = fit_power_law({"N": sizes}, losses)
        low, high = interval(np.array([one.exponents["N"] for one in bootstrap({"N": sizes}, losses, law, 50, seed)]))
        covered += low <= 0.5 <= high
        widths.append(high - low)
    assert covered >= 16
    assert 0.01 < np.median(widths) < 0.2


def test_the_bootstrap_agrees_with_scipy():
    sizes = np.geomspace(1e4, 1e6, 16)
    losses = (0.2 + 0.3 * (sizes / 1e5) ** -0.5) * np.exp(0.01 * np.random.default_rng(1).standard_normal(16))
    law = fit_power_law({"N": sizes}, losses)
    ours = interval(np.array([one.exponents["N"] for one in bootstrap({"N": sizes}, losses, law, 300, 0)]), 0.8)
    theirs = stats.bootstrap(
        (sizes, losses), lambda x, y: fit_power_law({"N": x}, y, law).exponents["N"], paired=True, vectorized=False,
        n_resamples=300, method="percentile", confidence_level=0.8, random_state=1,
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(ours, theirs, atol=0.15 * (ours[1] - ours[0]))


def test_one_bad_run_moves_the_robust_fit_less_than_least_squares():
    sizes = np.geomspace(1e4, 1e6, 12)
    losses = 0.2 + 0.3 * (sizes / 1e5) ** -0.5
    losses[4] *= 1.4
    squares, _ = optimize.curve_fit(lambda n, e, a, b: e + a * (n / 1e5) ** -b, sizes, losses, p0=(0.1, 0.3, 0.7))
    robust = abs(fit_power_law({"N": sizes}, losses).exponents["N"] - 0.5)
    assert robust < 0.01 < 0.03 < abs(squares[2] - 0.5)


def test_too_few_runs_are_an_error():
    with pytest.raises(ValueError, match="5 runs, more than 5"):
        fit_power_law({"N": np.geomspace(1, 9, 5), "D": np.geomspace(1, 2, 5)}, np.ones(5))
