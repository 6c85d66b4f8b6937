"""Scores samples against real images and writes a report.

    sdit evaluate --workdir=runs/digits
    sdit evaluate --workdir=runs/mnist --n=10000 --sampler=ddpm --steps=250 --inception=pt_inception.pth
    sdit evaluate --workdir=mnist.safetensors --data_dir=DATA/mnist --out=evaluation
    sdit evaluate --samples=samples/samples.npz --reference=mnist --data_dir=DATA/mnist

Draws samples from trained weights, or reads them from a file. Prints distances, scores and energy next to the scores of real
images, and writes evaluation.json, in which each number has its protocol, report.html, and the samples that it draws as
samples.npz. Rerun to resume drawing; other results in the folder are kept unless --overwrite is given. fd_classifier compares
features of a small classifier, shipped for some data sets; fid needs the weights of Inception, which are downloaded unless
--inception names a file.

Many processes evaluate together, as in `sdit train`: with --coordinator=HOST:PORT --processes=N --process=I, or by themselves
on TPU pods and under Slurm. Process 0 writes.
"""

import re

from absl import flags

from sdit_jax import config
from sdit_jax.commands import joining
from sdit_jax.commands.drawing import define_flags
from sdit_jax.errors import InputError
from sdit_jax.files import as_path
from sdit_jax.metrics.features import DISTANCES
from sdit_jax.sampling.run import open_run
from sdit_jax.sampling.samples import read_samples
from sdit_jax.scoring import Scoring, evaluate_run, evaluate_samples
from sdit_jax.sharding import processes

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME to draw samples from.")
SAMPLES = flags.DEFINE_string("samples", "", "Or an .npz file of samples: arr_0 uint8 (N, H, W, C), and labels.")
REFERENCE = flags.DEFINE_string("reference", "", "Source of real images, as config.data.name; by default the training data.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of the real images, as config.data.dir.")
OUT = flags.DEFINE_string(
    "out", "", "Output folder; by default WORKDIR/evaluation/..., or FILE_against_REFERENCE next to the samples."
)
N = flags.DEFINE_integer("n", 10_000, "Number of samples to draw.", lower_bound=1, upper_bound=10_000_000)
SAMPLING = define_flags("ddim", steps=50)
SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.", lower_bound=0, upper_bound=config.MAX_SEED)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged (ema) or raw weights; by default ema if there are any.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint of this step; by default the newest.", lower_bound=0)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Samples that each device draws at once.", lower_bound=1)
DISTANCE = flags.DEFINE_list("distance", [], f"Of {', '.join(DISTANCES)}; by default those with a network at hand.")
CLASSIFIER = flags.DEFINE_string("classifier", "", "For fd_classifier: a shipped one or a file; by default the data set's.")
INCEPTION = flags.DEFINE_string("inception", "", "For fid: file of the weights, pytorch-fid's .pth or .npz.")
YARDSTICKS = flags.DEFINE_bool("yardsticks", True, "Also score slightly changed real images, for comparison.")
REPORT = flags.DEFINE_bool("report", True, "Write report.html.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the results of another evaluation in the output folder.")
JOIN = joining.define_flags()


def main() -> None:
    if bool(WORKDIR.value) == bool(SAMPLES.value):
        raise InputError("--workdir, --samples: set exactly one of them")
    scoring = Scoring(
        reference=REFERENCE.value, data_dir=DATA_DIR.value, distances=DISTANCE.value, classifier=CLASSIFIER.value,
        inception=INCEPTION.value, yardsticks=YARDSTICKS.value, report=REPORT.value, overwrite=OVERWRITE.value, prefix="--",
    )  # fmt: skip
    JOIN()
    first = joining.is_first()
    found = _of_run(scoring) if WORKDIR.value else _of_file(scoring)
    if first:
        print(found)
    processes.wait_for_all("the end")


def _of_run(scoring):
    run = open_run(WORKDIR.value, WEIGHTS.value, STEP.value, prefix="--")
    if not (OUT.value or as_path(WORKDIR.value).is_dir()):
        raise InputError(f"--out: missing; {WORKDIR.value} is not a run folder to write into")
    sampling = SAMPLING(run)
    against = f"_against_{_plain(REFERENCE.value)}" if REFERENCE.value not in ("", run.config.data.name) else ""
    how = f"{sampling.name}_n{N.value}_seed{SEED.value}{against}"
    out = as_path(OUT.value or as_path(WORKDIR.value) / "evaluation" / f"step{run.step}_{run.weights}_{how}")
    return evaluate_run(run, out, scoring, n=N.value, sampling=sampling, seed=SEED.value, batch_size=BATCH_SIZE.value)


def _of_file(scoring):
    file = as_path(SAMPLES.value)
    samples = read_samples(file)
    out = as_path(OUT.value or file.with_name(f"{file.stem}_against_{_plain(REFERENCE.value)}"))
    return evaluate_samples(samples, out, scoring, name=SAMPLES.value)


def _plain(name):
    """A source with all but word characters replaced, for file names."""
    return re.sub(r"\W+", "_", name).strip("_")
