"""Pictures beside the scores: every class, the nearest training images, what fails, and the way from one image to another.

| file | |
|---|---|
| classes.png | one column for each of the first 20 classes, the first samples of each |
| neighbours.png | samples, the closest to a training image first, above their nearest training images |
| failures.png | the samples that the classifier believes least to be what was asked for; below, "asked > read" |
| interpolation.png | one row for each of them, on the way from one image to another (`Run.interpolate`) |
| gallery.json | the numbers: of each class, of nearest training images, of failures |
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sdit_jax import files, images
from sdit_jax.data.datasets import Images
from sdit_jax.data.transforms import to_channels
from sdit_jax.diffusion.samplers import SAMPLERS
from sdit_jax.metrics import neighbours
from sdit_jax.metrics.features import Extracted, FeatureExtractor, extract
from sdit_jax.metrics.scores import precision_recall
from sdit_jax.progress import EVERY_S, progress, saying
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.run import Run
from sdit_jax.sampling.samples import draw, drawing_protocol
from sdit_jax.scoring import Scoring

ROWS, COLUMNS = 8, 20  # Of the pictures.
FEWEST = 5  # Samples of a class whose variety can be measured.
CAPTION = 14  # Pixels below an image.


@dataclasses.dataclass(frozen=True)
class OfClass:
    """Scores of a class's samples in the features of the classifier, against as many real images of the test split.

    `accuracy` is the share that is read as the class; `diversity` the total variance of the features over that of the real
    images, 1 for as much variety; precision and recall are those of `metrics.scores`.
    """

    label: int
    n: int
    accuracy: float
    diversity: float
    precision: float
    recall: float


def of_classes(found: Extracted, labels_N: np.ndarray, real: Extracted, real_labels_M: np.ndarray) -> list[OfClass]:
    """Scores of each class that has enough samples and real images."""
    scores = []
    for label in np.unique(labels_N):
        ours, theirs = labels_N == label, real_labels_M == label
        n = min(ours.sum(), theirs.sum())
        if n < FEWEST:
            continue
        x_ND, y_MD = found.features_ND[ours][:n], real.features_ND[theirs][:n]
        accuracy = float((found.probabilities_NK[ours].argmax(-1) == label).mean())
        diversity = float(x_ND.var(0).sum() / y_MD.var(0).sum())
        scores.append(OfClass(int(label), int(ours.sum()), accuracy, diversity, *precision_recall(x_ND, y_MD)))
    return scores


def make_gallery(
    run: Run, out: Path, scoring: Scoring, *, n: int, sampling: Sampling, seed: int = 0, batch_size: int = 250
) -> dict[str, Any]:
    """Draws n samples, labels in turn, and writes pictures and gallery.json to `out`; returns what is in the latter.

    Finished batches are kept in `out`: the same call resumes. Raises InputError, before anything is drawn or written, for what
    network, data or classifier do not allow.
    """
    sampling.check(run.model, run.objective, scoring.prefix)
    name, real, (extractor, *_) = scoring.compared_with(run, n)
    protocol = drawing_protocol(run, n=n, sampling=sampling, seed=seed)
    scoring.check_free(out, protocol)
    files.make_folder(out)
    with files.exclusive(out, "draws a gallery into this folder"):
        samples = draw(
            run, out, n=n, sampling=sampling, seed=seed, batch_size=batch_size,
            progress=lambda batches: progress(batches, "samples"),
        )  # fmt: skip
        classes = run.model.num_classes if samples.labels is not None else 0
        draw_classes(out / "classes.png", samples.images, classes)
        found = {"protocol": protocol, "neighbours": _neighbours(out, samples.images, real)}
        if classes and extractor.classes is not None and extractor.has_classes_of(name):
            found |= _of_labels(out, samples.images, samples.labels, extractor, list(real.values())[-1])
        if not (SAMPLERS[sampling.sampler].stochastic or sampling.churn):
            with saying("drawing the way from one image to another", EVERY_S):
                rows = run.interpolate(range(min(max(classes, 1), COLUMNS)), 12, seed=seed, **_fields(sampling))
            images.save_png(images.grid(rows.reshape(-1, *rows.shape[2:]), 12), out / "interpolation.png")
        files.write_json(out / "gallery.json", found)
    return found


def draw_classes(path: Path, drawn: np.ndarray, classes: int) -> None:
    """Writes classes.png of images whose labels are 0, 1, ..., classes - 1 in turn; for no classes, the first images."""
    period, shown = classes or COLUMNS, min(classes or COLUMNS, COLUMNS)
    rows = [drawn[start : start + shown] for start in range(0, len(drawn), period)][:ROWS]
    images.save_png(images.grid(np.concatenate(rows), shown), path)


def _fields(sampling):
    """The fields of `Sampling` that `Run.interpolate` takes."""
    chosen = dataclasses.asdict(sampling)
    del chosen["clip_x0"]
    return chosen


def _neighbours(out: Path, drawn: np.ndarray, real: Mapping[str, Images]) -> dict[str, Any]:
    """Writes neighbours.png; distances in grey levels."""
    trained_on, *held_out = (to_channels(split.images, drawn.shape[-1]) for split in real.values())
    with saying("looking for the nearest training images", EVERY_S):
        others = held_out[0][: len(drawn)] if held_out else None
        found = neighbours.compare(drawn, trained_on, others, k=3, shown=COLUMNS)
    columns = np.concatenate([found.samples_SHWC[:, None], found.nearest_SKHWC], 1).swapaxes(0, 1)
    images.save_png(images.grid(columns.reshape(-1, *drawn.shape[1:]), columns.shape[1]), out / "neighbours.png")
    median = lambda distances: None if distances is None else float(np.median(distances))
    return {
        "samples_median": median(found.samples_N), "held_out_median": median(found.real_M),
        "closest": float(found.samples_N.min()), "closer_than_99_percent_of_held_out": found.suspicious,
    }  # fmt: skip


def _of_labels(out, drawn, labels_N, extractor: FeatureExtractor, real: Images) -> dict[str, Any]:
    """Writes failures.png; scores of classes, and what the failures were asked to be and are read as."""
    found = extract(extractor, drawn, lambda items: progress(items, "features of samples"))
    theirs = extract(extractor, real.images, lambda items: progress(items, "features of real images"))
    asked = np.searchsorted(np.array(extractor.classes), labels_N)
    belief_N = found.probabilities_NK[np.arange(len(asked)), asked]
    worst = np.argsort(belief_N, kind="stable")[:COLUMNS]
    read_N = np.array(extractor.classes)[found.probabilities_NK.argmax(-1)]
    images.save_png(_captioned(drawn[worst], [f"{labels_N[i]} > {read_N[i]}" for i in worst]), out / "failures.png")
    failures = [
        {"index": int(i), "asked": int(labels_N[i]), "read": int(read_N[i]), "belief": float(belief_N[i])} for i in worst
    ]
    classes = [dataclasses.asdict(one) for one in of_classes(found, labels_N, theirs, real.labels)]
    return {"classes": classes, "read_otherwise": float((read_N != labels_N).mean()), "failures": failures}


def _captioned(shown: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """Images in one row, each above its caption."""
    row = images.grid(shown, len(shown))
    picture = Image.fromarray(np.pad(row, ((0, CAPTION), (0, 0), (0, 0)), constant_values=255))
    pen, pitch = ImageDraw.Draw(picture), (row.shape[1] + images.MARGIN) / len(shown)
    for i, text in enumerate(captions):
        pen.text(((i + 0.5) * pitch, len(row) + 1), text, fill="black", anchor="ma")
    return np.asarray(picture)


def to_markdown(found: Mapping[str, Any]) -> str:
    """What gallery.json says, as a table of classes and a line on nearest training images."""
    lines = []
    if "classes" in found:
        columns = [field.name for field in dataclasses.fields(OfClass)]
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        shown = lambda value: f"{value:.2f}" if isinstance(value, float) else str(value)
        lines += ["| " + " | ".join(shown(one[name]) for name in columns) + " |" for one in found["classes"]]
    else:
        lines.append("classes and failures are left out: the network has no labels, or the classifier reads other classes")
    near = found["neighbours"]
    held_out = "" if near["held_out_median"] is None else f" (held-out images: {near['held_out_median']:.1f})"
    lines.append(f"nearest training image: {near['samples_median']:.1f} grey levels in the median{held_out}")
    if near["closer_than_99_percent_of_held_out"] is not None:
        share = near["closer_than_99_percent_of_held_out"]
        lines.append(f"nearer to a training image than 99 % of the held-out images are: {share:.1%}; 1 % is usual")
    return "\n".join(lines)
