"""An image is a function of (seed, index, label): not of its batch or of an interruption (nor of devices: test_devices)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax import images
from sdit_jax.diffusion import samplers, schedule
from sdit_jax.diffusion.objective import Objective
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.how import Sampling

SCHEDULE = schedule.cosine(1000)


class Toy(nn.Module):
    """A network, small enough to compile at once."""

    image_size: int = 8
    channels: int = 1
    num_classes: int = 10
    dtype = "float32"

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B, train=False):
        hidden = nn.Conv(4, (3, 3))(x_BHWC) + nn.Embed(11, 4)(y_B)[:, None, None] + (t_B / 1000)[:, None, None, None]
        return nn.Conv(1, (3, 3))(nn.gelu(hidden))

    def is_rounded(self, path):
        return False


@pytest.fixture(scope="module")
def network():
    """(model, variables)."""
    return Toy(), Toy().init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, int))


@pytest.fixture(scope="module", params=["ddim", "ddpm"])
def drawer(network, request):
    """draw(labels, **changes) with a compiled sampler of 4 steps."""
    model, variables = network
    sampler = make_sampler(model, Objective(SCHEDULE), Sampling(request.param, 4, 1.0, clip_x0=True))
    return lambda labels, **changes: generate(sampler, variables, labels, **{"seed": 7, "batch_size": 5} | changes)


def close(found, expected):
    """Equal but for a rounding of a grey level here and there."""
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1)
    assert (found == expected).mean() > 0.99


def test_an_image_does_not_depend_on_the_batch_around_it(drawer):
    labels = example_labels(10, 10)
    whole = drawer(labels)
    close(drawer(labels, batch_size=10), whole)
    close(drawer(labels, batch_size=4), whole)
    close(drawer(labels[:3]), whole[:3])
    assert len({image.tobytes() for image in whole}) == 10 and whole.std() > 20


def test_labels_and_seeds_matter(drawer):
    labels = example_labels(5, 10)
    changed = drawer(np.array([0, 1, 9, 3, 4]))
    same = [(a == b).all() for a, b in zip(drawer(labels), changed, strict=True)]
    assert same == [True, True, False, True, True]
    assert (drawer(labels, seed=8) != drawer(labels)).mean() > 0.3


def test_the_first_image_is_the_sampler_written_out(network):
    model, variables = network
    key_noise, key_steps = jax.random.split(jax.random.fold_in(jax.random.key(7), 0))
    x_T = jax.random.normal(key_noise, (8, 8, 1))[None]
    denoise = lambda x, t: Objective(SCHEDULE).denoised(model.apply(variables, x, t, jnp.array([3])), x, t)
    expected = samplers.sample(denoise, x_T, SCHEDULE, method="ddpm", steps=4, key=key_steps[None], clip_x0=True)
    sampler = make_sampler(model, Objective(SCHEDULE), Sampling("ddpm", 4, 1.0, clip_x0=True))
    close(generate(sampler, variables, np.array([3]), seed=7, batch_size=1), np.asarray(images.to_uint8(expected)))


def test_finished_batches_are_kept_and_damaged_ones_drawn_again(drawer, tmp_path):
    labels, asked = example_labels(12, 10), []

    def progress(batches):
        for start in batches:
            if asked == [0, 5]:
                raise KeyboardInterrupt
            asked.append(start)
            yield start

    with pytest.raises(KeyboardInterrupt):
        drawer(labels, parts=tmp_path, progress=progress)
    first, second = sorted(tmp_path.iterdir())
    np.save(first, np.load(first) * 0)  # Kept as it is: it is not drawn again.
    second.write_bytes(second.read_bytes()[:100])
    found, expected = drawer(labels, parts=tmp_path), drawer(labels)
    assert not found[:5].any()
    np.testing.assert_array_equal(found[5:], expected[5:])
    assert len(list(tmp_path.iterdir())) == 3


def test_what_was_kept_with_another_batch_size_is_not_taken(drawer, tmp_path):
    labels = example_labels(10, 10)
    drawer(labels[:5], parts=tmp_path, batch_size=5)
    close(drawer(labels, parts=tmp_path, batch_size=4), drawer(labels, batch_size=4))
    (cut,) = tmp_path.glob("*-00000005.npy")
    np.save(cut, np.load(cut)[:3])
    close(drawer(labels, parts=tmp_path, batch_size=5), drawer(labels))
