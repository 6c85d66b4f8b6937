"""What is evaluated, samples drawn from a run or read from a file, and the real images it is held against."""

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from sdit_jax import images
from sdit_jax.config import NoSuchSplit
from sdit_jax.data import sources
from sdit_jax.data.datasets import Images
from sdit_jax.data.sources import arrays
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.protocol import labels_told, sampling_protocol
from sdit_jax.sampling.run import Run

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Subject:
    """The images that are evaluated, their labels, and how they came to be (see `sampling.protocol`)."""

    images: np.ndarray
    labels: np.ndarray | None
    protocol: dict


def draw(
    run: Run, out: Path, *, n: int, sampler: str, steps: int, guidance: float, seed: int, batch_size: int,
    progress: Callable = iter,
) -> Subject:  # fmt: skip
    """n samples of a run, labels in turn; written to `out/samples.npz`, and read from there where they are the same.

    Finished batches are kept on the way, so that drawing goes on where it was stopped.
    """
    labels, told = example_labels(n, run.model.num_classes), labels_told(run.model, guidance)
    asked = None if told == "none" else labels
    protocol = sampling_protocol(run, n=n, sampler=sampler, steps=steps, guidance=guidance, labels=told, seed=seed)
    path = out / "samples.npz"
    if images.load_protocol(path) == protocol:
        log.info("%s: samples are there already", path)
        return Subject(arrays.read(path).images, asked, protocol)
    name = hashlib.sha256(json.dumps([protocol, batch_size], sort_keys=True).encode()).hexdigest()[:16]
    parts = out / f"samples-{name}.partial"
    move = make_sampler(run.model, run.objective, method=sampler, steps=steps, guidance=guidance, clip_x0=protocol["clip_x0"])
    made = generate(move, run.params, labels, seed=seed, batch_size=batch_size, progress=progress, parts=parts)
    images.save_npz(path, made, labels, protocol)
    shutil.rmtree(parts)
    return Subject(made, asked, protocol)


def read_subject(path: Path) -> Subject:
    """The samples in a file; their protocol is what the file says of them, and otherwise that it says nothing."""
    found = arrays.read(path)
    told = images.load_protocol(path)
    with np.load(path) as file:
        labelled = "labels" in file.files and (told or {}).get("labels") != "none"
    protocol = told or {"sampler": None, "made": "unknown, the file does not say"}
    protocol |= {"samples": str(path), "samples_sha256": found.fingerprint, "n": len(found)}
    return Subject(found.images, found.labels if labelled else None, protocol | {"size": list(found.images.shape[1:])})


def load_references(name: str, directory: str, splits: Iterable[str], size: int, resize: str = "bilinear") -> dict[str, Images]:
    """Real images of a size by split; but for the first, those that the source does not have are left out with a warning."""
    found = {}
    for split in dict.fromkeys(splits):
        try:
            found[split] = sources.load(name, split, directory, size, None, resize)
        except NoSuchSplit as error:
            if not found:
                raise
            log.warning("%s %s: not compared with (%s)", name, split, error)
    return found
