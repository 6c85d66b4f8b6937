"""The package from Python: a trained network, as `sdit_jax.load` and `sdit_jax.train` give it, and what it does.

    run = sdit_jax.load("pretrained:mnist")
    run.sample([3, 1, 4], steps=20, guidance=1.5)        images, shown as a grid in a notebook
    run.energy()["per_forward"]["pJ"]
    run.evaluate("evaluation", data_dir="DATA/mnist").scores

Mistakes are `errors.InputError`, with the line that a command would print.
"""

import contextlib
import dataclasses
import functools
import logging
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from sdit_jax import config as fields
from sdit_jax import images
from sdit_jax.analysis.spikes import spikes
from sdit_jax.config import Config
from sdit_jax.data.datasets import Images
from sdit_jax.errors import InputError
from sdit_jax.files import as_path
from sdit_jax.report.build import operations_of
from sdit_jax.sampling import run as trained
from sdit_jax.sampling.generate import example_labels
from sdit_jax.scoring import Evaluated, Scoring, evaluate_run
from sdit_jax.training.loop import train_and_evaluate

ENERGY_IMAGES = 8


class Pictures(np.ndarray):
    """uint8 images (N, H, W, C) that a notebook shows as a grid, and one of them as itself."""

    def _repr_png_(self) -> bytes | None:
        shown = np.asarray(self)[None] if self.ndim == 3 else np.asarray(self)
        if shown.ndim != 4 or shown.dtype != np.uint8 or shown.shape[-1] not in (1, 3):
            return None  # A part of an image or the result of arithmetic: an array like any other.
        return images.png(images.grid(shown))


class Run(trained.Run):
    """A trained network: `config`, `model`, `objective`, and `variables`, the `weights` ("ema" or "raw") of a `step`.

    Images are drawn by 20 steps of "dpmpp_2m" where nothing else is said. `how` stands for fields of `sampling.how.Sampling`,
    such as steps=50, guidance=1.5, or for calls=4, the best way known to draw an image in four calls of the network.
    """

    HOW: ClassVar = {"sampler": "dpmpp_2m", "steps": 20}

    def sample(self, labels: Sequence[int] | np.ndarray, *, seed: int = 0, batch_size: int = 256, **how: Any) -> Pictures:
        """One image per label, uint8 (N, H, W, C); a label of `model.num_classes` is none. Equal for equal arguments.

        Raises InputError for arguments that the network does not allow.
        """
        progress = lambda batches: tqdm(batches, "samples", leave=False, disable=len(batches) < 2)
        return super().sample(labels, seed=seed, batch_size=batch_size, progress=progress, **how).view(Pictures)

    def inpaint(self, images: Any, known: Any, labels: Sequence[int] | np.ndarray, *, seed: int = 0, **how: Any) -> Pictures:
        """The images, uint8 (N, H, W, C), drawn anew where the mask `known`, (H, W) or (N, H, W), is false (docs/sampling.md).

        Raises InputError for arguments of other shapes, and for what the network does not allow.
        """
        return super().inpaint(images, known, labels, seed=seed, **how).view(Pictures)

    def interpolate(self, labels: Sequence[int] | np.ndarray, between: int = 8, *, seed: int = 0, **how: Any) -> np.ndarray:
        """A row of images for each label, from one sample to another, uint8 (N, between, H, W, C) (docs/sampling.md).

        Raises InputError for a stochastic sampler, and for what the network does not allow.
        """
        return super().interpolate(labels, between, seed=seed, **how).view(Pictures)

    def denoise(self, x: Any, t: Any, y: Any = None) -> jax.Array:
        """The clean images, float32 (B, H, W, C), that the network sees in images x at timesteps t, given labels y.

        x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, as `diffusion.process.add_noise` makes it. t and y are one
        number for all images, or one each; without y there is no label. Raises InputError for other shapes.
        """
        return self._denoise(self.variables, *self._inputs(x, t, y))

    def spikes(self, x: Any, t: Any, y: Any = None) -> dict[str, np.ndarray]:
        """The spikes of every layer of neurons, int8 (T, B, L, C) by its name, in the same forward pass as `denoise`.

        1 is a spike, -1 one of the other sign. L are tokens, or pixels of a convolutional network. A network without neurons
        gives an empty dictionary.
        """
        fired = spikes(self.model, self.variables, *self._inputs(x, t, y))
        return {name: np.asarray(spikes_TBLC, np.int8) for name, spikes_TBLC in fired.items()}

    def energy(self, real: Images | None = None, **how: Any) -> dict[str, Any]:
        """Energy of a forward pass and of an image in three accounts, layer by layer (docs/evaluation.md): plain numbers.

            energy()["per_forward"]["pJ"], ["twin"]["pJ"]     by the usual convention: this network, its non-spiking baseline
            energy()["per_image"]["pJ"]                       the same for an image, of so many forward passes

        Firing rates are those of a few noised images: real ones, if they are given, else samples of the network.
        """
        sampling = self.sampling(**how)
        return operations_of(self, self._own_images() if real is None else real, sampling)[0]

    def evaluate(
        self, out: str | Path, *, n: int = 10_000, seed: int = 0, batch_size: int = 250, **how_and_scoring: Any
    ) -> Evaluated:
        """Draws n samples and scores them against real images; writes evaluation.json, report.html and samples.npz to `out`.

        Other arguments are `how`, and fields of `scoring.Scoring` such as data_dir="DATA/mnist". The same call resumes.
        Raises InputError, before anything is drawn or written, for what network, data or scores do not allow.
        """
        names = {field.name for field in dataclasses.fields(Scoring)}
        scoring = Scoring(**{name: value for name, value in how_and_scoring.items() if name in names})
        sampling = self.sampling(**{name: value for name, value in how_and_scoring.items() if name not in names})
        return evaluate_run(self, as_path(out), scoring, n=n, sampling=sampling, seed=seed, batch_size=batch_size)

    def _own_images(self):
        """Samples of the network in place of real images."""
        labels = example_labels(ENERGY_IMAGES, self.model.num_classes)
        drawn = np.asarray(self.sample(labels))
        return Images(drawn, labels, max(1, self.model.num_classes))

    @functools.cached_property
    def _denoise(self):
        denoised = lambda variables, x, t, y: self.objective.denoised(self.model.apply(variables, x, t, y), x, t).x_0
        return jax.jit(denoised)

    def _inputs(self, x_BHWC, t_B, y_B):
        """(x, t, y) as arrays of a batch."""
        if np.asarray(x_BHWC).dtype == np.uint8:
            raise InputError("x: found uint8, must be numbers in -1..1: x / 127.5 - 1")
        x, (size, channels, null) = jnp.asarray(x_BHWC, jnp.float32), self._sizes
        if x.shape[1:] != (size, size, channels):
            raise InputError(f"x: found shape {x.shape}, must be (B, {size}, {size}, {channels})")
        t, y = (np.asarray(null if value is None else value) for value in (t_B, y_B))
        steps = len(self.objective.schedule)
        for name, value, allowed in (("t", t, steps - 1), ("y", y, null)):
            if value.shape not in ((), (len(x),)) or not np.issubdtype(value.dtype, np.integer):
                raise InputError(f"{name}: found {value.dtype} of shape {value.shape}, must be one integer, or {len(x)}")
            if value.size and not 0 <= value.min() <= value.max() <= allowed:
                raise InputError(f"{name}: found {value.min()}..{value.max()}, allowed are 0..{allowed}")
        return x, jnp.broadcast_to(t, len(x)), jnp.broadcast_to(y, len(x)) if null else None

    @property
    def _sizes(self):
        return self.model.image_size, self.model.channels, self.model.num_classes


def load(place: str | Path, weights: str | None = None, step: int | None = None) -> Run:
    """`sdit_jax.load`."""
    found = trained.open_run(place, weights, step)
    return Run(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)})


def configure(config: str, overrides: Mapping[str, Any]) -> Config:
    """`sdit_jax.configure`."""
    path, _, arg = fields.locate(config, "config").partition(":")
    try:
        made = runpy.run_path(path)["get_config"](arg or None)
    except InputError:
        raise
    except Exception as error:  # A configuration file is Python and may raise anything.
        raise InputError(f"{path}: {type(error).__name__}: {error}") from None
    changed = fields.nested(fields.flattened(made) | dict(overrides))
    fields.validate(changed)
    return changed


def train(config: str | Config, workdir: str | Path) -> Run:
    """`sdit_jax.train`."""
    with _shown():
        train_and_evaluate(configure(config, {}) if isinstance(config, str) else config, as_path(workdir))
    return load(workdir)


@contextlib.contextmanager
def _shown():
    """Shows the lines of a log where nothing else does, as in a notebook: compiling takes a while."""
    log = logging.getLogger("sdit_jax")
    if log.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
