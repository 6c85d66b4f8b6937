"""One string names a data set; what it cannot mean is refused with what it can."""

import numpy as np
import pytest

from sdit_jax.data import sources
from sdit_jax.data.datasets import Images
from sdit_jax.errors import InputError

IDX = [(f"t10k-{kind}-ubyte", shape) for kind, shape in (("images-idx3", (10_000, 28, 28)), ("labels-idx1", (10_000,)))]


def test_a_name_may_hold_its_folder(tmp_path):
    for name, shape in IDX:
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        (tmp_path / name).write_bytes(header + (np.arange(np.prod(shape)) % 10).astype(np.uint8).tobytes())
    named, given = sources.load(f"mnist:{tmp_path}", "test", "/elsewhere"), sources.load("mnist", "test", tmp_path)
    assert named.fingerprint == given.fingerprint and len(named) == 10_000


def test_images_are_fitted_where_a_size_is_asked_for():
    plain, fitted = sources.load("digits", "test", ""), sources.load("digits", "test", "", 8, 3)
    np.testing.assert_array_equal(fitted.images, np.repeat(plain.images, 3, -1))
    assert sources.load("digits", "test", "", 16).images.shape == (359, 16, 16, 1)


def test_a_fingerprint_is_of_pixels_labels_and_classes():
    images = np.random.default_rng(0).integers(0, 256, (6, 2, 3, 1), np.uint8)
    labels = np.int32([0, 1, 2, 0, 1, 2])
    same = Images(images, labels), Images(np.asfortranarray(images), labels.copy())
    other = (
        Images(images ^ 1, labels), Images(images.reshape(6, 3, 2, 1), labels), Images(images, labels[::-1]),
        Images(images, labels, 3), Images(images[::-1], labels),
    )  # fmt: skip
    assert len({data.fingerprint for data in same}) == 1
    assert len({data.fingerprint for data in (*same, *other)}) == 6


@pytest.mark.parametrize(
    "name, split, directory, message",
    [
        ("imagenet", "train", "", "config.data.name: found 'imagenet', allowed are digits, mnist.*tfds:NAME.*folder.*npz"),
        ("", "train", "", "config.data.name: found '', allowed are"),
        ("digits:x", "train", "", "config.data.name: found 'digits:x', digits are part of the package"),
        ("digits", "val", "", "config.data.split: found 'val', digits has train, test"),
        ("mnist", "val", "", "config.data.split: found 'val', mnist has train, test"),
        ("mnist", "train", "", "config.data.dir: empty"),
        ("cifar10", "train", "/no/such/folder", "config.data.dir: found '/no/such/folder', which is not a folder"),
        ("cifar10:/no/such", "train", "", "config.data.name: found 'cifar10:/no/such', which is not a folder"),
        ("folder", "train", "", "config.data.dir: empty; set it to the folder of pictures"),
        ("folder:/no/such", "train", "", "config.data.name: found 'folder:/no/such', which is not a folder"),
        ("npz", "train", "", "config.data.dir: empty; set it to the .npz file"),
        ("npz:/no/such.npz", "train", "", "/no/such.npz: no such file"),
        ("npz:/no/such.npz", "test", "", "config.data.split: found 'test', npz:/no/such.npz has train"),
        ("tfds:mnist", "train", "/no/such", "config.data.dir: found '/no/such', which is not a folder"),
    ],
)
def test_wrong_fields_are_named(name, split, directory, message):
    with pytest.raises(InputError, match=f"^{message}") as error:
        sources.load(name, split, directory)
    assert "\n" not in str(error.value)
