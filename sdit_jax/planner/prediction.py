"""The cost of a configuration on so many chips: memory, FLOPs, bytes moved and sent, and bounds of the time of a step.

Each kind of work takes its amount over the chip's stated rate times ACHIEVED, the share of the rate that programs reach: an
assumption, the same for all chips, not a measurement. If all of them overlap, a step takes the longest; if none does, their
sum. Left out are latency, input, host, elementwise work that is not fused, and padding to the matrix unit's size.

Weak scaling keeps the images of a device constant. Its efficiency is the time of a step on the smallest mesh of that layout,
fsdp x tensor chips, over that on more chips: with communication overlapped as far as possible, and with none overlapped.
"""

import dataclasses
import math
from contextlib import suppress
from typing import Any

import jax
from jax.sharding import AbstractMesh

from sdit_jax import config as fields
from sdit_jax import models, sharding
from sdit_jax.analysis.chips import Chip
from sdit_jax.config import Config
from sdit_jax.diffusion.objective import make_objective
from sdit_jax.errors import InputError
from sdit_jax.ops.backend import assumed
from sdit_jax.planner.arithmetic import Arithmetic, arithmetic, training_program
from sdit_jax.planner.collectives import Collective, collectives, seconds
from sdit_jax.planner.memory import Memory, memory, on_device
from sdit_jax.sharding.mesh import AXES, resolved
from sdit_jax.training import optimizer
from sdit_jax.training.state import create

ACHIEVED = {"compute": 0.5, "memory": 0.8, "links": 0.8}
FIELDS = ("devices", "slices")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One step. `images` are those of a device; `flops` those of all devices, repeated work once."""

    chip: Chip
    dtype: str
    sizes: dict[str, int]
    slices: int
    images: int
    microbatches: int
    parameters: int
    flops: float
    device: Arithmetic
    memory: Memory
    collectives: tuple[Collective, ...]

    @property
    def devices(self) -> int:
        return math.prod(self.sizes.values())

    @property
    def batch_size(self) -> int:
        return self.images * self.sizes["data"] * self.sizes["fsdp"]

    @property
    def compute_s(self) -> float:
        return self.device.flops / self.chip.flops_per_s(self.dtype) / ACHIEVED["compute"]

    @property
    def memory_s(self) -> float:
        return self.device.bytes / self.chip.bandwidth / ACHIEVED["memory"]

    def collective_s(self, collective: Collective) -> float:
        return seconds(collective, self.sizes, self.slices, self.chip) / ACHIEVED["links"]

    @property
    def collectives_s(self) -> float:
        return sum(self.collective_s(each) for each in self.collectives)

    @property
    def bounds_s(self) -> tuple[float, float]:
        """Seconds of a step if compute, memory and collectives overlap, and if they follow each other."""
        parts = self.compute_s, self.memory_s, self.collectives_s
        return max(parts), sum(parts)

    @property
    def efficiency(self) -> tuple[float, float]:
        """Images per second and chip over those of the smallest mesh of this layout: the least and the most of both bounds."""
        least = scaled(self, self.sizes["fsdp"] * self.sizes["tensor"]).bounds_s
        low, high = sorted(alone / here for alone, here in zip(least, self.bounds_s, strict=True))
        return low, high

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.chip.memory

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for JSON: bytes, seconds, FLOPs."""
        sent = [
            dataclasses.asdict(each) | {"sent": each.sent(self.sizes[each.axis]), "seconds": self.collective_s(each)}
            for each in self.collectives
        ]
        step, efficiency = (dict(zip(("least", "most"), pair, strict=True)) for pair in (self.bounds_s, self.efficiency))
        return dataclasses.asdict(self) | {
            "devices": self.devices, "batch_size": self.batch_size, "collectives": sent, "achieved": ACHIEVED,
            "compute_s": self.compute_s, "memory_s": self.memory_s, "collectives_s": self.collectives_s,
            "step_s": step, "efficiency": efficiency, "total_bytes": self.memory.total, "fits": self.fits,
        }  # fmt: skip


def predict(config: Config, chip: Chip, devices: int, slices: int = 0, names: tuple[str, str] = FIELDS) -> Prediction:
    """The prediction for a configuration; 0 slices are as few as the chip's links allow.

    Raises InputError for a configuration that is not valid, a mesh or batch that does not divide, and chips that cannot be
    joined so; `names` are those of the fields `devices` and `slices` in messages.
    """
    fields.validate(config)
    sizes = _sizes(config, devices)
    slices = check_slices(chip, sizes, slices, names)
    mesh = AbstractMesh(tuple(sizes.values()), AXES)
    sharding.check_batch_size(config.batch_size, config.microbatches, mesh)
    groups, M = sizes["data"] * sizes["fsdp"], config.microbatches
    images = config.batch_size // groups
    model, objective = models.build(config.model), make_objective(config.diffusion)
    tx = optimizer.make_optimizer(config.optimizer, lambda _: 0.0, model)
    state = jax.eval_shape(lambda: create(model, tx, config.seed, config.ema.half_life > 0))
    with assumed("tpu" if chip.torus else "gpu"):
        held = memory(model, objective, state, mesh, images, M)
        program = training_program(model, objective, state.variables, images, M, mesh)
    updated = on_device(state.params, sharding.shardings(mesh, state.params, model.layout)) // 4
    return Prediction(
        chip, model.dtype, sizes, slices, images, M,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        flops=groups * program.flops,
        device=arithmetic(program, images // M, tensor=sizes["tensor"], updated=updated, ema=state.ema is not None),
        memory=held,
        collectives=tuple(collectives(program, state.params, model.layout, mesh, M, gathered=2 if chip.torus else 4)),
    )  # fmt: skip


def _sizes(config: Config, devices: int) -> dict[str, int]:
    return {str(axis): size for axis, size in zip(AXES, resolved(config.mesh, devices), strict=True)}


def check_slices(chip: Chip, sizes: dict[str, int], slices: int = 0, names: tuple[str, str] = FIELDS) -> int:
    """The number of slices; the least possible where it is 0. Raises InputError for an impossible one."""
    devices = math.prod(sizes.values())
    least = -(-devices // chip.domain)
    found = f"{names[1]}: found {slices}" if slices else f"{names[0]}: found {devices}, {least} slices of {chip.name}"
    slices = slices or least
    if slices < least:
        raise InputError(f"{found}, must be at least {least}: links join at most {chip.domain} {chip.name}")
    if slices > 1 and chip.network is None:
        raise InputError(f"{found}, must be 1: the network between slices of {chip.name} is not known")
    if sizes["data"] % slices:
        raise InputError(f"{found}, must divide config.mesh.data, which is {sizes['data']}: no other axis crosses slices")
    return slices


def scaled(prediction: Prediction, devices: int) -> Prediction:
    """The same layout and images per device on more or fewer chips, along `data`."""
    sizes = prediction.sizes
    sizes = sizes | {"data": devices // (sizes["fsdp"] * sizes["tensor"])}
    again, slices = devices / prediction.devices, check_slices(prediction.chip, sizes)
    return dataclasses.replace(prediction, sizes=sizes, slices=slices, flops=prediction.flops * again)


def weak_scaling(prediction: Prediction, most: int = 4096) -> list[Prediction]:
    """Predictions for 1, 2, 4, ... times the smallest mesh of the layout, up to `most` chips; impossible ones are left out."""
    devices, rows = prediction.sizes["fsdp"] * prediction.sizes["tensor"], []
    while devices <= most:
        with suppress(InputError):
            rows.append(scaled(prediction, devices))
        devices *= 2
    return rows


def advice(config: Config, chip: Chip, devices: int, slices: int = 0) -> tuple[dict[str, Any], Prediction] | None:
    """The first change of fields with which the step fits, and its prediction; None if none that is tried does.

    First less is kept (remat, in the order of the network's choices), then fewer images are processed at once (microbatches),
    then the state is split (fsdp).
    """
    choices = models.find(config.model.get("name", models.DEFAULT)).fields["remat"].metadata["allowed"]
    less = choices[choices.index(config.model.remat) + 1 :]
    changes: list[dict[str, Any]] = [{"model.remat": remat} for remat in less]
    sizes = _sizes(config, devices)
    images, least = config.batch_size // (sizes["data"] * sizes["fsdp"]), {"model.remat": choices[-1]}
    changes += [least | {"microbatches": images // part} for part in (8, 1) if images % part == 0]
    inside = min(chip.domain, devices) // sizes["tensor"]
    changes += [
        least | {"microbatches": images, "mesh.data": -1, "mesh.fsdp": fsdp}
        for fsdp in (8, 64, 512)
        if sizes["fsdp"] < fsdp <= inside and devices % (fsdp * sizes["tensor"]) == 0
    ]
    for change in changes:
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(change)
        prediction = predict(changed, chip, devices, slices)
        if prediction.fits:
            return change, prediction
    return None
