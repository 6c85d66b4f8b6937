# Sourced by the scripts for many devices: settings, dry runs, and programs that are told of signals and waited for.
# It goes to the repository's root and takes --dry_run out of the arguments.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
dry_run='' stopped=''
for argument; do
    shift
    if [ "$argument" = --dry_run ]; then dry_run=1; else set -- "$@" "$argument"; fi
done

fail() {
    echo "error: $*" >&2
    exit 2
}

# need NAME...: variables that must be set.
need() {
    local name
    for name; do [ -n "${!name:-}" ] || fail "$name: missing; it is set before the command, as in $name=... $0"; done
}

# Words as a shell reads them back.
quoted() {
    local word line=''
    for word; do
        case "$word" in
            '' | *[!A-Za-z0-9_./:=,@%+-]*) line="$line '$(printf %s "$word" | sed "s/'/'\\\\''/g")'" ;;
            *) line="$line $word" ;;
        esac
    done
    printf '%s\n' "${line# }"
}

# Runs a command, or prints it.
step() {
    if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi
}

# environment EXTRAS: the packages, once, as launch/environment.sh makes them.
environment() {
    EXTRAS="${EXTRAS:-$1}"
    if [ -n "$dry_run" ]; then echo "EXTRAS=$EXTRAS . launch/environment.sh"; else . launch/environment.sh; fi
}

# Whether training that ended with this exit code should run again: stopped before its end, or killed but not by Ctrl-C.
again() {
    [ "$1" = 75 ] || { [ "$1" -gt 128 ] && [ "$1" != 130 ]; }
}

pass_on() {
    kill -s "$1" "$child" 2>/dev/null || true
}

# Runs a command, passes SIGTERM and SIGINT on to it, waits for its end and returns its exit code.
attended() {
    local code told
    if [ -n "$dry_run" ]; then
        quoted "$@"
        return
    fi
    trap 'told=1 stopped=TERM; pass_on TERM' TERM
    trap 'told=1 stopped=INT; pass_on INT' INT
    set -m # In a process group of its own: behind a script, a program would otherwise be deaf to Ctrl-C.
    "$@" </dev/null &
    child=$!
    set +m
    [ -z "$stopped" ] || pass_on "$stopped"
    while :; do # A signal ends a wait: wait again, for the exit code.
        told='' code=0
        wait "$child" || code=$?
        [ -n "$told" ] || break
    done
    trap - TERM INT
    return "$code"
}

# In a Slurm job: runs a step to its end, or to the warning before the time limit; then the job goes back into the queue.
slurm_step() {
    pass_on() { scancel --signal="$1" "$SLURM_JOB_ID"; } # To the step's processes. On a signal of its own srun kills them.
    local code=0
    attended srun --kill-on-bad-exit=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} "$@" || code=$?
    [ -z "$dry_run" ] || echo "# after exit code 75, unless the job is being cancelled: scontrol requeue JOB"
    # A job that the user cancels stops with 75 too, but is no longer running.
    if [ "$code" = 75 ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}
