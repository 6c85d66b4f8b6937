"""Figures of one chip against those that the same vendor prints for a pod of them."""

import pytest

from sdit_jax.analysis import chips
from sdit_jax.errors import InputError


@pytest.mark.parametrize(("name", "pod", "petaflops"), [("v5e", 256, 50.63), ("v6e", 256, 234.9), ("v4", 4096, 1100)])
def test_a_pod_has_the_peak_rate_of_its_chips(name, pod, petaflops):
    """Of bfloat16; printed to as few as two digits."""
    chip = chips.find(name)
    assert chip.domain == pod
    assert chip.bfloat16 * pod == pytest.approx(petaflops * 1e15, rel=0.03)


@pytest.mark.parametrize(("name", "all_reduce"), [("v5e", 51.2e12), ("v6e", 102.4e12)])
def test_the_all_reduce_bandwidth_of_a_pod_is_that_of_all_links_in_one_direction(name, all_reduce):
    chip = chips.find(name)
    assert chip.links * chip.domain == pytest.approx(all_reduce, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "dtype", "rate"),
    [
        ("TPU v6 lite", "float32", 918e12),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 990e12),
        ("NVIDIA H100 80GB HBM3", "float32", 495e12),
        ("cpu", "float32", None),
        ("NVIDIA H100 PCIe", "bfloat16", None),
    ],
)
def test_a_device_has_the_peak_of_its_chip_and_others_none(kind, dtype, rate):
    assert chips.peak(kind, dtype) == rate


def test_an_unknown_chip_is_named():
    with pytest.raises(InputError, match="--chip: found 'v9', allowed are v5p"):
        chips.find("v9", "--chip")
