"""Samples drawn from a run or read from a file."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from etils import epath

from sdit_jax import images
from sdit_jax.data.sources import arrays
from sdit_jax.errors import InputError
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.provenance import conditioning_labels, sampling_protocol
from sdit_jax.sampling.run import Run
from sdit_jax.sharding.agreement import all_of

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Samples:
    """uint8 images (N, H, W, C), their labels if they are conditional, and their protocol (see `sampling.provenance`)."""

    images: np.ndarray
    labels: np.ndarray | None
    protocol: dict


def drawing_protocol(run: Run, *, n: int, sampling: Sampling, seed: int) -> dict:
    """The protocol of samples with labels in turn."""
    named = conditioning_labels(run.model, sampling.guidance)
    return sampling_protocol(run, n=n, sampling=sampling, labels=named, seed=seed)


def draw(run: Run, out: Path, *, n: int, sampling: Sampling, seed: int, batch_size: int, progress: Callable = iter) -> Samples:
    """n samples of a run, labels in turn, written to `out/samples.npz`; read from there if its protocol is the same.

    Finished batches are kept in `out`, so that a rerun resumes drawing. All processes draw, and process 0 writes.
    """
    protocol = drawing_protocol(run, n=n, sampling=sampling, seed=seed)
    labels = example_labels(n, run.model.num_classes)
    known = None if protocol["labels"] == "none" else labels
    path = out / "samples.npz"
    if all_of(images.load_protocol(path) == protocol):
        log.info("%s: already drawn", path)
        return Samples(arrays.read(path).images, known, protocol)
    name = hashlib.sha256(json.dumps([protocol, batch_size], sort_keys=True).encode()).hexdigest()[:16]
    parts = out / f"samples-{name}.partial"
    sampler = make_sampler(run.model, run.objective, sampling)
    drawn = generate(sampler, run.variables, labels, seed=seed, batch_size=batch_size, progress=progress, parts=parts)
    if jax.process_index() == 0:
        images.save_npz(path, drawn, labels, protocol)
        epath.Path(parts).rmtree()
    return Samples(drawn, known, protocol)


def check_free(path: Path, stored: dict | None, protocol: dict, overwrite: bool, prefix: str = "") -> None:
    """Raises InputError for a file of results with a `stored` protocol other than `protocol`, unless it may be replaced.

    `prefix` precedes the fields out and overwrite in the error.
    """
    if path.exists() and not overwrite and stored != json.loads(json.dumps(protocol)):
        raise InputError(f"{prefix}out: {path} holds other results; choose another folder, or set {prefix}overwrite")


def read_samples(path: Path) -> Samples:
    """The samples in a file, with the protocol stored in it; without one the protocol has "made": "unknown, ..."."""
    found = arrays.read(path)
    stored = images.load_protocol(path)
    with path.open("rb") as stream, np.load(stream) as file:
        labelled = "labels" in file.files and (stored or {}).get("labels") != "none"
    protocol = stored or {"sampler": None, "made": "unknown, the file does not say"}
    protocol |= {"samples": str(path), "samples_sha256": found.fingerprint, "n": len(found)}
    return Samples(found.images, found.labels if labelled else None, protocol | {"size": list(found.images.shape[1:])})
