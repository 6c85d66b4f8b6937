"""Noise schedules: x_t = alpha_t x_0 + sigma_t noise, as float64 tables on the host that are cast where they are used."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MAX_BETA = 0.999
NOISIEST = -10.2  # The log-SNR where spacing in log-SNR begins, near the end of linear(1000): below it an image is only noise.


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """A process with levels t = 0..T-1, from almost clean to almost pure noise: x_t = alpha_t x_0 + sigma_t noise.

    All tables are float64 of shape (T,). Source: Ho et al. 2020 (arXiv 2006.11239).

    alphas_bar  alpha^2, as the literature on variance-preserving processes calls it
    variances   sigma^2
    ratios      of the transition x_t = ratio x_{t-1} + sqrt(beta) noise: alpha_t / alpha_{t-1}, with alpha_{-1} = 1
    betas       the variance that it adds
    velocities  d alpha and d sigma along the process, see `variance_preserving` and `rectified_flow`
    timesteps   the network's time at each level: t itself, or in a respaced schedule the level of the full one
    """

    alphas_bar: np.ndarray
    variances: np.ndarray
    ratios: np.ndarray
    betas: np.ndarray
    velocities: tuple[np.ndarray, np.ndarray]
    timesteps: np.ndarray

    def __len__(self) -> int:
        return len(self.alphas_bar)

    def alpha(self, t: Any) -> jax.Array:
        """alpha at integer t, exact, or interpolated at real t in 0..T-1; float32.

        Between two levels of a variance-preserving process log(alpha^2) is linear and sigma^2 = 1 - alpha^2; in other processes
        alpha and sigma are linear.
        """
        if self.is_variance_preserving and not _is_integer(t):
            return jnp.exp(_at(np.log(self.alphas), t))
        return _at(self.alphas, t)

    def sigma(self, t: Any) -> jax.Array:
        """sigma at integer or real t, as `alpha`."""
        if self.is_variance_preserving and not _is_integer(t):
            return jnp.sqrt(-jnp.expm1(2 * _at(np.log(self.alphas), t)))
        return _at(self.sigmas, t)

    @functools.cached_property
    def is_variance_preserving(self) -> bool:
        """Whether alpha^2 + sigma^2 = 1."""
        return np.array_equal(self.variances, 1 - self.alphas_bar)

    @functools.cached_property
    def alphas(self) -> np.ndarray:
        return np.sqrt(self.alphas_bar)

    @functools.cached_property
    def sigmas(self) -> np.ndarray:
        return np.sqrt(self.variances)

    @functools.cached_property
    def alphas_prev(self) -> np.ndarray:
        return np.append(1.0, self.alphas[:-1])

    @functools.cached_property
    def sigmas_prev(self) -> np.ndarray:
        return np.append(0.0, self.sigmas[:-1])

    @functools.cached_property
    def log_snr(self) -> np.ndarray:
        """log(alpha^2 / sigma^2), descending: twice the lambda of the DPM-Solver papers."""
        return np.log(self.alphas_bar / self.variances)

    @functools.cached_property
    def posterior_variance(self) -> np.ndarray:
        """Variance of x_{t-1} given x_t and x_0: the smallest that a reverse step can have."""
        return self.betas * self._variances_prev / self.variances

    @functools.cached_property
    def posterior_log_variance(self) -> np.ndarray:
        """Its logarithm, with the first entry (zero variance) replaced by the second."""
        if len(self) == 1:
            return np.log(self.betas)
        return np.log(np.append(self.posterior_variance[1], self.posterior_variance[1:]))

    @functools.cached_property
    def posterior_mean_x0(self) -> np.ndarray:
        """The coefficient of x_0 in the mean of x_{t-1} given x_t and x_0."""
        return self.betas * self.alphas_prev / self.variances

    @functools.cached_property
    def posterior_mean_xt(self) -> np.ndarray:
        """The coefficient of x_t in the same mean."""
        return self._variances_prev * self.ratios / self.variances

    @property
    def _variances_prev(self):
        return np.append(0.0, self.variances[:-1])

    def respaced(self, timesteps: Sequence[int] | np.ndarray) -> "Schedule":
        """The schedule of these levels alone (any order). Raises ValueError for repeated levels or ones outside 0..T-1."""
        kept = np.unique(np.asarray(timesteps, int))
        if len(kept) != len(timesteps) or not len(kept) or kept[0] < 0 or kept[-1] >= len(self):
            raise ValueError(f"timesteps: found {list(timesteps)}, need distinct steps in 0..{len(self) - 1}")
        d_alphas, d_sigmas = self.velocities
        velocities = d_alphas[kept], d_sigmas[kept]
        return _schedule(self.alphas_bar[kept], self.variances[kept], velocities, self.timesteps[kept])

    def spaced(self, steps: int, in_log_snr: bool = False) -> np.ndarray:
        """`steps` evenly spaced levels from 0 to T-1, both included, rounded: 250 of 1000 are 0, 4, 8, ..., 995, 999.

        With `in_log_snr` they are even in log_snr (Lu et al. 2022, arXiv 2206.00927), from 0 to T-1 or to NOISIEST, whichever
        comes first; levels that would coincide move up. A single step is T-1.
        Raises ValueError for fewer than 1 or more than T.
        """
        T = len(self)
        if not 1 <= steps <= T:
            raise ValueError(f"steps: found {steps}, allowed are 1..{T}")
        if steps == 1:
            return np.array([T - 1])
        t, place, noisiness = np.linspace(0, T - 1, steps), np.arange(steps), -self.log_snr
        if in_log_snr:
            t = np.interp(np.linspace(noisiness[0], min(noisiness[-1], -NOISIEST), steps), noisiness, np.arange(T))
        return np.minimum(np.maximum.accumulate(np.round(t).astype(int) - place) + place, T - steps + place)


def _is_integer(t):
    return jnp.issubdtype(jnp.asarray(t).dtype, jnp.integer)


def _at(table, t):
    """A table at integer t, or at real t on the line between two levels, float32."""
    values = jnp.asarray(table, jnp.float32)
    return values[t] if _is_integer(t) else jnp.interp(t, jnp.arange(len(table), dtype=jnp.float32), values)


def _schedule(alphas_bar, variances, velocities, timesteps):
    """Adds the transitions between the levels."""
    ratios = np.sqrt(alphas_bar / np.append(1.0, alphas_bar[:-1]))
    betas = variances - np.square(ratios) * np.append(0.0, variances[:-1])
    return Schedule(alphas_bar, variances, ratios, betas, velocities, timesteps)


def variance_preserving(betas: np.ndarray) -> Schedule:
    """alpha_t^2 = prod_{s <= t} (1 - beta_s), sigma_t^2 = 1 - alpha_t^2.

    The velocity is the derivative by the angle phi of alpha = cos(phi), sigma = sin(phi): d alpha = -sigma, d sigma = alpha
    (Salimans and Ho 2022, arXiv 2202.00512).
    """
    bar = np.cumprod(1 - betas)
    velocities = -np.sqrt(1 - bar), np.sqrt(bar)
    return Schedule(bar, 1 - bar, np.sqrt(1 - betas), betas, velocities, np.arange(len(betas)))


def linear(timesteps: int) -> Schedule:
    """Betas from 1e-4 to 0.02 for 1000 steps, scaled by 1000 / timesteps for others (PAPER section 6)."""
    scale = 1000 / timesteps
    return variance_preserving(np.minimum(np.linspace(1e-4 * scale, 0.02 * scale, timesteps), MAX_BETA))


def cosine(timesteps: int) -> Schedule:
    """alpha_t^2 = f(t) / f(0), f(t) = cos^2((t/T + 0.008) / 1.008 * pi/2); betas at most 0.999.

    Source: Nichol and Dhariwal 2021 (arXiv 2102.09672).
    """
    s = np.linspace(0, 1, timesteps + 1)
    f = np.cos((s + 0.008) / 1.008 * np.pi / 2) ** 2
    return variance_preserving(np.minimum(1 - f[1:] / f[:-1], MAX_BETA))


def rectified_flow(timesteps: int) -> Schedule:
    """alpha = 1 - s, sigma = s at s = (t + 1/2) / T, so that neither is zero; the velocity is noise - x_0.

    Source: Liu et al. 2022 (arXiv 2209.03003); Lipman et al. 2022 (arXiv 2210.02747).
    """
    s = (np.arange(timesteps) + 0.5) / timesteps
    velocities = -np.ones(timesteps), np.ones(timesteps)
    return _schedule(np.square(1 - s), np.square(s), velocities, np.arange(timesteps))


SCHEDULES: dict[str, Callable[[int], Schedule]] = {"linear": linear, "cosine": cosine, "rectified_flow": rectified_flow}
