"""Original archives, from a folder or downloaded; all files are checked by sha256 before use."""

import hashlib
import logging
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdit_jax.data.sources.originals import CIFAR_FILES, IDX_FILES
from sdit_jax.errors import InputError
from sdit_jax.files import cache_dir, make_folder

IDX_NAMES = [f"{name}.gz" for split in IDX_FILES.values() for name in split[:2]]
CIFAR_NAMES = [name for split in CIFAR_FILES.values() for name in split]
CIFAR_FOLDER = "cifar-10-batches-bin"

# URL of the archives, and the sha256 of each.
ARCHIVES = {
    "mnist": ("https://storage.googleapis.com/cvdf-datasets/mnist/", dict(zip(IDX_NAMES, [
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ], strict=True))),
    "fashion_mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", dict(zip(IDX_NAMES, [
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ], strict=True))),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/", {
        "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    }),
}  # fmt: skip
# The sha256 of the files in CIFAR-10's archive.
CIFAR_SUMS = dict(zip(CIFAR_NAMES, [
    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
], strict=True))  # fmt: skip


@contextmanager
def originals_of(name: str, folder: Path | None = None, field: str = "archives") -> Iterator[Path]:
    """A folder with the original files of a data set, checked: `folder`, or downloads in the cache where it is None.

    CIFAR-10's archive is unpacked for the duration of the context. Raises InputError for a missing file, a wrong checksum, an
    archive that reaches out of its folder, and a failed download; `field` names the argument in its message.
    """
    url, sums = ARCHIVES[name]
    if folder is None:
        folder = _download(name, url, sums, field)
    elif not folder.is_dir():
        raise InputError(f"{field}: found {str(folder)!r}, which is not a folder")
    elif name == "cifar10":
        unpacked = next((place for place in (folder, folder / CIFAR_FOLDER) if (place / CIFAR_NAMES[0]).is_file()), None)
        if unpacked:
            folder, sums = unpacked, CIFAR_SUMS
    _check(folder, sums)
    if name != "cifar10" or sums is CIFAR_SUMS:
        yield folder
        return
    with tempfile.TemporaryDirectory() as unpacked:
        (archive,) = sums
        try:
            with tarfile.open(folder / archive) as tar:
                tar.extractall(unpacked, filter=_inside)
        except tarfile.TarError as error:
            raise InputError(f"{folder / archive}: not unpacked, {error}") from None
        yield Path(unpacked, CIFAR_FOLDER)


def _inside(member, place):
    """Refuses a member with an absolute name, which `data_filter` would make relative; and all that it refuses."""
    if Path(member.name).is_absolute():
        raise tarfile.AbsolutePathError(member)
    return tarfile.data_filter(member, place)


def _check(folder, sums):
    """Raises InputError for the first missing file or wrong checksum."""
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; {folder} must hold {', '.join(sums)}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise InputError(f"{path}: found sha256 {found}, expected {expected}; damaged, cut short or another file")


def _download(name, url, sums, field):
    """The folder of the downloads, each written atomically; files with the right checksum are not fetched again."""
    import pooch

    folder = cache_dir() / "downloads" / name
    make_folder(folder)
    pooch.get_logger().setLevel(logging.ERROR)
    for file, sha256 in sums.items():
        try:
            pooch.retrieve(url + file, f"sha256:{sha256}", fname=file, path=folder, progressbar=True)
        except Exception as error:  # Errors of requests, urllib3 and the file system; ValueError for a wrong checksum.
            what = str(error).splitlines()[0] if isinstance(error, ValueError) else type(error).__name__
            raise InputError(
                f"{url + file}: cannot be downloaded ({what}); without a network, fetch it elsewhere and "
                f"set {field} to its folder"
            ) from None
    return folder
