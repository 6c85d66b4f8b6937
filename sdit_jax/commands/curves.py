"""Plots scalars of many runs against the images they have seen.

    sdit curves runs/ablations --out=curves --scalars=loss,fd_classifier/train,firing_rate

The argument is a folder of run folders, such as a sweep's, or one run folder; runs may still be training. A scalar is a name in
metrics.jsonl; the name of an evaluated number (of averaged weights if there are any); or a prefix such as firing_rate, whose
layers are averaged. Writes curves.png and curves.json, and prints the last values as a table.
"""

from absl import flags

from sdit_jax import files
from sdit_jax.scaling_laws.curves import draw, read_curves, to_json, to_markdown

OUT = flags.DEFINE_string("out", "", "Output folder.")
SCALARS = flags.DEFINE_list("scalars", ["loss"], "Scalars to plot, one panel each.")
REQUIRED = ("out",)
ARGUMENT = "folder of runs"


def main(folder: str) -> None:
    found, out = read_curves(files.as_path(folder), SCALARS.value, "--scalars"), files.as_path(OUT.value)
    files.make_folder(out)
    draw(found, out / "curves.png")
    files.write_json(out / "curves.json", to_json(found))
    print(to_markdown(found), out / "curves.png", out / "curves.json", sep="\n")
