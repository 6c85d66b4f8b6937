"""Images in .npz files, those of this package's own samples among them."""

import re

import numpy as np
import pytest

from sdit_jax.data import sources
from sdit_jax.errors import InputError
from sdit_jax.images import save_npz

RGB = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)


@pytest.mark.parametrize("name, images", [("arr_0", RGB), ("images", RGB), ("images", RGB[..., 0]), ("arr_0", RGB[..., :1])])
def test_arrays_are_read_as_they_are(tmp_path, name, images):
    np.savez(tmp_path / "a.npz", labels=np.int64([0, 4, 1, 1, 0, 2]), **{name: images})
    found = sources.load(f"npz:{tmp_path / 'a.npz'}", "train", "")
    np.testing.assert_array_equal(found.images, images.reshape(6, 4, 5, -1))
    assert found.labels.tolist() == [0, 4, 1, 1, 0, 2] and found.labels.dtype == np.int32
    assert found.num_classes == 5


def test_without_labels_all_are_of_one_class(tmp_path):
    np.savez(tmp_path / "a.npz", RGB)
    found = sources.load("npz", "train", tmp_path / "a.npz", 8, 3)
    assert found.labels.tolist() == [0] * 6 and found.num_classes == 1 and found.images.shape == (6, 8, 8, 3)


def test_our_own_samples_are_read(tmp_path):
    save_npz(tmp_path / "samples.npz", RGB, np.int32([1, 0, 3, 3, 2, 1]), {})
    found = sources.load(f"npz:{tmp_path / 'samples.npz'}", "train", "")
    np.testing.assert_array_equal(found.images, RGB)
    assert found.num_classes == 4


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"images": RGB.astype(np.float32)}, "float32 (6, 4, 5, 3), must be uint8"),
        ({"images": RGB[0, 0]}, "uint8 (5, 3), must be uint8 (N, H, W, C)"),
        ({"images": RGB[:0]}, "uint8 (0, 4, 5, 3)"),
        ({"images": np.concatenate([RGB, RGB], -1)}, "6 channels, must be 1 or 3"),
        ({"images": RGB, "labels": np.zeros(5, int)}, "labels of int64 (5,), must be integers (6,)"),
        ({"images": RGB, "labels": np.zeros(6)}, "labels of float64 (6,)"),
        ({"images": RGB, "labels": np.int64([0, 1, 2, 0, 1, -1])}, "label -1 at image 5"),
        ({"pixels": RGB}, "found pixels, must hold arr_0 or images"),
        ({"images": np.array([None] * 6)}, "allow_pickle"),
    ],
)
def test_other_arrays_are_refused_in_one_line(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'a.npz'))}: .*{re.escape(words)}") as error:
        sources.load(f"npz:{tmp_path / 'a.npz'}", "train", "")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "text"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez(path, RGB)
    data = path.read_bytes()
    spoiled = {"empty": b"", "cut": data[:400], "flipped": data[:300] + bytes([data[300] ^ 1]) + data[301:], "text": b"images"}
    path.unlink()
    if damage != "missing":
        path.write_bytes(spoiled[damage])
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: (no such file|not a .npz file of arrays, or damaged)"):
        sources.load(f"npz:{path}", "train", "")
