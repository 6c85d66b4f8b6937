"""The formulas of the planner against the TPU compiler: one training step on meshes of 1 to 256 chips that are not at hand."""

import runpy
from typing import Any

from sdit_jax.config import Config, shipped
from sdit_jax.planner import topology
from sdit_jax.planner.compiled import CompiledStep, compiled_step
from sdit_jax.planner.prediction import Prediction, predict

IMAGES = 256  # Of a group of chips that share them.
# Topology, slices, fields.
MESHES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("v5e:1x1", 1, {}),
    ("v5e:2x2", 1, {}),
    ("v5e:2x4", 1, {}),
    ("v5e:2x4", 1, {"model.remat": "blocks"}),
    ("v5e:2x4", 1, {"model.dtype": "bfloat16"}),
    ("v5e:2x4", 1, {"mesh.data": 1, "mesh.fsdp": 8}),
    ("v5e:2x4", 1, {"mesh.tensor": 2, "mesh.fsdp": 2}),
    ("v5e:4x4", 1, {"mesh.fsdp": 4}),
    ("v5e:4x4", 2, {}),
    ("v5e:8x8", 1, {}),
    ("v5e:16x16", 1, {}),
    ("v5e:16x16", 1, {"mesh.fsdp": 8}),
    ("v5p:2x2x1", 1, {"mesh.tensor": 4}),
    ("v5p:4x4x4", 1, {"mesh.fsdp": 4}),
    ("v6e:2x4", 1, {}),
    ("v6e:8x8", 1, {"mesh.tensor": 2}),
)
# The smallest, which a test compiles again.
SMALLEST = (("v5e:2x4", 1, {}), ("v5p:2x2x1", 1, {}))


def bench_tpu() -> dict:
    """{"libtpu", "digits": a row for each of MESHES, "digits:tiny": of SMALLEST}; a minute or more for each row."""
    rows = [row("digits", *mesh) for mesh in MESHES]
    return {"libtpu": topology.version(), "digits": rows, "digits:tiny": [row("digits:tiny", *mesh) for mesh in SMALLEST]}


def row(name: str, place: str, slices: int, fields: dict[str, Any]) -> dict:
    """The step of a shipped configuration as it is predicted and as it is compiled."""
    chip, devices = topology.devices(place, slices)
    config = configuration(name, len(devices), fields)
    step = compiled_step(config, chip, devices, slices)
    return compared(place, fields, predict(config, chip, len(devices), slices), step)


def configuration(name: str, devices: int, fields: dict[str, Any]) -> Config:
    """A shipped configuration with these fields, and IMAGES for each group of chips."""
    file, _, argument = name.partition(":")
    config = runpy.run_path(str(shipped()[file]))["get_config"](argument or None)
    config.update_from_flattened_dict(fields)
    config.batch_size = IMAGES * devices // fields.get("mesh.tensor", 1)
    config.model.wkv = "associative"  # Of a kernel the compiler estimates no cycles.
    return config


def compared(place: str, fields: dict[str, Any], predicted: Prediction, step: CompiledStep) -> dict:
    """A row: `predicted` and `compiled` bytes of memory, bytes sent along each axis, and FLOPs of a device."""
    sent: dict[str, float] = {}
    for each in predicted.collectives:
        if amount := each.sent(predicted.sizes[each.axis]):
            sent[each.axis] = sent.get(each.axis, 0.0) + amount
    memory = predicted.memory
    return {
        "topology": place, "slices": step.slices, "fields": fields, "chips": predicted.devices, "batch_size": step.batch_size,
        "predicted": {
            "state": memory.state, "memory": memory.total, "flops": predicted.device.flops, "sent": sent,
        },
        "compiled": {name: value for name, value in step.to_dict().items() if name not in ("libtpu", "batch_size", "slices")},
    }  # fmt: skip


def markdown(rows: list[dict]) -> str:
    """The table of docs/plan.md: predicted over compiled."""
    head = "chips | topology | fields | arguments | FLOPs | sent | temporaries, code | bound | compiler's estimate"
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    off = lambda a, b: f"{a / b - 1:+.1%}" if b else "-"
    for each in rows:
        predicted, compiled = each["predicted"], each["compiled"]
        place = each["topology"] + (f" x {each['slices']}" if each["slices"] > 1 else "")
        fields = ", ".join(f"`{name}={value}`" for name, value in each["fields"].items())
        sent = sum(found["sent"] for found in compiled["communications"])
        cells = [
            str(each["chips"]), place, fields,
            f"{compiled['arguments'] / 1e6:.2f} MB, {off(predicted['state'], compiled['arguments'])}",
            f"{compiled['flops'] / 1e9:.2f} G, {off(predicted['flops'], compiled['flops'])}",
            f"{sent / 1e6:.2f} MB, {off(sum(predicted['sent'].values()), sent)}",
            f"{compiled['temporaries'] / 1e6:.0f}, {compiled['code'] / 1e6:.0f} MB",
            f"{compiled['bound_s'] * 1e3:.2f} ms", f"{compiled['estimated_s'] * 1e3:.2f} ms",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
