"""What a training step will cost on many chips, on paper: FLOPs, memory, what is sent, how long it takes, whether it fits.

    python -m sdit_jax.plan --config=configs/cifar10.py --devices=8 --chip=v5p
    python -m sdit_jax.plan --config=configs/cifar10.py --devices=256 --chip=h100 --config.batch_size=8192 --out=plan.json
    python -m sdit_jax.plan --config=configs/cifar10.py --devices=1 --chip=v5p --weak_scaling
    python -m sdit_jax.plan --config=configs/cifar10.py --devices=64 --chip=v6e --config.mesh.fsdp=8 --config.model.remat=blocks

Nothing is compiled or run, no data are read and no accelerator is needed (`training.plan` is something else: what a run that is
about to start amounts to). Any field of the configuration is set with --config.FIELD=VALUE; the mesh is config.mesh. Chips are
taken at the rates their vendors state, of which programs are assumed to reach a fixed share: sdit_jax/costs says how numbers
come about, docs/plan.md how far they have been checked.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from sdit_jax import command_line, files
from sdit_jax.config import InputError
from sdit_jax.costs import chips
from sdit_jax.costs.prediction import advice, predict, weak_scaling
from sdit_jax.costs.report import describe, table

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, with typed arguments after a colon.")
DEVICES = flags.DEFINE_integer("devices", 1, "How many chips.")
CHIP = flags.DEFINE_string("chip", "", f"Which: {', '.join(chips.CHIPS)}.")
SLICES = flags.DEFINE_integer("slices", 0, "Into how many slices of TPUs or nodes of GPUs they fall; 0 for as few as can be.")
WEAK_SCALING = flags.DEFINE_bool("weak_scaling", False, "Print a table for up to 4,096 chips with as many images on each.")
OUT = flags.DEFINE_string("out", "", "JSON file to write.")


def main() -> None:
    for name, value, least in (("devices", DEVICES.value, 1), ("slices", SLICES.value, 0)):
        if value < least:
            raise InputError(f"--{name}: found {value}, must be at least {least}")
    out = Path(OUT.value)
    if OUT.value and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out: found {out}, must be a file in a folder that exists")
    chip = chips.find(CHIP.value)
    prediction = predict(CONFIG.value, chip, DEVICES.value, SLICES.value)
    rows = weak_scaling(prediction) if WEAK_SCALING.value else []
    print(describe(prediction))
    if not prediction.fits:
        print(f"         {_change(advice(CONFIG.value, chip, DEVICES.value, SLICES.value))}")
    if rows:
        print(f"\n{table(rows)}")
    if OUT.value:
        found = prediction.to_dict() | ({"weak_scaling": [row.to_dict() for row in rows]} if rows else {})
        files.write_json(out, found)
        print(f"\n{out}")


def _change(found) -> str:
    if found is None:
        return "nothing tried makes it fit: more devices, with a larger config.mesh.fsdp, or a smaller network"
    change, prediction = found
    flags_ = " ".join(f"--config.{field}={value}" for field, value in change.items())
    return f"to fit: {flags_} ({prediction.memory.total / 1e9:.3g} GB)"


if __name__ == "__main__":
    command_line.run(main, required=("config", "chip"))
