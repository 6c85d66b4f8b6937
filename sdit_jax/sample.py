"""Draws images from a run folder: samples.npz (arr_0: uint8 NHWC, labels: int32) and grid.png.

python -m sdit_jax.sample --workdir=runs/digits --out=samples
python -m sdit_jax.sample --workdir=runs/digits --out=samples --n=20 --labels=3,7 --sampler=ddpm --steps=250 --guidance=2
"""

import logging
from pathlib import Path

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from sdit_jax import command_line, config, images
from sdit_jax.config import InputError
from sdit_jax.models import build
from sdit_jax.training.checkpoint import Checkpoints
from sdit_jax.training.plan import check_sampling, example_labels, make_schedule
from sdit_jax.training.sampling import generate, make_sampler
from sdit_jax.training.state import initial_params

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder to take the weights from.")
OUT = flags.DEFINE_string("out", "", "Folder for samples.npz and grid.png; made if missing.")
N = flags.DEFINE_integer("n", 64, "How many images.", lower_bound=1)
SAMPLER = flags.DEFINE_string("sampler", "ddim", "ddim (deterministic) or ddpm (ancestral).")
STEPS = flags.DEFINE_integer("steps", 50, "Sampling steps.")
GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Classifier-free guidance scale; 1 is none, 0 ignores the labels.")
LABELS = flags.DEFINE_list("labels", [], "Labels, repeated to n images; default 0, 1, 2, ...")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise.", lower_bound=0, upper_bound=config.MAX_SEED)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged or raw weights; default ema where the run has one.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images at a time.", lower_bound=1)


def main() -> None:
    workdir, out = Path(WORKDIR.value), Path(OUT.value)
    run = config.load(workdir)
    config.validate(run)
    model, schedule = build(run.model), make_schedule(run.diffusion)
    chosen = {"sampler": SAMPLER.value, "steps": STEPS.value, "guidance": GUIDANCE.value}
    check_sampling(model, schedule, **chosen, prefix="--")
    labels = parse_labels(LABELS.value, N.value, model.num_classes)
    averaged = run.ema.half_life > 0
    if WEIGHTS.value == "ema" and not averaged:
        raise InputError(f"--weights: found 'ema', but {workdir} keeps no average (config.ema.half_life is 0); use raw")
    which = "ema" if averaged and WEIGHTS.value != "raw" else "params"
    if not (workdir / "checkpoints").is_dir():
        raise InputError(f"{workdir}: holds no checkpoints yet")

    template = jax.eval_shape(lambda: initial_params(model, 0))
    with Checkpoints(workdir, run.checkpoint.keep) as checkpoints:
        step, weights = checkpoints.restore_weights(which, template)
    config.make_folder(out)
    logging.getLogger("sdit_jax").info("%s weights of step %d", "averaged" if which == "ema" else "raw", step)
    sampler = make_sampler(
        model, schedule, method=SAMPLER.value, steps=STEPS.value, guidance=GUIDANCE.value, clip_x0=run.diffusion.clip_x0
    )
    made = generate(
        sampler, weights, labels, seed=SEED.value, batch_size=BATCH_SIZE.value,
        progress=lambda batches: tqdm(batches, unit=" batches"),
    )  # fmt: skip
    images.save_npz(out / "samples.npz", made, labels=labels)
    images.save_png(images.grid(made), out / "grid.png")
    print(out / "samples.npz", out / "grid.png", sep="\n")


def parse_labels(texts: list[str], n: int, num_classes: int) -> np.ndarray:
    """The flag's labels repeated to n images, 0, 1, 2, ... where there are none. Raises InputError for one out of range."""
    if not texts:
        return example_labels(n, num_classes).astype(np.int32)
    for text in texts:
        if not (text.isascii() and text.strip().isdigit()) or int(text) >= num_classes:
            allowed = f"0..{num_classes - 1}" if num_classes else "none, the model has no labels"
            raise InputError(f"--labels: found {text!r}, allowed are {allowed}")
    return np.resize(np.array([int(text) for text in texts], np.int32), n)


if __name__ == "__main__":
    command_line.run(main, required=("workdir", "out"))
