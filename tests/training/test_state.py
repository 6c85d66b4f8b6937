"""The averaged weights: what their half-life means."""

import numpy as np
import pytest

from sdit_jax.training.state import ema_decay


@pytest.mark.parametrize("batch_size", [10, 50, 500])
def test_after_one_half_life_half_of_the_old_weights_is_left(batch_size):
    steps, left = 1000 // batch_size, 1.0
    for _ in range(steps):
        left *= float(ema_decay(batch_size, images_seen=1e9, half_life=1000.0, ramp=0.05))
    np.testing.assert_allclose(left, 0.5, rtol=1e-5)


def test_early_on_the_half_life_is_a_fraction_of_the_images_seen():
    decay = float(ema_decay(64, images_seen=6400, half_life=1e6, ramp=0.05))
    np.testing.assert_allclose(decay, 0.5 ** (64 / 320), rtol=1e-5)
