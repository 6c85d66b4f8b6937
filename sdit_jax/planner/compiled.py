"""The training step of a configuration as a compiler leaves it: memory, work, padding, communication and a bound of its time.

`lower` traces the step for any devices, at hand or not (`topology.devices`); `CompiledStep.of` reads the compiled program. What
the chip does in a step is counted from its optimised text, with loops as often as they run (`hlo`, `traffic`, `communication`).
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax

from sdit_jax import config as fields
from sdit_jax import models, sharding
from sdit_jax.analysis.chips import Chip
from sdit_jax.config import Config
from sdit_jax.diffusion.objective import make_objective
from sdit_jax.planner import hlo, topology, traffic
from sdit_jax.planner.communication import SLICES, Communication, communications
from sdit_jax.planner.origin import origin
from sdit_jax.training import optimizer
from sdit_jax.training.state import create
from sdit_jax.training.step import compile_for, empty_averages, make_train_step

# Multiply-accumulates of all matrix units of a chip in a cycle, from which its clock follows: 1.5 GHz, 1.75 GHz, 1.75 GHz.
MACS_PER_CYCLE = {"v5e": 4 * 128**2, "v5p": 8 * 128**2, "v6e": 4 * 256**2}
STEPS = 1000  # Of the learning rate's schedule, which no count depends on.


@dataclasses.dataclass(frozen=True)
class Padding:
    """Bytes of arrays in the compiler's tiles, and of their elements."""

    padded: float
    elements: float

    @property
    def share(self) -> float:
        """Of the bytes that hold nothing."""
        return 1 - self.elements / self.padded if self.padded else 0.0


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """One device's part of a compiled step.

    Memory in bytes: `arguments` (the state and a batch, which the results take over), `results` beyond them, `temporaries`,
    `code`. Per step: `flops` of products; `traffic` of HBM in bytes, also by `origins`; `cycles` that the compiler estimates,
    without communication, copies and the runs of `kernels`, of which it has no estimate. `state` is the padding of the
    arguments. `loops` of unknown length are counted once.
    """

    chip: Chip
    libtpu: str
    sizes: dict[str, int]
    slices: int
    batch_size: int
    arguments: int
    results: int
    temporaries: int
    code: int
    flops: float
    cycles: float
    traffic: Padding
    state: Padding
    origins: dict[str, float]
    communications: tuple[Communication, ...]
    loops: tuple[str, ...]
    kernels: int

    @classmethod
    def of(cls, program: Any, config: Config, mesh: Any, chip: Chip, slices: int = 1) -> "CompiledStep":
        """Of `lower(config, mesh).compile()`."""
        read, held = hlo.parse(program.as_text()), program.memory_analysis()
        moved, flops, cycles, padded, elements, kernels = defaultdict(float), 0.0, 0.0, 0.0, 0.0, 0
        for each, here, times in read.runs:
            flops += times * traffic.flops(read, each, here)
            kernels += times * traffic.is_kernel(each)
            estimate = re.search(r'"estimated_cycles":"(\d+)"', each.attributes)
            cycles += times * int(estimate[1]) if estimate else 0
            for array, share in traffic.moved(read, each, here):
                padded += times * share * array.padded
                elements += times * share * array.size
                moved[origin(each)] += times * share * array.padded
        origins = dict(sorted(moved.items(), key=lambda pair: -pair[1]))
        entry = read.computations[read.entry].values()
        arguments = [array for each in entry if each.opcode == "parameter" for array in each.results]
        sizes = {str(axis): size for axis, size in mesh.shape.items()}
        inside = sizes | {"data": sizes["data"] // slices}
        return cls(
            chip, topology.version(), sizes, slices, config.batch_size,
            held.argument_size_in_bytes, held.output_size_in_bytes - held.alias_size_in_bytes, held.temp_size_in_bytes,
            held.generated_code_size_in_bytes, flops, cycles, Padding(padded, elements),
            Padding(sum(array.padded for array in arguments), sum(array.size for array in arguments)),
            origins, tuple(communications(read, inside)), tuple(read.unknown_loops), kernels,
        )  # fmt: skip

    @property
    def memory(self) -> int:
        """Bytes of HBM that a chip needs."""
        return self.arguments + self.results + self.temporaries + self.code

    @property
    def compute_s(self) -> float:
        return self.flops / self.chip.bfloat16

    @property
    def memory_s(self) -> float:
        return self.traffic.padded / self.chip.bandwidth

    @property
    def estimated_s(self) -> float:
        """The compiler's cycles at the clock that the chip's peak rate implies."""
        return self.cycles * 2 * MACS_PER_CYCLE[self.chip.name] / self.chip.bfloat16

    def seconds(self, each: Communication) -> float:
        """At the stated rates; axes of the mesh share the links of the torus."""
        if each.axes == SLICES:
            assert self.chip.network, f"{self.chip.name} has no network between slices"
            return each.sent / self.chip.network
        inside = self.sizes | {"data": self.sizes["data"] // self.slices}
        sharing = max(1, sum(size > 1 for size in inside.values()) / len(each.axes.split("+")))
        return each.sent * sharing / self.chip.links

    @property
    def bound_s(self) -> float:
        """Least seconds of a step: its longest part that overlaps, after which synchronous communication adds up."""
        overlapping = sum(self.seconds(each) for each in self.communications if each.overlaps)
        return max(self.compute_s, self.memory_s, overlapping) + self.synchronous_s

    @property
    def synchronous_s(self) -> float:
        return sum(self.seconds(each) for each in self.communications if not each.overlaps)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for JSON: bytes, seconds, FLOPs."""
        return dataclasses.asdict(self) | {
            "chip": self.chip.name, "limit": self.chip.memory, "memory": self.memory, "compute_s": self.compute_s,
            "memory_s": self.memory_s, "estimated_s": self.estimated_s, "synchronous_s": self.synchronous_s,
            "bound_s": self.bound_s,
        }  # fmt: skip


def lower(config: Config, mesh: Any) -> Any:
    """The training step of a configuration, traced for the devices of a mesh. Raises InputError for what does not fit it."""
    fields.validate(config)
    sharding.check_batch_size(config.batch_size, config.microbatches, mesh)
    model, objective = models.build(config.model), make_objective(config.diffusion)
    rate = optimizer.learning_rate(config.optimizer, STEPS, 0)
    tx = optimizer.make_optimizer(config.optimizer, rate, model)
    state = jax.eval_shape(lambda: create(model, tx, config.seed, config.ema.half_life > 0))
    B, size = config.batch_size, model.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((B, size, size, model.channels), "uint8"),
        "label": jax.ShapeDtypeStruct((B,), "int32"),
    }
    empty = lambda variables, batch: empty_averages(model, objective, variables, batch, config.spike_penalty)
    scalars = jax.eval_shape(empty, state.variables, batch)
    return make_train_step(model, objective, tx, rate, config, mesh, shapes=state).lower(state, scalars, batch)


def compiled_step(config: Config, chip: Chip, devices: Sequence[Any], slices: int = 1) -> CompiledStep:
    """The step compiled for the `devices` of a topology, which takes a minute or more.

    Raises InputError for a configuration that does not fit the topology, and TooLarge where the compiler refuses the program.
    """
    mesh = sharding.make_mesh(config.mesh, devices)
    return CompiledStep.of(compile_for(lower(config, mesh), config.batch_size), config, mesh, chip, slices)
