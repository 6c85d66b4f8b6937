"""Floor 0, operators: pure functions of arrays that know nothing of modules, parameters or diffusion."""

from sdit_jax.ops.lif import firing_rate, lif
from sdit_jax.ops.wkv import WKVState, wkv

__all__ = ["WKVState", "firing_rate", "lif", "wkv"]
