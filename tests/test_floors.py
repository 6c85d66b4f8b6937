"""Imports between rooms point down, only commands name flags, and no file uses pickle or private parts of JAX."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sdit_jax"
# A room imports rooms of lower floors.
FLOORS = {
    "ops": 0, "diffusion": 0,
    "layers": 1,
    "models": 2,
    "config": 3, "data": 3,
    "sampling": 4,
    "metrics": 5, "analysis": 5,
    "report": 6,
    "training": 7, "scoring": 7, "tuning": 7,
    "planner": 8, "scaling_laws": 8, "gallery": 8,
    "benchmarks": 9,
    "api": 10, "commands": 11,
    "__main__": 12,
}  # fmt: skip
# Any room imports these; they import nothing of the package but each other.
SHARED = ("checkpoint", "errors", "files", "hashes", "images", "memory", "progress", "sharding")
# Rooms that must work with any network do not import one.
FORBIDDEN = dict.fromkeys(("diffusion", "data", "metrics"), ("models", "layers", "ops"))
FILES = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}
FLAG = re.compile(r"(?<![\w(-])--[a-z]")


def imports(tree):
    """Dotted names of all imports in a syntax tree; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def room_of(parts):
    """The room of a module path such as ("ops", "lif"); the package itself is "__init__"."""
    return Path(parts[0]).stem if parts else "__init__"


def faults(path, source):
    """Forbidden imports of a module, given by its path inside the package."""
    room = room_of(Path(path).parts)
    for name in imports(ast.parse(source)):
        top, *rest = name.split(".")
        if name.startswith("."):
            yield f"{name}: relative"
        elif top == "absl" and "flags" in rest and room != "commands":
            yield f"{name}: only commands define flags"
        elif "_src" in rest and top in ("jax", "jaxlib"):
            yield f"{name}: private"
        elif top in ("pickle", "cPickle", "cloudpickle", "dill"):
            yield f"{name}: pickle"
        elif top == "sdit_jax" and room != "__init__" and not allowed(room, room_of(rest)):
            yield f"{name}: {room} may not import {room_of(rest)}"


def allowed(room, target):
    if target == room or target in SHARED:
        return True
    return room not in SHARED and target in FLOORS and FLOORS[target] < FLOORS[room] and target not in FORBIDDEN.get(room, ())


@pytest.mark.parametrize("path", FILES)
def test_imports_point_down(path):
    assert not list(faults(path, FILES[path].read_text()))


def test_importing_the_package_imports_the_standard_library_alone():
    body = ast.parse(FILES["__init__.py"].read_text()).body
    later = [node for node in body if isinstance(node, ast.FunctionDef) or ast.unparse(node).startswith("if TYPE_CHECKING:")]
    found = {name.split(".")[0] for node in body if node not in later for name in imports(node)}
    assert found <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "path, source",
    [
        ("ops/lif.py", "from sdit_jax.layers.embed import patchify"),
        ("ops/lif.py", "def f():\n    import sdit_jax.models"),
        ("layers/rwkv.py", "from sdit_jax import models"),
        ("models/sdit.py", "from sdit_jax import config"),
        ("models/sdit.py", "from ..layers import embed"),
        ("diffusion/loss.py", "from sdit_jax.models import build"),
        ("data/in_memory.py", "from sdit_jax.ops import lif"),
        ("data/in_memory.py", "from sdit_jax import config"),
        ("metrics/frechet.py", "from sdit_jax.models import build"),
        ("metrics/frechet.py", "from sdit_jax.analysis import energy"),
        ("sampling/run.py", "from sdit_jax.report import build"),
        ("report/build.py", "from sdit_jax.training import step"),
        ("training/loop.py", "from sdit_jax.commands import train"),
        ("training/loop.py", "from absl import flags"),
        ("planner/memory.py", "from sdit_jax.scaling_laws import law"),
        ("config.py", "from sdit_jax.data import sources"),
        ("images.py", "import sdit_jax.commands.command_line"),
        ("files.py", "import sdit_jax"),
        ("ops/wkv.py", "from jax._src import core"),
        ("ops/wkv.py", "import jax._src.core"),
        ("checkpoint.py", "import pickle"),
    ],
)
def test_a_forbidden_import_is_found(path, source):
    assert list(faults(path, source))


@pytest.mark.parametrize(
    "path, source",
    [
        ("commands/train.py", "from absl import flags\nfrom sdit_jax import files\nfrom sdit_jax.training.loop import run"),
        ("layers/rwkv.py", "from sdit_jax.ops import wkv\nfrom sdit_jax.layers import embed"),
        ("diffusion/loss.py", "from sdit_jax import images\nfrom sdit_jax.diffusion import process"),
        ("config.py", "from sdit_jax.models import sdit\nfrom sdit_jax.errors import InputError"),
        ("training/loop.py", "import sdit_jax.data.streaming\nfrom absl import logging"),
        ("__init__.py", "def f():\n    from sdit_jax.sampling.run import open_run"),
    ],
)
def test_an_allowed_import_passes(path, source):
    assert not list(faults(path, source))


def test_every_room_has_a_floor():
    assert {room_of(Path(path).parts) for path in FILES} == {*FLOORS, *SHARED, "__init__"}


def flags_in(source):
    """String constants with a `--flag`; docstrings do not count."""
    tree = ast.parse(source)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in statements]
    return [node.value for node in constants if isinstance(node.value, str) and FLAG.search(node.value)]


# benchmarks/ runs the commands that it measures.
@pytest.mark.parametrize("path", [path for path in FILES if not path.startswith(("commands/", "benchmarks/"))])
def test_only_commands_name_flags(path):
    assert not flags_in(FILES[path].read_text())


@pytest.mark.parametrize(
    "source, found",
    [
        ('raise InputError("--n: found 0")', 1),
        ('raise InputError(f"{path}: missing; set it with --workdir={path}")', 1),
        ('"""Parses --n."""\ndef f():\n    """Set by --n."""', 0),
        ('style, line, color = "--", "----", "var(--muted)"', 0),
    ],
)
def test_a_flag_is_found_in_messages_and_not_in_docstrings(source, found):
    assert len(flags_in(source)) == found
