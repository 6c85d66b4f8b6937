"""Every module can be imported first: none relies on what another has imported before."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted((ROOT / "sdit_jax").rglob("*.py"))
    if file.name != "__main__.py" and "configs" not in file.parts
]
# The package's own modules are forgotten before each import, so that libraries are imported once.
PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "sdit_jax"]:
        del sys.modules[loaded]
    if "absl.flags" in sys.modules:
        for flag in list(sys.modules["absl.flags"].FLAGS):
            delattr(sys.modules["absl.flags"].FLAGS, flag)
    try:
        importlib.import_module(name)
    except ImportError as error:
        if "sdit_jax" in str(error):
            sys.exit(f"{name}: {error}")
"""


@pytest.mark.slow
def test_any_module_can_be_the_first():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *MODULES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
