"""The flags by which the processes of a verb find each other."""

import logging
from collections.abc import Callable

import jax
from absl import flags

from sdit_jax.sharding import processes

flags.disclaim_key_flags()  # They belong to the verb that asks for them, and are in its help.


def define_flags() -> Callable[[], None]:
    """Defines the flags. Returns a function that joins the processes, as `processes.start` does."""
    flags.DEFINE_string("coordinator", "", "host:port of process 0; not needed under Slurm and on TPUs.")
    flags.DEFINE_integer("processes", 0, "Number of processes that must join; 0 accepts any.")
    flags.DEFINE_integer("process", -1, "Index of this process, from 0; needed with --coordinator.")
    return lambda: processes.start(flags.FLAGS.coordinator, flags.FLAGS.processes, flags.FLAGS.process, prefix="--")


def is_first() -> bool:
    """Whether this is process 0, which writes and prints; the others log warnings alone from here on."""
    processes.wait_for_all("the start")
    first = jax.process_index() == 0
    if not first:
        logging.getLogger("sdit_jax").setLevel(logging.WARNING)
    return first
