"""How the loss of many finished runs falls with parameters, images, compute and spiking steps.

    python -m sdit_jax.scaling runs/scaling --out=scaling

The argument is a folder of run folders, such as one of `sweep`. Fits L = E + A / N^a + B / D^b, and a term in spiking steps
where they vary, with intervals by a bootstrap over runs; finds the best size at each compute where runs share it. Writes
scaling.json, scaling.md, scaling.png and runs.csv. What cannot be fitted is said.
"""

from pathlib import Path

from absl import flags

from sdit_jax import command_line, files
from sdit_jax.laws import tables
from sdit_jax.laws.analysis import analyse
from sdit_jax.laws.collect import LOSSES, collect
from sdit_jax.laws.draw import draw

OUT = flags.DEFINE_string("out", "", "Folder to write.")
LOSS = flags.DEFINE_string(
    "loss", "", f"Scalar of metrics.jsonl; by default the first of {', '.join(LOSSES)} that half of them have."
)
KEEP_UNFINISHED = flags.DEFINE_bool("keep_unfinished", False, "Keep runs that did not reach their end, as far as they came.")
RESAMPLES = flags.DEFINE_integer("resamples", 500, "Of the bootstrap.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of the bootstrap.", lower_bound=0)


def main(folder: str) -> None:
    collected = collect(Path(folder), LOSS.value, KEEP_UNFINISHED.value)
    out = Path(OUT.value)
    files.make_folder(out)
    analysis = analyse(collected, RESAMPLES.value, SEED.value)
    text = tables.to_markdown(analysis)
    draw(analysis, out / "scaling.png")
    files.write_json(out / "scaling.json", tables.to_json(analysis))
    files.write_text(out / "runs.csv", tables.to_csv(analysis))
    files.write_text(out / "scaling.md", text)
    print(text + "\n".join(str(out / name) for name in ("scaling.json", "scaling.md", "scaling.png", "runs.csv")))


if __name__ == "__main__":
    command_line.run(main, required=("out",), positional="folder of runs")
