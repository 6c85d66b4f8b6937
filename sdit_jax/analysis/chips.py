"""Accelerators by their vendors' figures: peak rates, memory and links, none of which a program reaches.

FLOP/s are those of dense matrix products with float32 sums. "float32" stands for JAX's default precision of float32 operands
(`jax.lax.Precision.DEFAULT`): bfloat16 on TPUs, TensorFloat-32 on GPUs. Links and network are bytes per second that a chip can
send, in one direction; vendors of both kinds of chip print the sum of both directions.

Sources, as read in November 2026:
  v5p   docs.cloud.google.com/tpu/docs/v5p-training: 459 TFLOPs (BF16), 2765 GBps, ICI 1200 GBps bidirectional, DCN
        50 Gbps per chip, 3D torus, largest job 6144 chips
  v6e   docs.cloud.google.com/tpu/docs/v6e: 918 TFLOPs, 1638 GBps, ICI 800 GBps bidirectional, 2D torus, 256 chips;
        data center network 25.6 Tbps per Pod
  v5e   docs.cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 819 GBps, ICI 400 GBps bidirectional, 2D torus, 256 chips; data
        center network 6.4 Tbps per Pod
  v4    docs.cloud.google.com/tpu/docs/v4: 275 teraflops, 32 GiB, 1200 GBps, 3D, 4096 chips; all-reduce 1.1 PB/s per Pod, from
        which 269 GB/s per chip (in that table v5e's and v6e's all-reduce bandwidth is one way of all links of all chips)
  h100  nvidia.com/en-us/data-center/h100 by way of jax-ml.github.io/scaling-book/gpus: 990 TFLOP/s, 80 GB, 3.35 TB/s, NVLink
        450 GB/s each way, 8 to a node, one NIC of 400 Gbps per GPU; TensorFloat-32 of SXM5, 495 TFLOP/s:
        glennklockwood.com/garden/processors/h100
  h200  the same chip with 141 GB (NVIDIA's own entry in github.com/mlcommons/inference_results_v4.1: 8 per node, NVLink 900
        GB/s) at 4.8 TB/s (scaling-book)
  a100  NVIDIA's data sheet by way of glennklockwood.com/garden/processors/A100: 312 and (TF32) 156 TFLOP/s, 80 GB, 2.039 TB/s,
        NVLink 300 GB/s each way; 8 to a node (scaling-book)
Memory of v5p, v6e and v5e is what libtpu 0.0.42.1 lets a program have (its error message for a larger one): 95.74, 31.25 and
15.75 GiB, less than the chips have.
Networks between slices of v4 and nodes of A100 could not be confirmed; those chips are planned within one.
"""

import dataclasses

from sdit_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, in FLOP/s, bytes and bytes/s.

    `domain` is the most chips that `links` join (a slice of TPUs, a node of GPUs); chips of different domains communicate over
    `network`, None where it is not known. `torus` is the number of axes of the links' torus, which the axes of the mesh share;
    0 for a switch, which gives every pair all links.
    """

    name: str
    bfloat16: float
    float32: float
    memory: float
    bandwidth: float
    links: float
    torus: int
    domain: int
    network: float | None

    def flops_per_s(self, dtype: str) -> float:
        return self.bfloat16 if dtype == "bfloat16" else self.float32


def _tpu(name, tflops, memory, gigabytes_per_s, links, torus, domain, network):
    return Chip(name, tflops * 1e12, tflops * 1e12, memory, gigabytes_per_s * 1e9, links, torus, domain, network)


CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v5p", 459, 95.74 * 2**30, 2765, 1200e9 / 2, 3, 6144, 50e9 / 8),
        _tpu("v6e", 918, 31.25 * 2**30, 1638, 800e9 / 2, 2, 256, 25.6e12 / 256 / 8),
        _tpu("v5e", 197, 15.75 * 2**30, 819, 400e9 / 2, 2, 256, 6.4e12 / 256 / 8),
        _tpu("v4", 275, 32 * 2**30, 1200, 1.1e15 / 4096, 3, 4096, None),
        Chip("h100", 990e12, 495e12, 80e9, 3.35e12, 450e9, 0, 8, 400e9 / 8),
        Chip("h200", 990e12, 495e12, 141e9, 4.8e12, 450e9, 0, 8, 400e9 / 8),
        Chip("a100", 312e12, 156e12, 80e9, 2.039e12, 300e9, 0, 8, None),
    )
}


# What JAX calls the devices; v5p, v6e and v5e as libtpu 0.0.42.1 says it.
KINDS = {
    "TPU v5": "v5p", "TPU v6 lite": "v6e", "TPU v5 lite": "v5e", "TPU v4": "v4",
    "NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA A100-SXM4-80GB": "a100",
}  # fmt: skip


def peak(device_kind: str, dtype: str) -> float | None:
    """The stated FLOP/s of a device of JAX for products in a dtype; None for CPUs and for devices that are not known."""
    name = KINDS.get(device_kind)
    return CHIPS[name].flops_per_s(dtype) if name else None


def find(name: str, field: str = "chip") -> Chip:
    """The chip of that name. Raises InputError for an unknown one."""
    if name not in CHIPS:
        raise InputError(f"{field}: found {name!r}, allowed are {', '.join(CHIPS)}")
    return CHIPS[name]
