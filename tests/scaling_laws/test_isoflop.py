"""IsoFLOP minima of losses whose minimum is known."""

import numpy as np
import pytest

from sdit_jax.scaling_laws.isoflop import growth, minima

SIZES = np.geomspace(1e4, 1e6, 5)


def test_the_minimum_of_a_parabola_is_found():
    losses = np.exp(0.3 * np.log(SIZES / 8e4) ** 2 - 1)
    (minimum,) = minima(SIZES, np.full(5, 1e12) * [1, 1.02, 0.99, 1, 1.01], losses)
    assert (minimum.parameters, minimum.loss) == (pytest.approx(8e4), pytest.approx(np.exp(-1)))
    assert minimum.runs == (0, 1, 2, 3, 4) and not minimum.reason


def test_the_best_size_grows_as_the_law_predicts():
    """Hoffmann et al., equation 4: with C = 6 N D the best N is G (C / 6)^(b / (a + b))."""
    a, b, A, B = 0.4, 0.6, 50.0, 300.0
    budgets, best = np.array([1e11, 1e12, 1e13]), lambda C: (a * A / (b * B)) ** (1 / (a + b)) * (C / 6) ** (b / (a + b))
    parameters = np.concatenate([best(C) * np.geomspace(0.7, 1.4, 5) for C in budgets])
    flops = np.repeat(budgets, 5)
    losses = 0.1 + A * parameters**-a + B * (flops / 6 / parameters) ** -b
    shuffled = np.random.default_rng(0).permutation(15)
    found = minima(parameters[shuffled], flops[shuffled], losses[shuffled])
    np.testing.assert_allclose([minimum.parameters for minimum in found], best(budgets), rtol=0.02)
    assert growth(found) == pytest.approx(b / (a + b), abs=0.01)
    assert sorted(parameters[shuffled][list(found[1].runs)]) == pytest.approx(sorted(parameters[5:10]))


@pytest.mark.parametrize(
    ("sizes", "losses", "reason"),
    [
        (SIZES[:2], np.ones(2), "2 network sizes, 3 are needed"),
        (SIZES, SIZES**-0.3, "no minimum"),
        (SIZES, np.exp(-(np.log(SIZES / 1e5) ** 2)), "no minimum"),
    ],
)
def test_a_missing_minimum_has_a_reason(sizes, losses, reason):
    (minimum,) = minima(sizes, np.full(len(sizes), 1e12), losses)
    assert minimum.parameters is None and reason in minimum.reason
    assert growth([minimum]) is None
