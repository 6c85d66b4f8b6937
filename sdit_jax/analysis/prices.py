"""Energy of single operations in 45 nm at 0.9 V, in pJ, and the equations that scale them to other widths.

| operation | pJ | source |
|---|---|---|
| float32 multiplication · addition | 3.7 · 0.9 | Horowitz 2014, also Han et al. 2015 |
| 8-bit integer multiplication · addition | 0.2 · 0.03 | Horowitz 2014 |
| 32-bit word from or to on-chip SRAM of 8 KB | 5 | Han et al. 2015; half of Horowitz's access of 64 bits |
| 32-bit word from or to DRAM | 640 | Han et al. 2015 |

An integer product of b by w bits adds up b w partial products, and an addition of w bits has w full adders, so that

    product(b, w) = 0.2 b w / 64        Horowitz's 32-bit multiplication: 3.1, by this equation 3.2
    addition(w)   = 0.03 w / 8          Horowitz's 32-bit addition: 0.1, by this equation 0.12

and memory costs in proportion to the bits. Sources: M. Horowitz, "Computing's energy problem (and what we can do about it)",
ISSCC 2014, figure 1.1.9; Han et al. 2015 (arXiv 1506.02626), table 1.
"""

import math

MAC_PJ, AC_PJ = 3.7 + 0.9, 0.9  # float32
SRAM_PJ, DRAM_PJ = 5.0, 640.0  # Per word.
WORD = 32
WEIGHT_BITS = 8  # Of integer networks.
INT8_PRODUCT_PJ, INT8_ADDITION_PJ = 0.2, 0.03
PRICES = {
    "mac": MAC_PJ, "ac": AC_PJ, "int8_product": INT8_PRODUCT_PJ, "int8_addition": INT8_ADDITION_PJ, "sram_access": SRAM_PJ,
    "dram_access": DRAM_PJ,
}  # fmt: skip


def product_pJ(bits: float, weight_bits: float = WEIGHT_BITS) -> float:
    """Of an integer multiplication."""
    return INT8_PRODUCT_PJ * bits * weight_bits / 64


def addition_pJ(bits: float = WEIGHT_BITS) -> float:
    """Of an integer addition."""
    return INT8_ADDITION_PJ * bits / 8


def mac_pJ(bits: float, weight_bits: float = WEIGHT_BITS) -> float:
    """Of an integer multiplication of an activation with a weight and the addition of the result."""
    return product_pJ(bits, weight_bits) + addition_pJ(weight_bits)


def sram_pJ(bits: float) -> float:
    """Of so many bits read from or written to on-chip SRAM."""
    return SRAM_PJ * bits / WORD


def activation_bits(steps: int, signed: bool = False) -> int:
    """Bits of an activation with as many levels as a count of spikes: ceil(log2(T + 1)), with a sign one more.

    Source: Yan et al. 2024 (arXiv 2409.08290), theorem 1.
    """
    return math.ceil(math.log2(steps + 1)) + signed


def break_even_rate(ratio: float, steps: int, zeros: float) -> float:
    """Spikes per neuron and step below which the arithmetic of spikes costs less than that of quantised activations.

        T rate < k (1 - zeros)        k = energy of a MAC of the quantised network / energy of an accumulation

    `zeros` is the share of the quantised activations that are 0, which are skipped. Source: Yan et al. 2024 (arXiv 2409.08290).
    """
    return ratio * (1 - zeros) / steps
