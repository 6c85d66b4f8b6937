"""Commands in forks of a process that has imported the package, which takes a new interpreter seconds.

Reads requests from stdin, {"arguments", "environment", "folder", "out", "err"} in a line of JSON, and answers each with two
lines: the fork's process id, and its exit code. A fork is a process of its own, with its environment, its working folder and
its JAX backend, whose threads start after the fork; only its imports are done before.
"""

import gc
import json
import os
import runpy
import sys

# What the verbs of `sdit` import, but for the verbs themselves, which define flags under the same names.
import sdit_jax.commands.command_line
import sdit_jax.metrics.evaluate
import sdit_jax.planner.prediction
import sdit_jax.report.build
import sdit_jax.scaling_laws.analysis
import sdit_jax.scaling_laws.curves
import sdit_jax.training.sweep  # noqa: F401


def serve():
    """Answers requests until stdin ends, and then returns None; in a fork it returns the request."""
    gc.collect()
    gc.freeze()  # A fork that ends does not touch, and so copy, what was imported: 0.2 s instead of 1.
    while line := sys.stdin.readline():
        process = os.fork()
        if process == 0:
            return json.loads(line)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    return None


if (request := serve()) is not None:
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for descriptor, path in enumerate((os.devnull, request["out"], request["err"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["sdit_jax", *request["arguments"]]
    runpy.run_module("sdit_jax", run_name="__main__", alter_sys=True)
