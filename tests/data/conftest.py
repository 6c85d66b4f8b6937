"""Data sets small enough to be written for a test, and a cache of their own for each."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The folder of the cache, empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SDIT_JAX_CACHE", str(folder))
    return folder / "data"


@pytest.fixture
def pictures(tmp_path):
    """A folder with three classes of 4 + 3 + 5 colour pictures of several sizes, and what is in them, in order."""
    rng, shown = np.random.default_rng(0), []
    for name, count in (("ant", 4), ("bee", 3), ("cat", 5)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 256, (9 + i, 12 - i, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
            shown.append(pixels)
    return tmp_path, shown


@pytest.fixture
def stand_in(tmp_path):
    """stand_in(NAME): (NAME, tensorflow-datasets folder, {split: Images}) of a few images in the place of the real ones."""
    from sdit_jax.data.datasets import Images
    from sdit_jax.data.sources import preparing

    def make(name):
        rng, shape = np.random.default_rng(1), preparing.DATA_SETS[name][2]
        splits = {
            split: Images(rng.integers(0, 256, (n, *shape), np.uint8), (np.arange(n) * 3 % 10).astype(np.int32))
            for split, n in (("train", 25), ("test", 13))
        }
        folder = preparing.prepared_folder(name, tmp_path)
        folder.parent.mkdir()
        preparing.build(name, splits, tmp_path / "partial").replace(folder)
        return name, tmp_path, splits

    return make
