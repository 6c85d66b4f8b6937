"""The console command: `sdit VERB ...`, also `python -m sdit_jax VERB ...`.

Each verb is a module of this folder. Its docstring is the help text; it defines absl flags and `main`, and optionally REQUIRED,
the flags that must be set, and ARGUMENT, the name of the positional argument of `main`.

Exit codes: 0 done; 1 training failed, or `verify` found damage; 2 an error in the input, one line on stderr, nothing written;
75 stopped and saved, rerun to resume; 130 interrupted.
"""

import ast
import importlib
import importlib.metadata
import itertools
import logging
import os
import re
import sys
import threading
from pathlib import Path
from types import ModuleType

import jax
from absl import app, flags

from sdit_jax import memory
from sdit_jax.errors import InputError, Stopped, TrainingFailed
from sdit_jax.files import as_path, cache_dir
from sdit_jax.sharding.processes import STOPPED, expect_no_tpu
from sdit_jax.training.progress import LEFT_BEHIND

VERBS = (
    "train", "sample", "animate", "evaluate", "gallery", "tune", "verify", "export", "import_release", "prepare",
    "fit_classifier", "plan", "sweep", "curves", "compare", "scaling", "bench",
)  # fmt: skip
HELP = ("--help", "-help", "-h", "--helpfull", "help")
CONFIG_FLAGS = ("--config", "-config")
PATHS = ("workdir", "out", "samples", "beside", "results")  # Flags that take paths, also of a bucket, where a verb has them.


def main() -> None:
    """The console command `sdit`."""
    verb, *rest = sys.argv[1:] or ["--help"]
    if verb in HELP:
        print(overview())
    elif verb == "--version":
        print("sdit_jax", importlib.metadata.version("sdit_jax"))
    elif verb not in VERBS:
        _fail(f"command: found {verb!r}, allowed are {', '.join(VERBS)}", 2)
    else:
        sys.argv = [f"sdit {verb}", *rest]
        run(importlib.import_module(f"sdit_jax.commands.{verb}"))


def overview() -> str:
    """All verbs with the first lines of their help texts."""
    lines = ["usage: sdit VERB --FLAG=VALUE ...; sdit VERB --help explains a verb", ""]
    for verb in VERBS:  # Parsed and not imported, which would take seconds.
        text = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{verb}.py").read_text())) or ""
        lines.append(f"{verb:16}{text.splitlines()[0]}")
    return "\n".join(lines)


def run(command: ModuleType) -> None:
    """Parses the flags of a verb's module and calls its `main`.

    Compiled programs are cached in JAX_COMPILATION_CACHE_DIR, by default `compiled` in files.cache_dir(); if empty, not at all.
    """

    def call(argv):
        memory.keep_freed()
        expect_no_tpu()
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
        logging.getLogger("sdit_jax").setLevel(logging.INFO)
        _main(command, argv[1:])

    app.run(call, flags_parser=lambda argv: _parse(argv, command))


def _main(command, arguments):
    """Calls the `main` of a verb; an error of the user or of the machine is one line and an exit code."""
    try:
        command.main(*arguments)
    except InputError as error:
        _fail(error, 2)
    except TrainingFailed as error:
        _fail(error, 1)
    except Stopped as stopped:
        _end(stopped, STOPPED)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:  # No space, no permission, no network: what a file system or a server said.
        _fail(f"{error.filename or type(error).__name__}: {error.strerror or error}", 2)
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("gcsfs", "google"):  # No credentials for a bucket, or not enough.
            _fail(f"{type(error).__name__}: {error}", 2)
        if _has_device():
            raise
        _fail(f"JAX_PLATFORMS: found {os.environ['JAX_PLATFORMS']!r}, for which JAX finds no device here", 2)


def _has_device():
    """False where JAX_PLATFORMS names a platform that JAX cannot use."""
    try:
        return "JAX_PLATFORMS" not in os.environ or bool(jax.devices())
    except Exception:  # Backends raise many kinds.
        return False


def _parse(argv, command):
    if any(arg in HELP for arg in argv[1:]):
        print((command.__doc__ or "").strip(), flags.FLAGS.module_help(command), sep="\n")
        sys.exit(0)
    argument = getattr(command, "ARGUMENT", None)
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)  # What it warns of while it parses is in the error.
    try:
        rest = flags.FLAGS(_located(argv))
        wanted = 2 if argument else 1
        if len(rest) > wanted:
            raise InputError(f"{rest[wanted]}: unexpected argument; flags are written --name=value")
        if len(rest) < wanted:
            raise InputError(f"{argument}: missing; see --help")
        for name in getattr(command, "REQUIRED", ()):
            if not flags.FLAGS[name].present or (name != "config" and not flags.FLAGS[name].value):
                raise InputError(f"--{name}: missing; see --help")
        for name in PATHS:
            as_path((name in flags.FLAGS and flags.FLAGS[name].value) or "", f"--{name}")
        return rest
    except Exception as error:  # A configuration file is Python and may raise anything.
        message = (str(error).splitlines() or [""])[-1].removeprefix("sdit_jax.errors.InputError: ")
        _fail(_unknown_field(str(error), argv) or _wrong_type(message) or message or f"--config: {type(error).__name__}", 2)
    finally:
        absl.setLevel(level)


def _located(argv):
    """The arguments, with the file of a shipped configuration for its name."""
    from sdit_jax import config  # Here, as its imports take seconds that the overview does not need.

    located = []
    for before, arg in itertools.pairwise(["", *argv]):
        flag, equals, value = arg.partition("=")
        if flag in CONFIG_FLAGS and equals:
            arg = f"{flag}={config.locate(value, '--config')}"
        elif before in CONFIG_FLAGS:
            arg = config.locate(arg, "--config")
        located.append(arg)
    return located


def _wrong_type(message):
    """A message with the field, what was found and the type it must have; None for other errors."""
    types = {
        "invalid literal for int": "an integer",
        "could not convert string to float": "a number",
        "('Non-boolean": "true or false",
    }
    flag = re.match(rf"flag (--[\w.]+)=(.*?): ({'|'.join(map(re.escape, types))})", message)
    return f"{flag[1]}: found {flag[2]!r}, must be {types[flag[3]]}" if flag else None


def _unknown_field(message, argv):
    """A message with the full name of an unknown field, of which ml_collections gives the last part; None for other errors."""
    name = next(iter(re.findall(r"\w+", message)), "")
    given = (arg.lstrip("-").split("=")[0] for arg in argv[1:])
    field = next((arg for arg in given if arg.startswith("config.") and name in arg.split(".")[1:]), None)
    meant = re.search(r'Did you mean "(\w+)"', message)
    if field is None or not re.match(r"\W*\w+\W*(\\n|\n|$)", message):
        return None
    return f"{field}: unknown field {name!r}" + (f", did you mean {meant[1]!r}?" if meant else "; --dry_run prints all fields")


def _fail(error, code):
    _end("error: " + " ".join(str(error).split()), code)


def _end(line, code):
    print(line, file=sys.stderr, flush=True)
    if any(thread.name == LEFT_BEHIND for thread in threading.enumerate()):
        os._exit(code)  # XLA's compiler, which is still at work, would abort an orderly end.
    sys.exit(code)
