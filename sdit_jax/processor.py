"""Which library computes products and sums on this processor. XLA's CPU compiler gives to YNNPACK whatever that takes.

On x86 without AVX-512 Eigen multiplies faster than YNNPACK, and a training step of the release's network is a tenth shorter by
it; with AVX-512 they are alike (docs/performance.md).
"""

import os
from pathlib import Path

from jaxlib.version import __version_info__ as JAXLIB

OPTION = "--xla_cpu_experimental_ynn_fusion_type"
KNOWN_TO = (0, 10)  # Measured with this jaxlib. One that lacks the option would end the process, so others keep their choice.


def choose_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells XLA to do without YNNPACK where that is faster; returns whether it did.

    Call it before a device is used: XLA reads its flags once. Whoever names the option in XLA_FLAGS has the last word.
    """
    flags, features = os.environ.get("XLA_FLAGS", ""), cpuinfo.read_text().split() if cpuinfo.exists() else []
    slower = "avx2" in features and "avx512f" not in features
    if not slower or OPTION in flags or JAXLIB[:2] != KNOWN_TO:
        return False
    os.environ["XLA_FLAGS"] = f"{flags} {OPTION}=".strip()
    return True
