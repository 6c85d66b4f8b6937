"""Compares evaluations: distance against energy of an image.

    sdit compare --evaluations=runs/a/evaluation/...,runs/b/evaluation/... --out=compared
    sdit compare --evaluations=docs/results/mnist_sdit.json,docs/results/mnist_sdit_guided.json --out=compared

Evaluations are folders that `sdit evaluate` wrote, or their evaluation.json, all of one data set and of about as many samples:
neither is checked. Prints a table, and writes compare.json and compare.png, with the Pareto front as a dashed line.
"""

from absl import flags

from sdit_jax import files
from sdit_jax.scaling_laws.front import draw, read, to_json, to_markdown

EVALUATIONS = flags.DEFINE_list("evaluations", [], "Folders of evaluations, or their evaluation.json, by commas.")
OUT = flags.DEFINE_string("out", "", "Output folder.")
DISTANCE = flags.DEFINE_string("distance", "fd_classifier/train", "The score to compare, with its split.")
REQUIRED = ("evaluations", "out")


def main() -> None:
    points, out = read([files.as_path(place) for place in EVALUATIONS.value], DISTANCE.value), files.as_path(OUT.value)
    files.make_folder(out)
    draw(points, out / "compare.png", DISTANCE.value)
    files.write_json(out / "compare.json", to_json(points, DISTANCE.value))
    print(to_markdown(points), out / "compare.png", out / "compare.json", sep="\n")
