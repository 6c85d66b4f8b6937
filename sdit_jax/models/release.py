"""Reads checkpoints of the authors' PyTorch release into parameters of SDiT."""

import math
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np

from sdit_jax import files
from sdit_jax.errors import InputError
from sdit_jax.models import build, defaults, initial_variables

# Ours -> the release's, inside one block. Kernels are transposed: flax multiplies from the right.
BLOCK = {
    "time_mix/time_decay": "att.time_decay",
    "time_mix/time_first": "att.time_first",
    "time_mix/mu_k": "att.time_mix_k",
    "time_mix/mu_v": "att.time_mix_v",
    "time_mix/mu_r": "att.time_mix_r",
    "time_mix/key/kernel": "att.key.weight",
    "time_mix/value/kernel": "att.value.weight",
    "time_mix/receptance/kernel": "att.receptance.weight",
    "time_mix/output/kernel": "att.output.weight",
    "channel_mix/mu_k": "ffn.time_mix_k",
    "channel_mix/mu_r": "ffn.time_mix_r",
    "channel_mix/key/kernel": "ffn.key.weight",
    "channel_mix/receptance/kernel": "ffn.receptance.weight",
    "channel_mix/value/kernel": "ffn.value.weight",
    "reconstruction/tokens": "restruction_token",
    "reconstruction/over_channels/kernel": "restruction_token_MLP.weight",
    "reconstruction/over_channels/bias": "restruction_token_MLP.bias",
    "reconstruction/over_tokens/kernel": "another_MLP.weight",
    "reconstruction/over_tokens/bias": "another_MLP.bias",
}
SKIP = {"skip/kernel": "skip_linear.weight", "skip/bias": "skip_linear.bias"}
OUTSIDE = {
    "position": "pos_embed",
    "patch_embed/kernel": "x_embedder.proj.weight",
    "patch_embed/bias": "x_embedder.proj.bias",
    "time_embed/hidden/kernel": "t_embedder.mlp.0.weight",
    "time_embed/hidden/bias": "t_embedder.mlp.0.bias",
    "time_embed/output/kernel": "t_embedder.mlp.2.weight",
    "time_embed/output/bias": "t_embedder.mlp.2.bias",
    "label_embed/table": "y_embedder.embedding_table.weight",
    "head/kernel": "final_layer.linear.weight",
    "head/bias": "final_layer.linear.bias",
    "smooth/kernel": "conv.weight",
    "smooth/bias": "conv.bias",
}


def load(path: str | Path) -> tuple[ml_collections.ConfigDict, dict]:
    """(model_config, params) of a release checkpoint, ready for `models.build(model_config).apply({"params": params}, ...)`.

    Reads `.npz` with entries "param/NAME", and `.pt` with {"model": state_dict} (needs the `torch` extra). Sizes are read off
    the arrays; T, tau and threshold, which checkpoints do not hold, are the release's. Raises InputError that names the file.
    """
    state = files.read_state_dict(Path(path), prefix="param/", entry="model")
    try:
        config, params = sizes(state), to_params(state)
        _check_shapes(config, params)
    except KeyError as error:
        raise InputError(f"{path}: not a checkpoint of the release, {error.args[0]} is missing") from None
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: not a checkpoint of the release, its arrays do not fit together ({error})") from None
    return config, params


def _check_shapes(config, params):
    expected = jax.eval_shape(lambda: initial_variables(build(config), 0)["params"])
    found = dict(jax.tree_util.tree_leaves_with_path(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        if found[path].shape != leaf.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"{name}: found shape {found[path].shape}, expected {leaf.shape}")
        if not np.isfinite(found[path]).all():
            raise ValueError(f"{jax.tree_util.keystr(path, simple=True, separator='/')} is not finite")


def sizes(state: Mapping[str, np.ndarray]) -> ml_collections.ConfigDict:
    """The model configuration that fits the arrays of a state dict."""
    _, tokens, width = state["pos_embed"].shape
    _, channels, patch_size, _ = state["x_embedder.proj.weight"].shape
    halves = {name.split(".")[1] for name in state if name.startswith("in_blocks.")}
    changes = {
        "image_size": math.isqrt(tokens - 1) * patch_size,
        "channels": channels,
        "patch_size": patch_size,
        "width": width,
        "depth": 2 * len(halves),
        "num_classes": state["y_embedder.embedding_table.weight"].shape[0] - 1,
        "learned_variance": state["conv.weight"].shape[0] == 2 * channels,
    }
    return ml_collections.ConfigDict(defaults() | changes)


def to_params(state: Mapping[str, np.ndarray]) -> dict:
    """Arrays under the release's names (parameters, or gradients of them) as our tree. Raises KeyError for a missing name."""
    half = len({name.split(".")[1] for name in state if name.startswith("in_blocks.")})
    inputs = [_block(state, f"in_blocks.{i}.", BLOCK) for i in range(half)]
    outputs = [_block(state, f"out_blocks.{i}.", BLOCK | SKIP) for i in range(half)]
    params = _block(state, "", OUTSIDE)
    params["mid_block"] = _block(state, "mid_block.", BLOCK)
    if not half:
        raise KeyError("in_blocks.0")
    params["in_blocks"] = jax.tree.map(lambda *leaves: np.stack(leaves), *inputs)
    params["out_blocks"] = jax.tree.map(lambda *leaves: np.stack(leaves), *outputs)
    return params


def _block(state, prefix, names):
    tree: dict = {}
    for ours, theirs in names.items():
        *parents, leaf = ours.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _layout(ours, np.asarray(state[prefix + theirs], np.float32))
    return tree


def _layout(ours, array):
    """PyTorch's layout to flax's: (out, in, h, w) -> (h, w, in, out), (out, in) -> (in, out), leading ones dropped."""
    if ours == "patch_embed/kernel":
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    if ours.endswith("kernel"):
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if ours.rpartition("/")[2] in ("position", "tokens"):
        return array[0]
    return array.reshape(-1) if ours.rpartition("/")[2].startswith("mu_") else array
