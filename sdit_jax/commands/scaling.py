"""Fits scaling laws to the losses of many finished runs.

    sdit scaling runs/scaling --out=scaling

The argument is a folder of run folders, such as a sweep's. Fits L = E + A / N^a + B / D^b for N parameters and D images, and a
term in the spiking steps if they vary, with intervals by a bootstrap over runs. Where runs share a compute budget, it finds the
best size at that budget. Writes scaling.json, scaling.md, scaling.png and runs.csv; they name what could not be fitted.
"""

from absl import flags

from sdit_jax import files
from sdit_jax.scaling_laws import tables
from sdit_jax.scaling_laws.analysis import analyse
from sdit_jax.scaling_laws.collect import LOSSES, collect
from sdit_jax.scaling_laws.draw import draw

OUT = flags.DEFINE_string("out", "", "Output folder.")
LOSS = flags.DEFINE_string(
    "loss", "", f"Scalar of metrics.jsonl; by default the first of {', '.join(LOSSES)} that half of the runs have."
)
KEEP_UNFINISHED = flags.DEFINE_bool("keep_unfinished", False, "Include unfinished runs at their last step.")
RESAMPLES = flags.DEFINE_integer("resamples", 500, "Number of bootstrap resamples.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the bootstrap.", lower_bound=0)
REQUIRED = ("out",)
ARGUMENT = "folder of runs"


def main(folder: str) -> None:
    collected = collect(files.as_path(folder), LOSS.value, KEEP_UNFINISHED.value)
    out = files.as_path(OUT.value)
    files.make_folder(out)
    analysis = analyse(collected, RESAMPLES.value, SEED.value)
    text = tables.to_markdown(analysis)
    draw(analysis, out / "scaling.png")
    files.write_json(out / "scaling.json", tables.to_json(analysis))
    files.write_text(out / "runs.csv", tables.to_csv(analysis))
    files.write_text(out / "scaling.md", text)
    print(text + "\n".join(str(out / name) for name in ("scaling.json", "scaling.md", "scaling.png", "runs.csv")))
