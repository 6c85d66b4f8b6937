"""Samplers: one reverse step each, from level i of a schedule to level i - 1; `sample` scans it over a trajectory.

| sampler | order | network calls | source |
|---|---|---|---|
| `ddpm` | 1, stochastic | 1 a step | Ho et al. 2020 (arXiv 2006.11239) |
| `ddim` | 1, stochastic with `churn` | 1 a step | Song et al. 2021 (arXiv 2010.02502); Song et al. 2023 (arXiv 2303.01469) |
| `euler`, `heun` | 1, 2 | 1 and 2 a step, the last 1 | Karras et al. 2022 (arXiv 2206.00364), algorithm 1 without churn |
| `dpmpp_2m`, `dpmpp_2m_sde` | 2, the latter stochastic | 1 a step | Lu et al. 2022 (arXiv 2211.01095) |
| `dpmpp_3m` | 3 | 1 a step | the same, appendix B |
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax.diffusion import process
from sdit_jax.diffusion.objective import Denoised
from sdit_jax.diffusion.schedule import Schedule

ROUNDS = 2**16  # Beyond all levels: keys of the rounds of a step.
Denoise = Callable[[jax.Array, jax.Array], Any]  # (x, t_B) -> the clean image, or Denoised.


class Path(NamedTuple):
    """What the network saw at each step, and the clean image that it predicted: (steps, B, ...)."""

    noised: jax.Array
    clean: jax.Array


class Known(NamedTuple):
    """Clean images, and where they are known: a mask that broadcasts to their shape.

    Each step is taken `rounds` times, noised back to its level in between. After one round what is drawn often does not go with
    what is known (Lugmayr et al. 2022, arXiv 2201.09865; their jumps have a length of one step here).
    """

    image: jax.Array
    region: jax.Array
    rounds: int = 10


class Level(NamedTuple):
    """The arguments of a step from level i: x_t, its denoised image and noise, and the clean images of the two steps before."""

    schedule: Schedule
    i: jax.Array
    x: jax.Array
    x_0: jax.Array
    noise: jax.Array
    v: jax.Array | None
    earlier: tuple[jax.Array, jax.Array]  # The last one first.
    key: jax.Array | None
    denoise: Callable[[jax.Array, jax.Array], Denoised]  # (x, level) -> Denoised, for further calls.
    churn: float = 0.0


def ddpm(at: Level) -> jax.Array:
    """Ancestral sampling: x_{t-1} ~ N(posterior mean of x_0 and x_t, variance), without noise in the last step.

    The variance is the learned one where the network predicts it, else the posterior variance.
    """
    mean = process.posterior_mean(at.schedule, at.x_0, at.x, at.i)
    if at.v is None:
        log_variance = process.at(at.schedule.posterior_log_variance, at.i, at.x)
    else:
        log_variance = process.learned_log_variance(at.schedule, at.v, at.i)
    fresh = normal(fold_in(at.key, at.i), at.x)
    return mean + jnp.where(at.i > 0, jnp.exp(log_variance / 2), 0) * fresh


def ddim(at: Level) -> jax.Array:
    """x_{t-1} = alpha_{t-1} x_0 + sigma_{t-1} (sqrt(1 - churn^2) noise + churn fresh noise).

    Without churn it is the paper's eta = 0. With churn = 1 all noise is fresh, which is the sampler of consistency models
    (Song et al. 2023, algorithm 1): in few calls, errors of one step do not reach the next.
    """
    if not at.churn:
        return along(at)
    fresh = normal(fold_in(at.key, at.i), at.x)
    return along(at._replace(noise=math.sqrt(1 - at.churn**2) * at.noise + at.churn * fresh))


def along(at: Level) -> jax.Array:
    """alpha_{t-1} x_0 + sigma_{t-1} noise."""
    alpha, sigma = (process.at(table, at.i, at.x) for table in (at.schedule.alphas_prev, at.schedule.sigmas_prev))
    return alpha * at.x_0 + sigma * at.noise


def euler(at: Level) -> jax.Array:
    """Euler's step of the probability-flow ODE d(x / alpha) / du = noise in u = sigma / alpha: that of `ddim`."""
    return along(at)


def heun(at: Level) -> jax.Array:
    """Heun's step of the same ODE: the mean of the noise before and after Euler's step. The last step, to u = 0, is Euler's.

    x / alpha, large where alpha is small, is not formed: x_0 + u noise = (x_0 + u (noise - mean)) + u mean.
    """
    euler_step = along(at)

    def corrected():
        mean = (at.noise + at.denoise(euler_step, at.i - 1).noise) / 2
        u = process.at(at.schedule.sigmas / at.schedule.alphas, at.i, at.x)
        return along(at._replace(x_0=at.x_0 + u * (at.noise - mean), noise=mean))

    return jax.lax.cond(at.i > 0, corrected, lambda: euler_step)


def dpmpp_2m(at: Level) -> jax.Array:
    """DPM-Solver++(2M), algorithm 2: a step of `ddim` without churn, with the clean image of `midpoint`.

    This equals sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) midpoint, with h the increase of log(alpha / sigma).
    """
    return towards(at, midpoint(at))


def dpmpp_3m(at: Level) -> jax.Array:
    """DPM-Solver++ of third order from three clean images, as `dpmpp_2m` with that of `parabola`."""
    return towards(at, parabola(at))


def towards(at: Level, x_0: jax.Array) -> jax.Array:
    """`along` with this clean image, and the noise that it leaves in x."""
    return along(at._replace(x_0=x_0, noise=process.implied_noise(at.schedule, at.x, at.i, x_0)))


def dpmpp_2m_sde(at: Level) -> jax.Array:
    """SDE-DPM-Solver++(2M), the same for the reverse SDE: a step of `ddpm` with the clean image of `midpoint`.

    With the posterior variance (a learned one is not used) this equals
    exp(-h) sigma_s / sigma_t x_t + alpha_s (1 - exp(-2h)) midpoint + sigma_s sqrt(1 - exp(-2h)) fresh noise.
    """
    return ddpm(at._replace(x_0=midpoint(at), v=None))


def midpoint(at: Level) -> jax.Array:
    """The clean image halfway through step i in log-SNR, extrapolated from the last two.

    x_0 + h_i / (2 h_{i+1}) (x_0 - x0_prev), with h_i the length of step i. It is x_0, a step of first order, in the first step
    and in the last, where h is infinite; the last one errs by the order of the lowest noise level's variance.
    """
    h, weight = np.diff(at.schedule.log_snr), np.zeros(len(at.schedule))
    weight[1:-1] = h[:-1] / (2 * h[1:])
    return at.x_0 + process.at(weight, at.i, at.x_0) * (at.x_0 - at.earlier[0])


def parabola(at: Level) -> jax.Array:
    """The clean image of a step of first order that equals the step along the parabola through the last three.

    As a function of s, the part of the step's length h in log(alpha / sigma), x_0 + s d + s^2 c has the integral

        x_0 + (1 / (1 - e^-h) - 1 / h) d + ((1 - 2 / h) / (1 - e^-h) + 2 / h^2) c        under the weight e^(h (s - 1)).

    With the lengths g and f of the two steps before, slopes a = (x_0 - x_1) h / g and b = (x_1 - x_2) h / f:
    c = (a - b) h / (g + f) and d = a + c g / h. The second step is that of `midpoint`, the first and the last of first order.
    """
    steps, S = np.append(np.inf, np.diff(at.schedule.log_snr) / -2), len(at.schedule)
    linear, square = np.zeros((2, S))
    ratio, sooner = np.ones((2, S))  # h / g and h / f.
    h = steps[1:-2]  # Of the steps that have two before them and one behind.
    weight = -np.expm1(-h)
    linear[1:-2], square[1:-2] = 1 / weight - 1 / h, (1 - 2 / h) / weight + 2 / h**2
    ratio[1:-2], sooner[1:-2] = h / steps[2:-1], h / steps[3:]
    table = lambda values: process.at(values, at.i, at.x_0)
    x_1, x_2 = at.earlier
    a, b = table(ratio) * (at.x_0 - x_1), table(sooner) * (x_1 - x_2)
    c = (a - b) * table(1 / (1 / ratio + 1 / sooner))
    third = at.x_0 + table(linear) * (a + c * table(1 / ratio)) + table(square) * c
    return jnp.where(at.i == S - 2, midpoint(at), third)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A reverse step and its properties."""

    step: Callable[[Level], jax.Array]
    stochastic: bool = False
    in_log_snr: bool = False  # Levels are evenly spaced in log-SNR, not in time.
    max_churn: float = 0.0  # The share of the noise that may be fresh.
    called: Callable[[list], list] = lambda levels: levels  # Those at which the denoiser is evaluated, of those visited.


SAMPLERS = {
    "ddpm": Sampler(ddpm, stochastic=True),
    "ddim": Sampler(ddim, max_churn=1.0),
    "euler": Sampler(euler, in_log_snr=True),
    "heun": Sampler(heun, in_log_snr=True, called=lambda levels: [*levels, *levels[1:]]),
    "dpmpp_2m": Sampler(dpmpp_2m, in_log_snr=True),
    "dpmpp_3m": Sampler(dpmpp_3m, in_log_snr=True),
    "dpmpp_2m_sde": Sampler(dpmpp_2m_sde, stochastic=True, in_log_snr=True),
}


def visited(schedule: Schedule, method: str, steps: int) -> np.ndarray:
    """The levels that `sample` visits, descending.

    "dpmpp_2m" extrapolates from step to step, which needs steps of similar length in log-SNR: with few steps that are even in
    time it is worse than "ddim".
    """
    return schedule.spaced(steps, in_log_snr=SAMPLERS[method].in_log_snr)[::-1]


def sample(
    denoise: Denoise,
    x_T: jax.Array,
    schedule: Schedule,
    *,
    method: str,
    steps: int | None = None,
    timesteps: Sequence[int] | np.ndarray | None = None,
    key: jax.Array | None = None,
    clip_x0: bool = False,
    churn: float = 0.0,
    known: Known | None = None,
    path: bool = False,
) -> Any:
    """Runs the reverse process from x_T to x_0 as one `jax.lax.scan`.

    Args:
      denoise: (x, t_B) -> the clean image, or Denoised with the noise and a learned variance.
      x_T: standard normal noise of any shape (B, ...), channels last.
      schedule: the schedule that `denoise` was trained with.
      method: one of SAMPLERS.
      steps: the number of steps, spaced by `visited`; None for all levels.
      timesteps: the levels themselves, descending; override `steps`.
      key: random key, needed by stochastic samplers and for churn: one for all images, or one per image, (B,), so that an
        image does not depend on its batch.
      clip_x0: clips predicted clean images to [-1, 1] and moves the noise to agree. The release does not; a network that
        predicts noise on the cosine schedule needs it, since its first steps multiply errors by 1 / alpha, in the thousands.
      churn: the share of the noise that is fresh in each step, 0 to the sampler's `max_churn`.
      known: a part of the images that is given; the rest is drawn to go with it. Needs a key, and multistep methods then take
        steps of first order.
      path: whether to return what was seen and predicted at all steps too.

    Returns:
      x_0, of the shape of x_T; with `path` (x_0, Path), in the order of the steps.

    Raises:
      ValueError: an unknown method, a stochastic method, churn or a known part without key, a churn that the method does not
        allow, levels that are not in the schedule or not descending, or a clean image of another shape than x.
    """
    if method not in SAMPLERS:
        raise ValueError(f"sampler: found {method!r}, allowed are {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[method]
    if not 0 <= churn <= sampler.max_churn:
        raise ValueError(f"churn: found {churn}, allowed is 0..{sampler.max_churn:g} for {method!r}")
    if (sampler.stochastic or churn or known) and key is None:
        raise ValueError(f"sampler {method!r} is stochastic here: pass key=jax.random.key(seed)")
    if timesteps is None:
        timesteps = visited(schedule, method, len(schedule) if steps is None else steps)
    if list(timesteps) != sorted(timesteps, reverse=True):
        raise ValueError(f"timesteps: found {list(timesteps)}, must descend")
    respaced = schedule.respaced(timesteps)
    denoise_at = partial(_denoised, denoise, respaced, clip_x0, known)

    def taken(x, earlier, i, key):
        found = denoise_at(x, i)
        # Multistep methods would extrapolate the noise of rounds, too.
        earlier = (found.x_0, found.x_0) if known else earlier
        level = Level(respaced, i, x, found.x_0, found.noise, found.v, earlier, key, denoise_at, churn)
        return sampler.step(level).astype(x.dtype), found.x_0.astype(x.dtype)

    def again(moved, earlier, i, r):
        """The step once more, from what the last round has drawn, noised back to level i."""
        own = fold_in(key, ROUNDS + r)
        x = process.noised_back(respaced, moved, i, normal(fold_in(own, i), moved))
        return taken(x, earlier, i, fold_in(own, ROUNDS))[0]

    def step(carry, i):
        x, earlier = carry
        moved, x_0 = taken(x, earlier, i, key)
        if known:
            moved = jax.lax.fori_loop(1, known.rounds, lambda r, moved: again(moved, earlier, i, r), moved)
        return (moved, (x_0, earlier[0])), Path(x, x_0) if path else None

    none = jnp.zeros_like(x_T)
    (x_0, _), seen = jax.lax.scan(step, (x_T, (none, none)), jnp.arange(len(respaced))[::-1])
    return (x_0, seen) if path else x_0


def _denoised(denoise, schedule, clip_x0, known, x, i):
    """What `denoise` finds in x at level i of a respaced schedule, as Denoised."""
    found = denoise(x, jnp.full(x.shape[:1], jnp.asarray(schedule.timesteps, jnp.int32)[i]))
    if not isinstance(found, Denoised):
        if found.shape != x.shape:
            raise ValueError(f"denoise: found a clean image of shape {found.shape} for x {x.shape}")
        found = Denoised(found, process.implied_noise(schedule, x, i, found))
    if clip_x0 or known:
        x_0 = jnp.clip(found.x_0, -1, 1) if clip_x0 else found.x_0
        x_0 = jnp.where(known.region, known.image, x_0) if known else x_0
        found = found._replace(x_0=x_0, noise=process.implied_noise(schedule, x, i, x_0))
    return found


def normal(key: jax.Array, x: jax.Array) -> jax.Array:
    """Standard normal noise of the shape of x (B, ...), from one key for all images or from keys (B,), one per image."""
    if key.ndim == 0:
        return jax.random.normal(key, x.shape, x.dtype)
    return jax.vmap(lambda one: jax.random.normal(one, x.shape[1:], x.dtype))(key)


def fold_in(key: Any, number: Any) -> jax.Array:
    """jax.random.fold_in, for one key or an array of keys."""
    return jax.random.fold_in(key, number) if key.ndim == 0 else jax.vmap(lambda one: jax.random.fold_in(one, number))(key)
