"""What the commands share: flags in, exit codes out.

0 done, 1 training failed, 2 a mistake in the input (one line on stderr, nothing written).
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import app, flags

from sdit_jax.config import InputError

CACHE = Path("~/.cache/sdit_jax/compiled")


def run(main: Callable[[], None], required: Sequence[str] = ()) -> None:
    """Parses the flags of the calling module, then calls `main` with compiled programs cached between runs.

    Compiled programs go to JAX_COMPILATION_CACHE_DIR, by default ~/.cache/sdit_jax/compiled; an empty value switches that off.
    """

    def call(_):
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            jax.config.update("jax_compilation_cache_dir", str(CACHE.expanduser()))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
        logging.getLogger("sdit_jax").setLevel(logging.INFO)
        try:
            main()
        except InputError as error:
            _fail(error, 2)
        except RuntimeError as error:
            if type(error).__name__ != "TrainingFailed":
                raise
            _fail(error, 1)

    app.run(call, flags_parser=lambda argv: _parse(argv, required))


def _parse(argv, required):
    main_module = sys.modules["__main__"]
    if any(arg in ("--help", "-help", "-h", "--helpfull") for arg in argv):
        print((main_module.__doc__ or "").strip(), flags.FLAGS.main_module_help(), sep="\n")
        sys.exit(0)
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise InputError(f"{rest[1]}: unexpected argument; flags are written --name=value")
        for name in required:
            if not flags.FLAGS[name].value:
                raise InputError(f"--{name}: missing; see --help")
        return rest
    except Exception as error:  # Config files run the user's code, which raises what it likes.
        _fail(error, 2)


def _fail(error, code):
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(code)
