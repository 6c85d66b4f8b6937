"""An evaluation in a folder: samples drawn or read, scored against real images, with energy and a report."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from sdit_jax import files, images
from sdit_jax.data.datasets import Images
from sdit_jax.errors import InputError, data_fields_named
from sdit_jax.metrics.evaluate import Evaluation, evaluate
from sdit_jax.metrics.features import DISTANCES, classifier_of, make_extractor
from sdit_jax.metrics.reference import check_comparable, load_references
from sdit_jax.progress import EVERY_S, saying
from sdit_jax.report import write_report
from sdit_jax.report.build import build_report, operations_of
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.run import Run
from sdit_jax.sampling.samples import Samples, check_free, draw, drawing_protocol
from sdit_jax.sharding.agreement import together
from sdit_jax.sharding.processes import progress


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Results in `folder`: evaluation.json, samples.npz if they were drawn, and the report if there is one."""

    folder: Path
    evaluation: Evaluation
    energy: dict[str, Any] | None
    report: Path | None

    @property
    def scores(self) -> dict[str, float]:
        """By name; those against real images with their split, as in "fd_classifier/train"."""
        split = lambda record: f"/{record['reference']['split']}" if record["reference"] else ""
        return {record["name"] + split(record): record["value"] for record in self.evaluation.values}

    def __repr__(self) -> str:
        parts = (self.evaluation.table(), self.energy and self.energy["summary"], self.folder / "evaluation.json", self.report)
        return "\n".join(str(part) for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Scoring:
    """What samples are scored by, and what is written.

    `reference` is a source of real images, named as config.data.name, in the folder `data_dir`; by default the training data.
    `distances` are some of `metrics.features.DISTANCES`, by default those with a network at hand, whose weights `classifier`
    and `inception` may name. `yardsticks`: whether slightly changed real images are scored too. `report`: whether report.html
    is written. `overwrite`: whether the results of another evaluation in the folder may be replaced. `prefix` precedes the
    names of these fields in errors.
    """

    reference: str = ""
    data_dir: str = ""
    distances: Sequence[str] = ()
    classifier: str = ""
    inception: str = ""
    yardsticks: bool = True
    report: bool = True
    overwrite: bool = False
    prefix: str = ""

    def check_free(self, out: Path, protocol: dict[str, Any]) -> None:
        """Raises InputError where `out` holds results of other samples that may not be replaced."""
        for path, stored in ((out / "samples.npz", images.load_protocol), (out / "evaluation.json", _stored_protocol)):
            check_free(path, stored(path), protocol, self.overwrite, self.prefix)

    def references(self, name: str, directory: str, split: str, size: int, resize: str = "bilinear") -> dict[str, Images]:
        """Real images of a split and of the test split. Raises InputError for a source that cannot be read."""
        with data_fields_named(name=f"{self.prefix}reference", dir=f"{self.prefix}data_dir"):
            return load_references(name, directory, (split, "test"), size, resize)

    def compared_with(self, run: Run, n: int) -> tuple[str, dict[str, Images], list]:
        """What n samples of a run are compared with: the source's name, its images by split, own first, and extractors.

        Raises InputError where there are none, or they take no such images.
        """
        data, prefix = run.config.data, self.prefix
        name = self.reference or data.name
        if not name:
            raise InputError(f"{prefix}reference: missing; the weights do not say what they were trained on")
        own = name == data.name
        directory, split = self.data_dir or (data.dir if own else ""), data.split if own else "train"
        references = self.references(name, directory, split, run.model.image_size, data.resize)
        return name, references, self.extractors(name, references, n, f"{prefix}n", run.model.channels)

    def extractors(self, source: str, references: Mapping[str, Images], n: int, field: str, channels: int) -> list:
        """Feature extractors for n images. Raises InputError where there are none, or they take no such images."""
        for distance in self.distances:
            if distance not in DISTANCES:
                raise InputError(f"{self.prefix}distance: found {distance!r}, allowed are {', '.join(DISTANCES)}")
        known = {"fd_classifier": self.classifier or classifier_of(source), "fid": self.inception}
        chosen = self.distances or [distance for distance, there in known.items() if there]
        if not chosen:
            options = f"fit one (sdit fit_classifier) and set {self.prefix}classifier, or set {self.prefix}distance=fid"
            raise InputError(f"{self.prefix}distance: no classifier for {source!r}; {options}")
        weights = {"inception": self.inception, "classifier": self.classifier, "prefix": self.prefix}
        extractors = [make_extractor(distance, source, **weights) for distance in chosen]
        check_comparable(extractors, n, field, channels, references, source)
        return extractors


def evaluate_run(
    run: Run, out: Path, scoring: Scoring, *, n: int, sampling: Sampling, seed: int = 0, batch_size: int = 250
) -> Evaluated:
    """Draws n samples, labels in turn, and scores them. Finished batches are kept in `out`: the same call resumes.

    Every process of a run calls this; process 0 writes. Raises InputError, before anything is drawn or written, for what
    network, data or scores do not allow.
    """
    energy, neurobench = None, None
    with ExitStack() as stack:
        with together("the samples"):
            sampling.check(run.model, run.objective, scoring.prefix)
            name, references, extractors = scoring.compared_with(run, n)
            scoring.check_free(out, drawing_protocol(run, n=n, sampling=sampling, seed=seed))
            if jax.process_index() == 0:
                with saying("counting the operations and spikes of a forward pass", EVERY_S):
                    energy, neurobench = operations_of(run, next(iter(references.values())), sampling)
                _open(out, stack)
        samples = draw(
            run, out, n=n, sampling=sampling, seed=seed, batch_size=batch_size,
            progress=lambda batches: progress(batches, "samples"),
        )  # fmt: skip
        return _score(
            out,
            scoring,
            samples,
            extractors,
            references,
            name,
            run if name == run.config.data.name else None,
            energy,
            neurobench,
        )


def evaluate_samples(samples: Samples, out: Path, scoring: Scoring, *, name: str = "samples") -> Evaluated:
    """Scores samples against `scoring.reference`; `name` is theirs in errors. Raises InputError as `evaluate_run`."""
    (n, H, W, C), prefix, path = samples.images.shape, scoring.prefix, out / "evaluation.json"
    with ExitStack() as stack:
        with together("the features"):
            if not scoring.reference:
                raise InputError(f"{prefix}reference: missing; set it to the source of real images to compare with")
            if H != W:
                raise InputError(f"{name}: found images of {H}x{W}, must be square")
            references = scoring.references(scoring.reference, scoring.data_dir, "train", H)
            extractors = scoring.extractors(scoring.reference, references, n, name, C)
            check_free(path, _stored_protocol(path), samples.protocol, scoring.overwrite, prefix)
            if jax.process_index() == 0:
                _open(out, stack)
        return _score(out, scoring, samples, extractors, references, scoring.reference, None, None, None)


def _open(out: Path, stack: ExitStack) -> None:
    """Makes the folder and locks it; its report is outdated from here on."""
    files.make_folder(out)
    stack.enter_context(files.exclusive(out, "evaluates into this folder"))
    (out / "report.html").unlink(missing_ok=True)


def _score(out, scoring, samples, extractors, references, source, run, energy, neurobench):
    page = out / "report.html"
    found = evaluate(samples, extractors, references, source, with_yardsticks=scoring.yardsticks, progress=progress)
    if jax.process_index() > 0:
        return Evaluated(out, found, None, None)
    found.save(out / "evaluation.json", protocol=samples.protocol, energy=energy, neurobench=neurobench)
    if scoring.report:
        shown = energy and energy | {"neurobench": neurobench}
        with saying(f"drawing what {page} shows", EVERY_S):
            write_report(page, build_report(samples, found, references, run, shown))
    return Evaluated(out, found, energy, page if scoring.report else None)


def _stored_protocol(path):
    """The protocol in an evaluation.json; None for a missing or damaged one."""
    try:
        return json.loads(path.read_text())["protocol"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
