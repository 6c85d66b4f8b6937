"""A spiking U-Net of the kind of SDDPM (Cao et al. 2024, "Spiking Denoising Diffusion Probabilistic Models", arXiv 2306.17046).

Convolutional residual blocks of LIF neurons. Each of T spiking steps runs through the whole network, with membranes carried
from step to step, and the T outputs are averaged. The residual stream is real-valued (a membrane shortcut); every convolution
but the first has binary spikes as its input:

    x <- x + N(conv3x3(s_2)),  s_2 = LIF(N(conv3x3(s_1)) + shift(time, label)),  s_1 = LIF(x)

N is a GroupNorm at each step, threshold * (gain * (h - mean) / deviation + bias), over an image's pixels and the channels of a
group. SDDPM uses tdBN (Zheng et al. 2021, arXiv 2011.05280), which normalises each channel over the steps and the batch, and
keeps running averages for sampling. GroupNorm is the same in training and in sampling, but it depends on the image and cannot
be folded into the weights. Upsampling convolutions run before pixels are repeated, at a quarter of the cost of the usual order.

| preset | network | parameters | MACs per forward pass |
|---|---|---|---|
| `unet_small` | the rival of SDiT's `small`, within 2 % of its parameters | 1,468,865 | 306.7 M |
| `unet_ablation` | the rival of the network of configs/ablations.py, within 5 % of its parameters | 901,057 | 159.4 M |

MACs are multiply-accumulates of one image in products and convolutions, of all T steps, as `analysis.operations` counts them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.errors import InputError
from sdit_jax.layers.convolution import Convolution, GroupNorm
from sdit_jax.layers.embed import LabelEmbed, TimeEmbed
from sdit_jax.layers.fields import at_least, choice
from sdit_jax.layers.linear import XAVIER, Linear
from sdit_jax.layers.spiking import NeuronFields, Spiking, check_neurons, neuron_fields
from sdit_jax.layers.stack import MAX_UNROLL, REMAT
from sdit_jax.layers.streaming import Membranes, streamed
from sdit_jax.models.network import Family
from sdit_jax.sharding import Layout

LAYOUT = Layout()
PRESETS = {"unet_small": {"width": 16, "multipliers": "1,2,8"}, "unet_ablation": {"width": 8, "multipliers": "1,3,12"}}


def multiples(multipliers: str) -> list[int]:
    """The multiples of the width in each level: [1, 2, 8] for "1,2,8". Raises InputError for anything else."""
    found = [int(part) if part.strip().isdecimal() else 0 for part in multipliers.split(",")]
    if 0 in found:
        raise InputError(f"config.model.multipliers: found {multipliers!r}, must be positive integers such as '1,2,8'")
    return found


def check(fields: Mapping[str, Any]) -> None:
    """Raises InputError for fields of SpikingUNet that contradict each other."""
    check_neurons(fields)
    size, groups, dropout = (fields[name] for name in ("image_size", "groups", "label_dropout"))
    widths = [fields["width"] * multiple for multiple in multiples(fields["multipliers"])]
    halvings = len(widths) - 1
    if dropout >= 1:
        raise InputError(f"config.model.label_dropout: found {dropout}, must be below 1")
    if size % 2**halvings:
        raise InputError(
            f"config.model.image_size: found {size}, must be divisible by {2**halvings}: config.model.multipliers has "
            f"{len(widths)} levels, and each halves the image"
        )
    if any(width % groups for width in widths):
        channels = ", ".join(map(str, widths))
        raise InputError(f"config.model.groups: found {groups}, must divide the channels of every level: {channels}")


class SpikingUNet(NeuronFields, nn.Module):
    """Predicts noise, x_0 or velocity of images x at timesteps t with labels y; with `learned_variance` also v, behind it.

    Level i has multipliers[i] * width channels at 1/2^i of the image's side, and `blocks_per_level` residual blocks on the way
    down and as many on the way up, which see the stream and a skip side by side; one block more in the middle. The time and the
    label shift the currents inside of each block. The fields of its neurons are those of `layers.spiking`.
    """

    image_size: int = at_least(1, 28)  # Height and width in pixels.
    channels: int = at_least(1, 1)  # Of an image: 1 grey, 3 RGB; grey data are repeated to 3.
    width: int = at_least(1, 16)  # Channels of the first level.
    multipliers: str = "1,2,8"  # Of `width`, one a level, each at half the side of the one before.
    blocks_per_level: int = at_least(1, 1)  # Residual blocks of a level, on the way down and on the way up.
    groups: int = at_least(1, 4)  # Of every GroupNorm.
    embedding: int = at_least(1, 256)  # Channels of the embedding of time and label.
    num_classes: int = at_least(0, 10)  # 0 for an unconditional model.
    label_dropout: float = at_least(0, 0.1)  # Share of training labels dropped, without which nothing can be guided.
    learned_variance: bool = False  # Predicts v, which interpolates log variances, in further channels.
    dtype: str = choice("float32", "float32", "bfloat16")  # Of operands of the blocks' convolutions; all else stays float32.
    remat: str = choice("none", *REMAT)  # What the backward pass recomputes: less memory, more time.

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x: float images in [-1, 1]; t: timesteps; y: labels, num_classes for "no label". Returns BHWC or BHW(2C).

        With train=True labels are dropped at random, which needs the random stream "label_dropout".
        """
        # The same at every step: what time and label add, and the currents of the image.
        embedding_BC = TimeEmbed(self.embedding, name="time_embed")(t_B)
        if self.num_classes:
            if y_B is None:
                raise ValueError(f"y_B: this model has labels; pass {self.num_classes} for none")
            embedding_BC += LabelEmbed(self.num_classes, self.embedding, self.label_dropout, name="label_embed")(y_B, train)
        down = [width for width in self.widths for _ in range(self.blocks_per_level)]
        widths = [*down, self.widths[-1], *down[::-1]]  # Of all blocks, in the order in which they run.
        all_shifts = Linear(sum(widths), kernel_init=XAVIER, name="shifts")(nn.silu(embedding_BC))[:, None, None]
        shifts = jnp.split(all_shifts, [sum(widths[:i]) for i in range(1, len(widths))], -1)
        stem = _normalised_conv(self.width, "stem", self.groups, self.threshold)(x_BHWC)
        out_channels = self.channels * (2 if self.learned_variance else 1)

        def step(network: SpikingUNet, membranes: Membranes):
            return network._step(stem, shifts, out_channels, membranes)

        unroll = min(self.spiking_steps, MAX_UNROLL) if self.remat == "none" else 1  # One at a time, or memory is not saved.
        return streamed(step, self, self.spiking_steps, unroll=unroll)

    def _step(self, stem_BHWC, shifts, out_channels, membranes):
        """(image, membranes) of one spiking step."""
        after, shift, last = {}, iter(shifts), len(self.widths) - 1
        neurons = partial(Spiking, **neuron_fields(self))
        settings = {"neurons": neurons, "groups": self.groups, "threshold": self.threshold, "dtype": self.dtype}
        block_class = Block if self.remat == "none" else nn.remat(Block, prevent_cse=False, policy=REMAT[self.remat])

        def run(layer, name, width, *inputs):
            y_BHWC, after[name] = layer(width, name=name, **settings)(*inputs, membranes.get(name, {}))
            return y_BHWC

        block = lambda name, level, x_BHWC: run(block_class, name, self.widths[level], x_BHWC, next(shift))
        x_BHWC, skips = stem_BHWC, []
        for level in range(last + 1):
            if level:
                x_BHWC = run(Down, f"downsample_{level}", self.widths[level], x_BHWC)
            for i in range(self.blocks_per_level):
                x_BHWC = block(f"down_{level}_{i}", level, x_BHWC)
                skips.append(x_BHWC)
        x_BHWC = block("mid", last, x_BHWC)
        for level in range(last, -1, -1):
            for i in range(self.blocks_per_level):
                x_BHWC = block(f"up_{level}_{i}", level, jnp.concatenate([x_BHWC, skips.pop()], -1))
            if level:
                x_BHWC = run(Up, f"upsample_{level}", self.widths[level - 1], x_BHWC)
        current = GroupNorm(self.groups, self.threshold, name="head_norm")(x_BHWC)
        spikes, after["head_neurons"] = neurons(name="head_neurons").step(current, membranes.get("head_neurons"))
        head = Convolution(out_channels, use_bias=True, kernel_init=nn.initializers.zeros, name="head")
        return head(spikes), after

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.width * multiple for multiple in multiples(self.multipliers)]

    @property
    def blocks(self) -> int:
        return 2 * self.blocks_per_level * len(self.widths) + 1

    @property
    def summary(self) -> str:
        steps = f"{self.spiking_steps} spiking steps" if self.neuron == "lif" else f"no spikes ({self.neuron})"
        channels = ", ".join(map(str, self.widths))
        return f"{channels} channels, {self.blocks} blocks, {steps}, convolutions in {self.dtype}"

    @property
    def layout(self) -> Layout:
        return LAYOUT

    def is_rounded(self, path: str) -> bool:
        return path.startswith(("down", "mid", "up")) and path.endswith("/kernel")

    def baseline(self) -> "SpikingUNet":
        """With GELU in place of neurons: without either, nothing would be nonlinear but the norms."""
        return self.clone(neuron="gelu", spiking_steps=1)


def _normalised_conv(features, name, groups, threshold, size=3, stride=1, dtype="float32"):
    """N(conv(x)), for the compact method of a layer."""
    conv = Convolution(features, size, stride, dtype, name=name)
    norm = GroupNorm(groups, threshold, name=f"{name}_norm")
    return lambda x_BHWC: norm(conv(x_BHWC))


class Layer(nn.Module):
    """A layer of one spiking step, (..., its membranes) -> (x, membranes); `neurons(name=...)` makes its neurons."""

    features: int
    neurons: Callable[..., Spiking]
    groups: int
    threshold: float
    dtype: Any

    def conv(self, name: str, **settings: Any) -> Callable[[jax.Array], jax.Array]:
        return _normalised_conv(self.features, name, self.groups, self.threshold, dtype=self.dtype, **settings)


class Block(Layer):
    """A residual block, by the equation at the top of this file. Where it changes the channels, x <- N(conv1x1(s_1)) first."""

    @nn.compact
    def __call__(self, x_BHWC, shift_B11C, membranes: Membranes):
        spikes, v_1 = self.neurons(name="neurons_1").step(x_BHWC, membranes.get("neurons_1"))
        current = self.conv("conv_1")(spikes) + shift_B11C
        if x_BHWC.shape[-1] != self.features:
            x_BHWC = self.conv("shortcut", size=1)(spikes)
        spikes, v_2 = self.neurons(name="neurons_2").step(current, membranes.get("neurons_2"))
        return x_BHWC + self.conv("conv_2")(spikes), {"neurons_1": v_1, "neurons_2": v_2}


class Down(Layer):
    """N(conv3x3(LIF(x))) with a stride of 2: half of the sides."""

    @nn.compact
    def __call__(self, x_BHWC, membranes: Membranes):
        spikes, v = self.neurons(name="neurons").step(x_BHWC, membranes.get("neurons"))
        return self.conv("conv", stride=2)(spikes), {"neurons": v}


class Up(Layer):
    """N(conv3x3(LIF(x))), then each pixel 2 x 2 times: double the sides."""

    @nn.compact
    def __call__(self, x_BHWC, membranes: Membranes):
        spikes, v = self.neurons(name="neurons").step(x_BHWC, membranes.get("neurons"))
        y_BHWC = self.conv("conv")(spikes)
        B, H, W, C = y_BHWC.shape
        repeated = jnp.broadcast_to(y_BHWC[:, :, None, :, None], (B, H, 2, W, 2, C))
        return repeated.reshape(B, 2 * H, 2 * W, C), {"neurons": v}


FAMILY = Family(SpikingUNet, check, PRESETS)
