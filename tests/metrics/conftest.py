"""Real digits, their feature extractor, and an empty cache for each test."""

import pytest

from sdit_jax.data import sources
from sdit_jax.metrics.features import classifier_features


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SDIT_JAX_CACHE", str(folder))
    return folder / "data"


@pytest.fixture(scope="session")
def digits():
    """{"train": 1,438 images, "test": 359 images}"""
    return {split: sources.load("digits", split, "") for split in ("train", "test")}


@pytest.fixture(scope="session")
def extractor():
    return classifier_features("digits")
