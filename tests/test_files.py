"""Atomic writes, locks, strict JSON, and errors that name the path."""

import errno
import fcntl
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from sdit_jax import files
from sdit_jax.errors import InputError


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "numbers.json"
    path.write_text("before")

    def fail():
        with files.atomic_write(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_leave_the_text_of_the_last_one(tmp_path):
    path = tmp_path / "numbers.json"
    with files.atomic_write(path) as first:
        first.write_text("first")
        with files.atomic_write(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    value = {"loss": [1.5, float("nan"), np.float64("inf")], "runs": ({"law": -float("inf"), "n": 3},), "name": "NaN"}
    files.write_json(tmp_path / "found.json", value)
    refuse = lambda name: pytest.fail(f"{name} is not JSON")
    found = json.loads((tmp_path / "found.json").read_text(), parse_constant=refuse)
    assert found == {"loss": [1.5, None, None], "runs": [{"law": None, "n": 3}], "name": "NaN"}


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'taken'))}: cannot be written"):
        files.write_json(tmp_path / "taken", {})
    assert list((tmp_path).iterdir()) == [tmp_path / "taken"]


def test_a_lock_excludes_others_until_it_is_released(tmp_path):
    lock = files.exclusive(tmp_path, "trains")
    lock.__enter__()
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))}: another process trains$"):
        files.exclusive(tmp_path, "trains").__enter__()
    lock.__exit__(None, None, None)
    with files.exclusive(tmp_path, "trains"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_and_logged(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.exclusive(tmp_path, "trains"):
        pass
    assert f"{tmp_path}: its file system has no locks" in caplog.text
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output"), files.exclusive(tmp_path, "trains"):
        raise AssertionError("entered")


def test_an_error_while_writing_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space") as error, files.atomic_write(tmp_path / "numbers.npz"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # As of a file that is open, without a name.
    assert error.value.filename == str(tmp_path / "numbers.npz")


def test_a_folder_is_made_or_named_in_the_error(tmp_path):
    files.make_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "file"))):
        files.make_folder(tmp_path / "file" / "run")


@pytest.mark.parametrize("place", ["gs://bucket/run", "gs:/bucket/run", Path("gs://bucket/run")])
def test_an_address_is_a_path_of_a_bucket_also_where_path_has_dropped_a_slash(place):
    path = files.as_path(place)
    assert files.on_store(path) and str(path / "config.json") == "gs://bucket/run/config.json"
    assert files.as_path(path) == path


@pytest.mark.parametrize("place", ["runs/mnist", "/tmp/a:b", "pretrained:mnist", ""])
def test_other_places_are_local(place):
    assert files.as_path(place) == Path(place) and not files.on_store(files.as_path(place))


@pytest.mark.parametrize("place", ["s3://bucket/run", "az://x/y", "gs://", "file:///tmp/x"])
def test_addresses_of_other_stores_are_refused(place):
    with pytest.raises(InputError, match=f"^--out: found '{place}', must be a path or gs://BUCKET/FOLDER"):
        files.as_path(place, "--out")


@pytest.mark.filterwarnings("ignore")
def test_a_failure_leaves_an_object_as_it_was(bucket):
    path = files.as_path(f"{bucket}/files/numbers.json")
    files.write_json(path, [1])

    def fail():
        with files.atomic_write(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert json.loads(path.read_text()) == [1] and list(path.parent.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore")
def test_a_bucket_that_is_not_there_is_named_and_not_made(bucket):
    with pytest.raises(InputError, match="^gs://other/run: the folder cannot be written"):
        files.make_folder(files.as_path("gs://other/run"))
    assert not files.as_path("gs://other").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_a_bucket_shows_what_others_write(bucket):
    gcsfs = pytest.importorskip("gcsfs")
    folder = files.as_path(f"{bucket}/shared")
    (folder / "a").write_bytes(b"")
    assert [path.name for path in folder.iterdir()] == ["a"]
    gcsfs.GCSFileSystem(skip_instance_cache=True).pipe_file(f"{bucket}/shared/b", b"")
    assert [path.name for path in folder.iterdir()] == ["a", "b"]
