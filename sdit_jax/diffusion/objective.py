"""The training objective: schedule, prediction, distribution of timesteps, loss; and a prediction as a denoised image."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.diffusion import process
from sdit_jax.diffusion.loss import LOSSES, variational_bound
from sdit_jax.diffusion.schedule import SCHEDULES, Schedule
from sdit_jax.errors import InputError

# What a network can predict, a noise + b x_0: (a, b) at every level of a schedule.
PREDICTIONS: dict[str, Callable[[Schedule], tuple[np.ndarray, np.ndarray]]] = {
    "noise": lambda schedule: (np.ones(len(schedule)), np.zeros(len(schedule))),
    "x0": lambda schedule: (np.zeros(len(schedule)), np.ones(len(schedule))),
    "velocity": lambda schedule: (schedule.velocities[1], schedule.velocities[0]),
}
DISTRIBUTIONS = ("uniform", "logit_normal")


class Denoised(NamedTuple):
    """x_t = alpha x_0 + sigma noise taken apart by a network, with v of its learned variance, if any (PAPER section 6).

    Of x_0 and noise, the one that the network predicts is its output, unchanged; the other follows from x_t.
    """

    x_0: jax.Array
    noise: jax.Array
    v: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Objective:
    """A schedule and what is learned on it; by default what the release learns (PAPER section 6).

    prediction    the target: "noise"; "x0", the clean image; "velocity", noise d sigma + x_0 d alpha
    loss_space    the space in which errors are measured, one of these, or "prediction" for the target's own (Li and He 2025,
                  arXiv 2511.13720, separate the two)
    min_snr       gamma of min-SNR weights, in place of loss_space: min(gamma, alpha^2 / sigma^2) on errors of x_0 (Hang et al.
                  2023, arXiv 2303.09556); 0 is off
    distribution  of timesteps in training: "uniform", or "logit_normal", T sigmoid(standard normal) (Esser et al. 2024,
                  arXiv 2403.03206)
    loss          one of LOSSES
    """

    schedule: Schedule
    prediction: str = "noise"
    distribution: str = "uniform"
    loss_space: str = "prediction"
    min_snr: float = 0.0
    loss: str = "mse"

    @functools.cached_property
    def noise_error(self) -> np.ndarray:
        """The error of the noise per error of the prediction, by timestep."""
        return self._noise_error(self.prediction)

    @functools.cached_property
    def weight(self) -> np.ndarray:
        """Weight of the squared error of the prediction, by timestep."""
        if self.min_snr:
            snr = np.exp(self.schedule.log_snr)
            return np.minimum(self.min_snr, snr) / snr * self.noise_error**2
        space = self.prediction if self.loss_space == "prediction" else self.loss_space
        return (self.noise_error / self._noise_error(space)) ** 2

    def _noise_error(self, prediction):
        """alpha / (alpha a - sigma b)."""
        a, b = PREDICTIONS[prediction](self.schedule)
        return self.schedule.alphas / (self.schedule.alphas * a - self.schedule.sigmas * b)

    def timesteps(self, key: jax.Array, shape: Sequence[int]) -> jax.Array:
        """Random timesteps to train at, int32."""
        if self.distribution == "uniform":
            return jax.random.randint(key, shape, 0, len(self.schedule))
        s = jax.nn.sigmoid(jax.random.normal(key, shape))
        return jnp.minimum(len(self.schedule) * s, len(self.schedule) - 1).astype(jnp.int32)

    def target(self, x_0: jax.Array, noise: jax.Array, t_B: jax.Array) -> jax.Array:
        """The network's target, a noise + b x_0."""
        a, b = PREDICTIONS[self.prediction](self.schedule)
        return process.at(a, t_B, x_0) * noise + process.at(b, t_B, x_0) * x_0

    def denoised(self, output: jax.Array, x_t: jax.Array, t_B: jax.Array) -> Denoised:
        """Clean image and noise from the network's output y on x_t:

        x_0 = (a x_t - sigma y) / D,    noise = (alpha y - b x_t) / D,    D = alpha a - sigma b
        """
        y, v = process.split_prediction(output, x_t)
        a, b = PREDICTIONS[self.prediction](self.schedule)
        alphas, sigmas = self.schedule.alphas, self.schedule.sigmas
        D = alphas * a - sigmas * b
        of = lambda table: process.at(table, t_B, x_t)
        x_0 = y if self.prediction == "x0" else of(a / D) * x_t - of(sigmas / D) * y
        noise = y if self.prediction == "noise" else of(alphas / D) * y - of(b / D) * x_t
        return Denoised(x_0, noise, v)

    def losses(
        self, output: jax.Array, x_0: jax.Array, x_t: jax.Array, t_B: jax.Array, noise: jax.Array
    ) -> dict[str, jax.Array]:
        """Loss terms of shape (B,) for a network output on x_t.

        loss  trained: the weighted `loss` of the prediction, plus "vb"
        mse   mean squared error of the noise, to compare objectives
        vb    where the output holds v (twice the channels): the variational bound in bits per dimension; its mean is detached,
              so that it trains the variance alone
        """
        predicted, v = process.split_prediction(output, x_t)
        difference = self.target(x_0, noise, t_B) - predicted
        squared_B, loss_B = LOSSES["mse"](difference), LOSSES[self.loss](difference)
        terms = {"mse": process.at(self.noise_error**2, t_B, squared_B) * squared_B}
        loss = process.at(self.weight, t_B, loss_B) * loss_B
        if v is not None:
            x0_predicted = jax.lax.stop_gradient(self.denoised(output, x_t, t_B).x_0)
            terms["vb"] = variational_bound(self.schedule, x0_predicted, v, x_0, x_t, t_B)
            loss += terms["vb"]
        return terms | {"loss": loss}


def make_objective(config: Any) -> Objective:
    """The objective of the fields of config.diffusion. Raises InputError for names that do not exist."""
    names = {
        "schedule": SCHEDULES, "prediction": PREDICTIONS, "distribution": DISTRIBUTIONS, "loss": LOSSES,
        "loss_space": ("prediction", *PREDICTIONS),
    }  # fmt: skip
    for name, allowed in names.items():
        if config[name] not in allowed:
            raise InputError(f"config.diffusion.{name}: found {config[name]!r}, allowed are {', '.join(allowed)}")
    if config.min_snr and config.loss_space != "prediction":
        raise InputError(
            f"config.diffusion.min_snr: found {config.min_snr:g} with loss_space={config.loss_space!r}; set one of them"
        )
    schedule = SCHEDULES[config.schedule](config.timesteps)
    return Objective(schedule, config.prediction, config.distribution, config.loss_space, config.min_snr, config.loss)
