"""AdamW with a learning-rate schedule and gradient clipping, from optax."""

import optax

from sdit_jax.config import Config, InputError

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


def adamw(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """PyTorch's AdamW: decoupled weight decay on every parameter, eps 1e-8; gradients clipped first where asked."""
    for name in ("b1", "b2"):
        if not 0 <= config[name] < 1:
            raise InputError(f"config.optimizer.{name}: found {config[name]}, must be in 0..1, 1 excluded")
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay))
