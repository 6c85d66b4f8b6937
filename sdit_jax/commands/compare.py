"""Compares evaluations: distance against energy of an image.

    sdit compare --evaluations=runs/a/evaluation/...,runs/b/evaluation/... --out=compared
    sdit compare --evaluations="SDiT=docs/results/mnist_sdit*.json,spike-driven=docs/results/mnist.json" --out=compared
    sdit compare --evaluations=docs/results/calls.json --lines="SDiT as published=4650" --out=compared

Evaluations are folders that `sdit evaluate` wrote, or their evaluation.json, or patterns of them; those of one NETWORK= share a
colour. A compare.json that was written before has all of its points. Evaluations should be of about as many samples, which is
not checked. Prints a table, and writes compare.json and compare.png, with the Pareto front of each data set as a dashed line.
"""

from absl import flags

from sdit_jax import files
from sdit_jax.errors import InputError
from sdit_jax.scaling_laws.front import ACCOUNTS, draw, read, to_json, to_markdown

EVALUATIONS = flags.DEFINE_list("evaluations", [], "[NETWORK=]FOLDER, file or pattern, by commas.")
OUT = flags.DEFINE_string("out", "", "Output folder.")
DISTANCE = flags.DEFINE_string("distance", "fd_classifier/train", "The score to compare, with its split.")
ACCOUNT = flags.DEFINE_multi_enum("account", list(ACCOUNTS), list(ACCOUNTS), "The energies to draw, a row of panels each.")
LINES = flags.DEFINE_list("lines", [], "NAME=MJ: energies of an image in mJ to mark, of networks without a distance.")
REQUIRED = ("evaluations", "out")


def main() -> None:
    lines = dict(map(_line, LINES.value))
    points, out = read(EVALUATIONS.value, DISTANCE.value), files.as_path(OUT.value)
    files.make_folder(out)
    draw(points, out / "compare.png", DISTANCE.value, accounts=ACCOUNT.value, lines=lines)
    files.write_json(out / "compare.json", to_json(points, DISTANCE.value))
    print(to_markdown(points), out / "compare.png", out / "compare.json", sep="\n")


def _line(text):
    name, _, millijoule = text.rpartition("=")
    try:
        energy = 1e-3 * float(millijoule)
    except ValueError:
        energy = -1.0
    if not (name and 0 < energy < float("inf")):
        raise InputError(f"--lines: found {text!r}, must be NAME=MJ with an energy above 0")
    return name, energy
