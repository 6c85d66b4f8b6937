"""What the commands share: flags in, exit codes out.

0 done, 1 training failed, 2 a mistake in the input (one line on stderr, nothing written), 75 stopped before its end and saved
(the same command goes on), 130 interrupted.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import app, flags

from sdit_jax import memory
from sdit_jax.config import InputError
from sdit_jax.files import cache_dir
from sdit_jax.sharding.processes import STOPPED
from sdit_jax.training.loop import Stopped, TrainingFailed


def run(main: Callable[..., None], required: Sequence[str] = (), positional: str | None = None) -> None:
    """Parses the flags of the calling module, then calls `main` with compiled programs cached between runs.

    With `positional`, its name for messages, the command takes one argument without dashes, and so does `main`.

    Compiled programs go to JAX_COMPILATION_CACHE_DIR, by default `compiled` in
    files.cache_dir(); an empty value switches that off.
    """

    def call(argv):
        memory.keep_freed()
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
        logging.getLogger("sdit_jax").setLevel(logging.INFO)
        try:
            main(*argv[1:])
        except InputError as error:
            _fail(error, 2)
        except TrainingFailed as error:
            _fail(error, 1)
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(STOPPED)
        except KeyboardInterrupt:
            _fail("interrupted", 130)

    app.run(call, flags_parser=lambda argv: _parse(argv, required, positional))


def _parse(argv, required, positional):
    main_module = sys.modules["__main__"]
    if any(arg in ("--help", "-help", "-h", "--helpfull") for arg in argv):
        print((main_module.__doc__ or "").strip(), flags.FLAGS.main_module_help(), sep="\n")
        sys.exit(0)
    try:
        for path in (arg.split("=", 1)[1].split(":")[0] for arg in argv if arg.startswith("--config=")):
            if not Path(path).is_file():
                raise InputError(f"--config: no such file {path}")
        rest = flags.FLAGS(argv)
        wanted = 2 if positional else 1
        if len(rest) > wanted:
            raise InputError(f"{rest[wanted]}: unexpected argument; flags are written --name=value")
        if len(rest) < wanted:
            raise InputError(f"{positional}: missing; see --help")
        for name in required:
            if not flags.FLAGS[name].present or (name != "config" and not flags.FLAGS[name].value):
                raise InputError(f"--{name}: missing; see --help")
        return rest
    except Exception as error:  # Config files run the user's code, which raises what it likes: its last line says it.
        message = (str(error).splitlines() or [""])[-1].removeprefix("sdit_jax.config.InputError: ")
        _fail(_unknown_field(str(error), argv) or message or f"--config: {type(error).__name__}", 2)


def _unknown_field(message, argv):
    """What ml_collections means by the bare name of an overridden field that is not there; None for other messages."""
    name = next(iter(re.findall(r"\w+", message)), "")
    given = (arg.lstrip("-").split("=")[0] for arg in argv[1:])
    field = next((arg for arg in given if arg.startswith("config.") and name in arg.split(".")[1:]), None)
    meant = re.search(r'Did you mean "(\w+)"', message)
    if field is None or not re.match(r"\W*\w+\W*(\\n|\n|$)", message):
        return None
    return f"{field}: unknown field {name!r}" + (f", did you mean {meant[1]!r}?" if meant else "; --dry_run prints all fields")


def _fail(error, code):
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(code)
