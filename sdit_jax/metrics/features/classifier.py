"""Small convolutional classifiers: feature extractors for data sets that are far from Inception's.

The Frechet distance between their features is called `fd_classifier`, never FID. The weights in the package were trained on the
training splits by `sdit fit_classifier`; each file holds the arguments, and the accuracy on the test split.
"""

import dataclasses
import hashlib
import json
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sdit_jax import files
from sdit_jax.errors import InputError

SHIPPED = ("digits", "mnist", "fashion_mnist", "cifar10")


class Classifier(nn.Module):
    """(features_BD, logits_BK) of uint8 images.

    Blocks of 2x2 pixels become channels. Then, per width, a convolution and a residual convolution, with max pooling between
    widths. The features are the spatial means of the last. With train=True batch statistics are used and updated
    (collection "batch_stats").
    """

    num_classes: int
    widths: tuple[int, ...] = (48, 96, 128)

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        convolve = partial(nn.Conv, kernel_size=(3, 3), use_bias=False)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = images_BHWC.astype(jnp.float32) / 127.5 - 1
        B, H, W, C = x.shape
        x = x.reshape(B, H // 2, 2, W // 2, 2, C).swapaxes(2, 3).reshape(B, H // 2, W // 2, 4 * C)
        for i, width in enumerate(self.widths):
            if i:
                x = nn.max_pool(x, (2, 2), (2, 2))
            x = nn.relu(norm()(convolve(width)(x)))
            x += nn.relu(norm()(convolve(width)(x)))
        features = x.mean((1, 2))
        return features, nn.Dense(self.num_classes)(features)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A classifier with its weights, the size and channels of its images, and facts of its training (splits, accuracy)."""

    model: Classifier
    variables: Any
    image_size: int
    channels: int
    facts: dict[str, Any]
    sha256: str


def save(path: Path, trained: Trained) -> None:
    """Writes kernels as float16, statistics as float32, and the facts as JSON, in one .npz."""
    arrays = {
        name: np.asarray(leaf, np.float16 if name.endswith("kernel") else np.float32)
        for name, leaf in flatten_dict(trained.variables, sep="/").items()
    }
    header = trained.facts | {
        "num_classes": trained.model.num_classes, "widths": trained.model.widths, "image_size": trained.image_size,
        "channels": trained.channels,
    }  # fmt: skip
    with files.atomic_write(path) as partial_path, partial_path.open("wb") as file:
        np.savez_compressed(file, **arrays, header=np.array(json.dumps(header)))  # pyright: ignore[reportArgumentType]


def load(name: str, field: str = "classifier") -> Trained:
    """A shipped classifier by the name of its data set, or one in a file. Raises InputError (`field` names `name`)."""
    if name in SHIPPED:
        return _read(resources.files("sdit_jax.metrics.features").joinpath("classifiers", f"{name}.npz"))
    if not Path(name).is_file():
        raise InputError(f"{field}: found {name!r}, allowed are {', '.join(SHIPPED)} and a file of fit_classifier")
    return _read(Path(name))


def _read(path: Path | Traversable) -> Trained:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            header = json.loads(str(arrays["header"]))
            flat = {key: arrays[key].astype(np.float32) for key in arrays.files if key != "header"}
        facts = {key: header.pop(key) for key in list(header) if key not in ("num_classes", "widths", "image_size", "channels")}
        model = Classifier(header["num_classes"], tuple(header["widths"]))
    except Exception as error:  # numpy, zipfile and json raise many kinds for a damaged file.
        raise InputError(f"{path}: damaged or not a classifier ({type(error).__name__}: {error})") from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Trained(model, unflatten_dict(flat, sep="/"), header["image_size"], header["channels"], facts, digest)
