"""Figures of one chip against those that the same vendor prints for a pod of them."""

import pytest

from sdit_jax.config import InputError
from sdit_jax.costs import chips


@pytest.mark.parametrize(
    ("name", "pod", "petaflops", "all_reduce"),
    [("v5e", 256, 50.63, 51.2e12), ("v6e", 256, 234.9, 102.4e12), ("v4", 4096, 1100, 1.1e15)],
)
def test_a_pod_is_so_many_chips(name, pod, petaflops, all_reduce):
    """BF16 peak, and all-reduce bandwidth: one way of all links of all chips. Printed to as few as two digits."""
    chip = chips.find(name)
    assert chip.domain == pod
    assert chip.bfloat16 * pod == pytest.approx(petaflops * 1e15, rel=0.03)
    assert chip.links * pod == pytest.approx(all_reduce, rel=1e-3)


def test_h200_is_h100_with_other_memory():
    h100, h200 = chips.find("h100"), chips.find("h200")
    assert (h100.bfloat16, h100.float32, h100.links) == (h200.bfloat16, h200.float32, h200.links)
    assert h200.memory > 1.7 * h100.memory and h200.bandwidth > 1.4 * h100.bandwidth


def test_an_unknown_chip_is_named():
    with pytest.raises(InputError, match="--chip: found 'v9', allowed are v5p"):
        chips.find("v9")
