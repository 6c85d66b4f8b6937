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

from sdit_jax.layers import image
from sdit_jax.layers.fields import choice
from sdit_jax.layers.reconstruction import Reconstruction
from sdit_jax.layers.rwkv import ChannelMix, TimeMix
from sdit_jax.layers.spiking import NeuronFields, Spiking, check_neurons, neuron_fields
from sdit_jax.layers.stack import BLOCKS, STACKED, adaln, fused, layer_norm, u_shape
from sdit_jax.models.network import Family
from sdit_jax.ops.wkv import IMPLEMENTATIONS
from sdit_jax.sharding import Layout, constrained

LAYOUT = Layout(
    split=(
        (r"time_mix/(key|value|receptance)/kernel", (None, "tensor")),
        (r"time_mix/(time_decay|time_first)", ("tensor",)),
        (r"time_mix/output/kernel", ("tensor", None)),
        (r"channel_mix/key/kernel", (None, "tensor")),
        (r"channel_mix/value/kernel", ("tensor", None)),
    ),
    stacked=STACKED,
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
    image.check(fields)
    check_neurons(fields)


class SDiT(NeuronFields, image.TokenNetwork):
    """Predicts noise, x_0 or velocity of images x at timesteps t with labels y; with `learned_variance` also v, behind it.

    The fields are the model configuration; their defaults are the release's for MNIST. Tokens are one condition token
    (time + label) and the patches in raster order. Half of the blocks come before and half after a middle block, joined by
    U-ViT skips, last in first out. The fields of its neurons are those of `layers.spiking`.
    """

    token_shift: str = choice("1d", "1d", "2d")  # Tokens mix with their predecessor, or with their neighbours on the image.
    reconstruction: bool = True  # The Reconstruction Module in every block.
    gate_init: str = choice("random", "random", "identity")  # Of its gate; "identity" starts without effect.
    bidirectional: bool = False  # WKV over all tokens, or over those before.
    wkv: str = choice("auto", *IMPLEMENTATIONS)  # Of `ops.wkv`; "auto" chooses by the devices compiled for.

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x: float images in [-1, 1]; t: timesteps; y: labels, num_classes for "no label". Returns BHWC or BHW(2C).

        With train=True labels are dropped at random, which needs the random stream "label_dropout".
        """
        x, cond_BC = image.tokens(self, x_BHWC, t_B, y_B, train)
        x = u_shape(Block, x, cond_BC, depth=self.depth, skips=self.skips, remat=self.remat, **self._block_fields())
        return image.image(self, layer_norm(x))

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
            x_BLC = fused(x_BLC, skip_BLC, self.dtype)
        module = self.reconstruction(L, D, name="reconstruction") if self.reconstruction else None
        z, tail = (module.append(x_BLC), layer_norm(module.initial)) if module else (x_BLC, None)
        first, second = adaln(cond_BC, D, inputs=2)
        z += self.neurons(name="time_neurons")(self.time_mix(name="time_mix")(first(x_BLC), layer, tail))
        z += self.neurons(name="channel_neurons")(self.channel_mix(name="channel_mix")(second(z), layer))
        x_BLC = module.gate(z) if module else z
        return x_BLC, x_BLC


FAMILY = Family(SDiT, check, PRESETS)
