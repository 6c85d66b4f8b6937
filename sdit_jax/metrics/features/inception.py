"""The Inception network that defines FID: TensorFlow's classifier of 2015-12-05, as in pytorch-fid.

It differs from Inception v3 (Szegedy et al. 2015, arXiv 1512.00567) in three ways: average pooling leaves its padding out of
the mean, the last block has max pooling, and there are 1008 classes. Modules and parameters have the names of pytorch-fid's
weights, which `metrics.features.inception_weights` reads.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

SIZE, FEATURES, CLASSES = 299, 2048, 1008
EXACT = jax.lax.Precision.HIGHEST  # By default accelerators round the factors to ten bits or fewer, which changes FID.

halve = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))
largest = partial(nn.max_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME")
mean = partial(nn.avg_pool, window_shape=(3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)

# A block is parallel branches, concatenated on channels. A step of a branch is pooling, a convolution (channels, kernel,
# stride = 1, padding = "SAME"), or two convolutions of the same input, concatenated. The convolutions of "branch" are named
# branch_1, branch_2, two parallel ones branch_2a and branch_2b, a single one branch.
Branches: TypeAlias = Mapping[str, tuple[Any, ...]]


def block_a(pooled: int) -> Branches:
    return {
        "branch1x1": ((64, 1),),
        "branch5x5": ((48, 1), (64, 5)),
        "branch3x3dbl": ((64, 1), (96, 3), (96, 3)),
        "branch_pool": (mean, (pooled, 1)),
    }


def block_c(width: int) -> Branches:
    return {
        "branch1x1": ((192, 1),),
        "branch7x7": ((width, 1), (width, (1, 7)), (192, (7, 1))),
        "branch7x7dbl": ((width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))),
        "branch_pool": (mean, (192, 1)),
    }


def block_e(pool: Any) -> Branches:
    return {
        "branch1x1": ((320, 1),),
        "branch3x3": ((384, 1), ((384, (1, 3)), (384, (3, 1)))),
        "branch3x3dbl": ((448, 1), (384, 3), ((384, (1, 3)), (384, (3, 1)))),
        "branch_pool": (pool, (192, 1)),
    }


BLOCK_B: Branches = {
    "branch3x3": ((384, 3, 2, "VALID"),),
    "branch3x3dbl": ((64, 1), (96, 3), (96, 3, 2, "VALID")),
    "branch_pool": (halve,),
}
BLOCK_D: Branches = {
    "branch3x3": ((192, 1), (320, 3, 2, "VALID")),
    "branch7x7x3": ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, "VALID")),
    "branch_pool": (halve,),
}
BLOCKS = {
    "Mixed_5b": block_a(32), "Mixed_5c": block_a(64), "Mixed_5d": block_a(64),
    "Mixed_6a": BLOCK_B, "Mixed_6b": block_c(128), "Mixed_6c": block_c(160), "Mixed_6d": block_c(160), "Mixed_6e": block_c(192),
    "Mixed_7a": BLOCK_D, "Mixed_7b": block_e(mean), "Mixed_7c": block_e(largest),
}  # fmt: skip


def prepare(images_BHWC: jax.Array) -> jax.Array:
    """uint8, or floats in [0, 1], to (B, 299, 299, C) in [-1, 1].

    Bilinear without antialiasing, as PyTorch's interpolate with align_corners=False.
    """
    x = images_BHWC.astype(jnp.float32) / (255 if images_BHWC.dtype == jnp.uint8 else 1)
    shape = (len(x), SIZE, SIZE, x.shape[-1])
    return 2 * jax.image.resize(x, shape, "bilinear", antialias=False) - 1


class Inception(nn.Module):
    """(features_BD, logits_BK) of images (B, H, W, 3), uint8 or floats in [0, 1], of any size.

    The D = 2048 features of FID are spatial means of the last block. The K = 1008 logits have no bias, as in the original
    Inception Score. float32 throughout, on every device.
    """

    @nn.compact
    def __call__(self, images_BHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = prepare(images_BHWC)
        x = Convolution(32, 3, 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = Convolution(32, 3, 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = halve(Convolution(64, 3, name="Conv2d_2b_3x3")(x))
        x = Convolution(80, 1, name="Conv2d_3b_1x1")(x)
        x = halve(Convolution(192, 3, 1, "VALID", name="Conv2d_4a_3x3")(x))
        for name, branches in BLOCKS.items():
            x = Block(branches, name=name)(x)
        features = x.mean((1, 2))
        return features, nn.Dense(CLASSES, use_bias=False, precision=EXACT, name="fc")(features)


class Block(nn.Module):
    """The branches of one of BLOCKS, (B, H, W, C) to (B, H', W', C')."""

    branches: Branches

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        return jnp.concatenate([self._branch(x_BHWC, name, steps) for name, steps in self.branches.items()], -1)

    def _branch(self, x: Any, name: str, steps: tuple) -> Any:
        single = sum(not callable(step) for step in steps) == 1
        for i, step in enumerate(steps, 1):
            number = "" if single else f"_{i}"
            if callable(step):
                x = step(x)
            elif isinstance(step[0], tuple):
                x = jnp.concatenate([Convolution(*step[j], name=f"{name}{number}{'ab'[j]}")(x) for j in range(2)], -1)
            else:
                x = Convolution(*step, name=f"{name}{number}")(x)
        return x


class Convolution(nn.Module):
    """relu(BatchNorm(convolution)), with running statistics."""

    width: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        kernel = (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel
        convolve = nn.Conv(self.width, kernel, self.stride, self.padding, use_bias=False, precision=EXACT, name="conv")
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(convolve(x_BHWC)))
