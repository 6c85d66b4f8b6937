"""Scores samples against real images and writes a report.

    sdit evaluate --workdir=runs/digits
    sdit evaluate --workdir=runs/mnist --n=10000 --sampler=ddpm --steps=250 --inception=pt_inception.pth
    sdit evaluate --workdir=mnist.safetensors --data_dir=DATA/mnist --out=evaluation
    sdit evaluate --samples=samples/samples.npz --reference=mnist --data_dir=DATA/mnist

Draws samples from trained weights, or reads them from a file. Prints distances, scores and energy next to the scores of real
images, and writes evaluation.json, in which each number has its protocol, report.html, and the samples that it draws as
samples.npz. Rerun to resume drawing. fd_classifier compares features of a small classifier, shipped for some data sets; fid
needs the weights of Inception, which are downloaded unless --inception names a file.
"""

import re
from pathlib import Path

from absl import flags
from tqdm import tqdm

from sdit_jax import config, files
from sdit_jax.commands.command_line import flags_named
from sdit_jax.diffusion.samplers import SAMPLERS
from sdit_jax.errors import InputError
from sdit_jax.metrics.evaluate import evaluate
from sdit_jax.metrics.features import DISTANCES, classifier_of, make_extractor
from sdit_jax.metrics.reference import check_comparable, load_references
from sdit_jax.report import write_report
from sdit_jax.report.build import build_report, operations_of
from sdit_jax.sampling.generate import Sampling
from sdit_jax.sampling.run import Run, open_run
from sdit_jax.sampling.samples import Samples, draw, read_samples

STOCHASTIC = [name for name, sampler in SAMPLERS.items() if sampler.stochastic]
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME to draw samples from.")
SAMPLES = flags.DEFINE_string("samples", "", "Or an .npz file of samples: arr_0 uint8 (N, H, W, C), and labels.")
REFERENCE = flags.DEFINE_string("reference", "", "Source of real images, as config.data.name; by default the training data.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of the real images, as config.data.dir.")
OUT = flags.DEFINE_string(
    "out", "", "Output folder; by default WORKDIR/evaluation/..., or FILE_against_REFERENCE next to the samples."
)
N = flags.DEFINE_integer("n", 10_000, "Number of samples to draw.", lower_bound=1, upper_bound=10_000_000)
SAMPLER = flags.DEFINE_string("sampler", "ddim", f"One of {', '.join(SAMPLERS)}; {' and '.join(STOCHASTIC)} are stochastic.")
STEPS = flags.DEFINE_integer("steps", 50, "Sampling steps.")
GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Scale of classifier-free guidance; 1: no guidance, 0: labels are ignored.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.", lower_bound=0, upper_bound=config.MAX_SEED)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged (ema) or raw weights; by default ema if there are any.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Samples drawn at once.", lower_bound=1)
DISTANCE = flags.DEFINE_list("distance", [], f"Of {', '.join(DISTANCES)}; by default those with a network at hand.")
CLASSIFIER = flags.DEFINE_string("classifier", "", "For fd_classifier: a shipped one or a file; by default the data set's.")
INCEPTION = flags.DEFINE_string("inception", "", "For fid: file of the weights, pytorch-fid's .pth or .npz.")
YARDSTICKS = flags.DEFINE_bool("yardsticks", True, "Also score slightly changed real images, for comparison.")
REPORT = flags.DEFINE_bool("report", True, "Write report.html.")


def main() -> None:
    if bool(WORKDIR.value) == bool(SAMPLES.value):
        raise InputError("--workdir, --samples: set exactly one of them")
    if WORKDIR.value:
        _evaluate_run(open_run(WORKDIR.value, WEIGHTS.value, field="--weights"))
    else:
        _evaluate_file(read_samples(Path(SAMPLES.value)))


def _evaluate_run(run: Run) -> None:
    """Draws samples and evaluates them; raises every InputError before it draws or writes anything."""
    data = run.config.data
    if not (OUT.value or Path(WORKDIR.value).is_dir()):
        raise InputError(f"--out: missing; {WORKDIR.value} is not a run folder to write into")
    sampling = Sampling(SAMPLER.value, STEPS.value, GUIDANCE.value, run.config.diffusion.clip_x0)
    sampling.check(run.model, run.objective, "--")
    name = REFERENCE.value or data.name
    if not name:
        raise InputError(f"--reference: missing; {WORKDIR.value} does not say what it was trained on")
    own = name == data.name
    directory, split = DATA_DIR.value or (data.dir if own else ""), data.split if own else "train"
    with flags_named(name="--reference", dir="--data_dir"):
        references = load_references(name, directory, (split, "test"), run.model.image_size, data.resize)
    extractors = _extractors(name, N.value, "--n", references, run.model.channels)
    against = "" if own else f"_against_{_plain(name)}"
    how = f"{SAMPLER.value}{STEPS.value}_guidance{GUIDANCE.value:g}_n{N.value}_seed{SEED.value}{against}"
    out = Path(OUT.value or Path(WORKDIR.value, "evaluation", f"step{run.step}_{run.weights}_{how}"))
    energy, neurobench = operations_of(run, references[split], sampling)
    files.make_folder(out)
    with files.exclusive(out, "evaluates into this folder"):
        samples = draw(
            run, out, n=N.value, sampling=sampling, seed=SEED.value, batch_size=BATCH_SIZE.value,
            progress=lambda batches: _progress(batches, "samples"),
        )  # fmt: skip
        _write(out, samples, extractors, references, name, run if own else None, energy, neurobench)


def _evaluate_file(samples: Samples) -> None:
    if not REFERENCE.value:
        raise InputError("--reference: missing; set it to the source of real images to compare with")
    H, W, C = samples.images.shape[1:]
    if H != W:
        raise InputError(f"{SAMPLES.value}: found images of {H}x{W}, must be square")
    with flags_named(name="--reference", dir="--data_dir"):
        references = load_references(REFERENCE.value, DATA_DIR.value, ("train", "test"), H)
    extractors = _extractors(REFERENCE.value, len(samples.images), SAMPLES.value, references, C)
    out = Path(OUT.value or Path(SAMPLES.value).with_name(f"{Path(SAMPLES.value).stem}_against_{_plain(REFERENCE.value)}"))
    files.make_folder(out)
    with files.exclusive(out, "evaluates into this folder"):
        _write(out, samples, extractors, references, REFERENCE.value, None, None, None)


def _write(out, samples, extractors, references, source, run, energy, neurobench):
    (out / "report.html").unlink(missing_ok=True)  # Outdated from here on.
    evaluation = evaluate(samples, extractors, references, source, with_yardsticks=YARDSTICKS.value, progress=_progress)
    evaluation.save(out / "evaluation.json", protocol=samples.protocol, energy=energy, neurobench=neurobench)
    print(evaluation.table())
    if energy:
        print(energy["summary"])
    print(out / "evaluation.json")
    if REPORT.value:
        shown = energy and energy | {"neurobench": neurobench}
        write_report(out / "report.html", build_report(samples, evaluation, references, run, shown))
        print(out / "report.html")


def _extractors(source, n, field, references, channels):
    """Feature extractors of --distance, by default those that need no download, checked against all images."""
    for distance in DISTANCE.value:
        if distance not in DISTANCES:
            raise InputError(f"--distance: found {distance!r}, allowed are {', '.join(DISTANCES)}")
    known = {"fd_classifier": CLASSIFIER.value or classifier_of(source), "fid": INCEPTION.value}
    chosen = DISTANCE.value or [distance for distance, there in known.items() if there]
    if not chosen:
        raise InputError(f"--distance: no classifier for {source!r}; set --classifier, or --distance=fid")
    extractors = [
        make_extractor(distance, source, inception=INCEPTION.value, classifier=CLASSIFIER.value, prefix="--")
        for distance in chosen
    ]
    check_comparable(extractors, n, field, channels, references, source)
    return extractors


def _plain(name):
    """A source with all but word characters replaced, for file names."""
    return re.sub(r"\W+", "_", name).strip("_")


def _progress(items, name):
    return tqdm(items, name, leave=False, disable=None)
