"""Scores of known images, memoized references, protocols of scores and samples files."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from scipy import linalg

from sdit_jax.data.datasets import Images
from sdit_jax.errors import InputError
from sdit_jax.metrics import compare, reference
from sdit_jax.metrics.evaluate import evaluate
from sdit_jax.metrics.features import batches, channels_for, extract
from sdit_jax.metrics.reference import check_enough, load_references, make_reference, spaced
from sdit_jax.metrics.yardsticks import YARDSTICKS, noisy
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.samples import Samples, read_samples

AS_THEY_ARE = next(iter(YARDSTICKS))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Kernel distances over few pairs; tests/metrics/test_scores.py tests their definition."""
    monkeypatch.setattr(compare, "kernel_distance", lambda a, b: reference_kernel(a, b))


def reference_kernel(a, b):
    from sdit_jax.metrics.scores import kernel_distance

    return kernel_distance(a, b, subsets=3, size=100)


def samples_of(images, labels=None, **protocol):
    return Samples(images, labels, {"n": len(images), **protocol})


def scores_of(samples, extractor, references):
    """Scores against the training split, and those without a reference, without yardsticks."""
    return by_name(evaluate(samples, [extractor], references, "digits", with_yardsticks=False), "train")


def by_name(evaluation, split):
    return {
        record["name"]: record["value"]
        for record in evaluation.values
        if record["reference"] is None or record["reference"]["split"] == split
    }


def test_the_real_test_split_scores_lowest_and_noise_is_far_off(digits, extractor):
    test = digits["test"]
    found = evaluate(samples_of(test.images, test.labels), [extractor], digits, "digits")
    yards = {yard["change"]: yard["scores"] for yard in found.yardsticks if yard["reference"] == "train"}
    floor, values = yards[AS_THEY_ARE], by_name(found, "train")
    assert values == {name: value for name, value in floor.items() if not name.endswith("_std")}
    levels = [yards[f"Gaussian noise of {level} grey levels"]["fd_classifier"] for level in (4, 8, 12, 16)]
    assert floor["fd_classifier"] < levels[0] < levels[1] < levels[2] < levels[3]
    assert values["accuracy_classifier"] > 0.97

    pixels = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
    noise = scores_of(samples_of(pixels), extractor, digits)
    assert noise["fd_classifier"] > 10 * levels[-1]
    assert "accuracy_classifier" not in noise


def test_a_split_is_at_no_distance_from_itself(digits, extractor):
    scores = scores_of(samples_of(digits["train"].images), extractor, digits)
    assert scores["fd_classifier"] < 1e-6
    assert scores["precision_classifier"] == scores["recall_classifier"] == 1


def test_the_distance_is_that_of_all_features_at_once(digits, extractor):
    samples = noisy(digits["test"].images, 30)
    found = scores_of(samples_of(samples), extractor, digits)["fd_classifier"]
    x, y = (extract(extractor, images).features_ND.astype(np.float64) for images in (samples, digits["train"].images))
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(cov_x @ cov_y).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cov_x + cov_y - 2 * root)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_every_value_has_its_protocol(digits, extractor, tmp_path):
    protocol = {"sampler": "ddim", "steps": 50, "guidance": 2.0, "seed": 3, "weights": "ema", "config_sha256": "abc"}
    found = evaluate(samples_of(digits["test"].images[:100], **protocol), [extractor], digits, "digits")
    found.save(tmp_path / "evaluation.json", energy=None)
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert len(stored["values"]) == 9 and stored["energy"] is None  # IS, and four scores against each split.
    for record in stored["values"]:
        assert protocol.items() <= record.items() and record["n"] == 100
        assert record["features"]["sha256"] == extractor.facts["sha256"]
        if not record["name"].startswith("is_"):
            assert record["reference"]["n"] == len(digits[record["reference"]["split"]])
            assert record["reference"]["sha256"] == digits[record["reference"]["split"]].fingerprint
    assert {yard["n"] for yard in stored["yardsticks"]} == {100}
    assert {(yard["split"], yard["reference"]) for yard in stored["yardsticks"]} == {("test", "train"), ("train", "test")}
    table = found.table()
    assert "against digits train (1,438)" in table and "Gaussian noise of 8 grey levels" in table


def test_references_are_memoized_and_recomputed_if_anything_differs(digits, extractor, cache, monkeypatch, caplog):
    first = make_reference(extractor, digits["test"], "digits", "test")
    calls = []
    monkeypatch.setattr(reference, "batches", lambda *a: calls.append(1) or batches(*a))
    again = make_reference(extractor, digits["test"], "digits", "test")
    assert not calls
    np.testing.assert_array_equal(again.covariance_DD, first.covariance_DD)
    images = digits["test"].images.copy()
    images[0, 0, 0] ^= 1
    make_reference(extractor, dataclasses.replace(digits["test"], images=images), "digits", "test")
    assert calls

    calls.clear()
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        mended = make_reference(extractor, digits["test"], "digits", "test")
    assert calls and "damaged" in caplog.text and len(caplog.records) == 1
    np.testing.assert_array_equal(mended.mean_D, first.mean_D)


def test_too_few_images_are_an_error_with_the_number_needed(digits, extractor):
    with pytest.raises(InputError, match="found 64 images, fd_classifier needs at least 65"):
        check_enough(extractor, 64, "config.evaluation.n")
    check_enough(extractor, 65, "config.evaluation.n")
    with pytest.raises(InputError, match="samples: found 20 images"):
        evaluate(samples_of(digits["test"].images[:20]), [extractor], digits, "digits")


def test_images_of_another_size_are_refused(digits, extractor):
    with pytest.raises(InputError, match=r"digits train: found size \(8, 8\), the samples have \(10, 10\)"):
        evaluate(samples_of(np.zeros((100, 10, 10, 1), np.uint8)), [extractor], digits, "digits")


def test_grey_images_in_three_channels_score_as_grey_ones(digits, extractor):
    test = digits["test"].images
    np.testing.assert_array_equal(extract(extractor, np.repeat(test, 3, -1)).features_ND, extract(extractor, test).features_ND)
    with pytest.raises(InputError, match="found 2 channels"):
        channels_for(extractor, np.zeros((1, 8, 8, 2), np.uint8))


def test_batches_do_not_matter(digits, extractor):
    a = extract(extractor, digits["test"].images)
    b = extract(dataclasses.replace(extractor, batch_size=77), digits["test"].images)
    np.testing.assert_allclose(a.features_ND, b.features_ND, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a.probabilities_NK.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("n, most, expected", [(5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (1, 1, [0])])
def test_spaced_places(n, most, expected):
    assert spaced(n, most).tolist() == expected


def test_a_source_without_test_split_is_compared_with_the_first(tmp_path, extractor, digits, caplog):
    np.savez(tmp_path / "mine.npz", digits["train"].images, labels=digits["train"].labels)
    with caplog.at_level(logging.WARNING):
        found = load_references(f"npz:{tmp_path / 'mine.npz'}", "", ("train", "test"), 8)
    assert list(found) == ["train"] and "test: not compared with" in caplog.text
    with pytest.raises(InputError, match="no such file"):
        load_references(f"npz:{tmp_path / 'none.npz'}", "", ("train", "test"), 8)
    scored = evaluate(samples_of(digits["test"].images), [extractor], found, "mine")
    assert {(yard["split"], yard["reference"]) for yard in scored.yardsticks} == {("train", "train")}


def test_a_samples_file_has_its_protocol_or_an_unknown_one(tmp_path, digits):
    from sdit_jax.images import save_npz

    test: Images = digits["test"]
    save_npz(tmp_path / "ours.npz", test.images, test.labels, {"sampler": "ddpm", "steps": 250})
    ours = read_samples(tmp_path / "ours.npz")
    assert ours.protocol["steps"] == 250 and ours.protocol["n"] == 359 and len(ours.protocol["samples_sha256"]) == 64
    np.testing.assert_array_equal(ours.labels, test.labels)
    np.savez(tmp_path / "theirs.npz", test.images)
    theirs = read_samples(tmp_path / "theirs.npz")
    assert theirs.labels is None and theirs.protocol["sampler"] is None and "unknown" in theirs.protocol["made"]


def test_the_protocol_of_a_file_never_replaces_a_score(tmp_path, digits, extractor):
    from sdit_jax.images import save_npz

    test = digits["test"]
    save_npz(tmp_path / "boast.npz", test.images, test.labels, {"name": "fid", "value": 0.0, "versions": {"sdit_jax": "0"}})
    found = evaluate(read_samples(tmp_path / "boast.npz"), [extractor], digits, "digits", with_yardsticks=False)
    by_split = by_name(found, "train")
    assert by_split["fd_classifier"] > 1 and "fid" not in by_split
    assert found.values[0]["sampled_with"] == {"sdit_jax": "0"} and "jax" in found.values[0]["versions"]
    np.savez(tmp_path / "list.npz", test.images, protocol=np.array("[1, 2]"))
    assert read_samples(tmp_path / "list.npz").protocol["sampler"] is None


def test_accuracy_needs_labels_of_the_same_data_set(digits, extractor):
    test = digits["test"]
    names = lambda protocol: scores_of(samples_of(test.images, test.labels, **protocol), extractor, digits)
    assert "accuracy_classifier" in names({"trained_on": "digits train"})
    assert "accuracy_classifier" not in names({"trained_on": "fashion_mnist train"})


def test_a_damaged_test_split_is_an_error_not_a_missing_one(tmp_path, digits):
    from PIL import Image

    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.fromarray(digits["train"].images[0, ..., 0]).save(tmp_path / split / "0.png")
    (tmp_path / "test" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of its 1 images can be read"):
        load_references(f"folder:{tmp_path}", "", ("train", "test"), 8)


def test_other_weights_are_another_protocol(small, trained, tmp_path):
    """Samples in a folder are reused only if the same weights drew them."""
    import jax

    from sdit_jax.sampling.run import open_run
    from sdit_jax.sampling.samples import draw

    run = open_run(trained.workdir)
    how = {"n": 10, "sampling": Sampling("ddim", 2), "seed": 0, "batch_size": 10}
    first = draw(run, tmp_path, **how)
    other = draw(dataclasses.replace(run, variables=jax.tree.map(lambda x: x + 0.1, run.variables)), tmp_path, **how)
    assert first.protocol["weights_sha256"] != other.protocol["weights_sha256"]
    assert (first.images != other.images).any()
    assert draw(run, tmp_path, **how).protocol == first.protocol and not list(tmp_path.glob("*.partial"))


def test_energy_of_images_with_other_channels_and_more_classes(trained):
    """Grey is repeated or colours averaged; labels beyond the classes become the null label."""
    from sdit_jax.report.build import energy_of
    from sdit_jax.sampling.run import open_run

    run = open_run(trained.workdir)
    size, channels, classes = run.model.image_size, run.model.channels, run.model.num_classes
    pixels = np.random.default_rng(0).integers(0, 256, (8, size, size, 1), np.uint8)
    other = pixels if channels == 3 else np.repeat(pixels, 3, -1)
    own = np.repeat(pixels, channels, -1)
    energy = lambda images, label: energy_of(run, Images(images, np.full(8, label, np.int32)), Sampling("ddim", 20))
    assert energy(other, classes + 3) == energy(own, classes)
