"""Measures samples against real images: distances, scores, energy; every number with its protocol, and a report to look at.

    python -m sdit_jax.evaluate --workdir=runs/digits
    python -m sdit_jax.evaluate --workdir=runs/mnist --n=10000 --sampler=ddpm --steps=250 --inception=pt_inception.pth
    python -m sdit_jax.evaluate --workdir=mnist.safetensors --data_dir=DATA/mnist --out=evaluation
    python -m sdit_jax.evaluate --samples=samples/samples.npz --reference=mnist --data_dir=DATA/mnist

Prints the values beside what real images score, and writes evaluation.json, report.html and, where it draws them, samples.npz.
Drawing samples goes on where it was stopped. fd_classifier is a distance between features of a small classifier of the data
set, shipped with the package; fid needs Inception's weights (a file, or they are fetched).
"""

import re
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from sdit_jax import command_line, config, files
from sdit_jax.config import InputError
from sdit_jax.diffusion.samplers import SAMPLERS, STOCHASTIC
from sdit_jax.evaluation.evaluate import evaluate
from sdit_jax.evaluation.evaluators import DISTANCES, make_ruler
from sdit_jax.evaluation.features import channels_for, classifier_of
from sdit_jax.evaluation.portrait import energy_of, portray
from sdit_jax.evaluation.reference import check_enough
from sdit_jax.evaluation.report import write_report
from sdit_jax.evaluation.subject import Subject, draw, load_references, read_subject
from sdit_jax.sampling.run import Run, check_sampling, open_run

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder to draw samples from, .safetensors file, or pretrained:NAME.")
SAMPLES = flags.DEFINE_string("samples", "", "Or a .npz file of samples: arr_0 uint8 (N, H, W, C), labels.")
REFERENCE = flags.DEFINE_string("reference", "", "Source of real images, as config.data.name; default what was trained on.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where they are, as config.data.dir.")
OUT = flags.DEFINE_string(
    "out", "", "Folder to write; default WORKDIR/evaluation/..., or FILE_against_REFERENCE beside samples."
)
N = flags.DEFINE_integer("n", 10_000, "How many samples to draw.", lower_bound=1, upper_bound=10_000_000)
SAMPLER = flags.DEFINE_string("sampler", "ddim", f"One of {', '.join(SAMPLERS)}; {' and '.join(STOCHASTIC)} are stochastic.")
STEPS = flags.DEFINE_integer("steps", 50, "Sampling steps.")
GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Classifier-free guidance scale; 1 is none, 0 ignores the labels.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise.", lower_bound=0, upper_bound=config.MAX_SEED)
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged or raw weights; default ema where the run has one.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Samples at a time.", lower_bound=1)
DISTANCE = flags.DEFINE_list("distance", [], f"Which of {', '.join(DISTANCES)}; default what there is a network for.")
CLASSIFIER = flags.DEFINE_string("classifier", "", "For fd_classifier: a shipped one, or a file; default the data set's.")
INCEPTION = flags.DEFINE_string("inception", "", "For fid: the weights, pytorch-fid's .pth or .npz.")
YARDSTICKS = flags.DEFINE_bool("yardsticks", True, "Score real images, changed a little, for comparison.")
REPORT = flags.DEFINE_bool("report", True, "Write report.html.")


def main() -> None:
    if bool(WORKDIR.value) == bool(SAMPLES.value):
        raise InputError("--workdir, --samples: name one of them")
    if WORKDIR.value:
        _evaluate_run(open_run(WORKDIR.value, WEIGHTS.value))
    else:
        _evaluate_file(read_subject(Path(SAMPLES.value)))


def _evaluate_run(run: Run) -> None:
    """Whatever is missing is found before anything is drawn or written."""
    data = run.config.data
    if not (OUT.value or Path(WORKDIR.value).is_dir()):
        raise InputError(f"--out: missing; {WORKDIR.value} is no run folder to write into")
    check_sampling(run.model, run.objective, sampler=SAMPLER.value, steps=STEPS.value, guidance=GUIDANCE.value, prefix="--")
    name = REFERENCE.value or data.name
    if not name:
        raise InputError(f"--reference: missing; {WORKDIR.value} does not say what it was trained on")
    own = name == data.name
    directory, split = DATA_DIR.value or (data.dir if own else ""), data.split if own else "train"
    references = _references(name, directory, (split, "test"), run.model.image_size, data.resize)
    rulers = _rulers(name, N.value, "--n", references, run.model.channels)
    against = "" if own else f"_against_{_plain(name)}"
    how = f"{SAMPLER.value}{STEPS.value}_guidance{GUIDANCE.value:g}_n{N.value}_seed{SEED.value}{against}"
    out = Path(OUT.value or Path(WORKDIR.value, "evaluation", f"step{run.step}_{run.weights}_{how}"))
    energy = energy_of(run, references[split], STEPS.value, GUIDANCE.value)
    files.make_folder(out)
    with files.only_user(out, "evaluates into this folder"):
        subject = draw(
            run, out, n=N.value, sampler=SAMPLER.value, steps=STEPS.value, guidance=GUIDANCE.value, seed=SEED.value,
            batch_size=BATCH_SIZE.value, progress=lambda batches: _progress(batches, "samples"),
        )  # fmt: skip
        _write(out, subject, rulers, references, name, run if own else None, energy)


def _evaluate_file(subject: Subject) -> None:
    if not REFERENCE.value:
        raise InputError("--reference: missing; name the source of the real images to compare with")
    H, W, C = subject.images.shape[1:]
    if H != W:
        raise InputError(f"{SAMPLES.value}: found images of {H}x{W}, must be square")
    references = _references(REFERENCE.value, DATA_DIR.value, ("train", "test"), H)
    rulers = _rulers(REFERENCE.value, len(subject.images), SAMPLES.value, references, C)
    out = Path(OUT.value or Path(SAMPLES.value).with_name(f"{Path(SAMPLES.value).stem}_against_{_plain(REFERENCE.value)}"))
    files.make_folder(out)
    with files.only_user(out, "evaluates into this folder"):
        _write(out, subject, rulers, references, REFERENCE.value, None, None)


def _write(out, subject, rulers, references, source, run, energy):
    (out / "report.html").unlink(missing_ok=True)  # It would show other numbers.
    evaluation = evaluate(subject, rulers, references, source, with_yardsticks=YARDSTICKS.value, progress=_progress)
    evaluation.save(out / "evaluation.json", protocol=subject.protocol, energy=energy)
    print(evaluation.table())
    if energy:
        print(energy["summary"])
    print(out / "evaluation.json")
    if REPORT.value:
        write_report(out / "report.html", portray(subject, evaluation, references, run, energy))
        print(out / "report.html")


def _references(name, *arguments):
    """Real images; mistakes are told in this command's flags."""
    try:
        return load_references(name, *arguments)
    except InputError as error:
        raise InputError(
            str(error).replace("config.data.name", "--reference").replace("config.data.dir", "--data_dir")
        ) from None


def _rulers(source, n, what, references, channels):
    """By what was asked for, else by what there is a network for without fetching one; all images must be fit for them."""
    for distance in DISTANCE.value:
        if distance not in DISTANCES:
            raise InputError(f"--distance: found {distance!r}, allowed are {', '.join(DISTANCES)}")
    known = {"fd_classifier": CLASSIFIER.value or classifier_of(source), "fid": INCEPTION.value}
    chosen = DISTANCE.value or [distance for distance, there in known.items() if there]
    if not chosen:
        raise InputError(f"--distance: no classifier for {source!r}; name one with --classifier, or use --distance=fid")
    rulers = [make_ruler(distance, source, INCEPTION.value, CLASSIFIER.value) for distance in chosen]
    for ruler in rulers:
        check_enough(ruler, n, what)
        for split, images in references.items():
            check_enough(ruler, len(images), f"{source} {split}")
            channels_for(ruler, images.images[:1])
        channels_for(ruler, np.zeros((1, 2, 2, channels), np.uint8))
    return rulers


def _plain(name):
    """A source as part of a file's name."""
    return re.sub(r"\W+", "_", name).strip("_")


def _progress(items, name):
    return tqdm(items, name, leave=False, disable=None)


if __name__ == "__main__":
    command_line.run(main)
