"""The exceptions that the package raises for people: one line that names the field or file, what was found, what is allowed."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator


class InputError(ValueError):
    """A user's mistake. Commands print it in one line and exit with 2."""


class NoSuchSplit(InputError):
    """A split that a data set does not have."""


class BrokenImage(InputError):
    """A picture that cannot be decoded, by its name."""


class TrainingFailed(RuntimeError):
    """Training cannot continue: the step, what was not finite, and the last good checkpoint. Commands exit with 1."""


class Stopped(Exception):
    """A run was asked to stop before its end and has saved its state. Commands exit with 75: rerun to resume."""


def unknown_field(name: str, known: Iterable[str]) -> InputError:
    """The error for a field, "config.model.widht", whose last part is not among the `known` ones; it names the nearest."""
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1], list(known), 1)
    return InputError(
        f"{name}: unknown field; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}")
    )


@contextlib.contextmanager
def data_fields_named(**names: str) -> Iterator[None]:
    """Within it, an InputError that names a field of config.data names what holds that value instead, such as a flag.

    with data_fields_named(name="--reference", dir="--data_dir"): ...
    """
    try:
        yield
    except InputError as error:
        message = re.sub(r"\bconfig\.data\.(\w+)", lambda found: names.get(found[1], found[0]), str(error))
        raise type(error)(message) from None
