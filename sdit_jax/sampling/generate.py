"""Images from trained weights: network, guidance and sampler as one compiled program, batches split over the devices."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from sdit_jax import images, sharding
from sdit_jax.diffusion import samplers
from sdit_jax.diffusion.guidance import guided
from sdit_jax.diffusion.objective import Objective
from sdit_jax.files import atomic_write
from sdit_jax.models import Network, cast
from sdit_jax.ops.backend import assumed
from sdit_jax.sampling.how import Sampling
from sdit_jax.sharding.agreement import all_of

OF_ROWS = (1, 2)  # Labels and indices, among the arguments of a program.


class Program(NamedTuple):
    """A compiled sampler, which is callable, and the mesh over which its batches are split."""

    program: Callable
    mesh: Mesh

    def __call__(self, *arguments: Any) -> Any:
        return self.program(*arguments)


def make_sampler(
    model: Network, objective: Objective, sampling: Sampling, *, path: bool = False, mesh: Mesh | None = None
) -> Program:
    """Compiled (variables, labels_B, index_B, seed) -> uint8 images (B, H, W, C): whole trajectories.

    The noise of image i depends on (seed, i) alone. Batches are split over all devices, of the given mesh or as they are, and
    each device holds all weights. With `path` the result is (images, `samplers.Path`), the path as floats (S, B, H, W, C).
    """
    mesh = mesh or sharding.make_mesh()
    rows = mesh.axis_names

    def drawn(variables, y_B, index_B, seed):
        with assumed(mesh.devices.flat[0].platform):
            return trajectory(model, objective, sampling, variables, y_B, first_noise(model, index_B, seed), path=path)

    results = (PartitionSpec(rows), PartitionSpec(None, rows)) if path else None
    return Program(sharding.by_rows(drawn, mesh, OF_ROWS, results), mesh)


def trajectory(
    model: Network, objective: Objective, sampling: Sampling, variables: Any, y_B: jax.Array,
    noise: tuple[jax.Array, jax.Array], *, known: samplers.Known | None = None, path: bool = False,
) -> Any:  # fmt: skip
    """What the program of `make_sampler` computes, from the noise of `first_noise`; images may be `known` in part."""
    x_T, keys_B = noise
    weights = cast(model, variables)
    predict = guided(
        lambda x, t, y: model.apply(weights, x, t, y),
        y_B if model.num_classes else None,
        null=model.num_classes, scale=sampling.guidance, channels=model.channels, interval=sampling.interval,
    )  # fmt: skip
    drawn = samplers.sample(
        lambda x, t: objective.denoised(predict(x, t), x, t), x_T, objective.schedule,
        method=sampling.sampler, timesteps=sampling.visited(objective.schedule), key=keys_B,
        clip_x0=sampling.clip_x0, churn=sampling.churn, known=known, path=path,
    )  # fmt: skip
    return (images.to_uint8(drawn[0]), drawn[1]) if path else images.to_uint8(drawn)


def first_noise(model: Network, index_B: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(x_T, keys of all further noise) of the images of these indices, functions of (seed, index) alone."""
    keys_B2 = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(jax.random.key(seed), i)))(index_B)
    shape = (len(index_B), model.image_size, model.image_size, model.channels)
    return samplers.normal(keys_B2[:, 0], jnp.zeros(shape)), keys_B2[:, 1]


def on_the_sphere(x: jax.Array, other: jax.Array, part: jax.Array) -> jax.Array:
    """Noise (B, ...) at a part p of the way from one to another: (sin((1 - p) a) x + sin(p a) other) / sin(a).

    a is the angle between the two. On the straight line between them the noise would be too weak.
    Source: Song et al. 2021 (arXiv 2010.02502), appendix D.5.
    """
    each = lambda value_B: value_B.reshape(-1, *[1] * (x.ndim - 1))
    dot = lambda x, other: (x * other).reshape(len(x), -1).sum(1)
    angle = each(jnp.arccos(dot(x, other) / jnp.sqrt(dot(x, x) * dot(other, other))))
    return (jnp.sin((1 - part) * angle) * x + jnp.sin(part * angle) * other) / jnp.sin(angle)


def generate(
    sampler: Program, variables: Any, labels_N: np.ndarray, *, seed: int, batch_size: int,
    progress: Callable = iter, parts: Path | None = None,
) -> np.ndarray:  # fmt: skip
    """One image per label, uint8 (N, H, W, C); image i is a function of (seed, i, label), to rounding at any batch size.

    `batch_size` images are those of a device, less if there are not so many for each. At the same number of them, images are
    equal to the bit on any number of devices. Every process of a run calls this. `progress` wraps the list of batches. With
    `parts`, a folder, finished batches are kept there as arrays and not drawn again, unless they are damaged: pass the same
    folder for the same arguments.
    """
    devices = sampler.mesh.size
    batch_size = min(batch_size, -(-len(labels_N) // devices)) * devices
    if jax.process_count() > 1:
        variables = jax.device_get(variables)  # Those of one device cannot go to those of other processes.
    variables = jax.device_put(variables, sharding.replicated(sampler.mesh))
    made = []
    for start in progress(range(0, len(labels_N), batch_size)):
        path = parts / f"{start:08d}-{start + batch_size:08d}.npy" if parts else None
        batch = _read(path, batch_size)
        if path is None or not all_of(batch is not None):
            labels_B = np.resize(labels_N[start : start + batch_size], batch_size)  # The last batch is filled by repetition.
            index_B = np.arange(start, start + batch_size, dtype=np.int32)
            batch = np.asarray(sampler(variables, labels_B.astype(np.int32), index_B, np.uint32(seed)))
            _write(path, batch)
        made.append(batch)
    return np.concatenate(made)[: len(labels_N)]


def _read(path, batch_size):
    try:
        batch = np.load(io.BytesIO(path.read_bytes())) if path and path.exists() else None
        return batch if batch is not None and len(batch) == batch_size and batch.dtype == np.uint8 else None
    except (ValueError, OSError, EOFError):  # Cut short: it is drawn again.
        return None


def _write(path, batch):
    if path and jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.save(file, batch)


def example_labels(n: int, num_classes: int) -> np.ndarray:
    """Labels 0, 1, ..., num_classes - 1 in turn, one per image."""
    return np.arange(n, dtype=np.int32) % max(1, num_classes)
