"""What is prepared here is what tensorflow-datasets reads, and the other way round."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from sdit_jax.data import sources
from sdit_jax.data.sources import originals
from sdit_jax.data.sources.preparing import DATA_SETS, prepare
from sdit_jax.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")
REAL = {"mnist": "mnist", "fashion_mnist": "fashion-mnist", "cifar10": "cifar-10-batches-bin"}


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_official_data_set_reads_what_is_prepared(stand_in, name):
    _, folder, splits = stand_in(name)
    official = tfds.builder(name, data_dir=folder)
    assert official.data_path == folder / name / DATA_SETS[name][0]
    for split, images in splits.items():
        records = official.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        assert [record["label"] for record in records] == images.labels.tolist()
        if name == "cifar10":
            assert [record["id"] for record in records][:2] == [f"{split}_00000".encode(), f"{split}_00001".encode()]
        assert records.dataset_info.features["label"].names == list(DATA_SETS[name][3])


def official_features(name):
    """The features that the official builder declares, without its data."""
    return {key: repr(value) for key, value in tfds.builder(name).info.features.items()}


@pytest.mark.parametrize("name", DATA_SETS)
def test_features_and_version_are_the_official_ones(stand_in, name):
    _, folder, _ = stand_in(name)
    ours = tfds.builder_from_directory(folder / name / DATA_SETS[name][0]).info
    assert {key: repr(value) for key, value in ours.features.items()} == official_features(name)
    assert str(tfds.builder(name).version) == DATA_SETS[name][0]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_images_come_back_in_order(stand_in, name):
    _, folder, splits = stand_in(name)
    for split, images in splits.items():
        found = sources.load(f"tfds:{name}", split, folder)
        np.testing.assert_array_equal(found.images, images.images)
        assert found.labels.dtype == np.int32 and found.num_classes == 10
        assert found.fingerprint == images.fingerprint
        again = sources.load(f"tfds:{name}", split, folder)
        assert again.fingerprint == found.fingerprint


def test_parts_of_splits_are_splits(stand_in):
    _, folder, splits = stand_in("mnist")
    train, test = splits["train"], splits["test"]
    for split, expected in (
        ("train[:7]", train.images[:7]),
        ("train[-20%:]", train.images[20:]),
        ("train[3:5]+test", np.concatenate([train.images[3:5], test.images])),
    ):
        np.testing.assert_array_equal(sources.load("tfds:mnist:3.0.1", split, folder).images, expected)


def builder_of(features, records, **attributes):
    """A data set called "things", written by tensorflow-datasets itself."""
    with tfds.core.registered.skip_registration():

        class Things(tfds.core.GeneratorBasedBuilder):
            VERSION = attributes.get("VERSION", tfds.core.Version("1.0.0"))
            BUILDER_CONFIGS = attributes.get("BUILDER_CONFIGS", [])

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
                )

            def _split_generators(self, dl_manager):
                return {"all_of_it": self._generate_examples()}

            def _generate_examples(self):
                yield from enumerate(records)

    return Things


def write(builder, folder, **chosen):
    builder(data_dir=folder, file_format="array_record", **chosen).download_and_prepare()


def test_images_that_are_not_encoded_and_integers_as_labels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    features = {"image": tfds.features.Tensor(shape=(6, 7, 3), dtype=np.uint8), "label": tfds.features.Scalar(np.int64)}
    records = [{"image": image, "label": label} for image, label in zip(pixels, [2, 0, 1, 6, 0], strict=True)]
    write(builder_of(features, records), tmp_path)
    found = sources.load("tfds:things", "all_of_it", tmp_path)
    np.testing.assert_array_equal(found.images, pixels)
    assert found.labels.tolist() == [2, 0, 1, 6, 0] and found.num_classes == 7


def test_configs_versions_and_no_labels(tmp_path):
    features = {"image": tfds.features.Tensor(shape=(2, 2, 1), dtype=np.uint8), "text": tfds.features.Text()}
    for config in ("small", "large"):
        for version in ("1.2.0", "1.10.0"):
            chosen = tfds.core.BuilderConfig(name=config, version=tfds.core.Version(version))
            value = len(config) + int(version.split(".")[1])
            records = [{"image": np.full((2, 2, 1), value, np.uint8), "text": "x"}]
            write(builder_of(features, records, BUILDER_CONFIGS=[chosen], VERSION=tfds.core.Version(version)), tmp_path)
    for name, value in (("small", 15), ("large:1.2.0", 7)):
        found = sources.load(f"tfds:things/{name}", "all_of_it", tmp_path)
        assert found.images.tolist() == [[[[value]] * 2] * 2] and found.labels.tolist() == [0] and found.num_classes == 1
    with pytest.raises(InputError, match="found 'tfds:things', .* has large, small"):
        sources.load("tfds:things", "all_of_it", tmp_path)
    with pytest.raises(InputError, match="found 'tfds:things/large:2.0.0', .* has 1.10.0, 1.2.0"):
        sources.load("tfds:things/large:2.0.0", "all_of_it", tmp_path)


def test_a_data_set_without_images_is_refused(tmp_path):
    write(builder_of({"text": tfds.features.Text()}, [{"text": "x"}]), tmp_path)
    with pytest.raises(InputError, match="tfds:things has text, must have an image"):
        sources.load("tfds:things", "all_of_it", tmp_path)


@pytest.mark.parametrize(
    "name, split, words",
    [
        ("mnist", "val", "config.data.split: found 'val', tfds:mnist has train, test, and parts such as train[:1000]"),
        ("mnist", "train[:", "config.data.split: found 'train[:', tfds:mnist has train, test"),
        ("mnist", "train[:0]", "config.data.split: found 'train[:0]'"),
        ("cifar10", "train", "is not prepared in {folder}; sdit prepare cifar10 makes it, with output folder {folder}"),
        ("imagenet2012", "train", "tfds:imagenet2012 is not prepared in {folder}; prepare it there"),
        ("mnist:3.0.0", "train", "found 'tfds:mnist:3.0.0', {folder}/mnist has 3.0.1"),
        ("", "train", "found 'tfds:', must be tfds:NAME"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(stand_in, name, split, words):
    _, folder, _ = stand_in("mnist")
    with pytest.raises(InputError, match=re.escape(words.format(folder=folder))) as error:
        sources.open_source(f"tfds:{name}", split, folder)
    assert "\n" not in str(error.value)


def test_the_default_folder_is_that_of_the_library(stand_in, monkeypatch, tmp_path):
    _, folder, splits = stand_in("mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    np.testing.assert_array_equal(sources.load("tfds:mnist", "test", "").images, splits["test"].images)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(InputError, match="not prepared in .*none; sdit prepare mnist makes it"):
        sources.load("tfds:mnist", "test", "")


def spoil(folder, kind):
    record, info = folder / "mnist-train.array_record-00000-of-00001", folder / "dataset_info.json"
    data = record.read_bytes()
    if kind == "cut":
        record.write_bytes(data[: len(data) // 2])
    elif kind == "flipped":
        record.write_bytes(data[:300] + bytes([data[300] ^ 255]) + data[301:])
    elif kind == "missing":
        record.unlink()
    elif kind == "info":
        info.write_text(info.read_text()[:50])
    else:
        info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))


@pytest.mark.parametrize(
    "kind, words",
    [
        ("cut", "damaged"),
        ("flipped", "damaged"),
        ("missing", "damaged|No such file"),
        ("info", "cannot be read"),
        ("tfrecord", "only TensorFlow reads"),
    ],
)
def test_damaged_files_and_other_formats_are_named(stand_in, kind, words):
    _, folder, _ = stand_in("mnist")
    spoil(folder / "mnist" / "3.0.1", kind)
    with pytest.raises(InputError, match=words) as error:
        sources.load("tfds:mnist", "train", folder)
    assert str(folder / "mnist") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA_SETS)
def test_the_real_data_are_the_same_as_from_the_original_files(tmp_path, name):
    """With SDIT_JAX_DATA, a folder that holds mnist/, fashion-mnist/ and cifar-10-batches-bin/."""
    if "SDIT_JAX_DATA" not in os.environ:
        pytest.skip("SDIT_JAX_DATA names no folder of real data")
    place = Path(os.environ["SDIT_JAX_DATA"], REAL[name])
    assert prepare(name, place, tmp_path) == tmp_path / name / DATA_SETS[name][0]
    for split in originals.SPLITS:
        original, ours = sources.load(name, split, place), sources.load(f"tfds:{name}", split, tmp_path)
        assert ours.fingerprint == original.fingerprint
    shutil.rmtree(tmp_path / name)
