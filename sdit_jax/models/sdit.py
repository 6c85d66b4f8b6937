"""SDiT: a U-ViT skeleton of spiking RWKV blocks (PAPER sections 2 to 5)."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.layers.embed import LabelEmbed, TimeEmbed, patchify, unpatchify
from sdit_jax.layers.linear import WEIGHTED, Linear, for_each
from sdit_jax.layers.reconstruction import Reconstruction
from sdit_jax.layers.rwkv import UNIFORM, ChannelMix, TimeMix
from sdit_jax.layers.spiking import Spiking
from sdit_jax.sharding import constrained

XAVIER = nn.initializers.xavier_uniform()
MAX_UNROLL = 4
# What blocks keep for their backward pass: everything, only the results of their products, nothing.
REMAT = {
    "none": None,
    "elementwise": jax.checkpoint_policies.save_only_these_names(WEIGHTED),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}
NEURON_FIELDS = tuple(field.name for field in dataclasses.fields(Spiking) if field.name not in ("parent", "name"))


def layer_norm(x):
    return nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False)(x)


def _uniform_bias(key, shape, dtype=jnp.float32):
    """PyTorch's: +-1/sqrt(fan_in) of the 3x3 kernel that it goes with."""
    return jax.random.uniform(key, shape, dtype, -1, 1) / (9 * shape[0]) ** 0.5


def _delta(key, shape, dtype=jnp.float32):
    """The 3x3 kernel that passes every channel on."""
    return jnp.zeros(shape, dtype).at[1, 1].set(jnp.eye(shape[-1], dtype=dtype))


class SDiT(nn.Module):
    """Predicts the noise in images x at timesteps t with labels y; with `learned_variance` also v, stacked on the channels.

    The fields are the model configuration; their defaults are the release's for MNIST. Tokens are one condition token
    (time + label) and the patches in raster order. Half of the blocks come before and half after a middle block, joined by
    U-ViT skips, last in first out.
    """

    image_size: int = 28
    channels: int = 3
    patch_size: int = 2
    width: int = 384
    depth: int = 4  # Blocks besides the middle one; even.
    num_classes: int = 10  # 0 for an unconditional model.
    label_dropout: float = 0.1
    # How time and label are told: "token", by one in front; "every_token", added to all of them too; "modulation", that and by
    # a scale and a shift of every normalised block input (Peebles and Xie 2023, arXiv 2212.09748, section 3.2).
    condition: str = "token"

    neuron: str = "lif"  # "identity" and "gelu" are the same network without spikes, for comparison.
    timesteps: int = 4  # Spiking steps T.
    tau: float = 2.0
    leak: bool = True  # False: h = v + X, without tau; with a soft reset, rates are even steps of the current.
    threshold: float = 1.0
    reset: str = "hard"  # "hard" or "soft".
    detach_reset: bool = False
    surrogate: str = "atan"
    surrogate_slope: float = 2.0
    normalized_currents: bool = False
    learned_threshold: bool = False  # Per channel of each layer of neurons, from `threshold`.
    learned_decay: bool = False  # The same, from `tau`.

    token_shift: str = "1d"  # Tokens are mixed with their predecessor; "2d": with their neighbours on the image.
    reconstruction: bool = True
    gate_init: str = "random"  # "random" or "identity".
    smooth_init: str = "random"  # The last convolution: "random", or "identity", which starts as if it were not there.
    skips: bool = True
    bidirectional: bool = False
    learned_variance: bool = True
    wkv: str = "auto"
    dtype: str = "float32"  # Of the operands of products inside the blocks; weights, neurons, norms and sums stay float32.
    remat: str = "none"  # What the backward pass computes anew, one of REMAT: less memory, more time.

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x: float images in [-1, 1]; t: timesteps; y: labels, num_classes for "no label". Returns BHWC or BHW(2C).

        With train=True labels are dropped at random, which needs the random stream "label_dropout".
        """
        half = self.depth // 2
        condition = TimeEmbed(self.width, name="time_embed")(t_B)
        if self.num_classes:
            if y_B is None:
                raise ValueError(f"y_B: this model has labels; pass {self.num_classes} for none")
            condition += LabelEmbed(self.num_classes, self.width, self.label_dropout, name="label_embed")(y_B, train)
        x = Linear(self.width, kernel_init=XAVIER, name="patch_embed")(patchify(x_BHWC, self.patch_size))
        if self.condition != "token":
            x += condition[:, None]
        x = jnp.concatenate([condition[:, None], x], 1)
        position: Any = self.param("position", nn.initializers.zeros, x.shape[1:])
        each: Any = for_each(position, len(x))
        x += each

        told = nn.silu(condition) if self.condition == "modulation" else None
        x, skips = self._blocks("in_blocks", half)(x, None, told, jnp.arange(half))
        x, _ = self._block_class()(**self._block_fields(), name="mid_block")(x, None, told, half)
        x, _ = self._blocks("out_blocks", half, fuses_skip=self.skips)(x, skips[::-1], told, jnp.arange(half))

        out_channels = self.channels * (2 if self.learned_variance else 1)
        x = Linear(self.patch_size**2 * out_channels, kernel_init=nn.initializers.zeros, name="head")(layer_norm(x))
        x = unpatchify(x[:, 1:], self.patch_size)
        kernel_init, bias_init = (UNIFORM, _uniform_bias) if self.smooth_init == "random" else (_delta, nn.initializers.zeros)
        return nn.Conv(out_channels, (3, 3), kernel_init=kernel_init, bias_init=bias_init, name="smooth")(x)

    def _block_class(self):
        return Block if self.remat == "none" else nn.remat(Block, prevent_cse=False, policy=REMAT[self.remat])

    def _block_fields(self):
        side = self.image_size // self.patch_size if self.token_shift == "2d" else 0
        return {
            "time_mix": partial(TimeMix, self.depth, self.bidirectional, self.wkv, self.dtype, side),
            "channel_mix": partial(ChannelMix, self.depth, self.dtype, side),
            "neurons": partial(Spiking, **{name: getattr(self, name) for name in NEURON_FIELDS}),
            "reconstruction": partial(Reconstruction, gate_init=self.gate_init, dtype=self.dtype)
            if self.reconstruction
            else None,
            "dtype": self.dtype,
        }

    def _blocks(self, name, length, fuses_skip=False):
        """`length` blocks as one scan over stacked parameters: compiled once, the same checkpoint however it is unrolled."""
        scan = nn.scan(
            self._block_class(),
            variable_axes={"params": 0, "spikes": 0},
            split_rngs={"params": True},
            in_axes=(0 if fuses_skip else nn.broadcast, nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
            length=length,
            unroll=min(length, MAX_UNROLL) if self.remat == "none" else 1,  # One at a time, or memory is not saved.
        )
        return scan(**self._block_fields(), fuses_skip=fuses_skip, name=name)


class Block(nn.Module):
    """One spiking RWKV block; its forward pass is the equation of PAPER section 4.

    The fields make its layers: `time_mix(name=...)`, `channel_mix(name=...)`, `neurons(name=...)` and, unless None,
    `reconstruction(tokens, width, name=...)`. An output block first fuses a skip: Linear([x ; skip]). What it is `told`, if
    anything, scales and shifts the inputs of both mixing layers, at first not at all; of reconstruction tokens only the second.
    """

    time_mix: Callable[..., TimeMix]
    channel_mix: Callable[..., ChannelMix]
    neurons: Callable[..., Spiking]
    reconstruction: Callable[..., Reconstruction] | None
    dtype: Any
    fuses_skip: bool = False

    @nn.compact
    def __call__(self, x_BLC, skip_BLC, told_BC, layer):
        _, L, D = x_BLC.shape
        x_BLC = constrained(x_BLC, "batch", "tokens", "channels")
        if self.fuses_skip:
            fuse = Linear(D, dtype=self.dtype, out_dtype=x_BLC.dtype, kernel_init=XAVIER, name="skip")
            x_BLC = fuse(jnp.concatenate([x_BLC, skip_BLC], -1))
        module = self.reconstruction(L, D, name="reconstruction") if self.reconstruction else None
        z, tail = (module.append(x_BLC), layer_norm(module.initial)) if module else (x_BLC, None)
        first = second = layer_norm
        if told_BC is not None:
            scales = Linear(4 * D, kernel_init=nn.initializers.zeros, name="modulation")(told_BC)[:, None]
            scale_1, shift_1, scale_2, shift_2 = jnp.split(scales, 4, -1)
            first = lambda x: layer_norm(x) * (1 + scale_1) + shift_1
            second = lambda x: layer_norm(x) * (1 + scale_2) + shift_2
        z += self.neurons(name="time_neurons")(self.time_mix(name="time_mix")(first(x_BLC), layer, tail))
        z += self.neurons(name="channel_neurons")(self.channel_mix(name="channel_mix")(second(z), layer))
        x_BLC = module.gate(z) if module else z
        return x_BLC, x_BLC
