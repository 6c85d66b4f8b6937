"""The floor of a step at given rates; what it counts is tested in tests/costs."""

import pytest

from sdit_jax.benchmarks.floor import floor
from sdit_jax.models import build

FIELDS = {"image_size": 16, "patch_size": 2, "width": 32, "depth": 4}


@pytest.mark.parametrize("kind", ["training", "sampling"])
def test_the_floor_is_the_greater_of_both_times(kind):
    model = build(FIELDS)
    at = lambda flops_per_s, bytes_per_s: floor(model, 6, {"flops_per_s": flops_per_s, "bytes_per_s": bytes_per_s}, kind)
    slow_products, slow_memory = at(1e6, 1e12), at(1e12, 1e6)
    assert slow_products["floor_s"] == (slow_products["flops"] - slow_products["saved_flops"]) / 1e6
    assert slow_memory["floor_s"] == slow_memory["bytes"] / 1e6


def test_weights_move_ten_times_in_a_training_step_and_once_in_sampling():
    model, rates = build(FIELDS), {"flops_per_s": 1.0, "bytes_per_s": 1.0}
    once = {
        kind: 2 * floor(model, 1, rates, kind)["bytes"] - floor(model, 2, rates, kind)["bytes"]
        for kind in ("training", "sampling")
    }
    assert once["training"] == 10 * once["sampling"] > 0
