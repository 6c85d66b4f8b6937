"""SDiT: a U-ViT skeleton of spiking RWKV blocks (PAPER sections 2 to 5).

| preset | network | parameters | MACs per forward pass |
|---|---|---|---|
| `sdit_mnist` | the release's, for MNIST and Fashion-MNIST | 11,667,259 | 4.05 G |
| `sdit_cifar10` | the release's, for CIFAR-10 | 36,052,047 | 12.86 G |
| `sdit_tiny` | the release's architecture, small enough for a minute on a CPU | 142,416 | 10.6 M |
| `digits` | beyond the release, for 8x8 images: configs/digits.py | 737,961 | 6.65 M |
| `small` | beyond the release, for 28x28 grey images: configs/small.py | 1,446,106 | 53.2 M |

MACs are multiply-accumulates of one image in matrix products, convolutions and WKV, as `analysis.operations` counts them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.errors import InputError
from sdit_jax.layers.embed import LabelEmbed, TimeEmbed, patchify, unpatchify
from sdit_jax.layers.fields import at_least, choice
from sdit_jax.layers.linear import WEIGHTED, Linear, broadcast_batch
from sdit_jax.layers.reconstruction import Reconstruction
from sdit_jax.layers.rwkv import UNIFORM, ChannelMix, TimeMix
from sdit_jax.layers.spiking import NeuronFields, Spiking, neuron_fields
from sdit_jax.models.network import Family
from sdit_jax.ops.wkv import IMPLEMENTATIONS
from sdit_jax.sharding import Layout, constrained

XAVIER = nn.initializers.xavier_uniform()
MAX_UNROLL = 4
# What the backward pass of a block keeps: everything, only the results of its products, nothing.
REMAT = {
    "none": None,
    "elementwise": jax.checkpoint_policies.save_only_these_names(WEIGHTED),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}
BLOCKS = ("in_blocks", "mid_block", "out_blocks")
LAYOUT = Layout(
    split=(
        (r"time_mix/(key|value|receptance)/kernel", (None, "tensor")),
        (r"time_mix/(time_decay|time_first)", ("tensor",)),
        (r"time_mix/output/kernel", ("tensor", None)),
        (r"channel_mix/key/kernel", (None, "tensor")),
        (r"channel_mix/value/kernel", ("tensor", None)),
    ),
    stacked=r"(in|out)_blocks/",
)
# Beyond the release, in both small presets.
_STARTS_AT_IDENTITY = {"gate_init": "identity", "final_conv_init": "identity"}
_BEYOND = {"channels": 1, "reset": "soft", "normalized_currents": True, "learned_variance": False, **_STARTS_AT_IDENTITY}
PRESETS = {
    "sdit_mnist": {},
    "sdit_cifar10": {"width": 512, "depth": 8},
    "sdit_tiny": {"width": 48, "depth": 2, "patch_size": 4},
    "digits": _BEYOND | {"image_size": 8, "patch_size": 4, "width": 128, "depth": 2},
    "small": _BEYOND | {
        "patch_size": 4, "width": 160, "depth": 2, "spiking_steps": 8, "detach_reset": True,
        "conditioning": "adaln", "bidirectional": True, "token_shift": "2d", "reconstruction": False,
    },
}  # fmt: skip


def check(fields: Mapping[str, Any]) -> None:
    """Raises InputError for fields of SDiT that contradict each other."""
    depth, dropout, size, patch = (fields[name] for name in ("depth", "label_dropout", "image_size", "patch_size"))
    if depth % 2:
        raise InputError(f"config.model.depth: found {depth}, must be even (half before, half after the middle)")
    if dropout >= 1:
        raise InputError(f"config.model.label_dropout: found {dropout}, must be below 1")
    if fields["learned_decay"] and not fields["leak"]:
        raise InputError("config.model.learned_decay: found True, there is no decay with config.model.leak False")
    if fields["learned_decay"] and fields["tau"] == 1:
        raise InputError("config.model.tau: found 1, must be above 1 with config.model.learned_decay")
    if size % patch:
        raise InputError(f"config.model.image_size: found {size}, must be divisible by config.model.patch_size {patch}")


def layer_norm(x):
    return nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False)(x)


def _uniform_bias(key, shape, dtype=jnp.float32):
    """PyTorch's: +-1/sqrt(fan_in) of the 3x3 kernel that it goes with."""
    return jax.random.uniform(key, shape, dtype, -1, 1) / (9 * shape[0]) ** 0.5


def _delta(key, shape, dtype=jnp.float32):
    """The 3x3 kernel that passes every channel on."""
    return jnp.zeros(shape, dtype).at[1, 1].set(jnp.eye(shape[-1], dtype=dtype))


class SDiT(NeuronFields, nn.Module):
    """Predicts the noise in images x at timesteps t with labels y; with `learned_variance` also v, stacked on the channels.

    The fields are the model configuration; their defaults are the release's for MNIST. Tokens are one condition token
    (time + label) and the patches in raster order. Half of the blocks come before and half after a middle block, joined by
    U-ViT skips, last in first out. The fields of its neurons are those of `layers.spiking`.
    """

    image_size: int = at_least(1, 28)
    channels: int = at_least(1, 3)
    patch_size: int = at_least(1, 2)
    width: int = at_least(2, 384)
    depth: int = at_least(2, 4)  # Blocks besides the middle one; even.
    num_classes: int = at_least(0, 10)  # 0 for an unconditional model.
    label_dropout: float = at_least(0, 0.1)
    # How time and label condition the tokens. "token": one token in front; "every_token": also added to all others; "adaln":
    # that, and a scale and a shift of every normalised block input (Peebles and Xie 2023, arXiv 2212.09748, section 3.2).
    conditioning: str = choice("token", "token", "every_token", "adaln")
    token_shift: str = choice("1d", "1d", "2d")  # Tokens mix with their predecessor, or with their neighbours on the image.
    reconstruction: bool = True
    gate_init: str = choice("random", "random", "identity")
    final_conv_init: str = choice("random", "random", "identity")  # "identity" starts as if the convolution were not there.
    skips: bool = True
    bidirectional: bool = False
    learned_variance: bool = True
    wkv: str = choice("auto", *IMPLEMENTATIONS)
    dtype: str = choice("float32", "float32", "bfloat16")  # Of operands of block products; all else stays float32.
    remat: str = choice("none", *REMAT)  # What the backward pass recomputes: less memory, more time.

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x: float images in [-1, 1]; t: timesteps; y: labels, num_classes for "no label". Returns BHWC or BHW(2C).

        With train=True labels are dropped at random, which needs the random stream "label_dropout".
        """
        half = self.depth // 2
        condition_BC = TimeEmbed(self.width, name="time_embed")(t_B)
        if self.num_classes:
            if y_B is None:
                raise ValueError(f"y_B: this model has labels; pass {self.num_classes} for none")
            condition_BC += LabelEmbed(self.num_classes, self.width, self.label_dropout, name="label_embed")(y_B, train)
        x = Linear(self.width, kernel_init=XAVIER, name="patch_embed")(patchify(x_BHWC, self.patch_size))
        if self.conditioning != "token":
            x += condition_BC[:, None]
        x = jnp.concatenate([condition_BC[:, None], x], 1)
        position: Any = self.param("position", nn.initializers.zeros, x.shape[1:])
        positions: Any = broadcast_batch(position, len(x))
        x += positions

        cond_BC = nn.silu(condition_BC) if self.conditioning == "adaln" else None
        x, skips = self._stack("in_blocks", half)(x, None, cond_BC, jnp.arange(half))
        x, _ = self._block_class()(**self._block_fields(), name="mid_block")(x, None, cond_BC, half)
        x, _ = self._stack("out_blocks", half, fuses_skip=self.skips)(x, skips[::-1], cond_BC, jnp.arange(half))

        out_channels = self.channels * (2 if self.learned_variance else 1)
        x = Linear(self.patch_size**2 * out_channels, kernel_init=nn.initializers.zeros, name="head")(layer_norm(x))
        x = unpatchify(x[:, 1:], self.patch_size)
        random = self.final_conv_init == "random"
        kernel_init, bias_init = (UNIFORM, _uniform_bias) if random else (_delta, nn.initializers.zeros)
        return nn.Conv(out_channels, (3, 3), kernel_init=kernel_init, bias_init=bias_init, name="smooth")(x)

    @property
    def blocks(self) -> int:
        return self.depth + 1

    @property
    def summary(self) -> str:
        steps = f"{self.spiking_steps} spiking steps" if self.neuron == "lif" else f"no spikes ({self.neuron})"
        return f"width {self.width}, {self.blocks} blocks, {steps}, products in {self.dtype}"

    @property
    def layout(self) -> Layout:
        return LAYOUT

    def is_rounded(self, path: str) -> bool:
        return path.startswith(BLOCKS) and path.endswith("/kernel")

    def baseline(self) -> "SDiT":
        return self.clone(neuron="identity", spiking_steps=1)

    def _block_class(self):
        return Block if self.remat == "none" else nn.remat(Block, prevent_cse=False, policy=REMAT[self.remat])

    def _block_fields(self):
        side = self.image_size // self.patch_size if self.token_shift == "2d" else 0
        gate = partial(Reconstruction, gate_init=self.gate_init, dtype=self.dtype)
        return {
            "time_mix": partial(TimeMix, self.depth, self.bidirectional, self.wkv, self.dtype, side),
            "channel_mix": partial(ChannelMix, self.depth, self.dtype, side),
            "neurons": partial(Spiking, **neuron_fields(self)),
            "reconstruction": gate if self.reconstruction else None,
            "dtype": self.dtype,
        }

    def _stack(self, name, length, fuses_skip=False):
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
    `reconstruction(tokens, width, name=...)`. An output block first fuses a skip: Linear([x ; skip]). With `cond`,
    zero-initialised adaLN scales and shifts the inputs of both mixing layers; of reconstruction tokens only the second.
    """

    time_mix: Callable[..., TimeMix]
    channel_mix: Callable[..., ChannelMix]
    neurons: Callable[..., Spiking]
    reconstruction: Callable[..., Reconstruction] | None
    dtype: Any
    fuses_skip: bool = False

    @nn.compact
    def __call__(self, x_BLC, skip_BLC, cond_BC, layer):
        _, L, D = x_BLC.shape
        x_BLC = constrained(x_BLC, "batch", "tokens", "channels")
        if self.fuses_skip:
            fuse = Linear(D, dtype=self.dtype, out_dtype=x_BLC.dtype, kernel_init=XAVIER, name="skip")
            x_BLC = fuse(jnp.concatenate([x_BLC, skip_BLC], -1))
        module = self.reconstruction(L, D, name="reconstruction") if self.reconstruction else None
        z, tail = (module.append(x_BLC), layer_norm(module.initial)) if module else (x_BLC, None)
        first = second = layer_norm
        if cond_BC is not None:
            scales = Linear(4 * D, kernel_init=nn.initializers.zeros, name="modulation")(cond_BC)[:, None]
            scale_1, shift_1, scale_2, shift_2 = jnp.split(scales, 4, -1)
            first = lambda x: layer_norm(x) * (1 + scale_1) + shift_1
            second = lambda x: layer_norm(x) * (1 + scale_2) + shift_2
        z += self.neurons(name="time_neurons")(self.time_mix(name="time_mix")(first(x_BLC), layer, tail))
        z += self.neurons(name="channel_neurons")(self.channel_mix(name="channel_mix")(second(z), layer))
        x_BLC = module.gate(z) if module else z
        return x_BLC, x_BLC


FAMILY = Family(SDiT, check, PRESETS)
