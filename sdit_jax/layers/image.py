"""Images to tokens and back: the outside of a network of blocks of tokens (PAPER sections 2, 3 and 5)."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sdit_jax.errors import InputError
from sdit_jax.layers.embed import LabelEmbed, TimeEmbed, patchify, unpatchify
from sdit_jax.layers.fields import at_least, choice
from sdit_jax.layers.linear import UNIFORM, XAVIER, Linear, broadcast_batch
from sdit_jax.layers.stack import REMAT


class TokenNetwork(nn.Module):
    """The fields of a network that sees an image as tokens; a network may change their defaults and add its own."""

    image_size: int = at_least(1, 28)  # Height and width in pixels.
    channels: int = at_least(1, 3)  # Of an image: 1 grey, 3 RGB; grey data are repeated to 3.
    patch_size: int = at_least(1, 2)  # Side of a token in pixels; divides `image_size`.
    width: int = at_least(2, 384)  # Channels of a token.
    depth: int = at_least(2, 4)  # Blocks besides the middle one; even.
    num_classes: int = at_least(0, 10)  # 0 for an unconditional model.
    label_dropout: float = at_least(0, 0.1)  # Share of training labels dropped, without which nothing can be guided.
    # How time and label condition the tokens. "token": one token in front; "every_token": also added to all others; "adaln":
    # that, and a scale and a shift of every normalised block input (Peebles and Xie 2023, arXiv 2212.09748, section 3.2).
    conditioning: str = choice("token", "token", "every_token", "adaln")
    # Channels of the image before the final 3x3 convolution, which thus sees more than one number a pixel across the seams of
    # patches; 0: those of the prediction.
    final_channels: int = at_least(0, 0)
    final_conv_init: str = choice("random", "random", "identity")  # "identity" starts as if the convolution were not there.
    skips: bool = True  # From each block of the first half to its mirror image in the second.
    learned_variance: bool = True  # Predicts v, which interpolates log variances, in further channels.
    dtype: str = choice("float32", "float32", "bfloat16")  # Of operands of block products; all else stays float32.
    remat: str = choice("none", *REMAT)  # What the backward pass recomputes: less memory, more time.

    @property
    def blocks(self) -> int:
        return self.depth + 1


def check(fields: Mapping[str, Any]) -> None:
    """Raises InputError for fields of a TokenNetwork that contradict each other."""
    depth, dropout, size, patch = (fields[name] for name in ("depth", "label_dropout", "image_size", "patch_size"))
    inner, channels = fields["final_channels"], fields["channels"] * (2 if fields["learned_variance"] else 1)
    if depth % 2:
        raise InputError(f"config.model.depth: found {depth}, must be even (half before, half after the middle)")
    if dropout >= 1:
        raise InputError(f"config.model.label_dropout: found {dropout}, must be below 1")
    if 0 < inner < channels:
        raise InputError(f"config.model.final_channels: found {inner}, must be 0 or at least the {channels} of the prediction")
    if size % patch:
        raise InputError(f"config.model.image_size: found {size}, must be divisible by config.model.patch_size {patch}")


def tokens(
    network: TokenNetwork, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None, train: bool
) -> tuple[jax.Array, jax.Array | None]:
    """(x_BLC, cond_BC) of images x at timesteps t with labels y, for the compact method of `network`.

    Tokens are one condition token (time + label) and the patches in raster order, all with a learned position. `cond_BC` is
    None unless blocks are conditioned by adaLN. Raises ValueError where labels are missing.
    """
    condition_BC = TimeEmbed(network.width, name="time_embed")(t_B)
    if network.num_classes:
        if y_B is None:
            raise ValueError(f"y_B: this model has labels; pass {network.num_classes} for none")
        condition_BC += LabelEmbed(network.num_classes, network.width, network.label_dropout, name="label_embed")(y_B, train)
    x = Linear(network.width, kernel_init=XAVIER, name="patch_embed")(patchify(x_BHWC, network.patch_size))
    if network.conditioning != "token":
        x += condition_BC[:, None]
    x = jnp.concatenate([condition_BC[:, None], x], 1)
    position: Any = network.param("position", nn.initializers.zeros, x.shape[1:])
    positions: Any = broadcast_batch(position, len(x))
    x += positions
    return x, nn.silu(condition_BC) if network.conditioning == "adaln" else None


def image(network: TokenNetwork, x_BLC: jax.Array, head: Callable[..., jax.Array] | None = None) -> jax.Array:
    """The prediction BHWC, or BHW(2C) with a variance, of tokens: Conv3x3(unpatchify(head(x))) without the condition token.

    `x_BLC` is normalised. `head` is a Linear that starts at zero, "head", or one of the network's own, called as
    head("head", features, x_BLC, kernel_init=zeros, use_bias=True). For the compact method of `network`.
    """
    settings = {"kernel_init": nn.initializers.zeros, "use_bias": True}
    linear = head or (lambda name, features, x, **settings: Linear(features, name=name, **settings)(x))
    channels = network.channels * (2 if network.learned_variance else 1)
    inner = network.final_channels or channels
    x = unpatchify(linear("head", network.patch_size**2 * inner, x_BLC, **settings)[:, 1:], network.patch_size)
    random = network.final_conv_init == "random"
    kernel_init, bias_init = (UNIFORM, uniform_bias) if random else (delta, nn.initializers.zeros)
    return nn.Conv(channels, (3, 3), kernel_init=kernel_init, bias_init=bias_init, name="smooth")(x)


def uniform_bias(key, shape, dtype=jnp.float32):
    """PyTorch's: +-1/sqrt(fan_in) of the 3x3 kernel that it goes with."""
    return jax.random.uniform(key, shape, dtype, -1, 1) / (9 * shape[0]) ** 0.5


def delta(key, shape, dtype=jnp.float32):
    """The 3x3 kernel that passes every channel on; from input channels beyond the outputs, random weights."""
    outputs = shape[-1]
    kernel = UNIFORM(key, shape, dtype).at[:, :, :outputs].set(0) if shape[-2] > outputs else jnp.zeros(shape, dtype)
    return kernel.at[1, 1, :outputs].set(jnp.eye(outputs, dtype=dtype))
