"""What a network is trained for: the schedule, what it predicts there, which timesteps it sees, how errors count at each."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.diffusion import process
from sdit_jax.diffusion.schedule import Schedule

# What is predicted, a noise + b x_0, by its (a, b) for alpha = sqrt(abar), sigma = sqrt(1 - abar).
PREDICTIONS = {
    "noise": lambda alpha, sigma: (np.ones_like(alpha), np.zeros_like(sigma)),
    "x0": lambda alpha, sigma: (np.zeros_like(alpha), np.ones_like(sigma)),
    "velocity": lambda alpha, sigma: (alpha, -sigma),
}
DISTRIBUTIONS = ("uniform", "logit_normal")


@dataclasses.dataclass(frozen=True)
class Objective:
    """A schedule and what is learned on it; by default what the release learns (PAPER section 6).

    `prediction`: "noise"; "x0", the clean image; or "velocity", alpha noise - sigma x_0 (Salimans and Ho 2022,
    arXiv 2202.00512), with alpha = sqrt(abar), sigma = sqrt(1 - abar). `error_of`: which of these the squared error is of,
    whatever is predicted (Li and He 2025, arXiv 2511.13720, tell the two apart), by default "prediction". `min_snr`, gamma: in
    its place errors of x_0 count min(gamma, abar / (1 - abar)) (Hang et al. 2023, arXiv 2303.09556); 0: they do not.
    `distribution` of timesteps in training: "uniform", or "logit_normal", those of sigmoid(standard normal) of the way (Esser
    et al. 2024, arXiv 2403.03206).
    """

    schedule: Schedule
    prediction: str = "noise"
    distribution: str = "uniform"
    error_of: str = "prediction"
    min_snr: float = 0.0

    @functools.cached_property
    def target_noise(self) -> np.ndarray:
        """a: how much of the noise is in the target, by timestep."""
        return self._target[0]

    @functools.cached_property
    def target_x0(self) -> np.ndarray:
        """b: how much of the clean image is in the target, by timestep."""
        return self._target[1]

    @functools.cached_property
    def noise_error(self) -> np.ndarray:
        """The error of the implied noise for an error of 1 in the prediction, by timestep."""
        return self._noise_error(self.prediction)

    @property
    def weight(self) -> np.ndarray:
        """What a squared error of the prediction counts, by timestep."""
        if self.min_snr:
            snr = np.exp(self.schedule.log_snr)
            return np.minimum(self.min_snr, snr) / snr * self.noise_error**2
        judged = self.prediction if self.error_of == "prediction" else self.error_of
        return (self.noise_error / self._noise_error(judged)) ** 2

    def _noise_error(self, prediction):
        """alpha / (alpha a - sigma b)."""
        alpha, sigma = self._signal
        a, b = PREDICTIONS[prediction](alpha, sigma)
        return alpha / (alpha * a - sigma * b)

    @property
    def _signal(self):
        return np.sqrt(self.schedule.alphas_bar), np.sqrt(1 - self.schedule.alphas_bar)

    @property
    def _target(self):
        return PREDICTIONS[self.prediction](*self._signal)

    def timesteps(self, key: jax.Array, shape: Sequence[int]) -> jax.Array:
        """Random timesteps to train at, int32."""
        if self.distribution == "uniform":
            return jax.random.randint(key, shape, 0, len(self.schedule))
        way = jax.nn.sigmoid(jax.random.normal(key, shape))
        return jnp.minimum(len(self.schedule) * way, len(self.schedule) - 1).astype(jnp.int32)

    def target(self, x_0: jax.Array, noise: jax.Array, t_B: jax.Array) -> jax.Array:
        """What the network is to predict, a noise + b x_0."""
        return process.at(self.target_noise, t_B, x_0) * noise + process.at(self.target_x0, t_B, x_0) * x_0

    def noise(self, predicted: jax.Array, x_t: jax.Array, t_B: jax.Array) -> jax.Array:
        """The noise that a prediction implies, (alpha predicted - b x_t) / (alpha a - sigma b)."""
        if self.prediction == "noise":
            return predicted
        of_x_t = -self.target_x0 * self.noise_error / self._signal[0]
        return process.at(self.noise_error, t_B, x_t) * predicted + process.at(of_x_t, t_B, x_t) * x_t

    def denoised(self, output: jax.Array, x_t: jax.Array, t_B: jax.Array) -> jax.Array:
        """A network's output as samplers want it: noise, and v behind it where the variance is learned."""
        predicted, v = process.split_prediction(output, x_t)
        noise = self.noise(predicted, x_t, t_B)
        return noise if v is None else jnp.concatenate([noise, v], -1)
