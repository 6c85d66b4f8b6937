"""Predicted collectives against those in the compiled step on eight virtual devices, and their times against hand-made numbers.

XLA's CPU compiler sums gradients whole where another would sum them into parts: there, all-reduces stand for reduce-scatters.
"""

import math
import re
from collections import Counter

import jax
import pytest

from sdit_jax.analysis import chips
from sdit_jax.planner.arithmetic import training_program
from sdit_jax.planner.collectives import Collective, collectives, seconds

AXES = ("data", "fsdp", "tensor")
BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1}


def in_text(text):
    """Bytes of the results of every kind of collective, those inside of loops as often as they run."""
    calls, loops, total, here = [], {}, Counter(), ""
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            here = head[1]
        if call := re.search(
            r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", line
        ):
            arrays = re.findall(r"(\w+)\[([\d,]*)\]", call[1])
            size = sum(BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n) for dtype, shape in arrays)
            calls.append((here, call[2], size))
        if " while(" in line:
            body, trips = re.search(r"body=%?([\w.\-]+)", line), re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            loops[body[1]] = (here, int(trips[1]) if trips else 1)
    for place, kind, size in calls:
        while place in loops:
            place, trips = loops[place]
            size *= trips
        total[kind] += size
    return total


def predicted(real, **fields):
    """Bytes by kind, for a mesh of one axis of 8."""
    config = real.config(**fields)
    model, objective, _, _, state = real.abstract(config)
    sizes = [max(1, config.mesh[axis]) for axis in AXES]
    images, M = config.batch_size // (sizes[0] * sizes[1]), config.microbatches
    mesh = jax.sharding.AbstractMesh(tuple(sizes), AXES)
    program = training_program(model, objective, state.variables, images, M, mesh)
    total = Counter()
    for each in collectives(program, state.params, model.layout, mesh, M):
        if each.sent(mesh.shape[each.axis]):
            total[each.kind] += each.bytes
    return total


FIELDS = {"batch_size": 32, "model__depth": 2, "mesh__data": 1}


@pytest.mark.slow
@pytest.mark.parametrize("microbatches", [1, 4])
def test_data_parallelism_sums_gradients_once_a_step(real, on_eight_devices, microbatches):
    fields = FIELDS | {"mesh__data": 8, "microbatches": microbatches}
    found, expected = in_text(on_eight_devices(**fields)), predicted(real, **fields)
    assert set(found) == set(expected) == {"all-reduce"}
    assert expected["all-reduce"] == pytest.approx(found["all-reduce"], rel=0.01)


@pytest.mark.slow
def test_full_sharding_gathers_weights_twice_and_sums_gradients_once(real, on_eight_devices):
    """In loops; where none is between, the compiler keeps some for the backward pass."""
    fields = FIELDS | {"mesh__fsdp": 8, "model__width": 256, "model__depth": 4, "model__remat": "blocks"}
    found, expected = in_text(on_eight_devices(**fields)), predicted(real, **fields)
    assert expected["all-gather"] == pytest.approx(found["all-gather"], rel=0.15)
    summed = found["all-reduce"] + found["reduce-scatter"]
    assert expected["all-reduce"] + expected["reduce-scatter"] == pytest.approx(summed, rel=0.05)


@pytest.mark.slow
def test_tensor_parallelism_sums_activations_and_their_gradients(real, on_eight_devices):
    fields = FIELDS | {"mesh__tensor": 8}
    found, expected = in_text(on_eight_devices(**fields)), predicted(real, **fields)
    assert set(found) == set(expected) == {"all-reduce"}
    assert expected["all-reduce"] == pytest.approx(found["all-reduce"], rel=0.01)


def test_times_by_hand():
    """A gigabyte over 8 of v5p's chips: 7/8 GB sent twice at 600 GB/s, alone; at half of the links beside another axis."""
    gradients, weights = Collective("data", "all-reduce", "", 1e9), Collective("fsdp", "all-gather", "", 1e9)
    v5p, h100 = chips.find("v5p"), chips.find("h100")
    assert seconds(gradients, {"data": 8, "fsdp": 1, "tensor": 1}, 1, v5p) == pytest.approx(2 * 0.875 / 600)
    assert seconds(weights, {"data": 8, "fsdp": 4, "tensor": 1}, 1, v5p) == pytest.approx(0.75 / 300)
    assert seconds(weights, {"data": 8, "fsdp": 4, "tensor": 1}, 1, h100) == pytest.approx(0.75 / 450)
    assert seconds(gradients, {"data": 1, "fsdp": 8, "tensor": 1}, 1, v5p) == 0
    # 32 GPUs in 4 nodes of 8: in a node as above, and the eighth of a gigabyte that each is left with at 50 GB/s.
    across = 2 * 0.125 * 3 / 4 / 50
    assert seconds(gradients, {"data": 32, "fsdp": 1, "tensor": 1}, 4, h100) == pytest.approx(2 * 0.875 / 450 + across)
