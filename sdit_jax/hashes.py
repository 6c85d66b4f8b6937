"""Hashes of the files in the sub-folders of a folder, stored in it: a bit that flipped on disk is found when they are read."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from sdit_jax.files import write_json

NAME = "sha256.json"


class Damaged(ValueError):
    """A file of a hashed folder is missing, not listed, or has other content."""


def seal(folder: Path) -> None:
    """Writes sha256.json: {"params/manifest.ocdbt": sha256, ...} of all files in sub-folders."""
    write_json(folder / NAME, {name: _sha256(folder / name) for name in sorted(_names(folder))})


def check(folder: Path, parts: Collection[str] | None = None) -> bool:
    """Reads all files of some sub-folders (default: all) and compares their hashes; False where there are none.

    Raises Damaged with the first file that differs.
    """
    chosen = lambda name: "/" in name and (parts is None or name.split("/")[0] in parts)
    path = folder / NAME
    if not path.exists():
        return False
    try:
        kept = json.loads(path.read_bytes())
        expected = {name: sha256 for name, sha256 in kept.items() if chosen(name)}
    except (ValueError, AttributeError):
        raise Damaged(f"{NAME} is not JSON of hashes") from None
    found = {name for name in _names(folder) if chosen(name)}
    for name in sorted({*expected, *found}):
        if name not in found or name not in expected:
            raise Damaged(f"{name} is " + ("missing" if name in expected else f"not in {NAME}"))
        if _sha256(folder / name) != expected[name]:
            raise Damaged(f"{name} differs from its hash")
    return True


def _names(folder):
    return {path.relative_to(folder).as_posix() for part in folder.iterdir() if part.is_dir() for path in _files(part)}


def _files(folder):
    """At any depth; patterns with ** are not known to paths of a store."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
