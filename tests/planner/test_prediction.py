"""Times and weak scaling of a prediction against sums by hand; what is refused, and what is advised."""

import pytest

from sdit_jax.analysis import chips
from sdit_jax.errors import InputError
from sdit_jax.planner.prediction import ACHIEVED, advice, predict, weak_scaling

H100, V5P, A100 = (chips.find(name) for name in ("h100", "v5p", "a100"))


@pytest.fixture(scope="module")
def one(real):
    """Eight images on one H100, for the release's network for MNIST."""
    return predict(real.config(batch_size=8, model__width=384), H100, 1)


def test_flops_are_three_times_those_of_a_forward_pass(one):
    """The release's 4.0471 G multiply-accumulates without WKV, 7 of 8 projections of 196 tokens in 5 blocks being spared."""
    products, common = 4.0471e9 - 3 * 394 * 384 * 5, 3 * 5 * 196 * 384**2
    assert one.device.flops == pytest.approx(3 * 2 * (8 * products - 7 * common), rel=2e-3)
    assert one.device.spared == 3 * 2 * 7 * common


def test_a_row_of_weak_scaling_by_hand(one):
    """16 H100 in two nodes. Gradients: the release's 11,667,259 parameters of 4 bytes, and three projected arrays of 196 x 384

    in each of 5 blocks. In a node they are summed into eighths and gathered again; between nodes one eighth is summed.
    """
    row = weak_scaling(one, most=16)[-1]
    assert (row.devices, row.slices, row.batch_size, row.sizes["data"]) == (16, 2, 128, 16)
    V = 4 * (11_667_259 + 3 * 5 * 196 * 384)
    links, network = 2 * V * 7 / 8 / 450e9, 2 * V / 8 * 1 / 2 / 50e9
    collectives = (links + network) / ACHIEVED["links"]
    compute, memory = one.device.flops / 495e12 / ACHIEVED["compute"], one.device.bytes / 3.35e12 / ACHIEVED["memory"]
    assert row.bounds_s == pytest.approx((max(compute, memory, collectives), compute + memory + collectives))
    serial, overlapped = (compute + memory) / (compute + memory + collectives), max(compute, memory) / row.bounds_s[0]
    assert row.efficiency == pytest.approx((min(serial, overlapped), max(serial, overlapped)))
    assert row.flops == pytest.approx(16 * one.device.flops)
    assert row.memory == one.memory


def test_weak_scaling_equals_a_prediction_for_as_many_chips(real, one):
    assert weak_scaling(one, most=32)[-1] == predict(real.config(batch_size=8 * 32, model__width=384), H100, 32)
    assert [row.devices for row in weak_scaling(one)] == [2**i for i in range(13)]
    assert one.efficiency == (1, 1)


def test_weak_scaling_ends_where_chips_cannot_be_joined(real):
    alone = predict(real.config(batch_size=8), A100, 1)
    assert [row.devices for row in weak_scaling(alone)] == [1, 2, 4, 8]  # The network between nodes is not known.


@pytest.mark.parametrize(
    ("chip", "devices", "slices", "fields", "message"),
    [
        (V5P, 8, 0, {"batch_size": 12}, "config.batch_size: found 12, must be divisible by the 8 devices"),
        (V5P, 8, 3, {}, "slices: found 3, must divide config.mesh.data, which is 8"),
        (V5P, 8192, 1, {"batch_size": 8192}, "slices: found 1, must be at least 2: links join at most 6144 v5p"),
        (A100, 16, 0, {}, "devices: found 16, 2 slices of a100, must be 1: the network"),
        (H100, 16, 0, {"mesh__fsdp": 16}, "devices: found 16, 2 slices of h100, must divide config.mesh.data, which is 1"),
        (V5P, 8, 0, {"mesh__fsdp": 3}, "config.mesh"),
    ],
)
def test_what_cannot_be_is_refused(real, chip, devices, slices, fields, message):
    with pytest.raises(InputError, match=message):
        predict(real.config(**fields), chip, devices, slices)


@pytest.mark.slow
def test_what_is_advised_fits_and_what_comes_before_it_does_not(real):
    config = real.config(batch_size=6144)
    assert not predict(config, V5P, 1).fits
    change, prediction = advice(config, V5P, 1)
    assert prediction.fits and change == {"model.remat": "elementwise"}
    config.model.remat = "elementwise"
    assert predict(config, V5P, 1) == prediction
