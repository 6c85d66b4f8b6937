"""Scalars of many runs against the images they have seen: a picture, a table, and the numbers.

    python -m sdit_jax.curves runs/ablations --out=curves --scalars=loss,fd_classifier/train,firing_rate

The argument is a folder of run folders, such as one of `sweep`, or a run folder; runs may still be going on. A scalar is one of
metrics.jsonl, what evaluation calls it (of averaged weights where there are such), or a name whose layers are averaged. Writes
curves.png and curves.json.
"""

from pathlib import Path

from absl import flags

from sdit_jax import command_line, files
from sdit_jax.laws.curves import draw, read_curves, to_json, to_markdown

OUT = flags.DEFINE_string("out", "", "Folder to write.")
SCALARS = flags.DEFINE_list("scalars", ["loss"], "What to show, a panel each.")


def main(folder: str) -> None:
    found, out = read_curves(Path(folder), SCALARS.value), Path(OUT.value)
    files.make_folder(out)
    draw(found, out / "curves.png")
    files.write_json(out / "curves.json", to_json(found))
    print(to_markdown(found), out / "curves.png", out / "curves.json", sep="\n")


if __name__ == "__main__":
    command_line.run(main, required=("out",), positional="folder of runs")
