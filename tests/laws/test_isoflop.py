"""Valleys of losses whose lowest points are known."""

import numpy as np
import pytest

from sdit_jax.laws.isoflop import growth, valleys

SIZES = np.geomspace(1e4, 1e6, 5)


def test_a_parabola_has_its_lowest_point():
    losses = np.exp(0.3 * np.log(SIZES / 8e4) ** 2 - 1)
    (valley,) = valleys(SIZES, np.full(5, 1e12) * [1, 1.02, 0.99, 1, 1.01], losses)
    assert (valley.parameters, valley.loss) == (pytest.approx(8e4), pytest.approx(np.exp(-1)))
    assert valley.runs == (0, 1, 2, 3, 4) and not valley.reason


def test_the_best_size_grows_as_the_law_says():
    """Hoffmann et al., equation 4: with C = 6 N D the best N is G (C / 6)^(b / (a + b))."""
    a, b, A, B = 0.4, 0.6, 50.0, 300.0
    budgets, best = np.array([1e11, 1e12, 1e13]), lambda C: (a * A / (b * B)) ** (1 / (a + b)) * (C / 6) ** (b / (a + b))
    parameters = np.concatenate([best(C) * np.geomspace(0.7, 1.4, 5) for C in budgets])
    flops = np.repeat(budgets, 5)
    losses = 0.1 + A * parameters**-a + B * (flops / 6 / parameters) ** -b
    shuffled = np.random.default_rng(0).permutation(15)
    found = valleys(parameters[shuffled], flops[shuffled], losses[shuffled])
    np.testing.assert_allclose([valley.parameters for valley in found], best(budgets), rtol=0.02)
    assert growth(found) == pytest.approx(b / (a + b), abs=0.01)
    assert sorted(parameters[shuffled][list(found[1].runs)]) == pytest.approx(sorted(parameters[5:10]))


@pytest.mark.parametrize(
    ("sizes", "losses", "reason"),
    [
        (SIZES[:2], np.ones(2), "2 network sizes, 3 are needed"),
        (SIZES, SIZES**-0.3, "no lowest point"),
        (SIZES, np.exp(-(np.log(SIZES / 1e5) ** 2)), "no lowest point"),
    ],
)
def test_where_there_is_no_lowest_point_it_is_said(sizes, losses, reason):
    (valley,) = valleys(sizes, np.full(len(sizes), 1e12), losses)
    assert valley.parameters is None and reason in valley.reason
    assert growth([valley]) is None
