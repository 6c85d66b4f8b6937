"""Distillation: a network learns to draw in few calls what a trained one, its teacher, draws with guidance in many.

The timesteps are cut at the levels of the student's sampler. From x_t, t above a level b, the teacher takes one guided step of
`ddim` to x_s, `stride` timesteps nearer to b, and from there the student goes the rest of the way to x_b. What the student
learns at t is the clean image whose single step of `ddim` leads from x_t to that x_b. Without levels below the first this is a
consistency model; with all of them it is the teacher. What is learned has the guidance in it: the student draws without.
Sources: Heek et al. 2024 (multistep consistency models, arXiv 2403.06807); Meng et al. 2023 (guidance, arXiv 2210.03142).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.config import Config
from sdit_jax.diffusion import process
from sdit_jax.diffusion.guidance import guided
from sdit_jax.diffusion.objective import Objective
from sdit_jax.errors import InputError
from sdit_jax.models import Network, cast
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.provenance import weights_sha256
from sdit_jax.sampling.run import open_run
from sdit_jax.training.examples import Examples


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network, the scale of its guidance, the timesteps of one of its steps, and the student's levels, descending."""

    model: Network
    variables: Any
    objective: Objective
    guidance: float
    stride: int
    levels: tuple[int, ...]

    @functools.cached_property
    def contents(self) -> str:
        """sha256 of its weights."""
        return weights_sha256(self.variables)

    def clean_images(
        self, model: Network, objective: Objective, variables: Any, x_t: jax.Array, t_B: jax.Array, y_B: jax.Array
    ) -> jax.Array:
        """What a student with these variables is to predict as the clean images of x_t."""
        b_B = self._level_below(t_B)
        s_B = jnp.maximum(t_B - self.stride, b_B)
        predict = guided(
            lambda x, t, y: self.model.apply(self.variables, x, t, y), y_B if self.model.num_classes else None,
            null=self.model.num_classes, scale=self.guidance, channels=self.model.channels,
        )  # fmt: skip
        x_0 = _clipped(self.objective, predict(x_t, t_B), x_t, t_B)
        x_s = _step(self.objective, x_0, x_t, t_B, s_B)
        there = _clipped(objective, model.apply(variables, x_s, jnp.maximum(s_B, 0), y_B), x_s, jnp.maximum(s_B, 0))
        x_b = _step(objective, there, x_s, jnp.maximum(s_B, 0), b_B)
        # alpha_b x_0 + sigma_b (x_t - alpha_t x_0) / sigma_t = x_b, solved for x_0.
        at = lambda table, k_B: process.at(table, k_B, x_t)
        ratio = at(_sigmas(objective), b_B) / at(objective.schedule.sigmas, t_B)
        solved = (x_b - ratio * x_t) / (at(_alphas(objective), b_B) - ratio * at(objective.schedule.alphas, t_B))
        arrived = (s_B == b_B).reshape(-1, *[1] * (x_t.ndim - 1))
        return jnp.clip(jnp.where(arrived, x_0, solved), -1, 1)

    def targets(self, model: Network, objective: Objective, variables: Any, examples: Examples) -> Examples:
        """Examples with these clean images in place of their own, and the noise that is in x_t then."""
        x_0 = self.clean_images(model, objective, variables, examples.x_t, examples.t_B, examples.y_B)
        return examples._replace(x_0=x_0, noise=process.implied_noise(objective.schedule, examples.x_t, examples.t_B, x_0))

    def _level_below(self, t_B):
        """The highest level below t; -1, the clean image, below the last one."""
        levels = jnp.array(self.levels)
        return jnp.where(levels < t_B[:, None], levels, -1).max(-1)


def _clipped(objective, output, x_t, t_B):
    return jnp.clip(objective.denoised(output, x_t, t_B).x_0, -1, 1)


def _step(objective, x_0, x_t, t_B, to_B):
    """A step of `ddim` from timesteps t to others, -1 for the clean image."""
    noise = process.implied_noise(objective.schedule, x_t, t_B, x_0)
    return process.at(_alphas(objective), to_B, x_t) * x_0 + process.at(_sigmas(objective), to_B, x_t) * noise


def _alphas(objective):
    return np.append(objective.schedule.alphas, 1.0)  # At -1.


def _sigmas(objective):
    return np.append(objective.schedule.sigmas, 0.0)


def read_teacher(config: Config, model: Network, objective: Objective) -> Teacher | None:
    """The teacher of `config.distillation`; None where none is named.

    Raises InputError for weights that cannot be read, that draw other images or on another schedule, and for values that the
    schedule or the teacher do not allow.
    """
    fields = config.distillation
    if not fields.teacher:
        return None
    try:
        run, T = open_run(fields.teacher), len(objective.schedule)
    except InputError as error:
        raise InputError(f"config.distillation.teacher: {error}") from None
    levels = tuple(int(text) if text.strip().isdecimal() else -1 for text in fields.levels.split(","))
    drawn = lambda network: (network.image_size, network.channels, network.num_classes)
    if drawn(run.model) != drawn(model):
        raise InputError(
            f"config.distillation.teacher: {fields.teacher} has (image size, channels, classes) {drawn(run.model)}, "
            f"the network has {drawn(model)}"
        )
    if not np.array_equal(run.objective.schedule.alphas_bar, objective.schedule.alphas_bar):
        raise InputError(
            f"config.distillation.teacher: {fields.teacher} was trained on another schedule; set config.diffusion to its"
        )
    if any(not 0 <= t < T for t in levels) or list(levels) != sorted({*levels}, reverse=True):
        raise InputError(
            f"config.distillation.levels: found {fields.levels!r}, must be timesteps that descend within {T - 1}..0"
        )
    if not 1 <= fields.stride <= T:
        raise InputError(f"config.distillation.stride: found {fields.stride}, allowed are 1..{T}")
    Sampling(guidance=fields.guidance).check(run.model, run.objective, "config.distillation.")
    return Teacher(run.model, cast(run.model, run.variables), run.objective, fields.guidance, fields.stride, levels)
