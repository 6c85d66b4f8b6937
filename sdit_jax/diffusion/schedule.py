"""Noise schedules: float64 tables on the host, cast where they are used."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

MAX_BETA = 0.999
NOISIEST = -10.2  # The log-SNR where steps even in it begin, near the end of linear(1000); beyond, there is but noise to see.


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """A discrete variance-preserving process: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise.

    `betas` and all tables derived from it are float64 of shape (T,). `timesteps[i]` is what the network is told at step i:
    0..T-1, or where those of a longer schedule were kept, their places in it. Source: Ho et al. 2020 (arXiv 2006.11239).
    """

    betas: np.ndarray
    timesteps: np.ndarray

    def __len__(self) -> int:
        return len(self.betas)

    @functools.cached_property
    def alphas_bar(self) -> np.ndarray:
        return np.cumprod(1 - self.betas)

    @functools.cached_property
    def alphas_bar_prev(self) -> np.ndarray:
        return np.append(1.0, self.alphas_bar[:-1])

    @functools.cached_property
    def log_snr(self) -> np.ndarray:
        """log(abar_t / (1 - abar_t)), descending: twice the lambda of the DPM-Solver papers."""
        return np.log(self.alphas_bar / (1 - self.alphas_bar))

    @functools.cached_property
    def posterior_variance(self) -> np.ndarray:
        """Variance of x_{t-1} given x_t and x_0: the smallest that a reverse step can have."""
        return self.betas * (1 - self.alphas_bar_prev) / (1 - self.alphas_bar)

    @functools.cached_property
    def posterior_log_variance(self) -> np.ndarray:
        """Its logarithm, with the first entry (zero variance) replaced by the second."""
        if len(self) == 1:
            return np.log(self.betas)
        return np.log(np.append(self.posterior_variance[1], self.posterior_variance[1:]))

    @functools.cached_property
    def posterior_mean_x0(self) -> np.ndarray:
        """The coefficient of x_0 in the mean of x_{t-1} given x_t and x_0."""
        return self.betas * np.sqrt(self.alphas_bar_prev) / (1 - self.alphas_bar)

    @functools.cached_property
    def posterior_mean_xt(self) -> np.ndarray:
        """The coefficient of x_t in the same mean."""
        return (1 - self.alphas_bar_prev) * np.sqrt(1 - self.betas) / (1 - self.alphas_bar)

    def respaced(self, timesteps: Sequence[int] | np.ndarray) -> "Schedule":
        """The schedule that visits only these steps (any order), with the same abar at each of them.

        Raises ValueError for repeated steps or steps outside 0..T-1.
        """
        kept = np.unique(np.asarray(timesteps, int))
        if len(kept) != len(timesteps) or not len(kept) or kept[0] < 0 or kept[-1] >= len(self):
            raise ValueError(f"timesteps: found {list(timesteps)}, need distinct steps in 0..{len(self) - 1}")
        bar = self.alphas_bar[kept]
        return Schedule(1 - bar / np.append(1.0, bar[:-1]), self.timesteps[kept])

    def spaced(self, steps: int, in_log_snr: bool = False) -> np.ndarray:
        """`steps` evenly spaced steps from 0 to T-1, both included, rounded: 250 of 1000 are 0, 4, 8, ..., 995, 999.

        With `in_log_snr` they are even in log_snr, as in Lu et al. 2022 (arXiv 2206.00927), from 0 to T-1 or, where that comes
        first, to NOISIEST; where several round to one, they move up. A single step is T-1.
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


def _schedule(betas):
    return Schedule(betas, np.arange(len(betas)))


def linear(timesteps: int) -> Schedule:
    """Betas from 1e-4 to 0.02 for 1000 steps, scaled by 1000 / timesteps for others (PAPER section 6)."""
    scale = 1000 / timesteps
    return _schedule(np.minimum(np.linspace(1e-4 * scale, 0.02 * scale, timesteps), MAX_BETA))


def cosine(timesteps: int) -> Schedule:
    """abar_t = f(t) / f(0), f(t) = cos^2((t/T + 0.008) / 1.008 * pi/2); betas at most 0.999.

    Source: Nichol and Dhariwal 2021 (arXiv 2102.09672).
    """
    s = np.linspace(0, 1, timesteps + 1)
    f = np.cos((s + 0.008) / 1.008 * np.pi / 2) ** 2
    return _schedule(np.minimum(1 - f[1:] / f[:-1], MAX_BETA))


SCHEDULES = {"linear": linear, "cosine": cosine}
