#!/usr/bin/env bash
# A fresh machine to a picture: environment, a spiking diffusion transformer trained on real handwritten digits, samples.
# A second run skips what is done; with RUN=DIR another run folder is used.
set -euo pipefail
EXTRAS="${EXTRAS:-}" . "$(dirname "$0")/environment.sh"
run="${RUN:-runs/digits}"

case "$run" in /*) pictures="$run" ;; *) pictures="$PWD/$run" ;; esac
echo "training on 1,438 handwritten digits (8x8, inside the package): two to four minutes on two CPU cores"
python -m sdit_jax.train --config=configs/digits.py --workdir="$run"
echo "drawing samples, one column per digit"
python -m sdit_jax.sample --workdir="$run" --out="$run/quickstart" --n=80 --guidance=2
echo "drawing 28x28 digits with the network that comes with the package, beside them"
python -m sdit_jax.sample --workdir=pretrained:mnist --out="$run/pretrained" --n=80 --beside="$run/quickstart/samples.npz"

cat <<TEXT

The picture: $pictures/quickstart/grid.png
Beside what a larger network draws after an hour of training: $pictures/pretrained/grid.png

Go on with
    source .venv/bin/activate
    python -m sdit_jax.sample --workdir=$run --out=samples --n=40 --labels=3,7 --guidance=2   only threes and sevens
    python -m sdit_jax.sample --workdir=$run --out=samples --sampler=ddpm --steps=250         the ancestral sampler
    python -m sdit_jax.sample --workdir=pretrained:fashion_mnist --out=samples                 clothes
    python -m sdit_jax.evaluate --workdir=$run --n=1000 --guidance=2                           scores and a report to look at
    python -m sdit_jax.train --config=configs/digits.py --workdir=runs/mine --config.model.timesteps=8
    python -m sdit_jax.train --config=configs/mnist.py:tiny --workdir=runs/mnist --config.data.dir=DATA/mnist
    tensorboard --logdir=runs                                                                  (pip install tensorboard)
TEXT
