"""Provenance: the hash of weights covers every name and number, and running statistics only where there are any."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from sdit_jax.sampling.provenance import conditioning_labels, weights_sha256

PARAMS = {"head": {"bias": np.array([1.0, 2.0], np.float32), "kernel": np.ones((2, 2), np.float32)}}
STATS = {"batch_stats": {"norm": {"mean": np.zeros(2, np.float32)}}}


def test_the_hash_of_parameters_is_that_of_names_and_bytes_in_order():
    expected = hashlib.sha256()
    for name, array in PARAMS["head"].items():
        expected.update(f"['head']['{name}']".encode() + array.tobytes())
    assert weights_sha256({"params": PARAMS}) == expected.hexdigest()
    expected.update(b"['batch_stats']['norm']['mean']" + STATS["batch_stats"]["norm"]["mean"].tobytes())
    assert weights_sha256({**STATS, "params": PARAMS}) == expected.hexdigest()


@pytest.mark.parametrize("classes, guidance, labels", [(10, 1.0, "each in turn"), (10, 0.0, "none"), (0, 1.0, "none")])
def test_labels_condition_only_with_classes_and_guidance(classes, guidance, labels):
    assert conditioning_labels(SimpleNamespace(num_classes=classes), guidance) == labels
