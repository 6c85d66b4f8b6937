"""Real training steps, compiled once for all tests."""

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent / "compiled.py"


@pytest.fixture(scope="session")
def real():
    """tests/planner/compiled.py as a module whose `program(**fields)` compiles once; fields as in model__remat="blocks"."""
    spec = importlib.util.spec_from_file_location("compiled", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    @functools.cache
    def program(**fields):
        return module.compiled(config(**fields))

    def config(**fields):
        return module.configuration({name.replace("__", "."): value for name, value in fields.items()})

    module.program, module.config = program, config
    return module


@pytest.fixture(scope="session")
def on_eight_devices(virtual_devices):
    """What compiled.py prints of the step on eight virtual devices, with these fields."""

    @functools.cache
    def text(**fields):
        fields = json.dumps({name.replace("__", "."): value for name, value in fields.items()})
        command = [sys.executable, str(FILE), fields]
        done = subprocess.run(command, env=virtual_devices(8), capture_output=True, text=True, check=True, timeout=300)
        return done.stdout

    return text
