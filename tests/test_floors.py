"""The house keeps its floors: imports between rooms point down, and what habits forbid is nowhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sdit_jax"
FLOORS = {
    "ops": 0, "layers": 1, "models": 2, "diffusion": 3, "data": 3, "sampling": 4, "evaluation": 5, "training": 6,
    "costs": 7, "laws": 7,  # Count a step, and fit whole runs; neither runs anything.
    "benchmarks": 8,  # Measure whole steps beside what they must cost.
    "commands": 9,
}  # fmt: skip
BESIDE = (
    "checkpoint",
    "config",
    "files",
    "images",
    "memory",
    "sharding",
)  # Read by all; they read nothing of the package but each other.
BLIND = {"diffusion": ("models", "layers", "ops"), "data": ("models", "layers", "ops")}
FILES = sorted(PACKAGE.rglob("*.py"))
ALL_FILES = sorted(file for folder in ("sdit_jax", "configs", "launch", "tests") for file in (ROOT / folder).rglob("*.py"))


def imports(source):
    """Dotted names of everything imported anywhere in a source; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def room_of(parts):
    """The room of a path inside the package: a folder, one of BESIDE, or the commands."""
    if not parts:
        return None
    return parts[0] if parts[0] in FLOORS or parts[0] in BESIDE else "commands"


def faults(path, source):
    """Imports of a module, given by its path inside the package, that do not point down."""
    room = room_of(Path(path).with_suffix("").parts)
    for name in imports(source):
        top, *rest = name.split(".")
        if name.startswith("."):
            yield f"{name}: relative"
        elif name.split(".")[0] == "absl" and "flags" in name and room != "commands":
            yield f"{name}: only commands know flags"
        elif "_src" in rest and top in ("jax", "jaxlib"):
            yield f"{name}: private"
        elif top in ("pickle", "cPickle", "cloudpickle", "dill"):
            yield f"{name}: pickle"
        elif top == "sdit_jax" and not (len(rest) == 1 and rest[0].startswith("__")):
            target = room_of(rest)
            if target == room or (target in BESIDE and room not in BESIDE):
                continue
            if room in BESIDE:
                if target not in BESIDE:
                    yield f"{name}: {room} is read by all and may not read {target}"
            elif FLOORS[target] >= FLOORS[room] or target in BLIND.get(room, ()):
                yield f"{name}: {room} may not read {target}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file):
    if file == PACKAGE / "__init__.py":
        assert not list(imports(file.read_text()))
    else:
        assert not list(faults(file.relative_to(PACKAGE), file.read_text()))


@pytest.mark.parametrize(
    "path, source",
    [
        ("ops/lif.py", "from sdit_jax.layers.embed import patchify"),
        ("ops/lif.py", "def f():\n    import sdit_jax.models"),
        ("layers/rwkv.py", "from sdit_jax import models"),
        ("diffusion/loss.py", "from sdit_jax.models import build"),
        ("data/batches.py", "from sdit_jax.ops import lif"),
        ("data/batches.py", "from sdit_jax.diffusion import process"),
        ("evaluation/report.py", "from sdit_jax.training import step"),
        ("sampling/run.py", "from sdit_jax.evaluation import report"),
        ("training/loop.py", "from sdit_jax import train"),
        ("training/loop.py", "from absl import flags"),
        ("models/sdit.py", "from ..layers import embed"),
        ("config.py", "from sdit_jax.ops import lif"),
        ("images.py", "import sdit_jax.command_line"),
        ("ops/wkv.py", "from jax._src import core"),
        ("ops/wkv.py", "import jax._src.core"),
        ("checkpoint.py", "import pickle"),
    ],
)
def test_the_check_finds_an_import_that_does_not_point_down(path, source):
    assert list(faults(path, source))


@pytest.mark.parametrize(
    "path, source",
    [
        ("train.py", "from absl import flags\nfrom sdit_jax import command_line\nfrom sdit_jax.training.loop import run"),
        ("layers/rwkv.py", "from sdit_jax.ops import wkv\nfrom sdit_jax.layers import embed"),
        ("diffusion/loss.py", "from sdit_jax import config, images\nfrom sdit_jax.diffusion import process"),
        ("training/loop.py", "import sdit_jax.data.batches\nfrom absl import logging"),
    ],
)
def test_the_check_lets_an_import_that_points_down_pass(path, source):
    assert not list(faults(path, source))


def test_every_room_has_a_floor():
    rooms = {file.parent.name for file in PACKAGE.glob("*/*.py")}
    assert rooms and rooms <= {*FLOORS, *BESIDE}


@pytest.mark.parametrize("file", ALL_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_fits_in_the_head(file):
    assert len(file.read_text().splitlines()) <= 350
