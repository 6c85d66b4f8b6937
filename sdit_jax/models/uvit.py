"""U-ViT: a transformer with softmax attention and long skips, without spikes (Bao et al. 2022, arXiv 2209.12152, section 3).

| preset | network | parameters | MACs per forward pass |
|---|---|---|---|
| `uvit_small` | the rival of SDiT's `small`: its width, blocks, conditioning and final convolution | 1,443,946 | 55.5 M |
| `uvit_s2` | the paper's U-ViT-S/2 for CIFAR-10, unconditional | 44,649,568 | 12.2 G |

`small` has 1,446,106 parameters and 53.2 M MACs: `uvit_small` has 0.15 % fewer parameters and 4.3 % more MACs. Its MLPs are 4.5
times as wide inside, not 4, to make up for the receptance of SDiT's channel mixing.

MACs are multiply-accumulates of one image in matrix products and convolutions, as `analysis.operations` counts them.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from sdit_jax.errors import InputError
from sdit_jax.layers import image
from sdit_jax.layers.attention import Attention
from sdit_jax.layers.fields import at_least
from sdit_jax.layers.linear import XAVIER, Linear
from sdit_jax.layers.stack import BLOCKS, STACKED, adaln, fused, layer_norm, u_shape
from sdit_jax.models.network import Family
from sdit_jax.sharding import Layout, constrained

LAYOUT = Layout(
    split=(
        (r"attention/(query|key|value)/kernel", (None, "tensor")),
        (r"attention/output/kernel", ("tensor", None)),
        (r"mlp_hidden/kernel", (None, "tensor")),
        (r"mlp_hidden/bias", ("tensor",)),
        (r"mlp_output/kernel", ("tensor", None)),
    ),
    stacked=STACKED,
)
PRESETS = {
    "uvit_small": {
        "channels": 1, "patch_size": 4, "width": 160, "depth": 2, "heads": 4, "mlp_ratio": 4.5,
        "conditioning": "adaln", "final_conv_init": "identity",
    },
    "uvit_s2": {"image_size": 32, "width": 512, "depth": 12, "heads": 8, "num_classes": 0},
}  # fmt: skip


def check(fields: Mapping[str, Any]) -> None:
    """Raises InputError for fields of U-ViT that contradict each other."""
    image.check(fields)
    width, heads = fields["width"], fields["heads"]
    if width % heads:
        raise InputError(f"config.model.width: found {width}, must be divisible by config.model.heads {heads}")


class UViT(image.TokenNetwork):
    """Predicts noise, x_0 or velocity of images x at timesteps t with labels y; with `learned_variance` also v, behind it.

    Tokens are one condition token (time + label) and the patches in raster order, with a learned position. Half of the blocks
    come before and half after a middle block, joined by long skips, last in first out; then a normalisation, a Linear, and a
    3x3 convolution of the image. Norms have a learned scale and shift, which `conditioning` "adaln" takes from `cond`.

    It differs from the paper's network where SDiT does too: the time passes through two Linears, the label is added to the
    token of the time, matrices start Xavier uniform and the head at zero. So "uvit_s2" has the paper's 44 M parameters and
    those of the Linears of the time.
    """

    heads: int = at_least(1, 6)  # Of attention; divides `width`.
    mlp_ratio: float = at_least(1, 4.0)  # Hidden channels of an MLP over `width`.
    learned_variance: bool = False
    spiking_steps = 1

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x: float images in [-1, 1]; t: timesteps; y: labels, num_classes for "no label". Returns BHWC or BHW(2C).

        With train=True labels are dropped at random, which needs the random stream "label_dropout".
        """
        x, cond_BC = image.tokens(self, x_BHWC, t_B, y_B, train)
        fields = {"heads": self.heads, "hidden": round(self.mlp_ratio * self.width), "dtype": self.dtype}
        x = u_shape(Block, x, cond_BC, depth=self.depth, skips=self.skips, remat=self.remat, **fields)
        norm = layer_norm if self.conditioning == "adaln" else _norm("norm")
        return image.image(self, norm(x))

    @property
    def summary(self) -> str:
        return f"width {self.width}, {self.blocks} blocks, no spikes (attention), products in {self.dtype}"

    @property
    def layout(self) -> Layout:
        return LAYOUT

    def is_rounded(self, path: str) -> bool:
        return path.startswith(BLOCKS) and path.endswith(("/kernel", "mlp_hidden/bias")) and "/modulation/" not in path

    def baseline(self) -> "UViT":
        return self


class Block(nn.Module):
    """x + attention(norm(x)), then x + W_2 GELU(W_1 norm(x) + b_1) + b_2.

    An output block first fuses a skip: Linear([x ; skip]). With `cond`, zero-initialised adaLN scales and shifts both
    normalised inputs.
    """

    heads: int
    hidden: int
    dtype: Any
    fuses_skip: bool = False

    @nn.compact
    def __call__(self, x_BLC, skip_BLC, cond_BC, layer):
        D = x_BLC.shape[-1]
        x_BLC = constrained(x_BLC, "batch", "tokens", "channels")
        if self.fuses_skip:
            x_BLC = fused(x_BLC, skip_BLC, self.dtype)
        norms = [_norm("attention_norm"), _norm("mlp_norm")] if cond_BC is None else adaln(cond_BC, D, inputs=2)
        first, second = norms
        x_BLC += Attention(self.heads, self.dtype, name="attention")(first(x_BLC))
        hidden = Linear(self.hidden, dtype=self.dtype, kernel_init=XAVIER, name="mlp_hidden")
        output = Linear(D, dtype=self.dtype, out_dtype=x_BLC.dtype, kernel_init=XAVIER, name="mlp_output")
        h = constrained(hidden(second(x_BLC)), "batch", "tokens", "inner")
        x_BLC += constrained(output(nn.gelu(h, approximate=False)), "batch", "tokens", "channels")
        return x_BLC, x_BLC


def _norm(name):
    return nn.LayerNorm(epsilon=1e-6, name=name)


FAMILY = Family(UViT, check, PRESETS)
