"""RWKV against attention by the number of tokens: preset `small` of SDiT and the U-ViT of its width and blocks, in one run."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from sdit_jax.analysis.operations import forward
from sdit_jax.benchmarks.measure import in_turn, rotating
from sdit_jax.benchmarks.training import trained
from sdit_jax.config import Config
from sdit_jax.models import build, initial_variables, preset

TOKENS = (49, 64, 196, 256, 1024)  # Patches: the same patches of larger images.
BATCH_TOKENS = {"cpu": 2**12}  # Tokens of a batch, at least one image.
BATCH_TOKENS_OF_ACCELERATORS = 2**16


def networks(tokens: int, **changes: Any) -> dict[str, Config]:
    """Model configurations for images of so many patches: SDiT, the same without neurons, and U-ViT."""
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise ValueError(f"tokens: found {tokens}, must be a square")
    changes = {"image_size": side * preset("small").patch_size} | changes
    return {
        "sdit": preset("small", **changes),
        "rwkv": preset("small", neuron="identity", spiking_steps=1, **changes),
        "uvit": preset("uvit_small", **changes),
    }


def counts(config: Config) -> dict[str, int]:
    """Parameters; MACs of a forward pass of one image, and those between tokens among them: of WKV, or of attention."""
    model = build(config)
    shapes = jax.eval_shape(lambda: initial_variables(model, 0)["params"])
    operations = [each for each in forward(model).operations if each.macs]
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)),
        "macs": sum(each.macs for each in operations),
        "macs_between_tokens": sum(each.macs for each in operations if each.weights is None),
    }


def bench_attention(runs: int = 11, tokens: tuple[int, ...] = TOKENS, **changes: Any) -> dict:
    """What RWKV saves: sizes, MACs and seconds of three networks by number of tokens, and U-ViT's over those of the others.

    dtype                              of the products: float32 on a CPU, bfloat16 on an accelerator
    rows[i]
        tokens, batch_size             patches of an image, without the condition token; images of a batch
        sdit, rwkv, uvit               preset `small`; the same without neurons; preset `uvit_small`
            parameters, macs           per image and forward pass; `macs_between_tokens` are those of WKV or attention
            forward, step              seconds of a batch: {median_s, min_s, max_s, runs}, of the three networks in turn
            step_bytes                 temporary memory of the compiled training step
        uvit_over_sdit, uvit_over_rwkv ratios of parameters, macs, median forward and step, step_bytes

    `changes` are of fields that all presets have, for smaller trials.
    """
    cpu = jax.default_backend() == "cpu"
    changes = {"dtype": "float32" if cpu else "bfloat16"} | changes
    in_batch = BATCH_TOKENS.get(jax.default_backend(), BATCH_TOKENS_OF_ACCELERATORS)
    rows = [_row(networks(count, **changes), count, max(1, in_batch // count), runs) for count in tokens]
    return {"dtype": changes["dtype"], "rows": rows}


def _row(configs: dict[str, Config], tokens: int, batch_size: int, runs: int) -> dict:
    found: dict[str, dict[str, Any]] = {name: counts(config) for name, config in configs.items()}
    forwards = {name: _forward(config, batch_size) for name, config in configs.items()}
    training = {name: trained(config, batch_size, images=batch_size) for name, config in configs.items()}
    side, channels = configs["sdit"].image_size, configs["sdit"].channels
    images = [(jax.random.normal(jax.random.key(seed), (batch_size, side, side, channels)),) for seed in range(3)]
    for name, timed in in_turn(forwards, rotating(*images), runs).items():
        found[name] |= {"forward": timed, "step_bytes": training[name].cost["bytes"]}
    for name, timed in in_turn({name: each.step for name, each in training.items()}, rotating(()), runs).items():
        found[name]["step"] = timed
    ratios = {f"uvit_over_{name}": _ratios(found["uvit"], found[name]) for name in ("sdit", "rwkv")}
    return {"tokens": tokens, "batch_size": batch_size} | found | ratios


def _forward(config, batch_size):
    """A forward pass of a batch of images."""
    model = build(config)
    variables = jax.jit(lambda: initial_variables(model, 0))()
    t_B, y_B = jnp.full(batch_size, 500), jnp.full(batch_size, model.num_classes)
    return functools.partial(jax.jit(lambda variables, x_BHWC: model.apply(variables, x_BHWC, t_B, y_B)), variables)


def _ratios(one, other):
    sizes = {name: one[name] / other[name] for name in ("parameters", "macs", "step_bytes") if other[name]}
    return sizes | {name: one[name]["median_s"] / other[name]["median_s"] for name in ("forward", "step")}
