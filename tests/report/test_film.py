"""The film of a network at work: its images are those that are drawn, its dots the spikes that the network fires."""

import numpy as np
import pytest
from PIL import Image

from sdit_jax.analysis.spikes import Film, film
from sdit_jax.errors import InputError
from sdit_jax.report.film import GAP, IN_ANIMATION, LINE, SIDE, SILENT, chosen_layers, save, square
from sdit_jax.report.pictures import NEGATIVE, SPIKE
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.run import open_run

STEPS = 3


@pytest.fixture(scope="module")
def run(trained):
    return open_run(trained.workdir)


@pytest.fixture(scope="module")
def made(run):
    return film(run.model, run.objective, run.variables, 3, Sampling("ddim", STEPS, 2.0), seed=5)


def test_its_last_image_is_the_drawn_one_and_its_spikes_are_those_of_what_is_seen(run, made):
    drawn = run.sample([3], sampler="ddim", steps=STEPS, guidance=2.0, seed=5)
    assert made.clean.shape == made.noised.shape == (STEPS, 8, 8, 1)
    np.testing.assert_array_equal(made.clean[-1], drawn[0])
    for name, spikes in made.spikes.items():
        assert spikes.shape[:2] == (STEPS, run.model.spiking_steps) and spikes.shape[2] >= 1 + made.patches**2, name
        assert spikes.min() >= 0 and 0 < spikes.mean() < 1


def test_a_square_puts_the_neurons_of_a_token_on_its_patch():
    spikes_LC = np.zeros((1 + 4, 8))  # A condition token and 2x2 patches of 2x2 pixels; channels 0, 2, 5 and 7 are shown.
    spikes_LC[0] = 1
    spikes_LC[2, [0, 5]] = 1
    spikes_LC[4, 7] = -1
    np.testing.assert_array_equal(square(spikes_LC, 4, 2), [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, -1]])
    pixels = np.random.default_rng(0).choice([0, 1], (16, 8))  # Of a convolutional network, one channel each.
    np.testing.assert_array_equal(square(pixels, 4), pixels[:, 0].reshape(4, 4))


def test_an_animation_has_a_frame_for_every_spiking_step_with_the_spikes_of_that_step(tmp_path):
    fired = np.zeros((2, 3, 1 + 4, 4), np.int8)  # Step t of each sampling step fires in patch t.
    for t in range(3):
        fired[0, t, 1 + t, 0], fired[1, t, 1 + t, 3] = 1, -1
    pictures = np.zeros((2, 4, 4, 1), np.uint8)
    save(Film(np.array([900, 0]), pictures, pictures, {"key": fired}, 2), ["key"], tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as animation:
        assert animation.n_frames == 2 * 3 <= IN_ANIMATION * 3
        half = SIDE // 2
        for frame, (place, colour) in {1: ((2, half + 2), SPIKE), 5: ((SIDE - 3, half - 3), NEGATIVE)}.items():
            animation.seek(frame)
            pixels = np.asarray(animation.convert("RGB"))[LINE : LINE + SIDE, 2 * (SIDE + GAP) :]
            np.testing.assert_allclose(pixels[place], colour, atol=12)
            lit = np.abs(pixels.astype(int) - SILENT).sum(-1) > 60
            assert lit.sum() == (SIDE // 4) ** 2


def test_a_strip_is_written_whole(made, tmp_path):
    save(made, chosen_layers(made), tmp_path / "film.png")
    with Image.open(tmp_path / "film.png") as strip:
        assert strip.height == LINE + 5 * (SIDE + GAP) - GAP
    assert [path.name for path in tmp_path.iterdir()] == ["film.png"]


def test_layers_that_are_not_there_are_named(made):
    name = next(iter(made.spikes))
    assert chosen_layers(made, [name]) == [name]
    with pytest.raises(InputError, match=f"layers: found 'no', allowed are {name}"):
        chosen_layers(made, ["no"])
    with pytest.raises(InputError, match="no spiking neurons"):
        chosen_layers(Film(made.timesteps, made.noised, made.clean, {}))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out=film.jpg"], "--out: found film.jpg, must be a .gif or .png in a folder that exists"),
        (["--out=none/film.gif"], "--out: found none/film.gif, must be"),
        (["--out={folder}/film.gif", "--label=11"], "--label: found 11, allowed are 0..10"),
        (["--out={folder}/film.gif", "--layers=head", "--steps=1"], "--layers: found 'head', allowed are "),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(small, trained, tmp_path, flags, message):
    flags = [flag.format(folder=tmp_path) for flag in flags]
    done = small.run("animate", f"--workdir={trained.workdir}", *flags)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {message}") and not list(tmp_path.iterdir())
