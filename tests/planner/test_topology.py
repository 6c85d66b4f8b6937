"""Topologies that are not at hand; and, where there is libtpu, small steps compiled for them against docs/bench_tpu.json.

The file is written by `sdit bench --what=tpu --out=docs/bench_tpu.json` and names its version of libtpu; another version may
give other numbers, and the file is then to be written anew.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdit_jax.analysis.chips import peak
from sdit_jax.benchmarks import tpu
from sdit_jax.errors import InputError
from sdit_jax.planner import topology

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "docs" / "bench_tpu.json"
LIBTPU = pytest.mark.skipif(not topology.is_installed(), reason="there is no libtpu for this platform")


def test_without_libtpu_the_error_names_what_installs_it(monkeypatch):
    monkeypatch.setattr(topology, "is_installed", lambda: False)
    with pytest.raises(
        InputError, match=r"--topology: found 'v5e:2x4', needs the package libtpu: pip install 'sdit_jax\[tpu\]'"
    ):
        topology.devices("v5e:2x4", field="--topology")


@LIBTPU
@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:3x3", "v5e:2x2x2x2", "v4:2x2x1"])
def test_an_unknown_topology_names_those_that_are_allowed(name):
    with pytest.raises(InputError, match=f"topology: found '{name}', allowed are v5e, v5p, v6e with a shape, as in v5e:4x4"):
        topology.devices(name)


@LIBTPU
def test_more_chips_than_a_slice_has_are_refused():
    with pytest.raises(InputError, match="topology: found 'v5e:32x16', must have at most 256 chips"):
        topology.devices("v5e:32x16")


@LIBTPU
@pytest.mark.parametrize(("name", "slices", "chips"), [("v5e:1x1", 1, 1), ("v5e:16x16", 1, 256), ("v5p:2x2x2", 2, 16)])
def test_a_topology_has_its_chips_in_slices(name, slices, chips):
    chip, devices = topology.devices(name, slices)
    assert len(devices) == chips
    assert peak(devices[0].device_kind, "bfloat16") == chip.bfloat16
    assert len({getattr(device, "slice_index", 0) for device in devices}) == slices


def test_the_table_of_the_docs_is_that_of_the_file():
    rows = json.loads(GOLDEN.read_text())["digits"]
    assert tpu.markdown(rows) in (ROOT / "docs" / "plan.md").read_text()


def test_predictions_are_near_the_compiler():
    """Arguments and FLOPs of every row; what is sent, where weights are not gathered."""
    rows = json.loads(GOLDEN.read_text())["digits"]
    assert len(rows) >= 12 and {1, 256} <= {row["chips"] for row in rows}
    for row in rows:
        predicted, compiled = row["predicted"], row["compiled"]
        split = {name: size for name, size in compiled["sizes"].items() if size > 1}
        sent = sum(each["sent"] for each in compiled["communications"])
        if "fsdp" not in split and row["fields"] != {"model.remat": "blocks"}:  # A loop of one block, which it undoes.
            assert predicted["flops"] == pytest.approx(compiled["flops"], rel=0.05), row
        if (set(split) <= {"data"} and row["slices"] == 1) or set(split) == {"tensor"}:
            assert predicted["state"] == pytest.approx(compiled["arguments"], rel=0.05), row
            assert sum(predicted["sent"].values()) == pytest.approx(sent, rel=0.05), row


COMPILE = (
    "import json, sys; from sdit_jax.benchmarks import tpu; print(json.dumps(tpu.row('digits:tiny', *json.loads(sys.argv[1]))))"
)


@LIBTPU
@pytest.mark.slow
@pytest.mark.parametrize("mesh", tpu.SMALLEST, ids=lambda mesh: mesh[0])
def test_a_small_step_compiles_as_recorded(mesh):
    """One gradient all-reduce and no loops of unknown length; memory and FLOPs are those of the file for the same libtpu."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(mesh)], cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout.splitlines()[-1])["compiled"]
    calls = {(each["kind"], each["axes"]): each["calls"] for each in compiled["communications"]}
    assert calls == {("all-reduce", "data"): 1} and not compiled["loops"]
    golden = json.loads(GOLDEN.read_text())
    if golden["libtpu"] != topology.version():
        pytest.skip(f"{GOLDEN.name} is of libtpu {golden['libtpu']}, this is {topology.version()}")
    (recorded,) = (row["compiled"] for row in golden["digits:tiny"] if row["topology"] == mesh[0])
    for name in ("arguments", "temporaries", "flops"):
        assert compiled[name] == pytest.approx(recorded[name], rel=0.05), name
