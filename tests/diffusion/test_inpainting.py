"""Images that are known in part: what is given stays, and what is drawn goes with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sdit_jax
from sdit_jax.diffusion.samplers import Known, sample
from sdit_jax.diffusion.schedule import cosine
from sdit_jax.errors import InputError

SCHEDULE, KEY, N = cosine(1000), jax.random.key(0), 400
TOGETHER = 0.9  # Correlation of the two numbers of each image.
METHODS = ("ddim", "heun", "dpmpp_2m", "ddpm")


def denoise(x_N2, t_N):
    """E[x_0 | x_t] of pairs of standard normal numbers with this correlation: along sum and difference, one number each."""
    alpha, variance = (jnp.asarray(table, jnp.float32)[t_N[0]] for table in (SCHEDULE.alphas, SCHEDULE.variances))
    basis = jnp.array([[1, 1], [1, -1]]) / np.sqrt(2)
    spread = jnp.array([1 + TOGETHER, 1 - TOGETHER])
    return ((x_N2 @ basis) * alpha * spread / (alpha**2 * spread + variance)) @ basis


def drawn(method, region, rounds=10, **options):
    image_N2 = jnp.asarray(np.random.default_rng(1).normal(size=(N, 2)), jnp.float32)
    x_T = jax.random.normal(jax.random.key(2), (N, 2))
    known = Known(image_N2, jnp.array(region), rounds)
    return image_N2, sample(denoise, x_T, SCHEDULE, method=method, steps=50, key=KEY, known=known, **options)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_drawn_goes_with_what_is_known(method):
    given, found = drawn(method, [True, False])
    np.testing.assert_allclose(found[:, 0], given[:, 0], atol=1e-5)
    assert abs(np.corrcoef(given[:, 0], found[:, 1])[0, 1] - TOGETHER) < 0.04  # In one round 0.55 to 0.74.
    assert abs((found[:, 1] - TOGETHER * given[:, 0]).std() - np.sqrt(1 - TOGETHER**2)) < 0.08
    hidden = given[:, 1] - TOGETHER * given[:, 0]
    assert abs(np.corrcoef(hidden, found[:, 1] - TOGETHER * given[:, 0])[0, 1]) < 0.15  # What is not known is not seen.


@pytest.mark.parametrize("method", ["ddim", "heun", "ddpm"])  # "dpmpp_2m" then takes steps of first order.
def test_nothing_known_is_sampling(method):
    x_T = jax.random.normal(jax.random.key(2), (N, 2))
    plain = sample(denoise, x_T, SCHEDULE, method=method, steps=50, key=KEY)
    np.testing.assert_allclose(drawn(method, [False, False], rounds=1)[1], plain, atol=1e-5)


def test_at_every_step_the_network_sees_the_known_part_at_its_noise_level():
    """And with the same noise in all steps, as `ddim` has it."""
    given, (_, path) = drawn("ddim", [True, False], rounds=1, path=True)
    levels = SCHEDULE.spaced(50)[::-1]
    noise = [
        (seen[:, 0] - SCHEDULE.alphas[t] * given[:, 0]) / SCHEDULE.sigmas[t]
        for t, seen in zip(levels, path.noised, strict=True)
    ]
    for one in noise[:-1]:  # In the last of the levels there is too little of it to be computed.
        np.testing.assert_allclose(one, noise[0], atol=2e-3)


def test_it_needs_a_key():
    known = Known(jnp.zeros((2, 2)), jnp.array([True, False]))
    with pytest.raises(ValueError, match="'ddim' is stochastic here: pass key"):
        sample(denoise, jnp.zeros((2, 2)), SCHEDULE, method="ddim", steps=5, known=known)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_half_of_a_digit_is_completed():
    """The seam is not much worse than in whole digits, where that with halves of others is twice as bad."""
    run, labels = sdit_jax.load("pretrained:mnist"), np.arange(20) % 10
    images = run.sample(labels, steps=10, guidance=1.5)
    known = np.zeros((28, 28), bool)
    known[:14] = True
    found = run.inpaint(images, known, labels, seed=7, steps=10, guidance=1.5)
    np.testing.assert_array_equal(found[:, :14], images[:, :14])
    assert np.abs(found[:, 14:].astype(float) - images[:, 14:]).mean() > 5  # Drawn anew.
    rows = lambda x: np.abs(np.diff(x.astype(float), axis=1)).mean((0, 2, 3))
    assert rows(found)[13] < 1.3 * rows(images)[13]
    cut = np.concatenate([images[:, :14], np.roll(images, 1, 0)[:, 14:]], 1)  # Of other digits.
    assert rows(found)[13] < 0.7 * rows(cut)[13]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((20, 8, 8, 1), np.uint8)}, r"images: found uint8 .*, must be uint8 \(20, 28, 28, 1\)"),
        ({"images": np.zeros((20, 28, 28, 1))}, "images: found float64"),
        ({"known": np.zeros((8, 8), bool)}, r"known: found shape \(8, 8\), must be \(28, 28\) or \(20, 28, 28\)"),
        ({"labels": [11] * 20}, "labels: found 11, allowed are 0..10"),
        ({"guidance": np.inf}, "guidance: found inf"),
    ],
)
def test_mistakes_are_named(change, message):
    images, known = np.zeros((20, 28, 28, 1), np.uint8), np.zeros((28, 28), bool)
    with pytest.raises(InputError, match=message):
        sdit_jax.load("pretrained:mnist").inpaint(**{"images": images, "known": known, "labels": [3] * 20} | change)
