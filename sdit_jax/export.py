"""Turns trained weights into one .safetensors file, which says by itself what network and run they are of.

    python -m sdit_jax.export --workdir=runs/digits --out=digits.safetensors
    python -m sdit_jax.export --workdir=runs/digits --out=small.safetensors --weights=raw --dtype=bfloat16
    python -m sdit_jax.sample --workdir=digits.safetensors --out=samples

The same run gives the same bytes; nothing in them names a place on this machine. A file that is there is replaced.
"""

import logging
from pathlib import Path

from absl import flags

from sdit_jax import command_line, files
from sdit_jax.config import InputError
from sdit_jax.sampling import weights
from sdit_jax.sampling.run import open_run

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder, .safetensors file, or pretrained:NAME.")
OUT = flags.DEFINE_string("out", "", "The .safetensors file to write.")
WEIGHTS = flags.DEFINE_enum("weights", None, ["ema", "raw"], "Averaged or raw weights; default ema where the run has one.")
DTYPE = flags.DEFINE_enum("dtype", "float32", weights.DTYPES, "Type the weights are rounded to; they are read as float32.")


def main() -> None:
    out = Path(OUT.value)
    if out.suffix != weights.SUFFIX or out.is_dir():
        raise InputError(f"--out: found {out}, must be a {weights.SUFFIX} file")
    run = open_run(WORKDIR.value, WEIGHTS.value)
    files.make_folder(out.parent)
    weights.write(out, run.config, run.params, weights=run.weights, step=run.step, dtype=DTYPE.value)
    which = "averaged" if run.weights == "ema" else "raw"
    logging.getLogger("sdit_jax").info("%s weights of step %d, %s bytes", which, run.step, f"{out.stat().st_size:,}")
    print(out)


if __name__ == "__main__":
    command_line.run(main, required=("workdir", "out"))
