"""Trains the runs of a sweep, one configuration file with many variations.

    sdit sweep --config=scaling --workdir=runs/scaling --list                  prints index and folder of each run
    sdit sweep --config=scaling --workdir=runs/scaling --index=3               trains one run
    sdit sweep --config=scaling --workdir=runs/scaling --run                   trains all unfinished runs in turn
    sdit sweep --config=scaling --workdir=runs/scaling --results=FILE.json     collects the last scalars

The file's sweep() yields fields and values that override those of get_config(). --config.FIELD=VALUE applies to all runs. The
same command resumes stopped runs. A failed run does not stop the others; failures are listed at the end, with exit code 1.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from sdit_jax import files
from sdit_jax.errors import InputError, TrainingFailed
from sdit_jax.training.loop import train_and_evaluate
from sdit_jax.training.sweep import read_sweep, results, to_markdown, train_all

CONFIG = config_flags.DEFINE_config_file("config", None, "Shipped configuration or .py file that has a sweep().")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run folders.")
LIST = flags.DEFINE_bool("list", False, "Print index and folder of each run, and stop.")
INDEX = flags.DEFINE_integer("index", None, "Train only the run with this index.", lower_bound=0)
RUN = flags.DEFINE_bool("run", False, "Train all runs, one after the other.")
RESULTS = flags.DEFINE_string("results", "", "JSON file for the scalars of each run's last step.")
SCALARS = flags.DEFINE_list("scalars", ["loss"], "Columns of the table that --results prints, as metrics.jsonl names them.")
REQUIRED = ("config", "workdir")


def main() -> None:
    index = INDEX.value
    if LIST.value + RUN.value + (index is not None) + bool(RESULTS.value) != 1:
        raise InputError("--list, --index, --run, --results: set exactly one of them")
    flag, workdir = flags.FLAGS["config"], files.as_path(WORKDIR.value)
    runs = read_sweep(config_flags.get_config_filename(flag), CONFIG.value, config_flags.get_override_values(flag))
    if LIST.value:
        print(*(f"{run.index} {run.name}" for run in runs), sep="\n")
    elif RESULTS.value:
        _write_results(results(runs, workdir), files.as_path(RESULTS.value))
    elif RUN.value:
        if failed := train_all(runs, workdir):
            messages = "; ".join(f"{name}: {error}" for name, error in failed.items())
            raise TrainingFailed(f"{len(failed)} of {len(runs)} runs failed: {messages}")
    elif index is not None:
        if index >= len(runs):
            raise InputError(f"--index: found {index}, allowed are 0..{len(runs) - 1}")
        train_and_evaluate(runs[index].config, workdir / runs[index].name)


def _write_results(found: list[dict], path: Path) -> None:
    known = {name for one in found for name in one["scalars"]}
    if not known:
        raise InputError(f"{WORKDIR.value}: no run of this sweep has written anything there")
    for name in SCALARS.value:
        if name not in known:
            raise InputError(f"--scalars: found {name!r}, no run has it; there are {', '.join(sorted(known))}")
    if path.is_dir():
        raise InputError(f"--results: found {path}, which is a folder; name a file")
    files.make_folder(path.parent)
    files.write_json(path, found)
    print(to_markdown(found, SCALARS.value), path, sep="\n")
