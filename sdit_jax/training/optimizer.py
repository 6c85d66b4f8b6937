"""AdamW or Muon with a schedule and gradient clipping, from optax, and learning rates that transfer between widths."""

from typing import Any

import jax
import optax
import optax.contrib

from sdit_jax.config import Config
from sdit_jax.errors import InputError
from sdit_jax.models import Network, initial_variables

NAMES = ("adamw", "muon")
SCHEDULES = ("constant", "linear", "cosine")
MATRIX = optax.contrib.MuonDimensionNumbers(-2, -1)  # Of a stack of them, each by itself; so is each tap of a convolution.
UPDATE_RMS = 0.2  # Of Muon, before the learning rate: about that of Adam.


def learning_rate(config: Config, total_steps: int, warmup_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or linear or cosine decay to `final_fraction` of the peak at the last step.

    With `restart`, all of that begins at that step; before it the rate is 0.

    Raises InputError for a field out of its range.
    """
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    if config.schedule not in SCHEDULES:
        raise InputError(f"config.optimizer.schedule: found {config.schedule!r}, allowed are {', '.join(SCHEDULES)}")
    if not 0 <= config.final_fraction <= 1:
        raise InputError(f"config.optimizer.final_fraction: found {config.final_fraction}, must be in 0..1")
    if not 0 <= config.restart < total_steps:
        raise InputError(f"config.optimizer.restart: found {config.restart}, must be in 0..{total_steps - 1}")
    total_steps -= config.restart
    if warmup_steps >= total_steps and warmup_steps:
        raise InputError(f"config.optimizer.warmup: found {warmup_steps} steps, the whole run has {total_steps}")
    decay_steps = total_steps - warmup_steps
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, final, decay_steps)
    else:
        after = optax.cosine_decay_schedule(peak, decay_steps, config.final_fraction)
    rate = optax.join_schedules([optax.linear_schedule(0, peak, warmup_steps), after], [warmup_steps])
    return optax.join_schedules([optax.constant_schedule(0.0), rate], [config.restart]) if config.restart else rate


def check(config: Config) -> None:
    """Raises InputError for a field of config.optimizer, besides those of the learning rate, that is out of its range."""
    if config.name not in NAMES:
        raise InputError(f"config.optimizer.name: found {config.name!r}, allowed are {', '.join(NAMES)}")
    for name in ("b1", "b2"):
        if not 0 <= config[name] < 1:
            raise InputError(f"config.optimizer.{name}: found {config[name]}, must be in 0..1, 1 excluded")
    if config.base_width and config.name != "adamw":
        raise InputError(f"config.optimizer.base_width: found {config.base_width}, its rule holds for optimizer.name 'adamw'")


def make_optimizer(config: Config, rate: optax.Schedule, model: Network) -> optax.GradientTransformation:
    """AdamW; or Muon for hidden matrices and AdamW for everything else. With `clip_norm`, gradients are clipped first.

    AdamW is PyTorch's: decoupled weight decay of every parameter, eps 1e-8; beside Muon its momentum is Nesterov's. Muon moves
    a matrix of n inputs and m outputs by

        0.2 sqrt(max(n, m)) U V^T, with the singular value decomposition U S V^T of its Nesterov momentum (0.95)

    where S is only brought near 1, by five Newton-Schulz steps. The factor gives the update the size of Adam's, so that both
    share the learning rate and the weight decay.

    With `base_width`, the learning rate (and so the decay) of matrices that read the width is scaled by base_width / width.
    Raises InputError for a field out of its range.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the factor, Liu et al. 2025 (arXiv
    2502.16982), section 2.2.
    """
    check(config)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.name == "muon":
        matrices = jax.tree.map(lambda hidden: MATRIX if hidden else None, growing(model, -2, -1))
        update = optax.contrib.muon(
            rate, weight_decay=config.weight_decay, muon_weight_dimension_numbers=matrices, consistent_rms=UPDATE_RMS,
            adam_b1=config.b1, adam_b2=config.b2, adam_weight_decay=config.weight_decay,
        )  # fmt: skip
    else:
        update = optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay)
    parts = [clip, update]
    if config.base_width:
        # Adam moves every entry by about its learning rate, so that a sum over `width` entries moves further the wider it is.
        # muP's rule for Adam: Yang et al. 2022 (arXiv 2203.03466), table 3; its initial scales are not adopted.
        parts.append(optax.masked(optax.scale(config.base_width / model.width), growing(model, -2)))
    return optax.chain(*parts)


def growing(model: Network, *axes: int) -> Any:
    """A tree of booleans: True for matrices of which these axes, -2 for inputs and -1 for outputs, grow with the width."""

    def shapes(width):
        return jax.eval_shape(lambda: initial_variables(model.clone(width=width), 0))["params"]

    def grows(narrow, wide):
        return narrow.ndim > 1 and all(narrow.shape[axis] != wide.shape[axis] for axis in axes)

    return jax.tree.map(grows, shapes(model.width), shapes(2 * model.width))
