"""Large buffers that were freed are there again without a page fault."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from sdit_jax import memory
kept = sys.argv[1] == "keep" and memory.keep_freed()
import jax, jax.numpy as jnp
work = jax.jit(lambda x: jnp.sin(jnp.sort(x)).sum())  # Needs large temporary buffers.
x = jnp.ones((2**20, 16))
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
numbers = []
for _ in range(8):
    before = faults()
    work(x).block_until_ready()
    numbers.append(faults() - before)
print(kept, min(numbers))  # The heap may grow once more before it holds all buffers at once.
"""


def faults(argument):
    done = subprocess.run([sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, check=True)
    kept, number = done.stdout.split()
    return kept == "True", int(number)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_a_compiled_step_meets_no_fresh_pages():
    (kept, few), (_, many) = faults("keep"), faults("give back")
    assert kept and few < 0.2 * many
