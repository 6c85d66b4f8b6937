"""Draws images from trained weights.

    sdit sample --workdir=runs/digits --out=samples
    sdit sample --workdir=runs/digits --out=samples --n=20 --labels=3,7 --sampler=ddpm --steps=250 --guidance=2
    sdit sample --workdir=pretrained:mnist --out=samples
    sdit sample --workdir=pretrained:mnist --out=samples --calls=4

Weights are those of a run folder, of a .safetensors file, or shipped with the package (pretrained:NAME). Writes grid.png and
samples.npz, with the arrays arr_0 (uint8 NHWC), labels (int32) and protocol (JSON: how they were drawn). Other samples in the
folder are kept unless --overwrite is given.

Many processes draw together, as in `sdit train`: with --coordinator=HOST:PORT --processes=N --process=I, or by themselves on
TPU pods and under Slurm. Process 0 writes.
"""

import logging

import numpy as np
from absl import flags

from sdit_jax import config, files, images
from sdit_jax.commands import joining
from sdit_jax.commands.drawing import define_flags
from sdit_jax.data.sources import arrays
from sdit_jax.errors import InputError
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.provenance import IN_TURN, conditioning_labels, sampling_protocol
from sdit_jax.sampling.run import open_run
from sdit_jax.sampling.samples import check_free
from sdit_jax.sharding import agreement, processes

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME for shipped weights.")
OUT = flags.DEFINE_string("out", "", "Output folder; made if missing.")
N = flags.DEFINE_integer("n", 64, "Number of images.", lower_bound=1)
SAMPLING = define_flags("ddim", steps=50)
LABELS = flags.DEFINE_list("labels", [], "Labels, repeated to n images; by default 0, 1, 2, ...")
SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.", lower_bound=0, upper_bound=config.MAX_SEED)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged (ema) or raw weights; by default ema if there are any.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint of this step; by default the newest.", lower_bound=0)
BESIDE = flags.DEFINE_string("beside", "", "A samples.npz whose images grid.png shows at the left, for comparison.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Images that each device draws at once.", lower_bound=1)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace other samples in the output folder.")
JOIN = joining.define_flags()
REQUIRED = ("workdir", "out")


def main() -> None:
    JOIN()
    first = joining.is_first()
    out = files.as_path(OUT.value)
    run = open_run(WORKDIR.value, WEIGHTS.value, STEP.value, prefix="--")
    with agreement.together("the samples"):
        sampling = SAMPLING(run)
        labels = parse_labels(LABELS.value, N.value, run.model.num_classes)
        others = arrays.read(files.as_path(BESIDE.value)).images if BESIDE.value else None
        protocol = sampling_protocol(
            run, n=N.value, sampling=sampling, seed=SEED.value,
            labels=conditioning_labels(run.model, sampling.guidance, ",".join(LABELS.value) or IN_TURN),
        )  # fmt: skip
        path = out / "samples.npz"
        check_free(path, images.load_protocol(path), protocol, OVERWRITE.value, "--")
        if first:
            files.make_folder(out)
    logging.getLogger("sdit_jax").info(run.describe_weights)
    made = generate(
        make_sampler(run.model, run.objective, sampling), run.variables, labels, seed=SEED.value, batch_size=BATCH_SIZE.value,
        progress=lambda batches: processes.progress(batches, "samples", unit="batches"),
    )  # fmt: skip
    if first:
        images.save_npz(path, made, labels, protocol)
        picture = images.grid(made) if others is None else images.beside(images.grid(others), images.grid(made))
        images.save_png(picture, out / "grid.png")
        print(path, out / "grid.png", sep="\n")
    processes.wait_for_all("the end")


def parse_labels(texts: list[str], n: int, num_classes: int) -> np.ndarray:
    """Labels repeated to n images; 0, 1, 2, ... for none. Raises InputError for a label that the network does not have."""
    if not texts:
        return example_labels(n, num_classes)
    for text in texts:
        if not (text.isascii() and text.strip().isdigit()) or int(text) >= num_classes:
            allowed = f"0..{num_classes - 1}" if num_classes else "none, the model has no labels"
            raise InputError(f"--labels: found {text!r}, allowed are {allowed}")
    return np.resize(np.array([int(text) for text in texts], np.int32), n)
