"""A spike-driven RWKV transformer: every weight matrix of its blocks, and its head, multiplies spikes.

The skeleton is SDiT's (condition token, patches, blocks in a U). The residual stream is real-valued, a membrane shortcut; each
Linear has a layer of neurons in front of it (`layers.spike_count`) and adds its real-valued result to the stream:

    x <- x + W_s N(LN(skip))                                          in the second half of the blocks
    z  = adaLN(x), k, v, r = W N(mu z + (1 - mu) shifted z)           each with its own mu
    x <- x + W_o N(LN(sigmoid(r) * wkv(k, v)))
    z  = adaLN(x), h = W_k N(mu z + (1 - mu) shifted z), of signed neurons relu(h)^2
    x <- x + W_v N(LN(h))
    image = Conv3x3(unpatchify(W_h N(LN(x))))

Real-valued remain the patch embedding, time and label (per image, not per token), norms, token mixing, gates, the recurrence of
WKV and the last convolution.

| preset | network | parameters | MACs per forward pass |
|---|---|---|---|
| `spike_small` | for 28x28 grey images: configs/spike_driven.py | 1,435,529 | 51.5 M |
| `spike_cifar10` | for 32x32 images in colour: configs/spike_driven.py:cifar10 | 2,955,179 | 141.6 M |
| `spike_ablation` | of the size of the networks of configs/ablations.py | 979,377 | 12.3 M |

MACs are multiply-accumulates of one image in products on counts, the convolution and WKV, as `analysis.operations` counts them.

Sources: the membrane shortcut and a neuron before each Linear, Spike-driven Transformer V3 (Yao et al. 2024, arXiv 2411.16061);
RWKV in place of attention, PAPER section 4; adaLN, Peebles and Xie 2023 (arXiv 2212.09748).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from sdit_jax.errors import InputError
from sdit_jax.layers import image
from sdit_jax.layers.fields import at_least, choice
from sdit_jax.layers.spike_count import SpikeFields, SpikeLinear, spike_fields
from sdit_jax.layers.spike_rwkv import Fire, SpikeChannelMix, SpikeTimeMix
from sdit_jax.layers.stack import BLOCKS, STACKED, adaln, layer_norm, u_shape
from sdit_jax.layers.streaming import Membranes, streamed
from sdit_jax.models.network import Family
from sdit_jax.ops.spike_count import START
from sdit_jax.ops.wkv import IMPLEMENTATIONS
from sdit_jax.sharding import Layout, constrained

LAYOUT = Layout(
    split=(
        (r"time_mix/(key|value|receptance)/linear/kernel", (None, "tensor")),
        (r"time_mix/(time_decay|time_first)", ("tensor",)),
        (r"time_mix/output/(gain|current_bias)", ("tensor",)),
        (r"time_mix/output/linear/kernel", ("tensor", None)),
        (r"channel_mix/key/linear/kernel", (None, "tensor")),
        (r"channel_mix/value/(gain|current_bias)", ("tensor",)),
        (r"channel_mix/value/linear/kernel", ("tensor", None)),
    ),
    stacked=STACKED,
)
NEURONS = {"spiking_steps": 8, "signed": True, "gain": 0.25, "amplitude": 4.0}
PRESETS = {
    "spike_small": {"width": 164, "final_channels": 8, **NEURONS},
    "spike_cifar10": {"image_size": 32, "channels": 3, "width": 184, "depth": 4, "final_channels": 16, **NEURONS},
    "spike_ablation": {"patch_size": 7, "width": 132, "final_channels": 8, **NEURONS},
}


def check(fields: Mapping[str, Any]) -> None:
    """Raises InputError for fields of SpikeDriven that contradict each other."""
    image.check(fields)
    if fields["neuron"] == "lif" and fields["timing"] != "streaming":
        raise InputError("config.model.neuron: found 'lif', which needs config.model.timing 'streaming'")


class SpikeDriven(SpikeFields, image.TokenNetwork):
    """Predicts x_0, noise or velocity of images x at timesteps t with labels y; every matrix of its trunk multiplies spikes.

    The fields are the model configuration. Those of its neurons, `spiking_steps` among them, are those of `layers.spike_count`;
    `spiking` and `timing` say how they run, with the same weights.
    """

    channels: int = at_least(1, 1)
    patch_size: int = at_least(1, 4)
    width: int = at_least(2, 160)
    depth: int = at_least(2, 2)  # Blocks besides the middle one; even.
    conditioning: str = choice("adaln", "token", "every_token", "adaln")
    final_conv_init: str = choice("identity", "random", "identity")
    learned_variance: bool = False
    wkv: str = choice("auto", *IMPLEMENTATIONS)  # Of `ops.wkv`; "auto" chooses by the devices compiled for.

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x: float images in [-1, 1]; t: timesteps; y: labels, num_classes for "no label". Returns BHWC or BHW(2C).

        With train=True labels are dropped at random, which needs the random stream "label_dropout".
        """
        x_BLC, cond_BC = image.tokens(self, x_BHWC, t_B, y_B, train)

        def step(network: SpikeDriven, membranes: Membranes):
            y_BLC, after = u_shape(
                Block, x_BLC, cond_BC, depth=network.depth, skips=network.skips, remat=network.remat, membranes=membranes,
                **network._block_fields(),
            )  # fmt: skip
            head = Fire(network._linear(), membranes)
            return image.image(network, layer_norm(y_BLC), head), after | head.after

        return streamed(step, self, self.spiking_steps, rest=START) if self.timing == "streaming" else step(self, {})[0]

    @property
    def blocks(self) -> int:
        return self.depth + 1

    @property
    def summary(self) -> str:
        sign = "signed " if self.signed else ""
        spikes = f"no spikes ({self.neuron})" if self.neuron == "identity" else f"{self.spiking_steps} {sign}spiking steps"
        return f"width {self.width}, {self.blocks} blocks, {spikes} before each matrix, products in {self.dtype}"

    @property
    def layout(self) -> Layout:
        return LAYOUT

    def is_rounded(self, path: str) -> bool:
        return path.startswith(BLOCKS) and path.endswith("linear/kernel")

    def baseline(self) -> "SpikeDriven":
        return self.clone(neuron="identity", spiking_steps=1, timing="layer")

    def _linear(self, **settings):
        return partial(SpikeLinear, **spike_fields(self), **settings)

    def _block_fields(self):
        side, linear = self.image_size // self.patch_size, self._linear(dtype=self.dtype)
        rectify = self.neuron == "identity" or self.signed
        return {
            "linear": linear,
            "time_mix": partial(SpikeTimeMix, linear, self.depth, side, self.wkv),
            "channel_mix": partial(SpikeChannelMix, linear, self.depth, side, rectify),
        }


class Block(nn.Module):
    """One block, by the equations at the top of this file; its fields make its layers."""

    linear: Callable[..., SpikeLinear]
    time_mix: Callable[..., SpikeTimeMix]
    channel_mix: Callable[..., SpikeChannelMix]
    fuses_skip: bool = False

    @nn.compact
    def __call__(self, x_BLC, skip_BLC, cond_BC, layer, membranes):
        D, fire = x_BLC.shape[-1], Fire(self.linear, membranes)
        x_BLC = constrained(x_BLC, "batch", "tokens", "channels")
        if self.fuses_skip:
            x_BLC += fire("skip", D, layer_norm(skip_BLC))
        first, second = adaln(cond_BC, D, inputs=2)
        mixed, in_time = self.time_mix(name="time_mix")(first(x_BLC), layer, membranes.get("time_mix", {}))
        x_BLC += mixed
        mixed, in_channels = self.channel_mix(name="channel_mix")(second(x_BLC), layer, membranes.get("channel_mix", {}))
        x_BLC += mixed
        return x_BLC, (x_BLC, fire.after | {"time_mix": in_time, "channel_mix": in_channels})


FAMILY = Family(SpikeDriven, check, PRESETS)
