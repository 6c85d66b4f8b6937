"""Evaluators during training: named in `config.evaluation.names`, each yields (name, value) pairs."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from sdit_jax.analysis.spikes import probe
from sdit_jax.config import Config
from sdit_jax.data.datasets import Images
from sdit_jax.data.transforms import to_channels
from sdit_jax.diffusion.objective import Objective
from sdit_jax.errors import InputError
from sdit_jax.metrics import compare
from sdit_jax.metrics.features import DISTANCES, FeatureExtractor, extract, make_extractor
from sdit_jax.metrics.reference import check_comparable, load_references, make_reference, spaced
from sdit_jax.models import Network
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.provenance import conditioning_labels, config_sha256, versions

Evaluator = Callable[[Any], Iterator[tuple[str, float]]]
NAMES = (*DISTANCES, "loss")
LOSS_TIMESTEPS, LOSS_IMAGES = 10, 128


@dataclasses.dataclass(frozen=True)
class Evaluators:
    """All evaluators of a run as one: `evaluators(variables)` yields (name, value) pairs. `protocol` is their provenance."""

    parts: tuple[Evaluator, ...]
    protocol: dict[str, Any]

    def __call__(self, variables: Any) -> Iterator[tuple[str, float]]:
        for part in self.parts:
            yield from part(variables)


def make_evaluator(config: Config, model: Network, objective: Objective, mesh: Mesh | None = None) -> Evaluators:
    """The evaluators of `config.evaluation.names`.

    fd_classifier, fid   scores of `n` samples, drawn by all devices of the mesh, against each split of the data
                         (`fd_classifier/train`), and those without a reference (`accuracy_classifier`)
    loss                 loss terms on the test split at evenly spaced timesteps (`loss/test/t499`), and their mean

    Raises InputError for unknown names, missing weights, and fewer samples than a distance needs.
    """
    chosen, data = config.evaluation, config.data
    names = [name.strip() for name in chosen.names.split(",") if name.strip()]
    for name in names or [""]:
        if name not in NAMES:
            raise InputError(f"config.evaluation.names: found {name!r}, allowed are {', '.join(NAMES)}, separated by commas")
    sampling = Sampling(chosen.sampler, chosen.steps, chosen.guidance, config.diffusion.clip_x0)
    sampling.check(model, objective, "config.evaluation.")
    references = load_references(data.name, data.dir, (data.split, "test"), model.image_size, data.resize)
    extractors = [
        make_extractor(name, data.name, inception=chosen.inception, classifier=chosen.classifier, prefix="config.evaluation.")
        for name in DISTANCES
        if name in names
    ]
    check_comparable(extractors, chosen.n, "config.evaluation.n", model.channels, references, data.name)
    evaluators: list[Evaluator] = []
    if extractors:
        evaluators.append(_distances(config, model, objective, sampling, mesh, extractors, references))
    if "loss" in names:
        evaluators.append(_loss(config, model, objective, references))

    protocol = {
        **chosen.to_dict(), "size": [model.image_size, model.image_size, model.channels], "seed": config.seed,
        "labels": conditioning_labels(model, chosen.guidance), "ema": config.ema.to_dict(),
        "references": {split: {"source": data.name, "n": len(x), "sha256": x.fingerprint} for split, x in references.items()},
        "features": [extractor.facts for extractor in extractors],
        "config_sha256": config_sha256(config), "versions": versions(),
    }  # fmt: skip
    return Evaluators(tuple(evaluators), protocol)


def _distances(
    config: Config, model: Network, objective: Objective, sampling: Sampling, mesh: Mesh | None,
    extractors: Sequence[FeatureExtractor], references: dict[str, Images],
) -> Evaluator:  # fmt: skip
    chosen, source = config.evaluation, config.data.name
    sampler = make_sampler(model, objective, sampling, mesh=mesh)
    labels = example_labels(chosen.n, model.num_classes)
    labelled = conditioning_labels(model, chosen.guidance) != "none"

    def evaluate(variables):
        samples = generate(sampler, variables, labels, seed=config.seed, batch_size=chosen.batch_size)
        for extractor in extractors:
            extracted = extract(extractor, samples)
            known = labels if labelled and extractor.has_classes_of(source) else None
            yield from compare.score_alone(extractor, extracted, known).items()
            for split, images in references.items():
                scores = compare.score(extractor, extracted, make_reference(extractor, images, source, split))
                yield from ((f"{name}/{split}", value) for name, value in scores.items())

    return evaluate


def _loss(config: Config, model: Network, objective: Objective, references: dict[str, Images]) -> Evaluator:
    split, images = list(references.items())[-1]
    chosen = spaced(len(images), LOSS_IMAGES)
    real, labels = to_channels(images.images[chosen], model.channels), images.labels[chosen]
    timesteps = np.linspace(0, len(objective.schedule) - 1, LOSS_TIMESTEPS).round().astype(int).tolist()

    def evaluate(variables):
        found = probe(model, objective, variables, real, labels, timesteps=timesteps, seed=config.seed)
        for term, losses in found.terms.items():
            yield f"{term}/{split}", float(np.mean(losses))
            yield from ((f"{term}/{split}/t{t}", float(loss)) for t, loss in zip(timesteps, losses, strict=True))

    return evaluate
