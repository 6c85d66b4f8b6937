"""Draws pictures of classes, nearest training images, failures and interpolations.

    sdit gallery --workdir=runs/digits --out=gallery
    sdit gallery --workdir=pretrained:mnist --data_dir=DATA/mnist --out=gallery --guidance=1.5

Draws samples, and writes classes.png, neighbours.png (samples above their nearest training images), failures.png (what the
classifier reads least as the class that was asked for), interpolation.png (from one image to another; not for samplers with
fresh noise), and gallery.json: accuracy and variety of each class, and distances to training images. A rerun resumes.
"""

from absl import flags

from sdit_jax import config, files
from sdit_jax.commands.drawing import define_flags
from sdit_jax.gallery import make_gallery, to_markdown
from sdit_jax.sampling.run import open_run
from sdit_jax.scoring import Scoring

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME for shipped weights.")
OUT = flags.DEFINE_string("out", "", "Output folder; made if missing.")
REFERENCE = flags.DEFINE_string("reference", "", "Source of real images, as config.data.name; by default the training data.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of the real images, as config.data.dir.")
N = flags.DEFINE_integer("n", 1000, "Number of samples to draw.", lower_bound=1, upper_bound=10_000_000)
SAMPLING = define_flags("dpmpp_2m", steps=20)
SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.", lower_bound=0, upper_bound=config.MAX_SEED)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged (ema) or raw weights; by default ema if there are any.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint of this step; by default the newest.", lower_bound=0)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Samples drawn at once.", lower_bound=1)
CLASSIFIER = flags.DEFINE_string("classifier", "", "A shipped classifier or a file; by default the data set's.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the samples of another gallery in the output folder.")
REQUIRED = ("workdir", "out")


def main() -> None:
    run, out = open_run(WORKDIR.value, WEIGHTS.value, STEP.value, prefix="--"), files.as_path(OUT.value)
    scoring = Scoring(
        reference=REFERENCE.value, data_dir=DATA_DIR.value, distances=["fd_classifier"], classifier=CLASSIFIER.value,
        overwrite=OVERWRITE.value, prefix="--",
    )  # fmt: skip
    found = make_gallery(run, out, scoring, n=N.value, sampling=SAMPLING(run), seed=SEED.value, batch_size=BATCH_SIZE.value)
    print(to_markdown(found), *sorted(out.glob("*.png")), out / "gallery.json", sep="\n")
