"""Images against real ones: every score by every ruler and reference, each with its protocol, beside its yardsticks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sdit_jax import files
from sdit_jax.config import InputError
from sdit_jax.data.datasets import Images
from sdit_jax.evaluation import compare
from sdit_jax.evaluation.features import Features, extract
from sdit_jax.evaluation.reference import make_reference
from sdit_jax.evaluation.subject import Subject
from sdit_jax.sampling.protocol import versions


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`values`: one record per number, its protocol included; `yardsticks`: what real images score."""

    values: list[dict]
    yardsticks: list[dict]

    def table(self) -> str:
        """For a terminal: each value, with the reference's yardsticks below each distance."""
        lines = []
        for record in self.values:
            reference = record["reference"]
            against = f"against {reference['source']} {reference['split']} ({reference['n']:,})" if reference else ""
            lines.append(f"{record['name']:24} {record['value']:12.4f}  n={record['n']:,} {against}")
            for yard in self.yardsticks if reference and record["distance"] else ():
                if yard["reference"] == reference["split"] and record["name"] in yard["scores"]:
                    lines.append(f"{'':24} {yard['scores'][record['name']]:12.4f}    {yard['images']}, {yard['change']}")
        return "\n".join(lines)

    def save(self, path: Path, **more: object) -> None:
        """Writes all of it as JSON, whole or not at all."""
        files.write_json(path, {**more, "values": self.values, "yardsticks": self.yardsticks})


def evaluate(
    subject: Subject, rulers: Sequence[Features], references: Mapping[str, Images], source: str, *,
    with_yardsticks: bool = True, progress: Callable = lambda items, name: items,
) -> Evaluation:  # fmt: skip
    """Scores a subject by each ruler against each split of `references`, which must have the subject's size.

    The yardsticks of one split are real images of the other, as many as the subject has; of the same where there is only one.
    `progress(items, name)` wraps what takes time. Raises InputError where there are too few images.
    """
    for split, images in references.items():
        if images.images.shape[1:3] != subject.images.shape[1:3]:
            raise InputError(
                f"{source} {split}: found size {images.images.shape[1:3]}, the samples have {subject.images.shape[1:3]}"
            )
    values, yards = [], []
    for ruler in rulers:
        name = ruler.distance
        extracted = extract(ruler, subject.images, lambda items, name=name: progress(items, f"{name}: samples"))
        alone = compare.score_alone(ruler, extracted, subject.labels if _same_classes(subject.protocol, ruler) else None)
        values += _records(alone, ruler, None, subject.protocol)
        for split, images in references.items():
            reference = make_reference(
                ruler, images, source, split, lambda items, name=name, split=split: progress(items, f"{name}: {split} split")
            )
            values += _records(compare.score(ruler, extracted, reference), ruler, reference.facts(), subject.protocol)
            if with_yardsticks:
                other = next((s for s in references if s != split), split)
                found = compare.yardsticks(
                    ruler, references[other], other, len(subject.images), reference,
                    lambda items, name=name, split=split: progress(items, f"{name}: yardsticks of {split}"),
                )  # fmt: skip
                yards += [
                    {"images": f"{source} {yard.split}", **dataclasses.asdict(yard), "distance": ruler.distance}
                    for yard in found
                ]
    return Evaluation(values, yards)


def _same_classes(protocol, ruler):
    """Whether labels mean to the ruler what they meant to the network: always, unless it is known to have learned others."""
    learned = protocol.get("trained_on")
    return not learned or ruler.reads(learned.rpartition(" ")[0])


def _records(scores, ruler, reference, protocol):
    """One record per score; a standard deviation goes with its mean. What the samples say of themselves never hides a score."""
    sampled_with = {"sampled_with": protocol["versions"]} if "versions" in protocol else {}
    return [
        protocol
        | sampled_with
        | {"name": name, "value": value, "distance": name == ruler.distance, "reference": reference, "features": ruler.facts}
        | {"versions": versions()}
        | ({"std": scores[f"{name}_std"]} if f"{name}_std" in scores else {})
        for name, value in scores.items()
        if not name.endswith("_std")
    ]
