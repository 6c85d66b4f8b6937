"""Exports trained weights as one .safetensors file.

    sdit export --workdir=runs/digits --out=digits.safetensors
    sdit export --workdir=runs/digits --out=small.safetensors --weights=raw --dtype=bfloat16
    sdit sample --workdir=digits.safetensors --out=samples

The file contains its configuration, so that it can be sampled and evaluated alone. The same run gives the same bytes, and they
contain no path of this machine. An existing file is replaced.
"""

import logging

from absl import flags

from sdit_jax import files
from sdit_jax.errors import InputError
from sdit_jax.sampling import weights
from sdit_jax.sampling.run import open_run

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME for shipped weights.")
OUT = flags.DEFINE_string("out", "", "The .safetensors file to write.")
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged (ema) or raw weights; by default ema if there are any.")
STEP = flags.DEFINE_integer("step", None, "The checkpoint of this step; by default the newest.", lower_bound=0)
DTYPE = flags.DEFINE_enum("dtype", "float32", weights.DTYPES, "Type that weights are rounded to; they are read as float32.")
REQUIRED = ("workdir", "out")


def main() -> None:
    out = files.as_path(OUT.value)
    if out.suffix != weights.SUFFIX or out.is_dir():
        raise InputError(f"--out: found {out}, must be a {weights.SUFFIX} file")
    run = open_run(WORKDIR.value, WEIGHTS.value, STEP.value, prefix="--")
    files.make_folder(out.parent)
    fields = {"weights": run.weights, "step": run.step, "dtype": DTYPE.value, "field": "--dtype", "few_calls": run.few_calls}
    written = weights.write(out, run.config, run.variables, **fields)
    logging.getLogger("sdit_jax").info("%s, %s bytes", run.describe_weights, f"{len(written):,}")
    print(out)
