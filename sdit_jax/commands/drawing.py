"""The flags of how images are drawn, which several verbs share."""

from collections.abc import Callable

from absl import flags

from sdit_jax.diffusion.samplers import SAMPLERS
from sdit_jax.errors import InputError
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.run import Run

NAMES = ("sampler", "steps", "guidance", "levels", "churn", "interval")
flags.disclaim_key_flags()  # They belong to the verb that asks for them, and are in its help.


def define_flags(sampler: str, steps: int) -> Callable[[Run], Sampling]:
    """Defines the flags. Returns a function that reads them for a run, and raises InputError for what it does not allow."""
    stochastic = " and ".join(name for name, found in SAMPLERS.items() if found.stochastic)
    flags.DEFINE_string("sampler", sampler, f"One of {', '.join(SAMPLERS)}; {stochastic} are stochastic.")
    flags.DEFINE_integer("steps", steps, "Sampling steps.")
    flags.DEFINE_float("guidance", 1.0, "Scale of classifier-free guidance; 1: no guidance, 0: labels are ignored.")
    flags.DEFINE_list("levels", [], "Timesteps to visit, descending, such as 999,700,400; in place of steps.")
    flags.DEFINE_float("churn", 0.0, "For ddim: the share of the noise that is fresh in each step, 0 to 1.")
    flags.DEFINE_list("interval", [], "LOW,HIGH: guidance only at these timesteps; the others take half as many calls.")
    flags.DEFINE_integer("calls", None, "In place of all these: the best way that `sdit tune` found for so many network calls.")
    return _chosen


def _chosen(run: Run) -> Sampling:
    calls = flags.FLAGS.calls
    given = {name: _value(name) for name in NAMES if calls is None or flags.FLAGS[name].present}
    return run.sampling(calls, prefix="--", **given)


def _value(name):
    value = flags.FLAGS[name].value
    return integers(name, value) if isinstance(value, list) else value


def integers(name: str, texts: list[str]) -> tuple[int, ...]:
    """The value of a flag that is a list of whole numbers. Raises InputError for anything else."""
    for text in texts:
        if not (text.isascii() and text.strip().isdigit()):
            raise InputError(f"--{name}: found {text!r}, must be whole numbers, separated by commas")
    return tuple(map(int, texts))
