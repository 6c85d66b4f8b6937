"""With `keep_freed`, freed buffers are reused without page faults."""

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
print(kept, min(numbers))  # The heap grows in the first calls.
"""


def faults(argument):
    done = subprocess.run([sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, check=True)
    kept, number = done.stdout.split()
    return kept == "True", int(number)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_repeated_steps_cause_few_page_faults():
    (kept, few), (_, many) = faults("keep"), faults("give back")
    assert kept and few < 0.2 * many
