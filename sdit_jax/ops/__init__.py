"""Neurons and WKV as pure functions of arrays, each with its gradient."""

from sdit_jax.ops.lif import firing_rate, lif
from sdit_jax.ops.spike_count import spike_rate, spike_train
from sdit_jax.ops.wkv import WKVState, wkv

__all__ = ["WKVState", "firing_rate", "lif", "spike_rate", "spike_train", "wkv"]
