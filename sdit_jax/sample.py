"""Draws images from trained weights: samples.npz (arr_0: uint8 NHWC, labels: int32, protocol: JSON) and grid.png.

python -m sdit_jax.sample --workdir=runs/digits --out=samples
python -m sdit_jax.sample --workdir=runs/digits --out=samples --n=20 --labels=3,7 --sampler=ddpm --steps=250 --guidance=2
python -m sdit_jax.sample --workdir=pretrained:mnist --out=samples          (comes with the package; or a .safetensors file)
"""

import logging
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from sdit_jax import command_line, config, files, images
from sdit_jax.config import InputError
from sdit_jax.data.sources import arrays
from sdit_jax.diffusion.samplers import SAMPLERS, STOCHASTIC
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.protocol import IN_TURN, labels_told, sampling_protocol
from sdit_jax.sampling.run import check_sampling, open_run

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME.")
OUT = flags.DEFINE_string("out", "", "Folder for samples.npz and grid.png; made if missing.")
N = flags.DEFINE_integer("n", 64, "How many images.", lower_bound=1)
SAMPLER = flags.DEFINE_string("sampler", "ddim", f"One of {', '.join(SAMPLERS)}; {' and '.join(STOCHASTIC)} are stochastic.")
STEPS = flags.DEFINE_integer("steps", 50, "Sampling steps.")
GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Classifier-free guidance scale; 1 is none, 0 ignores the labels.")
LABELS = flags.DEFINE_list("labels", [], "Labels, repeated to n images; default 0, 1, 2, ...")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise.", lower_bound=0, upper_bound=config.MAX_SEED)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged or raw weights; default ema where the run has one.")
BESIDE = flags.DEFINE_string("beside", "", "A samples.npz whose images the picture shows at the left, for comparison.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images at a time.", lower_bound=1)


def main() -> None:
    out = Path(OUT.value)
    run = open_run(WORKDIR.value, WEIGHTS.value)
    check_sampling(run.model, run.objective, sampler=SAMPLER.value, steps=STEPS.value, guidance=GUIDANCE.value, prefix="--")
    labels = parse_labels(LABELS.value, N.value, run.model.num_classes)
    others = arrays.read(Path(BESIDE.value)).images if BESIDE.value else None
    files.make_folder(out)
    logging.getLogger("sdit_jax").info("%s weights of step %d", "averaged" if run.weights == "ema" else "raw", run.step)
    sampler = make_sampler(
        run.model, run.objective, method=SAMPLER.value, steps=STEPS.value, guidance=GUIDANCE.value,
        clip_x0=run.config.diffusion.clip_x0,
    )  # fmt: skip
    made = generate(
        sampler, run.params, labels, seed=SEED.value, batch_size=BATCH_SIZE.value,
        progress=lambda batches: tqdm(batches, unit=" batches"),
    )  # fmt: skip
    protocol = sampling_protocol(
        run, n=N.value, sampler=SAMPLER.value, steps=STEPS.value, guidance=GUIDANCE.value,
        labels=labels_told(run.model, GUIDANCE.value, ",".join(LABELS.value) or IN_TURN), seed=SEED.value,
    )  # fmt: skip
    images.save_npz(out / "samples.npz", made, labels, protocol)
    picture = images.grid(made) if others is None else images.beside(images.grid(others), images.grid(made))
    images.save_png(picture, out / "grid.png")
    print(out / "samples.npz", out / "grid.png", sep="\n")


def parse_labels(texts: list[str], n: int, num_classes: int) -> np.ndarray:
    """The flag's labels repeated to n images, 0, 1, 2, ... where there are none. Raises InputError for one out of range."""
    if not texts:
        return example_labels(n, num_classes)
    for text in texts:
        if not (text.isascii() and text.strip().isdigit()) or int(text) >= num_classes:
            allowed = f"0..{num_classes - 1}" if num_classes else "none, the model has no labels"
            raise InputError(f"--labels: found {text!r}, allowed are {allowed}")
    return np.resize(np.array([int(text) for text in texts], np.int32), n)


if __name__ == "__main__":
    command_line.run(main, required=("workdir", "out"))
