"""Evaluators that watch a network while it trains: named in `config.evaluation.names`, each yields (name, value)."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh

from sdit_jax.config import Config, InputError
from sdit_jax.data.transforms import to_channels
from sdit_jax.diffusion.objective import Objective
from sdit_jax.evaluation import compare
from sdit_jax.evaluation.features import (
    Features,
    channels_for,
    classifier,
    classifier_features,
    classifier_of,
    extract,
    inception_features,
)
from sdit_jax.evaluation.probe import probe
from sdit_jax.evaluation.reference import check_enough, make_reference, spaced
from sdit_jax.evaluation.subject import load_references
from sdit_jax.models import SDiT
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.protocol import config_sha256, labels_told, versions
from sdit_jax.sampling.run import check_sampling

Evaluator = Callable[[Any], Iterator[tuple[str, float]]]
DISTANCES = ("fd_classifier", "fid")
NAMES = (*DISTANCES, "loss")
LOSS_TIMESTEPS, LOSS_IMAGES = 10, 128


@dataclasses.dataclass(frozen=True)
class Evaluators:
    """All evaluators of a run as one; `protocol` is what stands beside their values."""

    parts: tuple[Evaluator, ...]
    protocol: dict

    def __call__(self, params) -> Iterator[tuple[str, float]]:
        for part in self.parts:
            yield from part(params)


def make_evaluator(config: Config, model: SDiT, objective: Objective, mesh: Mesh | None = None) -> Evaluators:
    """evaluate(params): all that `config.evaluation.names` asks for. What can be wrong is found here, before training.

    "fd_classifier", "fid": scores of `n` samples, drawn by all devices of the mesh, against each split, as
    `fd_classifier/train`, and without reference, as `accuracy_classifier`. "loss": loss terms on the
    test split at evenly spaced timesteps and their mean, as `loss/test/t499`.
    Raises InputError for unknown names, missing weights, and fewer samples than a distance needs.
    """
    chosen = config.evaluation
    names = [name.strip() for name in chosen.names.split(",") if name.strip()]
    for name in names or [""]:
        if name not in NAMES:
            raise InputError(f"config.evaluation.names: found {name!r}, allowed are {', '.join(NAMES)}, separated by commas")
    check_sampling(
        model, objective, sampler=chosen.sampler, steps=chosen.steps, guidance=chosen.guidance, prefix="config.evaluation."
    )
    data = config.data
    references = load_references(data.name, data.dir, (data.split, "test"), model.image_size, data.resize)
    rulers = [make_ruler(name, data.name, chosen.inception, chosen.classifier) for name in DISTANCES if name in names]
    for ruler in rulers:
        check_enough(ruler, chosen.n, "config.evaluation.n")
        for split, images in references.items():
            check_enough(ruler, len(images), f"{data.name} {split}")
            channels_for(ruler, images.images[:1])
    evaluators: list[Evaluator] = []
    if rulers:
        evaluators.append(_distances(config, model, objective, mesh, rulers, references))
    if "loss" in names:
        evaluators.append(_loss(model, objective, references, config))

    protocol = {
        **chosen.to_dict(), "size": [model.image_size, model.image_size, model.channels], "seed": config.seed,
        "labels": labels_told(model, chosen.guidance), "ema": config.ema.to_dict(),
        "references": {split: {"source": data.name, "n": len(x), "sha256": x.fingerprint} for split, x in references.items()},
        "features": [ruler.facts for ruler in rulers], "config_sha256": config_sha256(config), "versions": versions(),
    }  # fmt: skip
    return Evaluators(tuple(evaluators), protocol)


def make_ruler(distance: str, source: str, inception: str = "", named: str = "") -> Features:
    """The features of "fd_classifier" (of a classifier that is named, else the one of the source's data set) or of "fid".

    Raises InputError where there is no classifier for a source.
    """
    if distance == "fid":
        return inception_features(inception)
    name = named or classifier_of(source)
    if name is None:
        raise InputError(
            f"fd_classifier: no classifier for {source!r}, there are {', '.join(classifier.SHIPPED)}; use fid, or train one: "
            "python -m sdit_jax.fit_classifier"
        )
    return classifier_features(name)


def _distances(config, model, objective, mesh, rulers, references) -> Evaluator:
    chosen = config.evaluation
    sampler = make_sampler(
        model, objective, method=chosen.sampler, steps=chosen.steps, guidance=chosen.guidance,
        clip_x0=config.diffusion.clip_x0, mesh=mesh,
    )  # fmt: skip
    labels = example_labels(chosen.n, model.num_classes)
    meant = labels_told(model, chosen.guidance) != "none"

    def evaluate(params):
        made = generate(sampler, params, labels, seed=config.seed, batch_size=chosen.batch_size)
        for ruler in rulers:
            extracted = extract(ruler, made)
            yield from compare.score_alone(
                ruler, extracted, labels if meant and ruler.reads(config.data.name) else None
            ).items()
            for split, images in references.items():
                reference = make_reference(ruler, images, config.data.name, split)
                scores = compare.score(ruler, extracted, reference)
                yield from ((f"{name}/{split}", value) for name, value in scores.items())

    return evaluate


def _loss(model, objective, references, config) -> Evaluator:
    split, images = list(references.items())[-1]
    chosen = spaced(len(images), LOSS_IMAGES)
    real = to_channels(images.images[chosen], model.channels)
    timesteps = np.linspace(0, len(objective.schedule) - 1, LOSS_TIMESTEPS).round().astype(int).tolist()

    def evaluate(params):
        found = probe(model, objective, params, real, images.labels[chosen], timesteps=timesteps, seed=config.seed)
        for term, losses in found.terms.items():
            yield f"{term}/{split}", float(np.mean(losses))
            yield from ((f"{term}/{split}/t{t}", float(loss)) for t, loss in zip(timesteps, losses, strict=True))

    return evaluate
