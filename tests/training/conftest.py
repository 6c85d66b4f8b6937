"""Shared by the tests of training."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of ten classes with three grey pictures each."""
    monkeypatch.setenv("SDIT_JAX_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(30):
        path = tmp_path / "pictures" / str(i % 10) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 11), np.uint8)).save(path, compress_level=0)
    return tmp_path / "pictures"
