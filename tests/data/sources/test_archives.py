"""Archives are found or fetched, and nothing is made of one that is not what it should be."""

import functools
import gzip
import hashlib
import http.server
import io
import logging
import re
import tarfile
import tempfile
import threading

import pytest

from sdit_jax.data.sources import archives
from sdit_jax.data.sources.archives import ARCHIVES, CIFAR_FOLDER, CIFAR_NAMES, IDX_NAMES, originals_of
from sdit_jax.errors import InputError

CONTENT = {name: bytes([i]) * 1000 for i, name in enumerate([*IDX_NAMES, *CIFAR_NAMES])}
TAR = "cifar-10-binary.tar.gz"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def tar_bytes(*more):
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for member in more:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        for name in CIFAR_NAMES:
            member = tarfile.TarInfo(f"{CIFAR_FOLDER}/{name}")
            member.size = len(CONTENT[name])
            tar.addfile(member, io.BytesIO(CONTENT[name]))
    return file.getvalue()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder of small archives, whose sums are taken for the real ones."""
    folder = tmp_path / "archives"
    folder.mkdir()
    for name in IDX_NAMES:
        (folder / name).write_bytes(CONTENT[name])
    (folder / TAR).write_bytes(tar_bytes())
    url = "http://127.0.0.1:9/"  # Where nobody answers.
    for name in ("mnist", "fashion_mnist"):
        monkeypatch.setitem(ARCHIVES, name, (url, {file: sha256(CONTENT[file]) for file in IDX_NAMES}))
    monkeypatch.setitem(ARCHIVES, "cifar10", (url, {TAR: sha256(tar_bytes())}))
    monkeypatch.setattr(archives, "CIFAR_SUMS", {name: sha256(CONTENT[name]) for name in CIFAR_NAMES})
    return folder


def contents(folder, names):
    return {name: (folder / name).read_bytes() for name in names}


def test_idx_files_are_used_where_they_are(source):
    with originals_of("mnist", source) as folder:
        assert folder == source and contents(folder, IDX_NAMES) == contents(source, IDX_NAMES)


def test_the_cifar_archive_is_unpacked_and_cleared_away(source):
    with originals_of("cifar10", source) as folder:
        assert contents(folder, CIFAR_NAMES) == {name: CONTENT[name] for name in CIFAR_NAMES}
    assert not folder.exists()


@pytest.mark.parametrize("inside", [False, True])
def test_unpacked_cifar_files_do_as_well(source, inside):
    (source / TAR).unlink()
    place = source / CIFAR_FOLDER if inside else source
    place.mkdir(exist_ok=True)
    for name in CIFAR_NAMES:
        (place / name).write_bytes(CONTENT[name])
    with originals_of("cifar10", source) as folder:
        assert folder == place
    (place / "data_batch_3.bin").write_bytes(b"other")
    with pytest.raises(InputError, match="data_batch_3.bin: found sha256"), originals_of("cifar10", source):
        raise AssertionError("entered")


@pytest.mark.parametrize("name, file", [("mnist", IDX_NAMES[3]), ("cifar10", TAR)])
@pytest.mark.parametrize("kind", ["missing", "cut", "other"])
def test_a_file_that_is_missing_or_damaged_is_named(source, name, file, kind):
    path = source / file
    data = path.read_bytes()
    path.unlink() if kind == "missing" else path.write_bytes(data[:-1] if kind == "cut" else data + b"x")
    words = "no such file" if kind == "missing" else "found sha256 .*, expected .*; damaged, cut short"
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {words}") as error, originals_of(name, source):
        raise AssertionError("entered")
    assert "\n" not in str(error.value)


def member(name, kind=tarfile.REGTYPE, target=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, 9 * (kind == tarfile.REGTYPE)
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        [member("../escaped")],
        [member(f"{CIFAR_FOLDER}/../../escaped")],
        [member("/tmp/escaped")],
        [member("link", tarfile.SYMTYPE, "../escaped"), member("link/escaped")],
        [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("link", tarfile.LNKTYPE, "../../etc/passwd")],
        [member("device", tarfile.CHRTYPE)],
    ],
    ids=lambda hostile: f"{hostile[0].name} {hostile[0].linkname}",
)
def test_an_archive_that_reaches_out_of_its_folder_is_refused(source, monkeypatch, tmp_path, hostile):
    """Even one with the right checksum."""
    (source / TAR).write_bytes(tar_bytes(*hostile))
    monkeypatch.setitem(ARCHIVES, "cifar10", ("", {TAR: sha256(tar_bytes(*hostile))}))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with (
        pytest.raises(InputError, match=f"^{re.escape(str(source / TAR))}: not unpacked, .*{hostile[0].name[:4]}") as error,
        originals_of("cifar10", source),
    ):
        raise AssertionError("entered")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.parent != source) == ["archives", "temporary"]


def test_a_folder_that_is_none_is_named(source):
    with (
        pytest.raises(InputError, match="^--archives: found .*nowhere"),
        originals_of("mnist", source / "nowhere", "--archives"),
    ):
        raise AssertionError("entered")


@pytest.fixture
def server(source, monkeypatch):
    """Serves the folder of archives; what was asked for, in order."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=source)) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        for name in list(ARCHIVES):
            monkeypatch.setitem(ARCHIVES, name, (f"http://127.0.0.1:{serving.server_port}/", ARCHIVES[name][1]))
        yield asked
        serving.shutdown()
        thread.join()


def test_archives_are_fetched_once(source, server):
    for _ in range(2):
        with originals_of("fashion_mnist") as folder:
            assert contents(folder, IDX_NAMES) == contents(source, IDX_NAMES)
    assert len([path for path in server if path.endswith(".gz")]) == 4


def test_a_download_with_another_sum_is_refused_and_not_kept(source, server, cache):
    (source / IDX_NAMES[1]).write_bytes(b"<html>moved</html>")
    with pytest.raises(InputError, match=f"/{IDX_NAMES[1]}: cannot be downloaded .*hash") as error, originals_of("mnist"):
        raise AssertionError("entered")
    assert "\n" not in str(error.value)
    assert {path.name for path in (cache.parent / "downloads" / "mnist").iterdir()} == {IDX_NAMES[0]}


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_without_a_network_one_line_says_what_to_do(source, cache, name):
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    with (
        pytest.raises(InputError, match="127.0.0.1:9/.*: cannot be downloaded .*set --archives") as error,
        originals_of(name, None, "--archives"),
    ):
        raise AssertionError("entered")
    assert "\n" not in str(error.value)
    assert list((cache.parent / "downloads" / name).iterdir()) == []


def test_the_sums_are_those_of_the_originals():
    """Against the official builders' own list of checksums."""
    tfds = pytest.importorskip("tensorflow_datasets")
    for name, (url, sums) in ARCHIVES.items():
        known = {address: info.checksum for address, info in tfds.builder_cls(name).url_infos.items()}
        for file, expected in sums.items():
            assert known[url + file] == expected
