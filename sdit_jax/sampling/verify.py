"""The state of a run folder or a file of weights: what is whole, and what it can be used for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orbax.checkpoint.utils import checkpoint_steps
from PIL import Image

from sdit_jax import config as fields
from sdit_jax import hashes
from sdit_jax.errors import InputError
from sdit_jax.files import as_path
from sdit_jax.sampling import weights


class Finding(NamedTuple):
    """A part of a run, what was found, and whether it is whole."""

    part: str
    found: str
    sound: bool


class Verified(NamedTuple):
    """Findings, and a line that says what the run can be used for."""

    findings: list[Finding]
    use: str

    @property
    def sound(self) -> bool:
        return all(finding.sound for finding in self.findings)


def verify(place: str | Path) -> Verified:
    """Reads all of a run folder, or a file of weights, and compares checkpoints with their hashes. Changes nothing.

    Raises InputError for a place that is neither.
    """
    file = weights.find(place)
    if file:
        finding = _weights(file)
        return Verified([finding], "can be sampled and evaluated" if finding.sound else "cannot be used")
    workdir = as_path(place)
    if not (workdir / "config.json").is_file():
        raise InputError(f"{place}: not a run folder, it holds no config.json")
    config, steps = _config(workdir), dict(_checkpoints(workdir / "checkpoints"))
    others = [*_aside(workdir), *_records(workdir), *_pictures(workdir)]
    found = [config, *steps.values(), *others]
    usable = [step for step, finding in steps.items() if finding.sound] if config.sound else []
    return Verified(found, _use(workdir, max(usable, default=None)))


def _weights(file):
    try:
        _, which, step, *_ = weights.read(file)
    except InputError as error:
        return Finding(file.name, str(error).removeprefix(f"{file}: "), False)
    return Finding(file.name, f"{which} weights of step {step:,}", True)


def _config(workdir):
    try:
        fields.validate(fields.load(workdir))
    except InputError as error:
        return Finding("config.json", str(error).removeprefix(f"{workdir / 'config.json'}: "), False)
    return Finding("config.json", "valid", True)


def _checkpoints(folder: Path) -> Iterator[tuple[int, Finding]]:
    """Of all complete checkpoints, by their steps."""
    for step in sorted(checkpoint_steps(folder)) if folder.is_dir() else ():
        try:
            hashed = hashes.check(folder / str(step))
        except hashes.Damaged as error:
            yield step, Finding(f"checkpoints/{step}", f"damaged: {error}", False)
        except OSError as error:
            yield step, Finding(f"checkpoints/{step}", f"cannot be read ({error.strerror})", False)
        else:
            found = "its files match their hashes" if hashed else "it has no hashes, and was not checked"
            yield step, Finding(f"checkpoints/{step}", found, True)


def _aside(workdir):
    for path in sorted(workdir.glob("damaged_checkpoint_*")):
        yield Finding(path.name, "set aside when the run was resumed", True)


def _records(workdir):
    for path in sorted(workdir.glob("*.jsonl")):
        lines = path.read_bytes().splitlines()
        for number, line in enumerate(lines, 1):
            try:
                json.loads(line)
            except ValueError:
                yield Finding(path.name, f"damaged: line {number} is not JSON", False)
                break
        else:
            yield Finding(path.name, f"{len(lines):,} records", True)


def _pictures(workdir):
    for path in sorted(workdir.glob("samples/*.png")):
        part = str(path.relative_to(workdir))
        try:
            with path.open("rb") as file, Image.open(file) as picture:
                picture.load()
        except Exception:  # Pillow raises many kinds.
            yield Finding(part, "damaged", False)
        else:
            yield Finding(part, "readable", True)


def _use(workdir, step):
    if step is None:
        return "cannot be used: it needs a config.json and a checkpoint that are whole"
    if (workdir / "checkpoints" / str(step) / "optimizer").is_dir():
        return f"can be resumed, sampled and evaluated from step {step:,}"
    return f"can be sampled and evaluated from step {step:,}; it holds weights only and cannot be resumed"
