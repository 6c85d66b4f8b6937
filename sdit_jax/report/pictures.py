"""Images and spikes as pictures inside of the page."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

SIDE = 64  # Larger images are shown reduced to this.
SPIKE, NEGATIVE = (0xE8, 0x59, 0x0C), (0x2B, 0x84, 0xC6)
STRIP_CHANNELS, STRIP_COLUMNS = 8, 600  # At most, of a strip.


def png(image_HWC: np.ndarray) -> str:
    """An image as a data URI."""
    H, W, C = image_HWC.shape
    picture = Image.fromarray(image_HWC[..., 0] if C == 1 else image_HWC)
    if max(H, W) > SIDE:
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _uri(picture, optimize=True)


def panel(step_LC: np.ndarray) -> dict[str, Any]:
    """The spikes of one step as points on a transparent background, the longer axis from left to right."""
    L, C = step_LC.shape
    spikes, axes = (step_LC.T, ("tokens", "channels")) if L >= C else (step_LC, ("channels", "tokens"))
    return _points(spikes != 0) | {"axes": axes, "rate": float((step_LC != 0).mean())}


def strips(spikes: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The spikes (T, L, C) of each layer as a strip of few rows, channels at equal distances; the steps one after another.

    A step is a column of each token, of tokens at equal distances where there are many, and an empty column.
    """
    found = []
    for layer, spikes_TLC in spikes.items():
        T, L, C = spikes_TLC.shape
        tokens, channels = _spaced(L, max(1, STRIP_COLUMNS // T - 1)), _spaced(C, STRIP_CHANNELS)
        shown = np.pad(spikes_TLC[:, tokens][..., channels], ((0, 0), (0, 1), (0, 0)))
        rates = [float((step != 0).mean()) for step in spikes_TLC]
        facts = {"layer": layer, "rate": float(np.mean(rates)), "steps": T, "signed": bool((spikes_TLC < 0).any())}
        found.append(_points(shown.reshape(-1, len(channels)).T[:, :-1]) | facts)
    return found


def _points(spikes_HW):
    colours = np.where(spikes_HW < 0, 2, spikes_HW != 0).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(colours), mode="P")
    picture.putpalette((0, 0, 0, *SPIKE, *NEGATIVE))
    return {"uri": _uri(picture, bits=2, transparency=0), "width": picture.width, "height": picture.height}


def _spaced(n, most):
    return np.linspace(0, n - 1, min(n, most)).round().astype(int)


def _uri(picture, **options):
    file = io.BytesIO()
    picture.save(file, format="PNG", **options)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
