"""A folder of pictures: classes, splits, order, and what cannot be read."""

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from sdit_jax.data import sources
from sdit_jax.data.datasets import Examples
from sdit_jax.data.transforms import fit_one
from sdit_jax.errors import InputError


def opened(folder, split="train"):
    found = sources.open_source(f"folder:{folder}", split, "")
    assert isinstance(found, Examples)
    return found


def fingerprint(folder):
    return opened(folder).fingerprint


def test_sub_folders_are_classes_and_paths_give_the_order(pictures):
    folder, shown = pictures
    examples = opened(folder)
    assert examples.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 5 and examples.labels.dtype == np.int32
    assert (len(examples), examples.num_classes) == (12, 3)
    for i, pixels in enumerate(shown):
        np.testing.assert_array_equal(examples.example(i), pixels)


def test_loaded_they_are_fitted_each_as_one(pictures):
    folder, shown = pictures
    found = sources.load("folder", "train", folder, 8, 3, "bicubic")
    np.testing.assert_array_equal(found.images, [fit_one(pixels, 8, 3, "bicubic") for pixels in shown])
    assert found.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 5 and found.num_classes == 3


def test_without_sub_folders_there_is_one_class(pictures):
    folder, shown = pictures
    found = opened(folder / "bee")
    assert found.labels.tolist() == [0, 0, 0] and found.num_classes == 1
    np.testing.assert_array_equal(found.example(2), shown[6])


def test_pictures_of_a_class_may_lie_deeper_and_an_empty_class_counts(pictures):
    folder, shown = pictures
    (folder / "ant" / "z" / "deep").mkdir(parents=True)
    shutil.move(folder / "ant" / "1.png", folder / "ant" / "z" / "deep" / "1.PNG")
    (folder / "aardvark").mkdir()
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden").mkdir()
    (folder / "ant" / "._0.png").write_bytes(b"what file systems leave behind")
    found = opened(folder)
    assert found.num_classes == 4 and found.labels.tolist() == [1] * 4 + [2] * 3 + [3] * 5
    np.testing.assert_array_equal(found.example(3), shown[1])


def test_train_and_test_are_splits_with_the_classes_of_train(pictures):
    folder, shown = pictures
    for name in ("ant", "bee", "cat"):
        shutil.move(folder / name, folder / "train" / name)
    shutil.copytree(folder / "train" / "cat", folder / "test" / "cat")
    train, test = opened(folder), opened(folder, "test")
    assert (len(train), len(test), test.num_classes) == (12, 5, 3)
    assert test.labels.tolist() == [2] * 5
    np.testing.assert_array_equal(test.example(4), shown[11])
    with pytest.raises(InputError, match="config.data.split: found 'val', .* has test, train"):
        opened(folder, "val")
    (folder / "test" / "dog").mkdir()
    with pytest.raises(InputError, match="test/dog: a class that is not in .*train; there are ant, bee, cat"):
        opened(folder, "test")


def test_a_class_may_be_called_train(pictures):
    folder, _ = pictures
    shutil.move(folder / "bee", folder / "train")
    assert opened(folder).labels.tolist() == [0] * 4 + [1] * 5 + [2] * 3


@pytest.mark.parametrize("colour", [False, True])
def test_one_colour_picture_makes_all_rgb(tmp_path, colour):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([grey, grey, grey + colour])).convert("RGB" if colour else "L").save(tmp_path / "b.png")
    found = sources.load(f"folder:{tmp_path}", "train", "")
    assert found.images.shape == (2, 8, 8, 3 if colour else 1)
    np.testing.assert_array_equal(found.images[0], np.repeat(grey[..., None], 3 if colour else 1, -1))


def test_broken_files_are_named_and_counted_and_the_rest_is_kept(pictures, caplog):
    folder, shown = pictures
    (folder / "ant" / "2.png").write_bytes(b"not a picture at all")
    whole = (folder / "bee" / "1.png").read_bytes()
    (folder / "bee" / "1.png").write_bytes(whole[:-60])  # Its header is whole.
    for _ in range(2):  # The second time from the cache.
        caplog.clear()
        found = sources.load("folder", "train", folder, 8, 3)
        kept = [i for i in range(12) if i not in (2, 5)]
        np.testing.assert_array_equal(found.images, [fit_one(shown[i], 8, 3) for i in kept])
        assert found.labels.tolist() == [0] * 3 + [1] * 2 + [2] * 5
        lines = [record.getMessage() for record in caplog.records]
        assert any(str(folder / "ant" / "2.png") in line for line in lines)
        assert any(str(folder / "bee" / "1.png") in line for line in lines)
        assert "2 of 12 files are left out" in lines[-1]
    assert len(opened(folder)) == 10  # So that a streamed run sees the same ones in the same order.


def test_where_none_is_left_the_folder_is_refused(pictures):
    folder, _ = pictures
    for i, path in enumerate(folder.rglob("*.png")):
        path.write_bytes(path.read_bytes()[:-60] if i % 2 else b"broken")
    with pytest.raises(InputError, match="none of its 12 images can be read"):
        opened(folder)


def test_pictures_of_different_shapes_need_a_size(pictures):
    folder, _ = pictures
    with pytest.raises(InputError, match=r"found an image of \(10, 11, 3\) after one of \(9, 12, 3\)"):
        sources.load("folder", "train", folder)


def test_a_fingerprint_follows_the_files(pictures):
    folder, _ = pictures
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    os.utime(folder / "ant" / "0.png", (1, 1))
    touched = fingerprint(folder)
    shutil.copy(folder / "ant" / "0.png", folder / "ant" / "9.png")
    added = fingerprint(folder)
    shutil.move(folder / "ant" / "9.png", folder / "bee" / "9.png")
    moved = fingerprint(folder)
    (folder / "aardvark").mkdir()
    assert len({before, touched, added, moved, fingerprint(folder)}) == 5


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda folder: shutil.copy(folder / "ant" / "0.png", folder / "x.png"),
            "x.png: beside the folders of classes (ant, bee",
        ),
        (lambda folder: [path.unlink() for path in folder.rglob("*.png")], "holds no images (.png, .jpg"),
        (lambda folder: shutil.rmtree(folder), "which is not a folder"),
    ],
)
def test_a_folder_that_cannot_be_understood_is_refused(pictures, spoil, message):
    folder, _ = pictures
    spoil(folder)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        opened(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
