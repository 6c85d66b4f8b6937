"""Batch specs: flips and crops are fair, pure functions of (seed, step)."""

import numpy as np
import pytest
from scipy import stats

from sdit_jax.data.order import Order

N = 37


def specs(steps, **fields):
    """The three fields of an order's batch specs, step after step."""
    order = Order(N, **({"batch_size": 16, "seed": 5} | fields))
    return [np.concatenate(parts) for parts in zip(*(order(step) for step in steps), strict=True)]


def test_without_flip_and_margin_images_are_shown_as_they_are():
    _, flips, corners = specs(range(20))
    assert not flips.any() and not corners.any()


def test_flips_and_crops_do_not_change_which_images_are_shown():
    plain, _, _ = specs(range(20))
    shown, _, _ = specs(range(20), flip=True, margin=3)
    np.testing.assert_array_equal(plain, shown)


def test_half_of_the_images_are_mirrored_and_every_crop_is_equally_likely():
    _, flips, corners = specs(range(500), flip=True, margin=3)
    assert stats.binomtest(int(flips.sum()), len(flips)).pvalue > 1e-3
    counts = np.bincount(corners[:, 0] * 4 + corners[:, 1], minlength=16)
    assert len(counts) == 16 and stats.chisquare(counts).pvalue > 1e-3
    together = np.histogram2d(flips, corners[:, 0], (2, 4))[0]
    assert stats.chi2_contingency(together).pvalue > 1e-3


def test_flips_do_not_depend_on_margins_or_on_earlier_steps():
    _, flips, _ = specs([7, 8], flip=True)
    _, with_margin, _ = specs([7, 8], flip=True, margin=2)
    order = Order(N, batch_size=16, seed=5, flip=True)
    later = [order(step).flip_B for step in (8, 0, 7)]
    np.testing.assert_array_equal(flips, with_margin)
    np.testing.assert_array_equal(flips, np.concatenate([later[2], later[0]]))
    assert (flips[:16] != flips[16:]).any()


@pytest.mark.parametrize("rows", [range(4), range(8, 16), [2, 3, 10, 15]])
def test_some_rows_are_shown_as_they_are_in_the_whole(rows):
    whole = specs([11], flip=True, margin=2)
    for expected, found in zip(whole, specs([11], flip=True, margin=2, rows=rows), strict=True):
        np.testing.assert_array_equal(found, expected[rows])


def test_seeds_draw_their_own_flips_and_crops():
    drawn = {tuple(np.concatenate([flips, corners.ravel()])) for seed in range(8)
             for _, flips, corners in [specs([0], flip=True, margin=4, seed=seed)]}  # fmt: skip
    assert len(drawn) == 8
