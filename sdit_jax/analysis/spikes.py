"""A trained network at work: its loss and firing rates by timestep, its spikes, its path from noise to image."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sdit_jax import images, sharding
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.process import add_noise
from sdit_jax.diffusion.samplers import normal
from sdit_jax.errors import InputError
from sdit_jax.layers.spiking import by_layer
from sdit_jax.models import Network
from sdit_jax.sampling.generate import make_sampler
from sdit_jax.sampling.how import Sampling


@dataclasses.dataclass(frozen=True)
class Probe:
    """Means over the images at each of `timesteps`, shape (S,): loss `terms` by name, firing `rates` by layer.

    `spikes` holds, by layer of neurons, the spikes (T, L, C) of the first image at `raster_timestep`, -1, 0 or 1; L counts
    tokens, or pixels of a convolutional network. `raster_TLC` (bool) are those of `raster_layer`, its first channels. Without
    neurons there are no rates and no spikes, and layer and raster are None.
    """

    timesteps: tuple[int, ...]
    terms: dict[str, np.ndarray]
    rates: dict[str, np.ndarray]
    raster_layer: str | None
    raster_timestep: int
    raster_TLC: np.ndarray | None
    spikes: dict[str, np.ndarray]


def probe(
    model: Network, objective: Objective, variables: Any, images_NHWC: np.ndarray, labels_N: np.ndarray, *,
    timesteps: Sequence[int], seed: int, raster_layer: str | None = None, raster_timestep: int | None = None,
    raster_channels: int = 64,
) -> Probe:  # fmt: skip
    """Runs the network on noised uint8 images, all at once, at each timestep; compiled once for a model, objective and shapes.

    The noise of image n at timestep t depends on (seed, t, n) alone; no labels are dropped. By default the raster shows the
    middle one of the layers and of the timesteps. Terms are those of `Objective.losses`: "mse", "vb" where the variance is
    learned, and their sum "loss".

    Raises:
      InputError: timesteps that are none or outside the schedule, or a layer that has no neurons.
    """
    asked = list(timesteps)
    for t in [*asked, raster_timestep or 0] if asked else ["none"]:
        if t not in range(len(objective.schedule)):
            raise InputError(f"timesteps: found {t}, need one or more of 0..{len(objective.schedule) - 1}")
    shown = asked[len(asked) // 2] if raster_timestep is None else raster_timestep
    pictures, labels, drawn = jnp.asarray(images_NHWC), jnp.asarray(labels_N), np.uint32(seed)
    layers = list(jax.eval_shape(partial(_at, model, objective), variables, pictures, labels, 0, drawn)[1])
    layer = layers[len(layers) // 2] if raster_layer is None and layers else raster_layer
    if layer not in (layers or [None]):
        raise InputError(f"raster layer: found {layer!r}, allowed are {', '.join(layers) or 'none'}")
    terms, rates = _by_timestep(model, objective, variables, pictures, labels, jnp.array(asked), drawn)
    fired = {}
    if layers:
        _, t_N, _, x_t = _noised(objective.schedule, pictures[:1], shown, drawn)
        fired = spikes(model, variables, x_t, t_N, labels[:1])
    first = {name: np.asarray(spikes_TBLC[:, 0], np.int8) for name, spikes_TBLC in fired.items()}
    raster_TLC = first[layer][..., :raster_channels] != 0 if layer else None
    terms, rates = ({name: np.asarray(value_S) for name, value_S in values.items()} for values in (terms, rates))
    return Probe(tuple(asked), terms, rates, layer, shown, raster_TLC, first)


def _noised(schedule, pictures, t, seed):
    """(x_0, t_N, noise, x_t) of uint8 images at one timestep."""
    key = jax.random.fold_in(jax.random.key(seed), t)
    x_0, t_N = images.from_uint8(pictures), jnp.full(len(pictures), t)
    noise = normal(jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(len(pictures))), x_0)
    return x_0, t_N, noise, add_noise(schedule, x_0, t_N, noise)


def _at(model, objective, variables, pictures, labels, t, seed):
    """Mean loss terms and firing rates at one timestep."""
    x_0, t_N, noise, x_t = _noised(objective.schedule, pictures, t, seed)
    output, sown = model.apply(variables, x_t, t_N, labels, mutable=["spikes"])
    terms = objective.losses(output, x_0, x_t, t_N, noise)
    return {name: term.mean() for name, term in terms.items()}, by_layer(sown.get("spikes") or {}, "firing_rate")


@partial(jax.jit, static_argnums=(0, 1))
def _by_timestep(model, objective, variables, pictures, labels, timesteps, seed):
    return jax.lax.map(lambda t: _at(model, objective, variables, pictures, labels, t, seed), timesteps)


@partial(jax.jit, static_argnums=0)
def spikes(model: Network, variables: Any, x_BHWC: jax.Array, t_B: jax.Array, y_B: jax.Array | None) -> dict[str, jax.Array]:
    """The spikes (T, B, L, C) of every layer of neurons in one forward pass, -1, 0 or 1, by the layer's name."""
    _, sown = model.apply(variables, x_BHWC, t_B, y_B, mutable=["raster"])
    return by_layer(_steps_before_images(sown.get("raster") or {}), "spikes", ndim=4)


def _steps_before_images(raster):
    """The collection with what was sown at single steps, (T, ..., B, L, C), in the place of spikes, (..., T, B, L, C)."""
    whole, sown = {}, dict[tuple, Any](flatten_dict(raster))
    for path, calls in sown.items():
        by_step = path[-1] == "spikes_by_step"
        whole[*path[:-1], "spikes"] = [jnp.moveaxis(call, 0, -4) if by_step else call for call in calls]
    return unflatten_dict(whole)


def denoising(
    model: Network,
    objective: Objective,
    variables: Any,
    labels_B: np.ndarray,
    sampling: Sampling,
    *,
    seed: int,
    frames: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
    """From noise to images: the predicted clean image at evenly chosen steps, the first and last included.

    Returns (images (B, H, W, C), frames (F, B, H, W, C)), uint8, with F = min(frames, steps). The images are those that
    `sampling.generate` draws first for the same labels and seed.
    """
    drawn, path = _trajectories(model, objective, variables, labels_B, sampling, seed)
    chosen = np.round(np.linspace(0, sampling.steps - 1, min(frames, sampling.steps))).astype(int)
    return drawn, np.asarray(images.to_uint8(path.clean[chosen]))


@dataclasses.dataclass(frozen=True)
class Film:
    """One image at each of S steps, from noise to image.

    `noised` and `clean` are what the network sees and predicts, uint8 (S, H, W, C); `spikes` are those of its pass with the
    label, int8 (S, T, L, C) by layer, -1, 0 or 1. `patches` is the number of patches in a row of the image, 0 for a network
    without.
    """

    timesteps: np.ndarray
    noised: np.ndarray
    clean: np.ndarray
    spikes: dict[str, np.ndarray]
    patches: int = 0


def film(model: Network, objective: Objective, variables: Any, label: int, sampling: Sampling, *, seed: int) -> Film:
    """The steps by which `sampling.generate` draws the first image for this label and seed, with all spikes."""
    _, path = _trajectories(model, objective, variables, np.array([label]), sampling, seed)
    t_S = np.array(sampling.visited(objective.schedule))
    y_S = jnp.full(len(t_S), label) if model.num_classes else None
    fired = spikes(model, variables, path.noised[:, 0], jnp.asarray(t_S, jnp.int32), y_S)
    by_step = {name: np.asarray(spikes_TSLC, np.int8).swapaxes(0, 1) for name, spikes_TSLC in fired.items()}
    noised, clean = (np.asarray(images.to_uint8(x_SBHWC[:, 0])) for x_SBHWC in path)
    patch_size = getattr(model, "patch_size", 0)
    return Film(t_S, noised, clean, by_step, model.image_size // patch_size if patch_size else 0)


def _trajectories(model, objective, variables, labels_B, sampling, seed):
    """(uint8 images, samplers.Path) of the first images for these labels, by the devices of this process."""
    B, mesh = len(labels_B), sharding.make_mesh(devices=jax.local_devices())
    filled = np.resize(labels_B, -(-B // mesh.size) * mesh.size).astype(np.int32)
    sampler = make_sampler(model, objective, sampling, path=True, mesh=mesh)
    drawn, path = sampler(variables, filled, np.arange(len(filled), dtype=np.int32), np.uint32(seed))
    return np.asarray(drawn)[:B], jax.tree.map(lambda x_SBHWC: x_SBHWC[:, :B], path)
