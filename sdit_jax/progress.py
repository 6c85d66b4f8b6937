"""Progress of slow work for people: a bar on a terminal, lines now and then in a log file."""

import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

EVERY_S = 30  # In a log file.
log = logging.getLogger(__name__)


def progress(items: Iterable, name: str, total: int | None = None, unit: str = "") -> Any:
    """The items, with how many of them are done and the time that is left, on stderr; nothing remains of it on a terminal."""
    shown = {"total": total, "leave": False, "unit": f" {unit}" if unit else "it"}
    if sys.stderr.isatty():
        return tqdm(items, name, **shown)
    return tqdm(items, name, file=_Lines(), delay=EVERY_S, mininterval=EVERY_S, maxinterval=EVERY_S, **shown)


@contextmanager
def saying(line: str, after: float) -> Iterator[None]:
    """Logs a line if what happens inside takes longer than `after` seconds."""
    timer = threading.Timer(after, log.warning, ("%s", line))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Lines:
    """A stream on which each state of a bar is a line of stderr."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
