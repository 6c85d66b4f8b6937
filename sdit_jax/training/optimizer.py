"""AdamW with a learning-rate schedule, gradient clipping and learning rates that transfer between widths, from optax."""

from typing import Any

import jax
import optax

from sdit_jax.config import Config
from sdit_jax.errors import InputError
from sdit_jax.models import Network, initial_variables

SCHEDULES = ("constant", "linear", "cosine")


def learning_rate(config: Config, total_steps: int, warmup_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or linear or cosine decay to `final_fraction` of the peak at the last step.

    Raises InputError for a field out of its range.
    """
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    if config.schedule not in SCHEDULES:
        raise InputError(f"config.optimizer.schedule: found {config.schedule!r}, allowed are {', '.join(SCHEDULES)}")
    if not 0 <= config.final_fraction <= 1:
        raise InputError(f"config.optimizer.final_fraction: found {config.final_fraction}, must be in 0..1")
    if warmup_steps >= total_steps and warmup_steps:
        raise InputError(f"config.optimizer.warmup: found {warmup_steps} steps, the whole run has {total_steps}")
    decay_steps = total_steps - warmup_steps
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, final, decay_steps)
    else:
        after = optax.cosine_decay_schedule(peak, decay_steps, config.final_fraction)
    return optax.join_schedules([optax.linear_schedule(0, peak, warmup_steps), after], [warmup_steps])


def adamw(config: Config, rate: optax.Schedule, model: Network | None = None) -> optax.GradientTransformation:
    """PyTorch's AdamW: decoupled weight decay on every parameter, eps 1e-8; with `clip_norm`, gradients are clipped first.

    With `base_width` and a model, the learning rate (and so the decay) of hidden matrices is scaled by base_width / width.
    Raises InputError for a field out of its range.
    """
    for name in ("b1", "b2"):
        if not 0 <= config[name] < 1:
            raise InputError(f"config.optimizer.{name}: found {config[name]}, must be in 0..1, 1 excluded")
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    parts = [clip, optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay)]
    if config.base_width and model is not None:
        parts.append(optax.masked(optax.scale(config.base_width / model.width), hidden_matrices(model)))
    return optax.chain(*parts)


def hidden_matrices(model: Network) -> Any:
    """A tree of booleans: True for matrices whose fan-in grows with the width, found by doubling it.

    Adam moves every entry by about its learning rate, so that a sum over `width` entries moves further the wider it is, unless
    the rate falls as 1 / width. Source: muP's rule for Adam, Yang et al. 2022 (arXiv 2203.03466), table 3; its initial scales
    are not adopted.
    """

    def shapes(width):
        return jax.eval_shape(lambda: initial_variables(model.clone(width=width), 0))["params"]

    def grows(narrow, wide):
        return narrow.ndim > 1 and narrow.shape[-2] != wide.shape[-2]

    return jax.tree.map(grows, shapes(model.width), shapes(2 * model.width))
