"""Kills trainings with SIGKILL at random moments, and compares what they become with a run that nothing disturbed.

    python -m tests.soak --kills=100 --out=docs/soak.json
    python -m tests.soak --kills=20 --processes=2 --out=docs/soak_two_processes.json

One training is killed again and again and started with the same command. Of two processes one is killed at random, then the
other. A third of the kills fall into the start-up, the others into the training after it, with its checkpoints, pictures and
evaluations. Each life reads its batches in another way: decoded while training, from memory, or from the devices. In the end
the state is that of a run that nothing disturbed, to the bit, as are all records and pictures. Exit code 1: it is not, or a
checkpoint was lost.

Lives are forks of a process that has imported the package (see forking.py), and compiled programs are cached.
"""

import argparse
import collections
import contextlib
import datetime
import itertools
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from sdit_jax import hashes
from sdit_jax.benchmarks.measure import machine
from sdit_jax.checkpoint import Checkpoints
from sdit_jax.config import load
from sdit_jax.data.sources.originals import digits
from sdit_jax.files import write_json
from sdit_jax.training.metrics import read_scalars
from sdit_jax.training.setup import make_setup
from sdit_jax.training.speed import SPEEDS

ROOT = Path(__file__).parent.parent
SAVE, EVALUATE = 5, 20  # Steps from one checkpoint, and from one picture and evaluation, to the next.
CONFIG = {
    "model.width": 8, "optimizer.schedule": "constant", "optimizer.warmup": "0 steps", "ema.half_life": 100.0,
    "log.every": f"{SAVE} steps", "checkpoint.every": f"{SAVE} steps", "samples.every": f"{EVALUATE} steps", "samples.n": 4,
    "evaluation.every": f"{EVALUATE} steps", "evaluation.names": "loss",
}  # fmt: skip
ROADS = {
    "streamed": {"data.memory_GiB": 0.0},
    "in memory": {"data.resident": "never"},
    "on device": {"data.resident": "always"},
}
# The compiler divides the work over processes before it generates code, which at full effort takes minutes.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
LIFE_S = 2.0  # After the first record, a life ends within this time.


class Process:
    """Runs one command after the other, each in a fork."""

    def __init__(self):
        pipe, server = subprocess.PIPE, [sys.executable, str(ROOT / "tests" / "forking.py")]
        self.server = subprocess.Popen(server, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0)
        assert self.server.stdin and self.server.stdout
        self._ask, self._answer = self.server.stdin, self.server.stdout

    def start(self, arguments: list[str], log: Path, **environment: str) -> None:
        request = {"arguments": arguments, "environment": os.environ | environment, "folder": str(ROOT)}
        self._ask.write((json.dumps(request | {"out": f"{log}.out", "err": str(log)}) + "\n").encode())
        self.id = int(self._answer.readline())

    def alive(self) -> bool:
        return not select.select([self._answer], [], [], 0)[0]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # It has ended by itself, since it missed another one.
            os.kill(self.id, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """The exit code."""
        return int(self._answer.readline())

    def close(self) -> None:
        with self.server:  # Closes its stdin, and waits for it to end.
            pass


class Training:
    """A training in `workdir` by one process or two; `log` is what process 0 said in its last life."""

    def __init__(self, workdir: Path, pictures: Path, processes: list[Process]):
        self.workdir, self.pictures, self.log, self.processes = workdir, pictures, workdir.with_suffix(".log"), processes

    def start(self, steps: int, road: str) -> None:
        fields = CONFIG | ROADS[road] | {"data.name": f"folder:{self.pictures}", "duration": f"{steps} steps"}
        flags = [f"--config.{name}={value}" for name, value in fields.items()]
        command = ["train", "--config=digits:tiny", f"--workdir={self.workdir}", *flags]
        several, port = len(self.processes) > 1, _free_port()
        for i, process in enumerate(self.processes):
            where = [f"--coordinator=localhost:{port}", f"--processes={len(self.processes)}", f"--process={i}"]
            log = self.log if i == 0 else self.log.with_suffix(f".{i}.log")
            process.start(command + where * several, log, XLA_FLAGS=QUICK * several)

    def alive(self) -> bool:
        return all(process.alive() for process in self.processes)

    def kill(self, rng: random.Random) -> None:
        """One process at random; the others soon after, as they would end by themselves when they miss it."""
        for process in rng.sample(self.processes, len(self.processes)):
            process.kill()
            time.sleep(rng.uniform(0, 0.5))

    def finish(self) -> None:
        """Waits for the end. Raises RuntimeError if there is an error."""
        codes = [process.wait() for process in self.processes]
        if any(codes):
            raise RuntimeError(self.log.read_text())

    def records(self) -> int:
        """Bytes of the records so far."""
        path = self.workdir / "metrics.jsonl"
        return path.stat().st_size if path.exists() else 0

    def newest(self) -> int:
        """The newest complete checkpoint, 0 for none."""
        found = (self.workdir / "checkpoints").glob("*")
        return max((int(path.name) for path in found if path.name.isdigit()), default=0)

    def doing(self) -> str:
        """What the training was doing when it was killed."""
        said = self.log.read_text()
        if "starting at" not in said and "missing of step" not in said:
            return "starting"
        if any(".orbax-checkpoint-tmp" in path.name for path in (self.workdir / "checkpoints").glob("*")):
            return "saving"
        if "compiled in" not in said:
            return "evaluating" if "missing of step" in said else "compiling"
        step = max(read_scalars(self.workdir / "metrics.jsonl"), default=0)
        path = self.workdir / "evaluation.jsonl"
        evaluated = f'{{"step": {step},' in path.read_text() if path.exists() else False
        return "drawing or evaluating" if step and step % EVALUATE == 0 and not evaluated else "training"


def soak(folder: Path, processes: int, kills: int, seed: int) -> dict:
    """Kills one training, lets it end, and compares it with an undisturbed one."""
    pictures = folder / "digits"
    _write_digits(pictures)
    rng, roads = random.Random(seed), itertools.cycle(ROADS)
    forks = [Process() for _ in range(processes)]
    training, straight = (Training(folder / f"{name}{processes}", pictures, forks) for name in ("killed", "straight"))
    lives, startup, lost = [], 30.0, []
    while len(lives) < kills:
        road, before, records, began = next(roads), training.newest(), training.records(), time.monotonic()
        training.start(10**6, road)
        early = rng.random() < 1 / 3
        limit = began + rng.uniform(0, startup) if early else None
        while training.alive() and time.monotonic() < (limit or began + 600):
            if not early and limit is None and training.records() > records:
                startup = time.monotonic() - began
                limit = time.monotonic() + rng.uniform(0, LIFE_S)
            time.sleep(0.02)
        if not training.alive():
            raise RuntimeError(f"a process ended by itself:\n{training.log.read_text()}")
        training.kill(rng)
        kept = training.newest()
        if kept < before or (kept and not hashes.check(training.workdir / "checkpoints" / str(kept))):
            lost.append(kept)
        lives.append({"seconds": round(time.monotonic() - began, 1), "road": road, "while": training.doing(), "kept": kept})
        print(f"{processes} processes, kill {len(lives)} of {kills}: {lives[-1]}", flush=True)
    steps = training.newest() + 2 * EVALUATE + 1
    for run, road in ((training, next(roads)), (straight, "in memory")):
        run.start(steps, road)
        run.finish()
    for fork in forks:
        fork.close()
    return {
        "processes": processes, "kills": kills, "steps": steps, "checkpoint_every": SAVE, "evaluation_every": EVALUATE,
        "killed_while": dict(collections.Counter(life["while"] for life in lives)),
        "lives_by_road": dict(collections.Counter(life["road"] for life in lives)),
        "checkpoints_lost": len(lost), "checkpoints_damaged": len(list(training.workdir.glob("damaged_*"))),
        "equal": compared(training.workdir, straight.workdir), "lives": lives,
    }  # fmt: skip


def compared(workdir: Path, other: Path) -> dict[str, bool]:
    """What is equal in two run folders, to the bit; speeds are left out."""
    scalars = [
        {step: {name: value for name, value in found.items() if name not in SPEEDS} for step, found in records.items()}
        for records in (read_scalars(run / "metrics.jsonl") for run in (workdir, other))
    ]
    pictures = [{path.name: path.read_bytes() for path in (run / "samples").glob("*.png")} for run in (workdir, other)]
    evaluations = [
        [(record["step"], record["weights"], record["values"]) for record in map(json.loads, lines)]
        for lines in ((run / "evaluation.jsonl").read_text().splitlines() for run in (workdir, other))
    ]
    states = [_state(run) for run in (workdir, other)]
    same = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, states), strict=True)]
    return {
        "state": all(same), "scalars": scalars[0] == scalars[1], "pictures": pictures[0] == pictures[1],
        "evaluations": evaluations[0] == evaluations[1],
    }  # fmt: skip


def _state(workdir):
    with Checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(like=make_setup(load(workdir)).abstract_state())
    assert state is not None
    return state.step, state.variables, state.ema, state.optimizer


def _write_digits(folder):
    """The digits of the package as PNG files, one folder a class in each split."""
    for split in ("train", "test"):
        data = digits(split)
        for i, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
            path = folder / split / str(label) / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(path)


def _free_port():
    with socket.socket() as at:
        at.bind(("localhost", 0))
        return at.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        found = soak(Path(folder), chosen.processes, chosen.kills, chosen.seed)
    provenance = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": f"python -m tests.soak --kills={chosen.kills} --processes={chosen.processes} --seed={chosen.seed}",
        "minutes": round((time.monotonic() - began) / 60, 1), "machine": machine(),
    }  # fmt: skip
    if chosen.out:
        write_json(chosen.out, provenance | found)
    print(json.dumps({name: value for name, value in found.items() if name != "lives"}, indent=2))
    sys.exit(0 if all(found["equal"].values()) and not found["checkpoints_lost"] + found["checkpoints_damaged"] else 1)


if __name__ == "__main__":
    main()
