"""Images on the way from one to another."""

import itertools

import jax
import numpy as np
import pytest
from scipy.spatial import geometric_slerp

import sdit_jax
from sdit_jax.errors import InputError
from sdit_jax.sampling.generate import on_the_sphere


def test_the_noise_between_lies_on_the_sphere():
    """As scipy has it, for vectors of length 1; of other lengths the length changes evenly with the weights."""
    x, other = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    unit = lambda x: x / np.sqrt(np.square(x).sum((1, 2), keepdims=True))
    for part in (0.0, 0.3, 1.0):
        found = on_the_sphere(unit(x), unit(other), part)
        expected = [geometric_slerp(a.ravel(), b.ravel(), part) for a, b in zip(unit(x), unit(other), strict=True)]
        np.testing.assert_allclose(found, np.reshape(expected, x.shape), atol=1e-6)
    far, wide = (jax.random.normal(jax.random.key(i), (8, 40, 40)) for i in range(2))
    assert np.std(on_the_sphere(far, wide, 0.5)) == pytest.approx(1, abs=0.02)  # On the straight line 0.71.


def test_a_row_goes_from_one_image_to_another():
    run = sdit_jax.load("pretrained:mnist")
    rows = run.interpolate([3, 5], 5, steps=4, guidance=1.5, seed=1)
    ends = run.sample([3, 3, 5, 5], steps=4, guidance=1.5, seed=1)
    assert rows.shape == (2, 5, 28, 28, 1) and rows.dtype == np.uint8
    difference = lambda a, b: np.abs(a.astype(int) - b.astype(int))
    for row, first, last in zip(rows, ends[::2], ends[1::2], strict=True):  # Rounding may flip a spike.
        assert max(np.median(difference(row[0], first)), np.median(difference(row[-1], last))) <= 1
        steps = [difference(a, b).mean() for a, b in itertools.pairwise(row)]
        assert 0 < max(steps) < difference(first, last).mean()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sampler": "ddpm"}, "sampler: found ddpm20_guidance1, must be ddim, euler, heun, dpmpp_2m, dpmpp_3m without churn"),
        ({"calls": 4}, "sampler: found ddim4_levels.*churn0.894.*must be"),
        ({"between": 1}, "between: found 1, must be at least 2"),
        ({"steps": 0}, "steps: found 0"),
    ],
)
def test_mistakes_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        sdit_jax.load("pretrained:mnist").interpolate([1], **arguments)
