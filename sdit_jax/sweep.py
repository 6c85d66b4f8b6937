"""Trains many runs of one config file: those that its `sweep()` yields, as fields and values over its get_config().

    python -m sdit_jax.sweep --config=configs/scaling.py --workdir=runs/scaling --list        index and folder of each run
    python -m sdit_jax.sweep --config=configs/scaling.py --workdir=runs/scaling --index=3     one of them, as `train` would
    python -m sdit_jax.sweep --config=configs/scaling.py --workdir=runs/scaling --run         all, skipping what is finished
    python -m sdit_jax.sweep --config=configs/scaling.py --workdir=runs/scaling --results=FILE.json   what became of them

The same command goes on with what was stopped. --config.FIELD=VALUE holds for all runs. A run that fails does not stop the
others; they are named at the end, with exit code 1.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from sdit_jax import command_line, files
from sdit_jax.config import InputError
from sdit_jax.training.loop import TrainingFailed, train_and_evaluate
from sdit_jax.training.sweep import read_sweep, results, to_markdown, train_all

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file with a sweep(); typed arguments after a colon.")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run folders.")
LIST = flags.DEFINE_bool("list", False, "Print index and folder of each run; nothing is read or written.")
INDEX = flags.DEFINE_integer("index", None, "Train this run alone.", lower_bound=0)
RUN = flags.DEFINE_bool("run", False, "Train all runs, one after the other.")
RESULTS = flags.DEFINE_string("results", "", "Write each run's scalars of its last step to this JSON file, and print some.")
SCALARS = flags.DEFINE_list("scalars", ["loss"], "Columns of that table, as metrics.jsonl names them.")


def main() -> None:
    index = INDEX.value
    if LIST.value + RUN.value + (index is not None) + bool(RESULTS.value) != 1:
        raise InputError("--list, --index, --run, --results: name one of them")
    flag, workdir = flags.FLAGS["config"], Path(WORKDIR.value)
    runs = read_sweep(config_flags.get_config_filename(flag), CONFIG.value, config_flags.get_override_values(flag))
    if LIST.value:
        print(*(f"{run.index} {run.name}" for run in runs), sep="\n")
    elif RESULTS.value:
        _write_results(results(runs, workdir), Path(RESULTS.value))
    elif RUN.value:
        if failed := train_all(runs, workdir):
            told = "; ".join(f"{name}: {error}" for name, error in failed.items())
            raise TrainingFailed(f"{len(failed)} of {len(runs)} runs failed: {told}")
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


if __name__ == "__main__":
    command_line.run(main, required=("config", "workdir"))
