"""Original files against scikit-learn and files written here; damaged ones are refused by name."""

import gzip
import re

import numpy as np
import pytest

from sdit_jax.data import sources
from sdit_jax.data.sources import originals
from sdit_jax.errors import InputError

COUNTS = {"train": 60_000, "test": 10_000}


def idx(array):
    """The bytes of an idx file of unsigned bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def idx_arrays(split):
    """As many images and labels as the real split has, most pixels zero so that they compress fast."""
    n = COUNTS[split]
    images = np.zeros((n, 28, 28), np.uint8)
    images[:, 3, 5], images[:, 27, 0], images[:, 0, 27] = np.arange(n) % 251, np.arange(n) % 13, 7
    return images, (np.arange(n) * 7 % 10).astype(np.uint8)


def write_idx(folder, split, images, labels, compressed=True):
    for name, array in zip(originals.IDX_FILES[split][:2], (images, labels), strict=True):
        data = idx(array)
        (folder / f"{name}.gz").write_bytes(gzip.compress(data, 1)) if compressed else (folder / name).write_bytes(data)


@pytest.fixture
def mnist(tmp_path):
    """A folder with a good test split."""
    write_idx(tmp_path, "test", *idx_arrays("test"))
    return tmp_path


@pytest.fixture
def cifar(tmp_path):
    """A folder with a good test split: record i has label i % 10, and a few pixels that tell their place."""
    records = np.zeros((10_000, 3073), np.uint8)
    records[:, 0] = np.arange(10_000) % 10
    records[:, 1] = np.arange(10_000) % 251  # Red, row 0, column 0.
    records[:, 1 + 1024 + 32 * 5 + 9] = 77  # Green, row 5, column 9.
    records[:, 1 + 2048 + 32 * 31 + 30] = 99  # Blue, row 31, column 30.
    records.tofile(tmp_path / "test_batch.bin")
    return tmp_path


def test_digits_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    fifth = np.arange(1797) % 5 == 4
    for split, chosen, count in (("train", ~fifth, 1438), ("test", fifth, 359)):
        ours = sources.load("digits", split, "")
        assert len(ours) == count and ours.images.dtype == np.uint8
        np.testing.assert_array_equal(ours.images[..., 0], np.round(theirs.images[chosen] / 16 * 255))
        np.testing.assert_array_equal(ours.labels, theirs.target[chosen])


@pytest.mark.parametrize("split, compressed", [("train", True), ("test", False)])
def test_idx_files_are_read_whole_and_in_place(tmp_path, split, compressed):
    images, labels = idx_arrays(split)
    write_idx(tmp_path, split, images, labels, compressed)
    found = sources.load("fashion_mnist", split, tmp_path)
    assert found.images.dtype == np.uint8 and found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.images[..., 0], images)
    np.testing.assert_array_equal(found.labels, labels)


def test_cifar_records_become_images(cifar):
    found = sources.load("cifar10", "test", cifar)
    expected = np.zeros((10_000, 32, 32, 3), np.uint8)
    expected[:, 0, 0, 0], expected[:, 5, 9, 1], expected[:, 31, 30, 2] = np.arange(10_000) % 251, 77, 99
    np.testing.assert_array_equal(found.images, expected)
    np.testing.assert_array_equal(found.labels, np.arange(10_000) % 10)


def test_cifar_training_batches_come_in_order(tmp_path):
    for i in range(1, 6):
        with (tmp_path / f"data_batch_{i}.bin").open("wb") as file:  # Sparse: zeros after the first record's label.
            file.write(bytes([i, 10 + i]))
            file.truncate(10_000 * 3073)
    found = sources.load("cifar10", "train", tmp_path)
    assert len(found) == 50_000
    np.testing.assert_array_equal(found.labels[::10_000], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found.images[::10_000, 0, 0, 0], [11, 12, 13, 14, 15])
    assert found.labels.sum() == 15


def damaged(data, kind):
    """A file's content, spoiled."""
    raw = gzip.decompress(data)
    return {
        "cut": data[: len(data) // 2],
        "not gzip": b"<html>404</html>",
        "empty": b"",
        "flipped": data[:-8] + bytes(4) + data[-4:],  # A wrong checksum.
        "short": gzip.compress(raw[:-1], 1),
        "long": gzip.compress(raw + b"\0", 1),
        "wrong magic": gzip.compress(b"\0\0\x0d" + raw[3:], 1),
        "wrong shape": gzip.compress(raw[:4] + (9_999).to_bytes(4, "big") + raw[8:], 1),
    }[kind]


@pytest.mark.parametrize("kind", ["cut", "not gzip", "empty", "flipped", "short", "long", "wrong magic", "wrong shape"])
@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"])
def test_a_damaged_idx_file_is_named(mnist, name, kind):
    file = mnist / name
    file.write_bytes(damaged(file.read_bytes(), kind))
    with pytest.raises(InputError, match=f"^{re.escape(str(file))}: ") as error:
        sources.load("mnist", "test", mnist)
    assert "\n" not in str(error.value)


def test_swapped_idx_files_are_refused(mnist):
    images, labels = (mnist / f"{name}.gz" for name in originals.IDX_FILES["test"][:2])
    content = images.read_bytes()
    images.write_bytes(labels.read_bytes())
    labels.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(images))):
        sources.load("mnist", "test", mnist)


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"])
def test_a_missing_idx_file_is_named(mnist, name):
    (mnist / name).unlink()
    with pytest.raises(InputError, match=re.escape(str(mnist / name))):
        sources.load("mnist", "test", mnist)


@pytest.mark.parametrize("size", [0, 10_000 * 3073 - 1, 10_000 * 3073 + 1])
def test_a_cifar_file_of_the_wrong_size_is_named(cifar, size):
    file = cifar / "test_batch.bin"
    with file.open("r+b") as stream:
        stream.truncate(size)
    with pytest.raises(InputError, match=f"^{re.escape(str(file))}: found {size:,} bytes, expected 30,730,000"):
        sources.load("cifar10", "test", cifar)


def test_a_missing_cifar_file_is_named(cifar):
    with pytest.raises(InputError, match=f"^{re.escape(str(cifar / 'data_batch_1.bin'))}: no such file"):
        sources.load("cifar10", "train", cifar)


def test_labels_out_of_range_are_refused(mnist, cifar):
    images, labels = idx_arrays("test")
    labels[123] = 10
    write_idx(mnist, "test", images, labels)
    with pytest.raises(InputError, match=f"^{re.escape(str(mnist))}.*label 10 at image 123"):
        sources.load("mnist", "test", mnist)
    with (cifar / "test_batch.bin").open("r+b") as file:
        file.seek(3073 * 44)
        file.write(bytes([255]))
    with pytest.raises(InputError, match=f"^{re.escape(str(cifar))}.*label 255 at image 44"):
        sources.load("cifar10", "test", cifar)
