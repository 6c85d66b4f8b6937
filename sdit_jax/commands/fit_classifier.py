"""Trains the small classifier whose features fd_classifier compares.

The shipped classifiers are made by

    sdit fit_classifier --data=digits --epochs=60 --shift=1 --widths=32,48,64 --out=FILE.npz
    sdit fit_classifier --data=mnist --epochs=4 --shift=2 --data_dir=DIR --out=FILE.npz
    sdit fit_classifier --data=fashion_mnist --epochs=8 --flip --data_dir=DIR --out=FILE.npz
    sdit fit_classifier --data=cifar10 --epochs=14 --shift=4 --flip --data_dir=DIR --out=FILE.npz

Writes the weights and their accuracy on the train and test splits.
"""

from pathlib import Path

from absl import flags

from sdit_jax.data import sources
from sdit_jax.errors import InputError, data_fields_named
from sdit_jax.files import check_local
from sdit_jax.metrics.features import classifier
from sdit_jax.metrics.features.fitting import fit_classifier

DATA = flags.DEFINE_string("data", "", "Data set, as config.data.name; it needs a train and a test split.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of the data set, as config.data.dir.")
OUT = flags.DEFINE_string("out", "", "The .npz file to write.")
EPOCHS = flags.DEFINE_integer("epochs", 8, "Passes over the train split.", lower_bound=1)
WIDTHS = flags.DEFINE_list("widths", ["48", "96", "128"], "Channels of the stages; the last one is the number of features.")
SHIFT = flags.DEFINE_integer("shift", 0, "Shift training images at random by up to this many pixels.", lower_bound=0)
FLIP = flags.DEFINE_bool("flip", False, "Mirror training images at random.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of initial weights, order and augmentation.", lower_bound=0)
REQUIRED = ("data", "out")


def main() -> None:
    check_local(OUT.value, "--out")
    out = Path(OUT.value)
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise InputError(f"--out: found {out}, must be a .npz file in a folder that exists")
    if not all(width.isdigit() and int(width) for width in WIDTHS.value):
        raise InputError(f"--widths: found {','.join(WIDTHS.value)}, must be positive numbers")
    with data_fields_named(name="--data", dir="--data_dir"):
        train, test = (sources.load(DATA.value, split, DATA_DIR.value) for split in ("train", "test"))
    trained = fit_classifier(
        train, test, widths=tuple(int(width) for width in WIDTHS.value), epochs=EPOCHS.value, flip=FLIP.value,
        shift=SHIFT.value, seed=SEED.value,
    )  # fmt: skip
    classifier.save(out, trained)
    facts = trained.facts
    print(
        f"{out}: {out.stat().st_size:,} bytes; accuracy {facts['train_accuracy']:.4f} train, {facts['test_accuracy']:.4f} test"
    )
