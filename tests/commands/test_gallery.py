"""`sdit gallery`: its pictures and numbers, against their definitions."""

import json

import numpy as np
import pytest
from PIL import Image

from sdit_jax import gallery
from sdit_jax.data.sources.originals import digits
from sdit_jax.gallery import of_classes
from sdit_jax.images import grid, load_protocol
from sdit_jax.metrics.features import Extracted, classifier_features, extract


def features(rng, spreads, n=40):
    """n normal features of each class in 3 dimensions, and beliefs that are right but for the first of each class."""
    labels = np.repeat(np.arange(len(spreads)), n)
    chances = np.eye(len(spreads))[np.where(np.arange(len(labels)) % n == 0, (labels + 1) % len(spreads), labels)]
    features = rng.normal(size=(len(labels), 3)) * np.repeat(spreads, n)[:, None] + 10 * labels[:, None]
    return Extracted(features, chances), labels


def test_the_diversity_of_a_class_is_its_share_of_the_variance_of_real_images():
    rng = np.random.default_rng(0)
    real, labels = features(rng, (1.0, 1.0, 1.0), n=1000)
    found, own = features(rng, (1.0, 0.5, 0.0), n=1000)
    same, half, none = of_classes(found, own, real, labels)
    assert (same.label, half.label, none.label) == (0, 1, 2) and same.n == 1000
    assert (same.diversity, half.diversity, none.diversity) == pytest.approx((1, 0.25, 0), abs=0.1)
    assert same.accuracy == pytest.approx(1 - 1 / 1000)
    assert same.recall > 0.8 > 0.3 > none.recall and half.precision > same.precision


def test_a_class_with_too_few_images_is_left_out():
    real, labels = features(np.random.default_rng(0), (1.0, 1.0))
    found, own = features(np.random.default_rng(1), (1.0, 1.0), n=4)
    assert of_classes(found, own, real, labels) == []


@pytest.fixture(scope="module")
def drawn(small, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("gallery")
    flags = (f"--workdir={trained.workdir}", f"--out={out}", "--n=70", "--steps=2", "--batch_size=40")
    done = small.run("gallery", *flags, SDIT_JAX_CACHE=str(out.with_name("cache")))
    assert done.returncode == 0, done.stderr
    return out, done.stdout, flags


def test_failures_are_what_the_classifier_believes_least(drawn):
    out, _, _ = drawn
    found = json.loads((out / "gallery.json").read_text())
    with np.load(out / "samples.npz") as file:
        samples, labels = file["arr_0"], file["labels"]
    chances = extract(classifier_features("digits"), samples).probabilities_NK
    beliefs = chances[np.arange(70), labels]
    worst = np.argsort(beliefs, kind="stable")[:20]
    assert [one["index"] for one in found["failures"]] == worst.tolist()
    assert [one["asked"] for one in found["failures"]] == labels[worst].tolist()
    assert [one["read"] for one in found["failures"]] == chances[worst].argmax(-1).tolist()
    assert found["read_otherwise"] == pytest.approx((chances.argmax(-1) != labels).mean())
    assert [one["n"] for one in found["classes"]] == [7] * 10 and found["protocol"] == load_protocol(out / "samples.npz")


def test_nearest_training_images_are_those_of_scipy(drawn):
    out, said, _ = drawn
    from scipy.spatial.distance import cdist

    with np.load(out / "samples.npz") as file:
        flat = lambda images: images.reshape(len(images), -1).astype(float)
        nearest = cdist(flat(file["arr_0"]), flat(digits("train").images)).min(1) / 8
    found = json.loads((out / "gallery.json").read_text())["neighbours"]
    assert found["samples_median"] == pytest.approx(np.median(nearest)) and found["closest"] == pytest.approx(nearest.min())
    assert f"{np.median(nearest):.1f} grey levels" in said


def test_the_pictures_have_their_rows_and_columns(drawn):
    out, said, _ = drawn
    sizes = {}
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            sizes[path.name] = picture.size
    side = lambda n: 66 * n - 2  # Of n images of 8x8 pixels, enlarged to 64, with a margin of 2.
    assert sizes == {
        "classes.png": (side(10), side(7)), "neighbours.png": (side(20), side(4)), "failures.png": (side(20), 64 + 14),
        "interpolation.png": (side(12), side(10)),
    }  # fmt: skip
    assert all(str(out / name) in said for name in sizes)


def test_other_samples_are_kept_and_a_sampler_with_fresh_noise_has_no_way_between_images(small, drawn, tmp_path):
    out, _, flags = drawn
    refused = small.run("gallery", *flags, "--seed=1")
    assert refused.returncode == 2 and "holds other results" in refused.stderr and refused.stderr.count("\n") == 1
    again = small.run("gallery", flags[0], f"--out={tmp_path}", *flags[2:], "--sampler=ddpm")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "interpolation.png").exists() and (tmp_path / "failures.png").exists()


def test_of_many_classes_the_first_are_shown(tmp_path, monkeypatch):
    """With five columns for ten classes: the first five of each round of labels."""
    monkeypatch.setattr(gallery, "COLUMNS", 5)
    drawn = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 1), np.uint8)
    gallery.draw_classes(tmp_path / "classes.png", drawn, 10)
    with Image.open(tmp_path / "classes.png") as picture:
        np.testing.assert_array_equal(picture, grid(np.concatenate([drawn[10 * row : 10 * row + 5] for row in range(7)]), 5))


def test_what_is_left_out_is_said():
    near = {"samples_median": 4.0, "held_out_median": None, "closest": 1.0, "closer_than_99_percent_of_held_out": None}
    said = gallery.to_markdown({"neighbours": near}).splitlines()
    assert said[0].startswith("classes and failures are left out: the network has no labels, or")
    assert said[1:] == ["nearest training image: 4.0 grey levels in the median"]
