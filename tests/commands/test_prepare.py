"""`sdit prepare`: what it writes and prints, and its errors."""

import importlib
import os

import numpy as np
import pytest

from sdit_jax.data import sources
from sdit_jax.data.datasets import Images
from sdit_jax.data.sources import archives, originals, preparing
from sdit_jax.errors import InputError


def assert_one_clear_line(done, *words):
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), ("data set: missing", "--help")),
        (("mnist", "cifar10"), ("cifar10: unexpected argument",)),
        (("cifar10", "--archives={folder}"), ("cifar-10-binary.tar.gz: no such file",)),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(small, tmp_path, flags, words):
    done = small.run("prepare", *(flag.format(folder=tmp_path) for flag in flags), f"--out={tmp_path / 'out'}")
    assert_one_clear_line(done, *words)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def command(monkeypatch, tmp_path):
    """(main, splits read, images): the command in this process, with 30 random images in place of the archives."""
    from absl import flags

    rng, read = np.random.default_rng(0), []
    images = Images(rng.integers(0, 256, (30, 28, 28, 1), np.uint8), (np.arange(30) % 10).astype(np.int32))

    def few(split, folder):
        read.append((split, folder))
        return images

    version, _, shape, classes = preparing.DATA_SETS["mnist"]
    monkeypatch.setitem(preparing.DATA_SETS, "mnist", (version, few, shape, classes))
    monkeypatch.setattr(archives, "_check", lambda folder, sums: None)
    monkeypatch.setenv("SDIT_JAX_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module("sdit_jax.commands.prepare")
    flags.FLAGS(["prepare", f"--archives={tmp_path}", f"--out={tmp_path / 'out'}"])
    yield lambda name="mnist": module.main(name), read, images
    for name in ("archives", "out"):
        flags.FLAGS[name].unparse()


def test_it_prepares_once_and_prints_the_next_command(command, tmp_path, capsys):
    main, read, images = command
    out = tmp_path / "out"
    main()
    assert read == [(split, tmp_path) for split in originals.SPLITS]
    folder, train = capsys.readouterr().out.splitlines()
    assert folder == f"{out}/mnist/3.0.1"
    assert train.startswith("sdit train --config=mnist ")
    assert f"--config.data.name=tfds:mnist --config.data.dir={out}" in train
    assert sources.load("tfds:mnist", "train", out).fingerprint == images.fingerprint
    assert os.listdir(out) == ["mnist"] and os.listdir(out / "mnist") == ["3.0.1"]

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    main()
    assert capsys.readouterr().out.startswith(f"{out}/mnist/3.0.1: already prepared\n")
    assert len(read) == 2 and before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_a_failure_leaves_no_files(command, tmp_path, monkeypatch):
    main, _, _ = command

    def full(image):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparing, "_png", full)
    with pytest.raises(InputError, match="out/mnist/3.0.1: cannot be written .No space left on device"):
        main()
    assert [path for path in (tmp_path / "out").rglob("*") if path.name != "mnist"] == []


def test_a_folder_in_the_way_is_named(command, tmp_path):
    (tmp_path / "out" / "mnist" / "3.0.1").mkdir(parents=True)
    with pytest.raises(InputError, match="mnist/3.0.1: in the way, it holds no dataset_info.json"):
        command[0]()


def test_an_unknown_data_set_is_an_error_that_lists_the_known_ones(command):
    with pytest.raises(InputError, match="data set: found 'imagenet', allowed are mnist, fashion_mnist, cifar10"):
        command[0]("imagenet")
