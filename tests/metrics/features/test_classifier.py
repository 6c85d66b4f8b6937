"""The shipped classifiers have their stated accuracy; a file that is no classifier is an error that names it."""

import os
import re
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sdit_jax.data import sources
from sdit_jax.data.datasets import Images
from sdit_jax.errors import InputError
from sdit_jax.metrics.features import classifier
from sdit_jax.metrics.features.fitting import accuracy, fit_classifier

FOLDERS = {"digits": "", "mnist": "mnist", "fashion_mnist": "fashion-mnist", "cifar10": "cifar-10-batches-bin"}
LEAST = {"digits": 0.97, "mnist": 0.99, "fashion_mnist": 0.92, "cifar10": 0.84}


@pytest.mark.parametrize("name", classifier.SHIPPED)
def test_a_shipped_classifier_is_small_and_has_its_provenance(name):
    trained = classifier.load(name)
    file = resources.files("sdit_jax.metrics.features").joinpath("classifiers", f"{name}.npz")
    assert len(file.read_bytes()) < 1e6
    assert trained.facts["test_accuracy"] > LEAST[name] and trained.facts["epochs"] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.variables))


@pytest.mark.parametrize("name", classifier.SHIPPED)
def test_a_shipped_classifier_has_its_stated_test_accuracy(name):
    root = os.environ.get("SDIT_JAX_DATA")
    if FOLDERS[name] and not root:
        pytest.skip("SDIT_JAX_DATA names no folder with the original files")
    trained = classifier.load(name)
    found = accuracy(trained.model, trained.variables, sources.load(name, "test", Path(root or "", FOLDERS[name])))
    np.testing.assert_allclose(found, trained.facts["test_accuracy"], atol=6 / trained.facts.get("test_images", 10_000))


def test_training_learns_and_what_is_saved_is_what_was_trained(tmp_path):
    """Bright left halves against bright right halves, and back from a file to float16."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 640).astype(np.int32)
    images = rng.integers(0, 60, (640, 8, 8, 1), np.uint8)
    images[labels == 0, :, :4] += 60
    images[labels == 1, :, 4:] += 60
    data = Images(images, labels, 2)
    trained = fit_classifier(data, data, widths=(4, 8), epochs=15, flip=False, shift=1)
    assert trained.facts["test_accuracy"] > 0.95
    classifier.save(tmp_path / "halves.npz", trained)
    again = classifier.load(str(tmp_path / "halves.npz"))
    assert again.facts == trained.facts and again.model == trained.model and len(again.sha256) == 64
    saved = flatten_dict(again.variables)
    for path, leaf in flatten_dict(trained.variables).items():
        np.testing.assert_allclose(saved[path], leaf, rtol=1e-3, atol=1e-6)
    assert accuracy(again.model, again.variables, data) > 0.95


def test_a_file_that_is_no_classifier_is_named(tmp_path):
    with pytest.raises(InputError, match="found 'letters', allowed are digits, mnist"):
        classifier.load("letters")
    path = tmp_path / "bad.npz"
    path.write_bytes(b"PK no archive")
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: damaged or not a classifier"):
        classifier.load(str(path))
    np.savez(path, header=np.array('{"num_classes": 2}'))
    with pytest.raises(InputError, match="KeyError"):
        classifier.load(str(path))
