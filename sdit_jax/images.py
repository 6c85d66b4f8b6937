"""Images as floats in [-1, 1], as bytes, and as PNG and .npz files."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sdit_jax.files import atomic_write

MARGIN = 2  # White pixels between the images of a grid.


def from_uint8(images: jax.Array) -> jax.Array:
    """x / 127.5 - 1: bytes as float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_uint8(images: jax.Array) -> jax.Array:
    """round(127.5 (x + 1)): floats, clipped to [-1, 1], as bytes."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def grid(images: np.ndarray, columns: int = 10, min_side: int = 64) -> np.ndarray:
    """uint8 images (N, H, W, C) as one RGB picture, row by row; small ones are enlarged, by an integer, to `min_side`."""
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
    """Two RGB pictures side by side on white, centred vertically."""
    height = max(len(left), len(right))
    picture = np.full((height, left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
    for one, start in ((left, 0), (right, left.shape[1] + gap)):
        top = (height - len(one)) // 2
        picture[top : top + len(one), start : start + one.shape[1]] = one
    return picture


def save_npz(path: Path, images: np.ndarray, labels: np.ndarray, protocol: Mapping) -> None:
    """Writes a file atomically: arr_0 (the images), labels, and protocol (JSON: how the images were made)."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, images, labels=labels, protocol=np.array(json.dumps(protocol)))


def load_protocol(path: Path) -> dict | None:
    """The `protocol` of a file of `save_npz`; None for a file without one, a damaged one and a missing one."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            protocol = json.loads(str(arrays["protocol"]))
            return protocol if isinstance(protocol, dict) else None
    except Exception:  # numpy, zipfile and json raise many kinds.
        return None


def png(picture: np.ndarray) -> bytes:
    """An RGB picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def save_png(picture: np.ndarray, path: Path) -> None:
    """Writes an RGB picture atomically."""
    with atomic_write(path) as partial:
        partial.write_bytes(png(picture))
