"""Scores of samples by every feature extractor against every reference, each with its protocol, and the yardsticks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sdit_jax import files
from sdit_jax.data.datasets import Images
from sdit_jax.errors import InputError
from sdit_jax.metrics import compare
from sdit_jax.metrics.features import FeatureExtractor, extract
from sdit_jax.metrics.reference import make_reference
from sdit_jax.sampling.provenance import versions
from sdit_jax.sampling.samples import Samples


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`values`: one record per score, with its protocol; `yardsticks`: scores of perturbed real images."""

    values: list[dict]
    yardsticks: list[dict]

    def table(self) -> str:
        """Text for a terminal: each score, and below each distance those of the yardsticks."""
        lines = []
        for record in self.values:
            reference = record["reference"]
            against = f"against {reference['source']} {reference['split']} ({reference['n']:,})" if reference else ""
            lines.append(f"{record['name']:24} {record['value']:12.4f}  n={record['n']:,} {against}")
            if reference and record["distance"]:
                lines += [
                    f"{'':24} {yard['scores'][record['name']]:12.4f}    {yard['images']}, {yard['change']}"
                    for yard in self.yardsticks
                    if yard["reference"] == reference["split"] and record["name"] in yard["scores"]
                ]
        return "\n".join(lines)

    def save(self, path: Path, **more: object) -> None:
        """Writes everything as JSON, atomically."""
        files.write_json(path, {**more, "values": self.values, "yardsticks": self.yardsticks})


def evaluate(
    samples: Samples, extractors: Sequence[FeatureExtractor], references: Mapping[str, Images], source: str, *,
    with_yardsticks: bool = True, progress: Callable = lambda items, name: items,
) -> Evaluation:  # fmt: skip
    """Scores samples by each extractor against each split of `references`.

    The yardsticks of a split are as many real images as there are samples, of the other split if there is one.
    `progress(items, name)` wraps slow loops. Raises InputError for too few images, or images of another size.
    """
    for split, images in references.items():
        if images.images.shape[1:3] != samples.images.shape[1:3]:
            raise InputError(
                f"{source} {split}: found size {images.images.shape[1:3]}, the samples have {samples.images.shape[1:3]}"
            )
    values, yards = [], []
    for extractor in extractors:
        name = extractor.distance
        extracted = extract(extractor, samples.images, lambda items, name=name: progress(items, f"{name}: samples"))
        labels = samples.labels if _same_classes(samples.protocol, extractor) else None
        values += _records(compare.score_alone(extractor, extracted, labels), extractor, None, samples.protocol)
        for split, images in references.items():
            reading = lambda items, name=name, split=split: progress(items, f"{name}: {split} split")
            reference = make_reference(extractor, images, source, split, reading)
            values += _records(compare.score(extractor, extracted, reference), extractor, reference.facts(), samples.protocol)
            if with_yardsticks:
                other = next((s for s in references if s != split), split)
                found = compare.yardsticks(
                    extractor, references[other], other, len(samples.images), reference,
                    lambda items, name=name, split=split: progress(items, f"{name}: yardsticks of {split}"),
                )  # fmt: skip
                yards += [
                    {"images": f"{source} {yard.split}", **dataclasses.asdict(yard), "distance": extractor.distance}
                    for yard in found
                ]
    return Evaluation(values, yards)


def _same_classes(protocol, extractor):
    """Whether the labels are classes of the extractor: unless the network is known to be trained on another data set."""
    trained_on = protocol.get("trained_on")
    return not trained_on or extractor.has_classes_of(trained_on.rpartition(" ")[0])


def _records(scores, extractor, reference, protocol):
    """One record per score, with its standard deviation as a field. Fields of a score override keys of the protocol."""
    sampled_with = {"sampled_with": protocol["versions"]} if "versions" in protocol else {}
    return [
        protocol
        | sampled_with
        | {"name": name, "value": value, "distance": name == extractor.distance, "reference": reference}
        | {"features": extractor.facts, "versions": versions()}
        | ({"std": scores[f"{name}_std"]} if f"{name}_std" in scores else {})
        for name, value in scores.items()
        if not name.endswith("_std")
    ]
