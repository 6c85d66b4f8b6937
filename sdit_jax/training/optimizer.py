"""AdamW with a learning-rate schedule, gradient clipping and rates that carry over between widths, from optax."""

from typing import Any

import jax
import optax

from sdit_jax.config import Config, InputError
from sdit_jax.models import SDiT, initial_params

SCHEDULES = ("constant", "linear", "cosine")


def learning_rate(config: Config, total_steps: int, warmup_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or linear or cosine decay to `final_fraction` at the last step."""
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    if config.schedule not in SCHEDULES:
        raise InputError(f"config.optimizer.schedule: found {config.schedule!r}, allowed are {', '.join(SCHEDULES)}")
    if not 0 <= config.final_fraction <= 1:
        raise InputError(f"config.optimizer.final_fraction: found {config.final_fraction}, must be in 0..1")
    if warmup_steps >= total_steps and warmup_steps:
        raise InputError(f"config.optimizer.warmup: found {warmup_steps} steps, the whole run has {total_steps}")
    decay_steps = total_steps - warmup_steps
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, final, decay_steps),
        "cosine": lambda: optax.cosine_decay_schedule(peak, decay_steps, config.final_fraction),
    }[config.schedule]()
    return optax.join_schedules([optax.linear_schedule(0, peak, warmup_steps), after], [warmup_steps])


def adamw(config: Config, rate: optax.Schedule, model: SDiT | None = None) -> optax.GradientTransformation:
    """PyTorch's AdamW: decoupled weight decay on every parameter, eps 1e-8; gradients clipped first where asked.

    With a `base_width`, the rate (and so the decay) of the model's hidden matrices is times base_width / width.
    """
    for name in ("b1", "b2"):
        if not 0 <= config[name] < 1:
            raise InputError(f"config.optimizer.{name}: found {config[name]}, must be in 0..1, 1 excluded")
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    parts = [clip, optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay)]
    if config.base_width and model is not None:
        parts.append(optax.masked(optax.scale(config.base_width / model.width), hidden_matrices(model)))
    return optax.chain(*parts)


def hidden_matrices(model: SDiT) -> Any:
    """True for parameters whose fan-in grows with the width: matrices of blocks and the head, not what reads pixels or labels.

    Adam moves each entry by about its rate, so that a sum over `width` entries moves by more the wider it is, unless the rate
    falls as 1 / width. Source: muP's rule for Adam, Yang et al. 2022 (arXiv 2203.03466), table 3; its initial scales are not
    taken.
    """
    narrow, wide = (jax.eval_shape(lambda m=m: initial_params(m, 0)) for m in (model, model.clone(width=2 * model.width)))
    return jax.tree.map(lambda a, b: a.ndim > 1 and a.shape[-2] != b.shape[-2], narrow, wide)
