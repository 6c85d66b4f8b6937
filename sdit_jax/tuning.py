"""The best way to draw images in few network calls: a search over levels, churn and guidance for the least distance.

A trajectory of S steps, G of them with guidance, takes S + G calls. For every such pair, and every place of the guided steps,
the distance of evenly spaced levels is measured; the best of these forms are then improved by the method of Nelder and Mead, of
scipy. All candidates draw from the same noise, so that small differences between them are not chance.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from sdit_jax import images, sharding
from sdit_jax.diffusion import process
from sdit_jax.diffusion.guidance import extrapolated
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.samplers import fold_in, normal
from sdit_jax.metrics.features import FeatureExtractor, extract
from sdit_jax.metrics.frechet import Moments, frechet_distance
from sdit_jax.metrics.reference import Reference
from sdit_jax.models import Network, cast
from sdit_jax.ops.backend import assumed
from sdit_jax.sampling.generate import OF_ROWS, Program, example_labels, first_noise, generate
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.run import Run

IMPROVED = 2  # Forms that the search goes on with.
STEPS = {"levels": -0.08, "churn": 0.3, "guidance": 0.5}  # Of the search's first simplex; levels in parts of the schedule.


class Form(NamedTuple):
    """A trajectory of `steps` steps, of which `guided` in a row have guidance, from index `first` on."""

    steps: int
    guided: int
    first: int


def forms(calls: int, guidance: bool) -> Iterator[Form]:
    """All forms of so many network calls."""
    yield Form(calls, 0, 0)
    for count in range(1, calls // 2 + 1) if guidance else ():
        yield from (Form(calls - count, count, first) for first in range(calls - 2 * count + 1))


class Search:
    """Distances of ways to draw images of a run, and the best of them for a number of calls."""

    def __init__(self, run: Run, extractor: FeatureExtractor, reference: Reference, *, n: int, seed: int, batch_size: int):
        self.run, self.extractor, self.reference = run, extractor, reference
        self.n, self.seed, self.batch_size = n, seed, batch_size
        self._programs: dict[int, Program] = {}

    def distance(self, sampling: Sampling) -> float:
        """The Frechet distance of n samples to the reference."""
        if sampling.steps not in self._programs:
            clip_x0 = self.run.config.diffusion.clip_x0
            self._programs[sampling.steps] = _make_program(self.run.model, self.run.objective, sampling.steps, clip_x0)
        program = self._programs[sampling.steps]
        low, high = sampling.interval or (0, max(sampling.levels))
        scales = [sampling.guidance if low <= t <= high else 1.0 for t in sampling.levels]
        how = np.array(sampling.levels, np.int32), np.array(scales, np.float32), np.float32(sampling.churn)
        drawn = generate(
            program._replace(program=lambda *arguments: program(*arguments, *how)), self.run.variables,
            example_labels(self.n, self.run.model.num_classes), seed=self.seed, batch_size=self.batch_size,
        )  # fmt: skip
        moments = Moments(self.extractor.dimensions)
        moments.add(extract(self.extractor, drawn).features_ND)
        return frechet_distance(moments.mean_D, moments.covariance_DD, self.reference.mean_D, self.reference.covariance_DD)

    def best(self, calls: int, evaluations: int, report: Callable[[Sampling, float], None] = lambda *_: None) -> Sampling:
        """The least distant of about `evaluations` ways; `report` is called with each of them and its distance."""
        known: dict[Sampling, float] = {}

        def measured(sampling):
            if sampling not in known:
                known[sampling] = self.distance(sampling)
                report(sampling, known[sampling])
            return known[sampling]

        model, T = self.run.model, len(self.run.objective.schedule)
        tried = list(forms(calls, bool(model.num_classes and model.label_dropout)))
        starts = {form: _start(form) for form in tried}
        as_sampling = lambda form, x: _sampling(form, x, T, self.run.config.diffusion.clip_x0)
        ranked = sorted(tried, key=lambda form: measured(as_sampling(form, starts[form])))
        for form in ranked[:IMPROVED]:
            x = starts[form]
            if len(x):
                moved = x + np.vstack([np.zeros_like(x), np.diag(_first_moves(form))])
                left = max(len(x) + 1, (evaluations - len(tried)) // IMPROVED)
                minimize(
                    lambda x, form=form: measured(as_sampling(form, x)), x, method="Nelder-Mead",
                    options={"initial_simplex": moved, "maxfev": left},
                )  # fmt: skip
        return min(known, key=lambda sampling: known[sampling])


def _start(form: Form) -> np.ndarray:
    """The free numbers of a form: the levels but the first in parts of the schedule, churn, guidance."""
    levels = 1 - np.arange(1, form.steps) / form.steps
    return np.array([*levels, *[0.5] * (form.steps > 1), *[1.5] * (form.guided > 0)])


def _first_moves(form):
    return [
        *[STEPS["levels"]] * (form.steps - 1),
        *[STEPS["churn"]] * (form.steps > 1),
        *[STEPS["guidance"]] * (form.guided > 0),
    ]


def _sampling(form: Form, x: np.ndarray, T: int, clip_x0: bool) -> Sampling:
    """The numbers as a way to draw: levels in order and apart, within the schedule; churn within 0..1."""
    free, rest = x[: form.steps - 1], list(x[form.steps - 1 :])
    levels = [T - 1]
    for k, part in enumerate(sorted(free, reverse=True)):
        highest, lowest = levels[-1] - 1, len(free) - 1 - k
        levels.append(int(np.clip(round(part * (T - 1)), lowest, highest)))
    churn = round(float(np.clip(rest.pop(0), 0, 1)), 3) if form.steps > 1 else 0.0
    if not form.guided:
        return Sampling("ddim", guidance=1.0, clip_x0=clip_x0, levels=tuple(levels), churn=churn)
    inside = levels[form.first : form.first + form.guided]
    interval = () if form.guided == form.steps else (inside[-1], inside[0])
    return Sampling(
        "ddim", guidance=round(float(rest[0]), 3), clip_x0=clip_x0, levels=tuple(levels), churn=churn, interval=interval
    )


def _make_program(model: Network, objective: Objective, steps: int, clip_x0: bool) -> Program:
    """As `sampling.generate.make_sampler` for "ddim", with levels, guidance scales and churn as arguments of one program."""
    mesh = sharding.make_mesh()
    schedule, null = objective.schedule, model.num_classes

    def trajectory(variables, y_B, index_B, seed, level_S, scale_S, churn):
        x_T, keys_B = first_noise(model, index_B, seed)
        weights = cast(model, variables)
        predict = lambda x, t, y: model.apply(weights, x, t, y)

        def step(x, at):
            t, to, i, scale = at
            t_B = jnp.full(len(x), t)
            plain = lambda x: predict(x, t_B, y_B if null else None)
            if null and model.label_dropout:
                both = lambda x: extrapolated(predict, x, t_B, y_B, null=null, scale=scale, channels=model.channels)
                output = jax.lax.cond(scale == 1, plain, both, x)
            else:
                output = plain(x)
            found = objective.denoised(output, x, t_B)
            x_0, noise = found.x_0, found.noise
            if clip_x0:
                x_0 = jnp.clip(x_0, -1, 1)
                noise = process.implied_noise(schedule, x, t, x_0)
            fresh = normal(fold_in(keys_B, i), x)
            noise = jnp.sqrt(1 - churn**2) * noise + churn * fresh
            moved = process.at(schedule.alphas, to, x) * x_0 + process.at(schedule.sigmas, to, x) * noise
            return jnp.where(i > 0, moved, x_0), None

        to_S = jnp.append(level_S[1:], 0)
        with assumed(mesh.devices.flat[0].platform):
            x_0, _ = jax.lax.scan(step, x_T, (level_S, to_S, jnp.arange(steps)[::-1], scale_S))
        return images.to_uint8(x_0)

    return Program(sharding.by_rows(trajectory, mesh, OF_ROWS), mesh)
