"""Layouts that a person can read: every preset on 8 and on 256 devices, held against a golden file.

After a change that is meant: `UPDATE_GOLDEN=1 python -m pytest tests/sharding/test_layout.py`, and read the difference.
"""

import os
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from sdit_jax.diffusion import schedule
from sdit_jax.diffusion.objective import Objective
from sdit_jax.models import build, preset
from sdit_jax.models.sdit import LAYOUT, PRESETS
from sdit_jax.planner.memory import memory
from sdit_jax.sharding.layout import LARGE, describe, shardings, spec
from sdit_jax.sharding.mesh import AXES
from sdit_jax.training.state import create

GOLDEN = Path(__file__).parent / "layouts"
IMAGES = 8  # On each device.
MESHES = {"8": (2, 2, 2), "256": (8, 16, 2)}


def mesh_of(*sizes):
    return AbstractMesh(sizes, AXES)


def state_of(name):
    return jax.eval_shape(lambda: create(build(preset(name)), optax.adamw(1e-3), 0, keep_ema=True))


@pytest.mark.parametrize("devices", MESHES)
@pytest.mark.parametrize("name", PRESETS)
def test_the_layout_of_every_preset_is_the_golden_one(name, devices):
    mesh, state = mesh_of(*MESHES[devices]), state_of(name)
    parts = {"parameters": state.variables["params"], "average": state.ema["params"], "optimizer": state.optimizer}
    lines = [f"{name} on {devices} devices: " + " x ".join(f"{a} {n}" for a, n in mesh.shape.items()), ""]
    lines += [
        f"{part}: {held(mesh, tree):,} of {held(mesh_of(1, 1, 1), tree):,} bytes per device" for part, tree in parts.items()
    ]
    needed = memory(build(preset(name)), Objective(schedule.linear(1000)), state, mesh, IMAGES)
    needed = needed.kept + needed.transient
    lines.append(f"activations of {IMAGES} images: {needed:,} bytes per device, by sdit_jax.planner")
    found = "\n".join([*lines, "", describe(mesh, state.variables["params"], LAYOUT), ""])
    path = GOLDEN / f"{name}_{devices}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    expected, number = path.read_text(), r"(?<=images: )[\d,]+"
    assert re.sub(number, "", found) == re.sub(number, "", expected)
    before = int(re.search(number, expected)[0].replace(",", ""))
    assert needed == pytest.approx(before, rel=0.02)  # What autodiff keeps differs a little between versions of JAX.


def held(mesh, tree):
    """Bytes per device, counted from what JAX makes of the layout."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings(mesh, tree, LAYOUT)), strict=True)
    return sum(leaf.dtype.itemsize * int(np.prod(where.shard_shape(leaf.shape))) for leaf, where in pairs)


def test_averages_and_moments_lie_as_their_parameters():
    mesh, state = mesh_of(2, 2, 2), state_of("sdit_mnist")
    laid = shardings(mesh, state, LAYOUT)
    params = [where.spec for where in jax.tree.leaves(laid.variables)]
    assert [where.spec for where in jax.tree.leaves(laid.ema)] == params
    moments = laid.optimizer[0]
    assert (
        [where.spec for where in jax.tree.leaves(moments.mu)] == params == [where.spec for where in jax.tree.leaves(moments.nu)]
    )
    assert any("fsdp" in where for where in params) and any("tensor" in where for where in params)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("params/mid_block/time_mix/key/kernel", (384, 384), P("fsdp", "tensor")),
        ("params/in_blocks/time_mix/key/kernel", (4, 384, 384), P(None, "fsdp", "tensor")),
        ("optimizer/0/mu/out_blocks/channel_mix/value/kernel", (4, 1536, 384), P(None, "tensor", "fsdp")),
        ("params/mid_block/time_mix/time_decay", (384,), P("tensor")),
        ("params/mid_block/time_mix/key/kernel", (384, 387), P("fsdp", None)),  # 387 does not divide.
        ("params/mid_block/channel_mix/receptance/kernel", (128, 256), P(None, "fsdp")),  # The larger axis.
        ("params/in_blocks/reconstruction/tokens", (4, 197, 384), P(None, None, "fsdp")),  # Never along the blocks.
        ("params/position", (1, LARGE - 2), P(None, None)),  # Small.
        ("params/position", (1, LARGE), P(None, "fsdp")),
        ("step", (), P()),
    ],
)
def test_rules(name, shape, expected):
    assert spec(mesh_of(2, 2, 2), name, shape, LAYOUT) == expected
