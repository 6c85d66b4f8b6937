"""The mesh that sizes describe, what is refused with its numbers, and slices, which only `data` crosses."""

from types import SimpleNamespace

import numpy as np
import pytest

from sdit_jax.errors import InputError
from sdit_jax.sharding.mesh import arranged, check_batch_size, make_mesh, resolved, rows


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (8, 1, 1)),
        ({"data": -1, "fsdp": 4, "tensor": 1}, (2, 4, 1)),
        ({"data": 2, "fsdp": -1, "tensor": 2}, (2, 2, 2)),
        ({"data": 1, "fsdp": 1, "tensor": -1}, (1, 1, 8)),
        ({"data": 8, "fsdp": -1, "tensor": 1}, (8, 1, 1)),
    ],
)
def test_one_size_may_be_left_open(sizes, shape):
    assert resolved(sizes, 8) == shape


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"data": 3, "fsdp": 2, "tensor": 1}, "config.mesh: found data 3 x fsdp 2 x tensor 1, must multiply to the 8 devices"),
        ({"data": -1, "fsdp": 3, "tensor": 1}, "data -1 x fsdp 3 x tensor 1, must multiply to the 8 devices"),
        ({"data": 4, "fsdp": 1, "tensor": 1}, "must multiply to the 8 devices"),
        ({"data": -1, "fsdp": -1, "tensor": 1}, "only one may be -1"),
        ({"data": -1, "fsdp": 0, "tensor": 1}, "config.mesh.fsdp: found 0"),
        ({"data": -1, "fsdp": 1, "tensor": -2}, "config.mesh.tensor: found -2"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_numbers(sizes, words):
    with pytest.raises(InputError, match=words):
        resolved(sizes, 8)


def device(index, slices, size):
    """The attributes of a device that its place in the mesh depends on."""
    place = {"slice_index": index // size} if slices > 1 else {}
    return SimpleNamespace(id=index, process_index=index // 4, device_kind="cpu", platform="cpu", **place)


def test_only_data_crosses_slices():
    placed = arranged((4, 2, 2), [device(i, 2, 8) for i in range(16)])
    slice_of = np.vectorize(lambda device: device.slice_index)(placed)
    assert placed.shape == (4, 2, 2) and len({device.id for device in placed.ravel()}) == 16
    assert (slice_of[:2] == slice_of[0, 0, 0]).all() and (slice_of[2:] == slice_of[2, 0, 0]).all()
    assert slice_of[0, 0, 0] != slice_of[2, 0, 0]


def test_data_that_does_not_divide_over_the_slices_is_refused():
    with pytest.raises(InputError, match="config.mesh.data: found 1, must be divisible by the 2 slices"):
        arranged((1, 8, 2), [device(i, 2, 8) for i in range(16)])


def test_batches_divide_over_data_and_fsdp_and_not_over_tensor():
    mesh = SimpleNamespace(shape={"data": 2, "fsdp": 2, "tensor": 2}, size=8)
    check_batch_size(4, 1, mesh)
    with pytest.raises(InputError, match="config.batch_size: found 6, must be divisible by the data 2 x fsdp 2 = 4"):
        check_batch_size(6, 1, mesh)
    with pytest.raises(InputError, match="config.microbatches: found 2, must divide the 1 images of each device"):
        check_batch_size(4, 2, mesh)


def test_a_process_alone_holds_all_rows():
    np.testing.assert_array_equal(rows(make_mesh(), 6), np.arange(6))
