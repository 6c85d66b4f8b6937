"""Finds the best way to draw images in few network calls.

    sdit tune --workdir=runs/mnist --calls=2,4,8
    sdit tune --workdir=mnist.safetensors --calls=4 --data_dir=DATA/mnist --out=mnist_few.safetensors
    sdit sample --workdir=runs/mnist --out=samples --calls=4

Searches timesteps, the share of fresh noise, and scale and interval of guidance (whose passes count as calls) for the least
distance of samples to training images. The result is kept in few_calls.json of the run folder, or in the file of --out, which
holds the weights too. The network is not trained. Other numbers of calls that were tuned before stay.
"""

import logging

from absl import flags

from sdit_jax import config
from sdit_jax.commands.drawing import integers
from sdit_jax.errors import InputError, data_fields_named
from sdit_jax.files import as_path
from sdit_jax.metrics.features import DISTANCES, make_extractor
from sdit_jax.metrics.reference import check_comparable, load_references, make_reference
from sdit_jax.sampling import few_calls, weights
from sdit_jax.sampling.run import open_run
from sdit_jax.tuning import Search

MOST = 32  # Calls; more of them need no search.
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME for shipped weights.")
CALLS = flags.DEFINE_list("calls", ["2", "4", "8"], f"Numbers of network calls per image, each in 1..{MOST}.")
OUT = flags.DEFINE_string("out", "", "A .safetensors file for weights and result; for a run folder the result stays there.")
N = flags.DEFINE_integer("n", 1000, "Samples that a distance is measured with.", lower_bound=1)
EVALUATIONS = flags.DEFINE_integer("evaluations", 60, "Distances measured for each number of calls.", lower_bound=1)
REFERENCE = flags.DEFINE_string("reference", "", "Source of real images, as config.data.name; by default the training data.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of the real images, as config.data.dir.")
DISTANCE = flags.DEFINE_enum("distance", "fd_classifier", DISTANCES, "The distance to make small.")
CLASSIFIER = flags.DEFINE_string("classifier", "", "For fd_classifier: a shipped one or a file; by default the data set's.")
INCEPTION = flags.DEFINE_string("inception", "", "For fid: file of the weights, pytorch-fid's .pth or .npz.")
SEED = flags.DEFINE_integer(
    "seed", 1, "Seed of all noise; that of evaluations is 0.", lower_bound=0, upper_bound=config.MAX_SEED
)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged (ema) or raw weights; by default ema if there are any.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint of this step; by default the newest.", lower_bound=0)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Samples drawn at once.", lower_bound=1)
REQUIRED = ("workdir",)
log = logging.getLogger("sdit_jax")


def main() -> None:
    calls = integers("calls", CALLS.value)
    for number in calls:
        if not 1 <= number <= MOST:
            raise InputError(f"--calls: found {number}, allowed are 1..{MOST}")
    folder, out = as_path(WORKDIR.value), as_path(OUT.value)
    if not OUT.value and not folder.is_dir():
        raise InputError(f"--out: missing; {WORKDIR.value} is not a run folder to write into")
    if OUT.value and (out.suffix != weights.SUFFIX or not out.parent.is_dir()):
        raise InputError(f"--out: found {out}, must be a {weights.SUFFIX} file in a folder that exists")
    run = open_run(WORKDIR.value, WEIGHTS.value, STEP.value, prefix="--")
    search, found = _search(run), dict(run.few_calls)
    log.info(run.describe_weights)
    for number in calls:
        log.info("%s calls, about %s distances of %s samples", number, EVALUATIONS.value, f"{N.value:,}")
        found[number] = search.best(number, EVALUATIONS.value, _log)
        if OUT.value:
            weights.write(out, run.config, run.variables, weights=run.weights, step=run.step, dtype="float32", few_calls=found)
        else:
            few_calls.write(folder / few_calls.FILE, found)
        print(f"{number} calls: {found[number].name}")
    print(out if OUT.value else folder / few_calls.FILE)


def _search(run):
    data = run.config.data
    name = REFERENCE.value or data.name
    if not name:
        raise InputError("--reference: missing; the weights do not say what they were trained on")
    directory, split = DATA_DIR.value or data.dir * (name == data.name), data.split if name == data.name else "train"
    with data_fields_named(name="--reference", dir="--data_dir"):
        real = load_references(name, directory, (split,), run.model.image_size, data.resize)
    extractor = make_extractor(DISTANCE.value, name, inception=INCEPTION.value, classifier=CLASSIFIER.value, prefix="--")
    check_comparable([extractor], N.value, "--n", run.model.channels, real, name)
    reference = make_reference(extractor, real[split], name, split)
    return Search(run, extractor, reference, n=N.value, seed=SEED.value, batch_size=BATCH_SIZE.value)


def _log(sampling, distance):
    log.info("%8.3f  %s", distance, sampling.name)
