"""Predicts the cost of a training step on many chips, without running it.

    sdit plan --config=cifar10 --devices=8 --chip=v5p
    sdit plan --config=cifar10 --devices=256 --chip=h100 --config.batch_size=8192 --out=plan.json
    sdit plan --config=cifar10 --devices=1 --chip=v5p --weak_scaling
    sdit plan --config=cifar10 --devices=64 --chip=v6e --config.mesh.fsdp=8 --config.model.remat=blocks
    sdit plan --config=small --compile --topology=v5e:4x4

Prints FLOPs, memory, communication and time of a step, and whether it fits. No data and no accelerator are needed. Any field of
the configuration is set with --config.FIELD=VALUE; the mesh is config.mesh. Rates of chips are those of their vendors, of which
programs are assumed to reach a fixed share.

With --compile the TPU compiler of the package libtpu (pip install 'sdit_jax[tpu]') compiles the step for a --topology and
--slices of it, which takes a minute or more. Prints memory, products, traffic, padding and communication of the program.

sdit_jax/planner documents the model, docs/plan.md how far it has been checked.
"""

from typing import Any

from absl import flags
from ml_collections import config_flags

from sdit_jax import files
from sdit_jax.analysis import chips
from sdit_jax.errors import InputError
from sdit_jax.planner import topology
from sdit_jax.planner.compiled import compiled_step
from sdit_jax.planner.prediction import advice, predict, weak_scaling
from sdit_jax.planner.report import describe, describe_compiled, table
from sdit_jax.training.step import TooLarge

CONFIG = config_flags.DEFINE_config_file("config", None, "Shipped configuration or .py file; typed arguments follow a colon.")
DEVICES = flags.DEFINE_integer("devices", 1, "Number of chips.")
CHIP = flags.DEFINE_string("chip", "", f"Kind of chip: {', '.join(chips.CHIPS)}.")
SLICES = flags.DEFINE_integer("slices", 0, "Number of TPU slices or GPU nodes; 0 for the fewest possible.")
COMPILE = flags.DEFINE_bool("compile", False, "Compile for --topology in place of predicting for --devices of --chip.")
TOPOLOGY = flags.DEFINE_string("topology", "", f"With --compile: {', '.join(topology.NAMES)} and a shape, as in v5e:4x4.")
WEAK_SCALING = flags.DEFINE_bool("weak_scaling", False, "Print a table for up to 4,096 chips with the same images per chip.")
OUT = flags.DEFINE_string("out", "", "JSON file to write.")
REQUIRED = ("config",)


def main() -> None:
    for name, value, least in (("devices", DEVICES.value, 1), ("slices", SLICES.value, 0)):
        if value < least:
            raise InputError(f"--{name}: found {value}, must be at least {least}")
    out = files.as_path(OUT.value)
    if OUT.value and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out: found {out}, must be a file in a folder that exists")
    needed, other = (TOPOLOGY, (CHIP, DEVICES, WEAK_SCALING)) if COMPILE.value else (CHIP, (TOPOLOGY,))
    if not needed.value:
        raise InputError(f"--{needed.name}: missing; see --help")
    for flag in other:
        if flag.present:
            where = "with" if COMPILE.value else "without"
            raise InputError(f"--{flag.name}: found {flag.value}, must be left out {where} --compile")
    found = _compiled() if COMPILE.value else _predicted()
    if OUT.value and found:
        files.write_json(out, found)
        print(f"\n{out}")


def _predicted() -> dict[str, Any]:
    chip = chips.find(CHIP.value, "--chip")
    prediction = predict(CONFIG.value, chip, DEVICES.value, SLICES.value, ("--devices", "--slices"))
    rows = weak_scaling(prediction) if WEAK_SCALING.value else []
    print(describe(prediction))
    if not prediction.fits:
        print(f"         {_change(advice(CONFIG.value, chip, DEVICES.value, SLICES.value))}")
    if rows:
        print(f"\n{table(rows)}")
    return prediction.to_dict() | ({"weak_scaling": [row.to_dict() for row in rows]} if rows else {})


def _compiled() -> dict[str, Any]:
    """{} for a step that the compiler refuses."""
    slices = SLICES.value or 1
    chip, devices = topology.devices(TOPOLOGY.value, slices, "--topology")
    try:
        step = compiled_step(CONFIG.value, chip, devices, slices)
    except TooLarge as error:
        print(f"memory   the compiler refuses it: {error.needed:.4g} GiB of {error.free:.4g} GiB")
        print(f"         {_change(advice(CONFIG.value, chip, len(devices), slices))}")
        return {}
    print(describe_compiled(step, TOPOLOGY.value))
    return {"topology": TOPOLOGY.value} | step.to_dict()


def _change(found) -> str:
    """The result of `advice` as flags."""
    if found is None:
        return "no change that was tried makes it fit; use more devices with a larger config.mesh.fsdp, or a smaller network"
    change, prediction = found
    arguments = " ".join(f"--config.{field}={value}" for field, value in change.items())
    return f"to fit: {arguments} ({prediction.memory.total / 1e9:.3g} GB)"
