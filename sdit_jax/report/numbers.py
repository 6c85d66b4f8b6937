"""Numbers as text: few digits, grouped thousands, SI prefixes."""

import math
import re
from typing import Any

PREFIXES = ("p", "n", "µ", "m", "", "k", "M", "G", "T", "P")  # 10^-12, 10^-9, ...
COUNTS = (
    "macs",
    "acs",
    "updates",
    "parameters",
    "weights",
    "inputs",
    "outputs",
    "spikes",
    "MACs",
    "ACs",
    "Dense",
    "MembraneUpdates",
)
RATES = ("rate", "firing_rate", "break_even_rate", "fraction", "active", "ConnectionSparsity", "ActivationSparsity")
UNGROUPED = ("seed",)
SPELLED = {
    "macs": "MACs", "acs": "ACs", "mac": "MAC", "ac": "AC", "sram": "SRAM", "dram": "DRAM", "ema": "EMA",
    "twin": "non-spiking baseline", "neurobench": "NeuroBench",
}  # fmt: skip


def number(value: float, digits: int = 4) -> str:
    """1234567.8 -> "1,234,568", 3.14159 -> "3.142", 0.00001234 -> "1.234e-5"; integers keep all digits."""
    if isinstance(value, int) or not math.isfinite(value):
        return f"{value:,}"
    size = math.floor(math.log10(abs(value))) if value else 0
    if not -5 < size < 12:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:,.{max(0, digits - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def si(value: float, unit: str = "") -> str:
    """Three digits and a prefix: 4.05e9 -> "4.05 G", (0.0186, "J") -> "18.6 mJ"."""
    if not value or not math.isfinite(value):
        return f"{value:g} {unit}".strip()
    rounded = float(f"{value:.2e}")  # So that 999.9 becomes 1 k, not 1000.
    thousands = min(max(math.floor(math.log10(abs(rounded)) / 3), -4), len(PREFIXES) - 5)
    return f"{rounded / 1000.0**thousands:.3g} {PREFIXES[thousands + 4]}{unit}".strip()


def quantity(name: str, value: Any) -> str:
    """A value by the name of its field: "..._pJ" in joules, counts with prefixes, rates in percent, texts unchanged."""
    last = name.rpartition("_")[2]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(quantity(name, item) for item in value) or "none"
    if isinstance(value, dict):
        return " · ".join(f"{words(key)} {quantity(key, item)}" for key, item in value.items()) or "none"
    if not isinstance(value, (int, float)):
        return str(value)
    if last == "pJ":
        return si(value * 1e-12, "J")
    if last in COUNTS:
        return si(value)
    if name in RATES:
        return f"{number(100.0 * value, 3)} %"
    return str(value) if name in UNGROUPED else number(value)


def words(name: str) -> str:
    """A field's name without its unit: "neuron_updates" -> "neuron updates", "twin" -> "non-spiking baseline"."""
    parts = re.sub(r"(?<=[a-z]{2})(?=[A-Z])", "_", name.removesuffix("_pJ")).split("_")  # "MembraneUpdates" too.
    return "energy" if name == "pJ" else " ".join(SPELLED.get(word, word) for word in parts)
