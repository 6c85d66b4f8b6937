"""How images are drawn: a sampler, its levels, guidance; and how many network calls that takes."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from sdit_jax.diffusion.guidance import passes
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.samplers import SAMPLERS, visited
from sdit_jax.diffusion.schedule import Schedule
from sdit_jax.errors import InputError
from sdit_jax.models import Network


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How an image is drawn.

    sampler   one of `diffusion.samplers.SAMPLERS`
    steps     their number, spaced by the sampler; that of the levels, where these are given
    guidance  the scale of classifier-free guidance: 1 is none, 0 ignores labels
    clip_x0   whether predicted clean images are clipped to [-1, 1]
    levels    the timesteps visited, descending
    churn     the share of each step's noise that is fresh, 0 to 1
    interval  the lowest and the highest timestep with guidance (Kynkaanniemi et al. 2024, arXiv 2404.07724); empty for all
    """

    sampler: str = "ddim"
    steps: int = 50
    guidance: float = 1.0
    clip_x0: bool = False
    levels: tuple[int, ...] = ()
    churn: float = 0.0
    interval: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("levels", "interval"):  # Lists, as JSON has them, could not be hashed.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.levels:
            object.__setattr__(self, "steps", len(self.levels))

    def visited(self, schedule: Schedule) -> list[int]:
        """The timesteps of the steps, descending."""
        return list(self.levels) or visited(schedule, self.sampler, self.steps).tolist()

    def calls(self, schedule: Schedule) -> int:
        """Network evaluations per image."""
        low, high = self.interval or (0, len(schedule))
        called = SAMPLERS[self.sampler].called(self.visited(schedule))
        return sum(passes(self.guidance) if low <= t <= high else 1 for t in called)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them; levels, churn and interval only where they are set."""
        kept = {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()}
        return {name: value for name, value in kept.items() if value or name not in ("levels", "churn", "interval")}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Sampling":
        """The inverse of `to_dict`, for a mapping that may hold more."""
        return cls(**{field.name: stored[field.name] for field in dataclasses.fields(cls) if field.name in stored})

    @property
    def name(self) -> str:
        """For file names: "dpmpp_2m20_guidance1.5"."""
        levels = "_levels" + "-".join(map(str, self.levels)) if self.levels else ""
        churn = f"_churn{self.churn:g}" if self.churn else ""
        interval = "_from{}to{}".format(*self.interval) if self.interval else ""
        return f"{self.sampler}{self.steps}{levels}{churn}_guidance{self.guidance:g}{interval}"

    def check(self, model: Network, objective: Objective, prefix: str) -> None:
        """Raises InputError for a value that model or schedule do not allow; `prefix` precedes the field's name in it."""
        T = len(objective.schedule)
        if self.sampler not in SAMPLERS:
            raise InputError(f"{prefix}sampler: found {self.sampler!r}, allowed are {', '.join(SAMPLERS)}")
        if not 1 <= self.steps <= T:
            raise InputError(f"{prefix}steps: found {self.steps}, allowed are 1..{T}")
        if any(not 0 <= t < T for t in self.levels) or list(self.levels) != sorted({*self.levels}, reverse=True):
            raise InputError(f"{prefix}levels: found {_shown(self.levels)}, must descend within {T - 1}..0")
        largest = SAMPLERS[self.sampler].max_churn
        if not 0 <= self.churn <= largest:
            raise InputError(f"{prefix}churn: found {self.churn:g}, allowed is 0..{largest:g} for {self.sampler}")
        if not math.isfinite(self.guidance):
            raise InputError(f"{prefix}guidance: found {self.guidance}, must be a finite number")
        if self.guidance != 1 and not (model.num_classes and model.label_dropout):
            raise InputError(f"{prefix}guidance: found {self.guidance}, must be 1 for a model without labels or label dropout")
        if self.interval and not (len(self.interval) == 2 and 0 <= self.interval[0] <= self.interval[1] < T):
            raise InputError(f"{prefix}interval: found {_shown(self.interval)}, must be LOW,HIGH within 0..{T - 1}")


def _shown(numbers):
    return ",".join(map(str, numbers))
