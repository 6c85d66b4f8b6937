#!/usr/bin/env bash
# Called by launch/tpu_pod.sh on each worker of a TPU slice: setup BUCKET, run ARGUMENTS, outcome, log, stop.
# The bucket is mounted at /mnt/bucket. Training outlives the connection and writes its exit code to ~/train.exit.
set -euo pipefail
cd "$(dirname "$0")/.."
verb="$1"
shift
training() { kill -0 "$(cat ~/train.pid 2>/dev/null)" 2>/dev/null; }

case "$verb" in
    setup)
        if ! command -v gcsfuse >/dev/null; then # https://cloud.google.com/storage/docs/cloud-storage-fuse/install
            key=/usr/share/keyrings/cloud.google.asc
            curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
            echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -c -s) main" |
                sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
            sudo apt-get update -qq
            sudo apt-get install -qq -y -o DPkg::Lock::Timeout=600 gcsfuse
        fi
        if ! mountpoint -q /mnt/bucket; then # Without caches: all processes must see each other's files at once.
            sudo mkdir -p /mnt/bucket
            sudo chown "$(id -u)" /mnt/bucket
            gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$1" /mnt/bucket
        fi
        if [ ! -x .venv/bin/python ]; then # The machines come with Python 3.10.
            python3 -m pip install --quiet --user uv
            python3 -m uv python install --quiet 3.12
            PYTHON="$(python3 -m uv python find 3.12)"
        fi
        EXTRAS=tpu . launch/environment.sh
        ;;
    run)
        if training; then echo "error: training is already running" >&2 && exit 2; fi
        rm -f ~/train.exit
        PATH="$PWD/.venv/bin:$PATH" setsid bash -c 'trap : TERM; "$@"; echo $? > ~/train.exit' - \
            python -m sdit_jax train "$@" >>~/train.log 2>&1 </dev/null &
        echo $! >~/train.pid
        ;;
    outcome)
        if training; then echo outcome=running; else echo "outcome=$(cat ~/train.exit 2>/dev/null || echo 137)"; fi
        ;;
    log) tail -n 100 -F ~/train.log ;;
    stop) kill -TERM -- "-$(cat ~/train.pid)" ;; # The whole group: training saves and ends with 75.
    *) echo "error: verb: found '$verb', allowed are setup, run, outcome, log, stop" >&2 && exit 2 ;;
esac
