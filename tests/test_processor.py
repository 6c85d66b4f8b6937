"""Products are multiplied by the library that is faster on the processor at hand, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from sdit_jax.processor import JAXLIB, KNOWN_TO, OPTION

PROGRAM = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from sdit_jax.processor import choose_products
chosen = choose_products(Path(sys.argv[1]))
x = jnp.ones((256, 256))
print(chosen, "ynn_fusion" in jax.jit(jnp.matmul).lower(x, x).compile().as_text())
"""


@pytest.mark.skipif(JAXLIB[:2] != KNOWN_TO, reason="about a jaxlib that was measured")
@pytest.mark.parametrize(
    ("features", "flags", "chosen", "ynnpack"),
    [
        ("fma avx2", "", True, False),
        ("fma avx2", "--xla_force_host_platform_device_count=2", True, False),
        ("fma avx2 avx512f", "", False, True),
        ("fma avx2", f"{OPTION}=dot", False, True),
    ],
)
def test_products_without_avx512_are_not_ynnpacks(tmp_path, features, flags, chosen, ynnpack):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {features}\n")
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-c", PROGRAM, tmp_path / "cpuinfo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(chosen), str(ynnpack)]


def test_elsewhere_nothing_is_chosen(tmp_path, monkeypatch):
    from sdit_jax.processor import choose_products

    monkeypatch.setenv("XLA_FLAGS", "")
    assert not choose_products(tmp_path / "none")
    assert os.environ["XLA_FLAGS"] == ""
