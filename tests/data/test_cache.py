"""Memoized arrays are made once; damaged files are logged and made again; writes are atomic."""

import numpy as np
import pytest

from sdit_jax.data import sources
from sdit_jax.data.cache import memoized


class Maker:
    """Counts how often it makes its arrays."""

    made = 0

    def __call__(self):
        self.made += 1
        return {"a": np.arange(1000), "b": np.full((2, 3), self.made)}


def test_arrays_are_made_once_for_the_same_words(cache):
    make = Maker()
    for words, made in ((("x", 1), 1), (("x", 1), 1), (("x", 2), 2), (("x", None), 3), (("x", 1), 3)):
        found = memoized("kind", words, make)
        np.testing.assert_array_equal(found["a"], np.arange(1000))
        assert make.made == made
    memoized("other", ("x", 1), make)
    assert make.made == 4 and len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text"])
def test_a_damaged_file_is_named_and_made_again(cache, caplog, damage):
    make = Maker()
    memoized("kind", (), make)
    (path,) = cache.iterdir()
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "empty": b"",
            "flipped": data[:900] + bytes([data[900] ^ 1]) + data[901:],
            "text": b"?",
        }[damage]
    )
    assert memoized("kind", (), make)["b"][0, 0] == 2
    assert [record.getMessage().split(": damaged")[0] for record in caplog.records] == [str(path)]
    assert memoized("kind", (), make)["b"][0, 0] == 2
    assert len(list(cache.iterdir())) == 1


def test_what_is_interrupted_leaves_nothing(cache, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        memoized("kind", (), Maker())
    assert list(cache.iterdir()) == []


def test_where_nothing_can_be_written_work_goes_on(cache, caplog):
    cache.write_text("in the way")
    assert memoized("kind", (), Maker())["b"][0, 0] == 1
    assert "cannot be written" in caplog.text and str(cache) in caplog.text


def test_pictures_are_decoded_once_for_each_fit(cache, pictures, monkeypatch):
    folder, _ = pictures
    first = sources.load("folder", "train", folder, 8, 3)
    other = sources.load("folder", "train", folder, 8, 3, "nearest")
    monkeypatch.setattr("sdit_jax.data.pictures.decode", None)  # From here on it cannot be called.
    again = sources.load("folder", "train", folder, 8, 3)
    assert again.fingerprint == first.fingerprint != other.fingerprint
    with pytest.raises(TypeError):
        sources.load("folder", "train", folder, 9, 3)
