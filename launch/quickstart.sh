#!/usr/bin/env bash
# Installs the environment, trains a spiking diffusion transformer on real handwritten digits and draws samples.
# A second call skips finished training. RUN=DIR sets the run folder.
set -euo pipefail
EXTRAS="${EXTRAS:-}" . "$(dirname "$0")/environment.sh"
run="${RUN:-runs/digits}"

case "$run" in /*) pictures="$run" ;; *) pictures="$PWD/$run" ;; esac
echo "training on 1,438 handwritten digits (8x8, inside the package): two to four minutes on two CPU cores"
sdit train --config=digits --workdir="$run"
echo "drawing samples, one column per digit"
sdit sample --workdir="$run" --out="$run/quickstart" --n=80 --guidance=2
echo "drawing 28x28 digits with shipped weights, for comparison"
sdit sample --workdir=pretrained:mnist --out="$run/pretrained" --n=80 --beside="$run/quickstart/samples.npz"

cat <<TEXT

The picture: $pictures/quickstart/grid.png
Next to samples of a larger network, trained for an hour: $pictures/pretrained/grid.png

Next steps:
    source .venv/bin/activate
    sdit sample --workdir=$run --out=samples --n=40 --labels=3,7 --guidance=2    threes and sevens only
    sdit sample --workdir=$run --out=samples --sampler=ddpm --steps=250          the ancestral sampler
    sdit sample --workdir=pretrained:fashion_mnist --out=samples                 clothes
    sdit evaluate --workdir=$run --n=1000 --guidance=2                           scores and a report
    sdit train --config=digits --workdir=runs/mine --config.model.spiking_steps=8
    sdit train --config=mnist:tiny --workdir=runs/mnist --config.data.dir=DATA/mnist
    tensorboard --logdir=runs                                                    needs pip install tensorboard
TEXT
