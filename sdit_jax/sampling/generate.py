"""Images from trained weights: network, guidance and sampler as one compiled program, batches split over the devices."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sdit_jax import images, sharding
from sdit_jax.diffusion.guidance import guided
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.samplers import normal, sample
from sdit_jax.files import whole
from sdit_jax.models import SDiT, cast_weights


class Sampler(NamedTuple):
    """A compiled program, called as it is, and the devices that share its batches."""

    program: Callable
    mesh: Mesh

    def __call__(self, *arguments):
        return self.program(*arguments)


def make_sampler(
    model: SDiT, objective: Objective, *, method: str, steps: int, guidance: float, clip_x0: bool, path: bool = False,
    mesh: Mesh | None = None,
) -> Sampler:  # fmt: skip
    """Compiled (params, labels_B, index_B, seed) -> uint8 images (B, H, W, C): whole trajectories.

    Image i draws its noise from fold_in(seed, i), whatever stands beside it in the batch. Batches are split over
    all devices, of the given mesh or as they are, and each holds all weights. With `path` the result is (images,
    what each step took for them (steps, B, H, W, C)).
    """
    mesh = mesh or sharding.make_mesh()
    everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh, mesh.axis_names)

    def trajectory(params, y_B, index_B, seed):
        y_B, index_B = jax.lax.with_sharding_constraint((y_B, index_B), split)  # Here, as processes cannot pass it so.
        keys_B2 = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(jax.random.key(seed), i)))(index_B)
        x_T = normal(keys_B2[:, 0], jnp.zeros((len(y_B), model.image_size, model.image_size, model.channels)))
        weights = cast_weights(model, params)
        apply: Callable = model.apply
        denoise = guided(
            lambda x, t, y: objective.denoised(apply({"params": weights}, x, t, y), x, t),
            y_B if model.num_classes else None,
            null=model.num_classes, scale=guidance, channels=model.channels,
        )  # fmt: skip
        drawn = sample(
            denoise, x_T, objective.schedule, method=method, steps=steps, key=keys_B2[:, 1], clip_x0=clip_x0, path=path
        )
        return jax.tree.map(images.to_uint8, drawn)

    program = jax.jit(trajectory, in_shardings=everywhere, out_shardings=everywhere)
    return Sampler(program, mesh)


def generate(
    sampler: Sampler, params, labels_N: np.ndarray, *, seed: int, batch_size: int,
    progress: Callable = iter, parts: Path | None = None,
) -> np.ndarray:  # fmt: skip
    """One image per label, uint8 (N, H, W, C); image i is a function of (seed, i, label), to rounding at any batch size.

    Batches are rounded up to the number of devices. `progress` wraps the list of batches. With `parts`, a folder, finished
    batches are kept there as arrays and not drawn again: it must be asked for with the same arguments. Damaged ones are.
    """
    devices = sampler.mesh.size
    batch_size = -(-min(batch_size, len(labels_N)) // devices) * devices
    params = jax.device_put(params, sharding.replicated(sampler.mesh))
    made = []
    for start in progress(range(0, len(labels_N), batch_size)):
        path = parts / f"{start:08d}-{start + batch_size:08d}.npy" if parts else None
        batch = _read(path, batch_size)
        if batch is None:
            labels_B = np.resize(labels_N[start : start + batch_size], batch_size)  # The last one is filled up by repetition.
            index_B = np.arange(start, start + batch_size, dtype=np.int32)
            batch = np.asarray(sampler(params, labels_B.astype(np.int32), index_B, np.uint32(seed)))
            _write(path, batch)
        made.append(batch)
    return np.concatenate(made)[: len(labels_N)]


def _read(path, batch_size):
    try:
        batch = np.load(path) if path and path.exists() else None
        return batch if batch is not None and len(batch) == batch_size and batch.dtype == np.uint8 else None
    except (ValueError, OSError, EOFError):  # Cut short: it is drawn again.
        return None


def _write(path, batch):
    if path and jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial, partial.open("wb") as file:
            np.save(file, batch)


def example_labels(n: int, num_classes: int) -> np.ndarray:
    """Labels 0, 1, 2, ... over and over, one per image."""
    return np.arange(n, dtype=np.int32) % max(1, num_classes)
