# Sourced by the scripts for many devices: settings, dry runs, and child processes that receive signals.
# Changes to the repository's root and removes --dry_run from the arguments.

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

# need NAME...: fails unless these variables are set.
need() {
    local name
    for name; do [ -n "${!name:-}" ] || fail "$name: missing; set it before the command, $name=... $0"; done
}

# Prints its arguments quoted for the shell.
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

# Runs a command; in a dry run, prints it.
step() {
    if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi
}

# environment EXTRAS: installs the packages with launch/environment.sh.
environment() {
    EXTRAS="${EXTRAS:-$1}"
    if [ -n "$dry_run" ]; then echo "EXTRAS=$EXTRAS . launch/environment.sh"; else . launch/environment.sh; fi
}

# Whether to restart training after this exit code: it was stopped before its end, or killed, but not by Ctrl-C.
again() {
    [ "$1" = 75 ] || { [ "$1" -gt 128 ] && [ "$1" != 130 ]; }
}

pass_on() {
    kill -s "$1" "$child" 2>/dev/null || true
}

# Runs a command, forwards SIGTERM and SIGINT to it, and returns its exit code.
attended() {
    local code signalled
    if [ -n "$dry_run" ]; then
        quoted "$@"
        return
    fi
    trap 'signalled=1 stopped=TERM; pass_on TERM' TERM
    trap 'signalled=1 stopped=INT; pass_on INT' INT
    set -m # A process group of its own: background processes of a script would otherwise ignore Ctrl-C.
    "$@" </dev/null &
    child=$!
    set +m
    [ -z "$stopped" ] || pass_on "$stopped"
    while :; do # A signal interrupts wait: wait again for the exit code.
        signalled='' code=0
        wait "$child" || code=$?
        [ -n "$signalled" ] || break
    done
    trap - TERM INT
    return "$code"
}

# In a Slurm job: runs a step, and requeues the job if the step was stopped by the warning before the time limit.
slurm_step() {
    pass_on() { scancel --signal="$1" "$SLURM_JOB_ID"; } # To the step's processes; srun itself would kill them.
    local code=0
    attended srun --kill-on-bad-exit=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} "$@" || code=$?
    [ -z "$dry_run" ] || echo "# after exit code 75, unless the job is being cancelled: scontrol requeue JOB"
    # A cancelled job ends with 75 too, but its state is not RUNNING.
    if [ "$code" = 75 ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}
