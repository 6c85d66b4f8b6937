#!/usr/bin/env bash
# Trains on Cloud TPU pod slices, from a laptop with gcloud: queues, sets up, trains, and recreates them after preemption.
#     export NAME=sdit ZONE=us-east5-b TYPE=v6e-64 BUCKET=my-bucket FLAGS=--spot
#     ./launch/tpu_pod.sh up --config=configs/cifar10.py --workdir=/mnt/bucket/runs/cifar10
# The verbs create setup run log stop delete are single steps; up does all of them until training is done, and if restarted,
# continues to watch. Arguments of run and up are those of sdit train; --dry_run prints the commands. NODES=1: number of
# slices; RUNTIME: software version; FLAGS: flags for create (--spot, --reserved, --network=...); RESTARTS=100: the maximum;
# POLL=60: seconds between polls. Trains the code of the last commit. Tested with a mock of gcloud only.
set -euo pipefail
. "$(dirname "$0")/shared.sh"
verb="${1:-}"
[ "$#" = 0 ] || shift
need NAME ZONE TYPE BUCKET
worker="~/sdit_jax/launch/tpu_worker.sh" # Expanded by the worker's shell.
restarts=0

tpus() {
    local action="$1"
    shift
    step gcloud compute tpus queued-resources "$action" "$NAME" --zone="$ZONE" "$@"
}

everywhere() { tpus ssh --node=all --worker=all --command="$1"; }

create() {
    local nodes="--node-id=$NAME" runtime
    [ "${NODES:-1}" = 1 ] || nodes="--node-count=$NODES"
    case "$TYPE" in # https://cloud.google.com/tpu/docs/runtimes
        v6e*) runtime=v2-alpha-tpuv6e ;;
        v5p*) runtime=v2-alpha-tpuv5 ;;
        v5lite*) runtime=v2-alpha-tpuv5-lite ;;
        *) runtime=tpu-ubuntu2204-base ;;
    esac
    tpus create --accelerator-type="$TYPE" --runtime-version="${RUNTIME:-$runtime}" "$nodes" ${FLAGS:-}
}

setup() { # One upload for all workers.
    local code="gs://$BUCKET/code/COMMIT.tar.gz"
    if [ -n "$dry_run" ]; then echo "git archive --format=tar.gz HEAD | gcloud storage cp - $code"; else
        code="gs://$BUCKET/code/$(git rev-parse HEAD).tar.gz"
        git archive --format=tar.gz HEAD | gcloud storage cp - "$code" || return
    fi
    everywhere "mkdir -p ~/sdit_jax && gcloud storage cat $code | tar -xz -C ~/sdit_jax && $worker setup $BUCKET"
}

run() { everywhere "$worker run $(quoted "$@")"; }
stop() { everywhere "$worker stop"; }
log() { tpus ssh --node=0 --worker=0 --command="$worker log"; }
delete() { tpus delete --force --quiet; }

state() {
    local found
    if found="$(tpus describe --format='value(state.state)' 2>&1)"; then echo "$found" | tail -n 1; else
        case "$found" in *NOT_FOUND*) echo MISSING ;; *) echo UNKNOWN ;; esac
    fi
}

# Nothing while a worker trains; else the common exit code; else 2 if any worker has it; else 75, as some were killed.
outcome() {
    local found
    found="$(everywhere "$worker outcome" 2>/dev/null | grep -o 'outcome=[a-z0-9]*' | sort -u | tr '\n' ' ')" || true
    case "$found" in
        '' | *running*) ;;
        *outcome=2\ *) echo 2 ;;
        *\ outcome*) echo 75 ;;
        *) echo "${found//[!0-9]/}" ;;
    esac
}

restart() {
    restarts=$((restarts + 1))
    echo "$NAME: $1: restart $restarts of at most ${RESTARTS:-100}" >&2
    [ "$restarts" -le "${RESTARTS:-100}" ] || exit 75
}

await() { # Until it is ACTIVE; recreates it if necessary.
    local now
    while now="$(state)" && [ "$now" != ACTIVE ]; do
        case "$now" in
            MISSING) create || exit 1 ;;
            SUSPENDED | FAILED | PREEMPTED) restart "$now" && delete || true ;;
        esac
        sleep "${POLL:-60}"
    done
}

up() {
    local now code
    while :; do
        await
        # Without a running worker, set up and run.
        if [ -z "$(everywhere "$worker outcome" 2>/dev/null | grep running)" ] && ! { setup && run "$@"; }; then
            [ "$(state)" != ACTIVE ] || { echo "error: $NAME: could not be set up, see above" >&2 && exit 1; }
            continue
        fi
        code=''
        while [ -z "$code" ]; do
            sleep "${POLL:-60}"
            now="$(state)"
            case "$now" in ACTIVE) code="$(outcome)" ;; UNKNOWN) ;; *) code=75 ;; esac
        done
        if [ "$code" = 0 ]; then delete && exit; fi
        again "$code" || { echo "$NAME: training ended with $code; see log; delete releases it" >&2 && exit "$code"; }
        [ "$now" != ACTIVE ] || restart "exit code $code"
    done
}

if [ "$verb" = up ] && [ -n "$dry_run" ]; then
    create
    echo "# until it is ACTIVE; SUSPENDED or FAILED: delete and create"
    tpus describe --format='value(state.state)'
    setup && run "$@"
    echo "# while it is ACTIVE; else from the start, as after exit code 75; other codes end it"
    everywhere "$worker outcome"
    echo "# after exit code 0"
    delete
    exit
fi
case "$verb" in
    create | setup | run | log | stop | delete | up) "$verb" "$@" ;;
    *) fail "verb: found '$verb', allowed are create, setup, run, log, stop, delete, up" ;;
esac
