"""A trained run: configuration, network, objective and weights, from a run folder or a file."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax import config as fields
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import Config
from sdit_jax.diffusion.objective import Objective, make_objective
from sdit_jax.diffusion.samplers import SAMPLERS, Known
from sdit_jax.errors import InputError
from sdit_jax.files import as_path
from sdit_jax.images import from_uint8
from sdit_jax.models import Network, build, initial_variables
from sdit_jax.sampling import few_calls
from sdit_jax.sampling import weights as files
from sdit_jax.sampling.generate import first_noise, generate, make_sampler, on_the_sphere, trajectory
from sdit_jax.sampling.how import Sampling


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """`variables` are averaged weights ("ema") or raw ones, of a step: {"params": ...} and what else the network applies."""

    config: Config
    model: Network
    objective: Objective
    weights: str
    step: int
    variables: Any
    few_calls: Mapping[int, Sampling] = dataclasses.field(default_factory=dict)
    HOW: ClassVar[dict[str, Any]] = {}  # Fields of `Sampling` that have other defaults.

    def sampling(self, calls: int | None = None, *, prefix: str = "", **how: Any) -> Sampling:
        """How to draw images: by fields of `Sampling`, or, given a number of network calls per image, as `sdit tune` found it.

        Raises InputError for what the network does not allow, with `prefix` before the field's name.
        """
        allowed = {field.name for field in dataclasses.fields(Sampling)} - {"clip_x0"}
        for name in how:
            if name not in allowed:
                raise InputError(f"{prefix}{name}: unknown, allowed are calls, {', '.join(sorted(allowed))}")
        if calls is not None:
            if how:
                raise InputError(f"{prefix}calls: found with {', '.join(prefix + name for name in how)}; it sets them")
            if calls not in self.few_calls:
                known = ", ".join(map(str, self.few_calls)) or "none yet"
                raise InputError(f"{prefix}calls: found {calls}, known are {known}; `sdit tune` finds more")
            return self.few_calls[calls]
        chosen = Sampling(**{**self.HOW, "clip_x0": self.config.diffusion.clip_x0, **how})
        chosen.check(self.model, self.objective, prefix)
        return chosen

    def sample(
        self, labels: Sequence[int] | np.ndarray, *, seed: int = 0, batch_size: int = 256, progress: Callable = iter, **how: Any
    ) -> np.ndarray:
        """One image per label, uint8 (N, H, W, C); `how` as in `sampling`.

        Raises InputError for arguments that the network does not allow.
        """
        sampling, labels_N = self.sampling(**how), self._checked(labels)
        if sampling not in self._programs:
            self._programs[sampling] = make_sampler(self.model, self.objective, sampling)
        program = self._programs[sampling]
        return generate(program, self.variables, labels_N, seed=seed, batch_size=batch_size, progress=progress)

    def inpaint(
        self, images: np.ndarray, known: np.ndarray, labels: Sequence[int] | np.ndarray, *, seed: int = 0, **how: Any
    ) -> np.ndarray:
        """The images, uint8 (N, H, W, C), drawn anew where `known`, (H, W) or (N, H, W), is false; `how` as in `sampling`.

        In each step the known part replaces what the network predicts there as the clean image, so that the network sees it at
        every noise level (`samplers.Known`). All images are drawn as one batch, in ten times the calls of `sample`. Raises
        InputError for arguments of other shapes, and for what the network does not allow.
        """
        sampling, labels_N = self.sampling(**how), self._checked(labels)
        images, known = np.asarray(images), np.asarray(known, bool)
        shape = (len(labels_N), *2 * (self.model.image_size,), self.model.channels)
        if images.shape != shape or images.dtype != np.uint8:
            raise InputError(f"images: found {images.dtype} {images.shape}, must be uint8 {shape}")
        if known.shape not in (shape[:3], shape[1:3]):
            raise InputError(f"known: found shape {known.shape}, must be {shape[1:3]} or {shape[:3]}")
        index_N = np.arange(len(labels_N), dtype=np.int32)
        place = Known(from_uint8(jnp.asarray(images)), jnp.asarray(known[..., None]))
        drawn = self._inpainter(sampling, self.variables, labels_N, index_N, np.uint32(seed), place)
        return np.where(known[..., None], images, drawn)

    @functools.cached_property
    def _inpainter(self):
        def drawn(sampling, variables, y_B, index_B, seed, known):
            noise = first_noise(self.model, index_B, seed)
            return trajectory(self.model, self.objective, sampling, variables, y_B, noise, known=known)

        return jax.jit(drawn, static_argnums=0)

    def interpolate(self, labels: Sequence[int] | np.ndarray, between: int = 8, *, seed: int = 0, **how: Any) -> np.ndarray:
        """A row of images for each label, from one sample to another, uint8 (N, between, H, W, C); `how` as in `sampling`.

        Row i goes from image 2i of `seed` to image 2i + 1; the first noise of those in between lies on the sphere between the
        noise of both. Raises InputError for what the network does not allow, and for a stochastic way to draw, by which the
        images of a row would have nothing in common.
        """
        sampling, labels_N = self.sampling(**how), self._checked(labels)
        if SAMPLERS[sampling.sampler].stochastic or sampling.churn:
            deterministic = ", ".join(name for name, found in SAMPLERS.items() if not found.stochastic)
            raise InputError(f"sampler: found {sampling.name}, must be {deterministic} without churn")
        if between < 2:
            raise InputError(f"between: found {between}, must be at least 2, the ends")
        drawn = self._interpolator(sampling, self.variables, labels_N, np.linspace(0, 1, between), np.uint32(seed))
        return np.asarray(drawn).reshape(len(labels_N), between, *drawn.shape[1:])

    @functools.cached_property
    def _interpolator(self):
        def drawn(sampling, variables, y_N, p_K, seed):
            index_N, K = 2 * jnp.arange(len(y_N)), len(p_K)
            (x_NHWC, keys_N), (other_NHWC, _) = (first_noise(self.model, index_N + end, seed) for end in (0, 1))
            noise_NKHWC = jax.vmap(on_the_sphere, (None, None, 0), 1)(x_NHWC, other_NHWC, p_K)
            noise = noise_NKHWC.reshape(-1, *x_NHWC.shape[1:]), keys_N.repeat(K)
            return trajectory(self.model, self.objective, sampling, variables, y_N.repeat(K), noise)

        return jax.jit(drawn, static_argnums=0)

    def _checked(self, labels):
        """Labels as an array of int32."""
        null, labels_N = self.model.num_classes, np.asarray(labels)
        if labels_N.ndim != 1 or not len(labels_N) or not np.issubdtype(labels_N.dtype, np.integer):
            raise InputError(f"labels: found {labels!r}, must be a list of integers, one for each image")
        wrong = labels_N[(labels_N < 0) | (labels_N > null)] if null else []
        if len(wrong):
            raise InputError(f"labels: found {wrong[0]}, allowed are 0..{null} ({null} is no label)")
        return labels_N.astype(np.int32)

    @functools.cached_property
    def _programs(self):
        """The compiled samplers, by what they do."""
        return {}

    def __repr__(self) -> str:
        parameters = sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))
        return f"<{type(self).__name__}: {parameters:,} parameters, {self.model.summary}; {self.describe_weights}>"

    @property
    def describe_weights(self) -> str:
        """For a log: averaged or raw weights, and their step."""
        return f"{'averaged' if self.weights == 'ema' else 'raw'} weights of step {self.step:,}"


def open_run(place: str | Path, weights: str | None = None, step: int | None = None, *, prefix: str = "") -> Run:
    """The weights of a run folder, or of a file: `pretrained:NAME` or a path that ends in .safetensors. They are float32.

    Of a folder, those of the newest readable checkpoint, or of the one of a `step`: averaged ones where it has them, unless
    "raw" is asked for. Raises InputError (`prefix` precedes `weights` and `step` in it) for a folder that is no run or has no
    checkpoint, for a file that is missing, damaged, or does not fit its network, and for weights that the place does not hold.
    """
    file = files.find(place)
    found = files.read(file, weights, step, prefix) if file else _read_folder(as_path(place), weights, step, prefix)
    model, objective = build(found.config.model), make_objective(found.config.diffusion)
    for sampling in found.few_calls.values():
        sampling.check(model, objective, f"{place}: few_calls ")
    return Run(found.config, model, objective, *found[1:])


def _read_folder(workdir, weights, step, prefix):
    config = fields.load(workdir)
    fields.validate(config)
    model = build(config.model)
    averaged = config.ema.half_life > 0
    if weights == "ema" and not averaged:
        raise InputError(f"{prefix}weights: found 'ema', but {workdir} keeps no average (config.ema.half_life is 0); use raw")
    which = "ema" if averaged and weights != "raw" else "raw"
    if not (workdir / "checkpoints").is_dir():
        raise InputError(f"{workdir}: holds no checkpoints yet")
    with Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
        template = jax.eval_shape(lambda: initial_variables(model, 0))
        if step is not None and step not in checkpoints.steps():
            kept = ", ".join(map(str, checkpoints.steps()))
            raise InputError(f"{prefix}step: found {step}, {workdir} has the checkpoints {kept}")
        found, variables = checkpoints.restore_weights(which, template, step)
    return files.Stored(config, which, found, variables, few_calls.read(workdir / few_calls.FILE))
