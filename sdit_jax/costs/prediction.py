"""The cost of a configuration on so many chips: memory, FLOPs, bytes moved and sent, and bounds of the time of a step.

Each kind of work takes its amount over the chip's stated rate times ACHIEVED, the share of it that programs reach: an
assumption, the same for all chips, not a measurement. If all of them overlap, a step takes the longest; if none does, their
sum. What is left out: latency, input, host, elementwise work that is not fused, padding to the matrix unit's size.

Weak scaling holds the images of a device constant. Its efficiency is the time of a step on the smallest mesh of that layout,
fsdp x tensor chips, over that on more chips, if communication is hidden as far as it can be, and if none is.
"""

import dataclasses
import math
from contextlib import suppress
from typing import Any

import jax
from jax.sharding import AbstractMesh

from sdit_jax import config as fields
from sdit_jax import sharding
from sdit_jax.config import Config, InputError
from sdit_jax.costs.arithmetic import Arithmetic, arithmetic
from sdit_jax.costs.chips import Chip
from sdit_jax.costs.collectives import Collective, collectives, seconds
from sdit_jax.costs.memory import Memory, memory
from sdit_jax.models import build
from sdit_jax.sampling.run import make_objective
from sdit_jax.sharding.mesh import AXES, resolved
from sdit_jax.training import optimizer
from sdit_jax.training.state import create

ACHIEVED = {"compute": 0.5, "memory": 0.8, "links": 0.8}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One step. `images` are those of a device; `flops` those of the whole step, work done twice counted once."""

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
        """Images per second and chip, in parts of those of the smallest mesh of this layout: least and most, by the bounds."""
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


def predict(config: Config, chip: Chip, devices: int, slices: int = 0) -> Prediction:
    """The prediction for a configuration; 0 slices are as few as the chip's links allow.

    Raises InputError where the configuration is not valid, the mesh or batch does not divide, or chips cannot be joined so.
    """
    fields.validate(config)
    sizes = _sizes(config, devices)
    slices = check_slices(chip, sizes, slices)
    mesh = AbstractMesh(tuple(sizes.values()), AXES)
    sharding.check_batch_size(config.batch_size, config.microbatches, mesh)
    model, objective = build(config.model), make_objective(config.diffusion)
    model = model.clone(wkv="associative") if model.wkv == "auto" else model  # What "auto" is on accelerators.
    tx = optimizer.adamw(config.optimizer, lambda _: 0.0)
    state = jax.eval_shape(lambda: create(model, tx, config.seed, config.ema.half_life > 0))

    groups, M = sizes["data"] * sizes["fsdp"], config.microbatches
    images = config.batch_size // groups
    held = memory(model, objective, state, mesh, images, M)
    updated = held.parameters // 4
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    weights = {"weights": updated * sizes["fsdp"], "updated": updated, "ema": state.ema is not None}
    return Prediction(
        chip, config.model.dtype, sizes, slices, images, M, parameters,
        flops=groups * arithmetic(model, images, M, **weights).flops,
        device=arithmetic(model, images, M, tensor=sizes["tensor"], **weights),
        memory=held,
        collectives=tuple(collectives(model, state.params, mesh, images, M)),
    )  # fmt: skip


def _sizes(config: Config, devices: int) -> dict[str, int]:
    return {str(axis): size for axis, size in zip(AXES, resolved(config.mesh, devices), strict=True)}


def check_slices(chip: Chip, sizes: dict[str, int], slices: int = 0) -> int:
    """The number of slices, found where it is 0. Raises InputError for one that cannot be."""
    devices = math.prod(sizes.values())
    least = -(-devices // chip.domain)
    found = f"--slices: found {slices}" if slices else f"--devices: found {devices}, {least} slices of {chip.name}"
    slices = slices or least
    if slices < least:
        raise InputError(f"{found}, must be at least {least}: links join at most {chip.domain} {chip.name}")
    if slices > 1 and chip.network is None:
        raise InputError(f"{found}, must be 1: the network between {chip.name} of different slices is not known here")
    if sizes["data"] % slices:
        raise InputError(f"{found}, must divide config.mesh.data, which is {sizes['data']}: no other axis crosses slices")
    return slices


def scaled(prediction: Prediction, devices: int) -> Prediction:
    """The same layout and images of a device on more or fewer chips, along `data`."""
    sizes = prediction.sizes
    sizes = sizes | {"data": devices // (sizes["fsdp"] * sizes["tensor"])}
    again, slices = devices / prediction.devices, check_slices(prediction.chip, sizes)
    return dataclasses.replace(prediction, sizes=sizes, slices=slices, flops=prediction.flops * again)


def weak_scaling(prediction: Prediction, most: int = 4096) -> list[Prediction]:
    """Twice as many chips each time, from the smallest mesh of the layout to `most`; without those that cannot be joined so."""
    devices, rows = prediction.sizes["fsdp"] * prediction.sizes["tensor"], []
    while devices <= most:
        with suppress(InputError):
            rows.append(scaled(prediction, devices))
        devices *= 2
    return rows


def advice(config: Config, chip: Chip, devices: int, slices: int = 0) -> tuple[dict[str, Any], Prediction] | None:
    """The first change of fields with which the step fits, and its prediction; None where none of those tried does.

    First less is kept (remat), then fewer images are worked on at once (microbatches), then the state is split (fsdp).
    """
    kept = [remat for remat in ("elementwise", "blocks") if config.model.remat not in (remat, "blocks")]
    changes: list[dict[str, Any]] = [{"model.remat": remat} for remat in kept]
    sizes = _sizes(config, devices)
    images = config.batch_size // (sizes["data"] * sizes["fsdp"])
    changes += [{"model.remat": "blocks", "microbatches": images // part} for part in (8, 1) if images % part == 0]
    inside = min(chip.domain, devices) // sizes["tensor"]
    changes += [
        {"model.remat": "blocks", "microbatches": images, "mesh.data": -1, "mesh.fsdp": fsdp}
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
