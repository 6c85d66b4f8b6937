"""Spiking diffusion at work as a picture or an animation: noise becomes an image while the neurons of some layers fire.

A frame shows what the network sees, the clean image that it predicts, and a square for each of some layers. In the square each
token covers its patch of the image with some of its neurons, a dot each: orange for a spike, blue for one of the other sign.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdit_jax.analysis.spikes import Film
from sdit_jax.errors import InputError
from sdit_jax.files import atomic_write
from sdit_jax.report.pictures import NEGATIVE, SPIKE

SIDE, GAP, LINE = 112, 12, 18  # Pixels: of a square, between squares, of a line of text.
PAPER, INK, SILENT = (255, 255, 255), (60, 60, 60), (24, 24, 28)
IN_STRIP, IN_ANIMATION = 7, 14  # Sampling steps at most.
LAYERS = 3
MILLISECONDS, REST = 60, 1500  # Of a frame; of the last one.


def chosen_layers(film: Film, names: Sequence[str] = ()) -> list[str]:
    """Layers by name, by default LAYERS from all depths. Raises InputError for a layer that is not there, or if none is."""
    known = list(film.spikes)
    if not known:
        raise InputError("layers: the network has no spiking neurons")
    for name in names:
        if name not in known:
            raise InputError(f"layers: found {name!r}, allowed are {', '.join(known)}")
    return list(names) or [known[i] for i in np.linspace(0, len(known) - 1, min(LAYERS, len(known))).round().astype(int)]


def square(spikes_LC: np.ndarray, side: int, patches: int = 0) -> np.ndarray:
    """Neurons as pixels of an image of `side`, float (side, side) in -1..1: in each patch as many channels as it has pixels.

    Tokens are a condition token and the patches, `patches` in a row; with 0 they are pixels of a convolutional network.
    """
    L, C = spikes_LC.shape
    rows, first = (patches, 1) if patches else (int(L**0.5), 0)
    cell = max(1, side // rows)
    channels = np.resize(np.linspace(0, C - 1, min(cell**2, C)).round().astype(int), cell**2)
    cells = spikes_LC[first : first + rows**2][:, channels].reshape(rows, rows, cell, cell)
    return cells.swapaxes(1, 2).reshape(rows * cell, rows * cell).astype(np.float32)


def animation(film: Film, layers: Sequence[str]) -> list[Image.Image]:
    """A frame for every spiking step of some sampling steps."""
    T = len(next(iter(film.spikes.values()))[0])
    names = ["sees", "predicts", *layers]
    return [
        _frame(film, s, names, [*_images(film, s), *(_lit(film.spikes[layer][s][t], film) for layer in layers)])
        for s in _steps(film, IN_ANIMATION)
        for t in range(T)
    ]


def strip(film: Film, layers: Sequence[str]) -> Image.Image:
    """Some sampling steps from left to right, with neurons as bright as they fire in the T spiking steps."""
    names, margin, steps = ["sees", "predicts", *layers], SIDE + 4 * GAP, _steps(film, IN_STRIP)
    size = (margin + len(steps) * (SIDE + GAP) - GAP, LINE + len(names) * (SIDE + GAP) - GAP)
    picture = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for row, name in enumerate(names):
        draw.text((0, LINE + row * (SIDE + GAP) + SIDE // 2 - 8), _plain(name), INK, font)
    for column, s in enumerate(steps):
        left = margin + column * (SIDE + GAP)
        draw.text((left, 0), f"t = {film.timesteps[s]}", INK, font)
        lit = (_lit(film.spikes[layer][s].mean(0, dtype=np.float32), film) for layer in layers)
        for row, tile in enumerate((*_images(film, s), *lit)):
            picture.paste(tile, (left, LINE + row * (SIDE + GAP)))
    return picture


def save(film: Film, layers: Sequence[str], path: Path) -> None:
    """Writes a .gif, the animation, or a .png, the strip, atomically."""
    with atomic_write(path) as partial:
        if path.suffix == ".png":
            strip(film, layers).save(partial, format="PNG", optimize=True)
            return
        first, *others = (frame.quantize(64, dither=Image.Dither.NONE) for frame in animation(film, layers))
        times = [MILLISECONDS] * len(others) + [REST]
        first.save(partial, format="GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=True)


def _images(film, s):
    tiles = (x_SHWC[s, ..., 0] if x_SHWC.shape[-1] == 1 else x_SHWC[s] for x_SHWC in (film.noised, film.clean))
    return [Image.fromarray(tile).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST) for tile in tiles]


def _lit(spikes_LC, film):
    """Neurons from dark to the colour of a spike."""
    found = square(spikes_LC, film.noised.shape[1], film.patches)[..., None]
    colour = np.where(found < 0, np.array(NEGATIVE, np.float32), np.array(SPIKE, np.float32))
    pixels = np.array(SILENT, np.float32) + np.abs(found) * (colour - np.array(SILENT, np.float32))
    return Image.fromarray(pixels.round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _steps(film, most):
    """Sampling steps at about even distances in time, the first and the last included."""
    times = np.asarray(film.timesteps)
    wanted = np.linspace(times[0], times[-1], min(most, len(times)))
    return sorted({int(np.abs(times - t).argmin()) for t in wanted})


def _frame(film, s, names, tiles):
    picture = Image.new("RGB", (len(tiles) * (SIDE + GAP) - GAP, SIDE + 2 * LINE), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    draw.text((0, 0), f"t = {film.timesteps[s]}", INK, font)
    for column, (tile, name) in enumerate(zip(tiles, names, strict=True)):
        picture.paste(tile, (column * (SIDE + GAP), LINE))
        draw.text((column * (SIDE + GAP), LINE + SIDE), _plain(name), INK, font)
    return picture


def _plain(layer):
    """A layer's name in words: "out 0 time mix key"."""
    return layer.replace("_blocks", "").replace("_block", "").replace("_", " ").replace(".", " ")
