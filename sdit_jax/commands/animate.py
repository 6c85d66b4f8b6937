"""Draws spiking diffusion at work: noise becomes an image while neurons fire.

    sdit animate --workdir=pretrained:mnist --out=spikes.gif
    sdit animate --workdir=runs/mnist --out=spikes.png --label=3 --steps=20 --guidance=1.5
    sdit animate --workdir=runs/mnist --out=spikes.gif --layers=mid_block.time_mix.key,head

A .gif shows every spiking step of some sampling steps; a .png shows some sampling steps side by side. Both show what the
network sees, the image that it predicts, and the spikes of some layers in its pass with the label: in the place of every patch
some neurons of its token.
"""

from absl import flags

from sdit_jax import config, files
from sdit_jax.analysis.spikes import film
from sdit_jax.commands.drawing import define_flags
from sdit_jax.errors import InputError
from sdit_jax.report.film import chosen_layers, save
from sdit_jax.sampling.run import open_run

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME for shipped weights.")
OUT = flags.DEFINE_string("out", "", "The animation, a .gif, or the picture, a .png.")
LABEL = flags.DEFINE_integer("label", 0, "The label of the image.", lower_bound=0)
LAYERS = flags.DEFINE_list("layers", [], "Layers of neurons by name; by default three from all depths.")
SAMPLING = define_flags("dpmpp_2m", steps=20)
SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.", lower_bound=0, upper_bound=config.MAX_SEED)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged (ema) or raw weights; by default ema if there are any.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint of this step; by default the newest.", lower_bound=0)
REQUIRED = ("workdir", "out")


def main() -> None:
    out = files.as_path(OUT.value)
    if out.suffix not in (".gif", ".png") or not out.parent.is_dir():
        raise InputError(f"--out: found {out}, must be a .gif or .png in a folder that exists")
    run = open_run(WORKDIR.value, WEIGHTS.value, STEP.value, prefix="--")
    sampling = SAMPLING(run)
    if LABEL.value > run.model.num_classes:
        raise InputError(f"--label: found {LABEL.value}, allowed are 0..{run.model.num_classes}")
    made = film(run.model, run.objective, run.variables, LABEL.value, sampling, seed=SEED.value)
    try:
        layers = chosen_layers(made, LAYERS.value)
    except InputError as error:
        raise InputError(f"--{error}") from None
    save(made, layers, out)
    print(out)
