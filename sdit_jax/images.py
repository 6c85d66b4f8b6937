"""Images between the package (float32 in [-1, 1]) and the world (uint8, PNG)."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sdit_jax.files import whole

MARGIN = 2


def from_uint8(images: jax.Array) -> jax.Array:
    """0..255 -> float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_uint8(images: jax.Array) -> jax.Array:
    """Floats, clipped to [-1, 1], to the nearest of 0..255."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def grid(images: np.ndarray, columns: int = 10, min_side: int = 64) -> np.ndarray:
    """uint8 (N, H, W, C) as one RGB picture, row by row, small images enlarged to whole pixels of at least `min_side`."""
    N, H, W, C = images.shape
    columns = min(columns, N)
    zoom = max(1, -(-min_side // H))
    rows = -(-N // columns)
    if C == 1:
        images = np.repeat(images, 3, -1)
    cells = np.full((rows * columns, H * zoom + MARGIN, W * zoom + MARGIN, 3), 255, np.uint8)
    cells[:N, : H * zoom, : W * zoom] = images.repeat(zoom, 1).repeat(zoom, 2)
    _, h, w, _ = cells.shape
    return cells.reshape(rows, columns, h, w, 3).swapaxes(1, 2).reshape(rows * h, columns * w, 3)[:-MARGIN, :-MARGIN]


def beside(left: np.ndarray, right: np.ndarray, gap: int = 32) -> np.ndarray:
    """Two RGB pictures next to each other on white, the smaller one in the middle of its height."""
    height = max(len(left), len(right))
    picture = np.full((height, left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
    for one, start in ((left, 0), (right, left.shape[1] + gap)):
        top = (height - len(one)) // 2
        picture[top : top + len(one), start : start + one.shape[1]] = one
    return picture


def save_npz(path: Path, images: np.ndarray, labels: np.ndarray, protocol: Mapping) -> None:
    """Writes images as arr_0, labels as labels and how they were made as JSON in protocol, whole or not at all."""
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, images, labels=labels, protocol=np.array(json.dumps(protocol)))


def load_protocol(path: Path) -> dict | None:
    """How the images of a file were made; None where it does not say, is damaged, or is not there."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            protocol = json.loads(str(arrays["protocol"]))
            return protocol if isinstance(protocol, dict) else None
    except Exception:  # numpy, zipfile and json raise many kinds.
        return None


def save_png(picture: np.ndarray, path: Path) -> None:
    """Writes an RGB picture, whole or not at all."""
    with whole(path) as partial:
        Image.fromarray(picture).save(partial, format="PNG")
