"""A copy of the launch folder with mocks of a cluster's programs, which record their calls."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# Mocks of these stand first on the PATH, so that no real one is called; by default they fail.
CLUSTER = ("gcloud", "kubectl", "sbatch", "srun", "scancel", "scontrol", "squeue", "sudo", "gcsfuse", "curl")


# A shell that inherits an ignored SIGINT, as from nohup, cannot reset it. (Not with preexec_fn: JAX warns of forks.)
HEARS = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"


class Checkout:
    """`fake` makes a mock; `run` and `start` call a script with the mocks first on the PATH; `calls` lists their calls."""

    def __init__(self, path):
        self.path = path
        self.bin = path / "bin"
        self.bin.mkdir()
        shutil.copytree(ROOT / "launch", path / "launch")
        for name in ("setup.py", "setup.cfg", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, path)
        for name in CLUSTER:
            self.fake(name, "exit 99")

    def fake(self, name, body):
        """Makes a bash program of this name that appends its call to the file `calls`; $ROOT is the checkout."""
        file = self.bin / name
        file.write_text(f'#!/bin/bash\nROOT={self.path}\necho "{name} $*" >> $ROOT/calls\n{body}\n')
        file.chmod(0o755)

    def answers(self, name, *codes):
        """Makes a program that ends with these exit codes, one per call."""
        (self.path / f"{name}.codes").write_text("".join(f"{code}\n" for code in codes))
        self.fake(name, f"code=$(head -n 1 $ROOT/{name}.codes); sed -i 1d $ROOT/{name}.codes; exit $code")

    def without_environment(self):
        (self.path / "launch" / "environment.sh").write_text('echo "environment $EXTRAS" >> calls\n')

    def calls(self, name=""):
        """All recorded calls in order, or those of one program."""
        file = self.path / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.split()[0] == name or not name]

    def start(self, *command, cwd=None, **environment):
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "JAX", "EXTRAS", "PYTHON"))}
        environment = own | {"PATH": f"{self.bin}:/usr/bin:/bin", "PAUSE": "0", "POLL": "0"} | environment
        return subprocess.Popen(
            [sys.executable, "-c", HEARS, "bash", *map(str, command)], cwd=cwd or self.path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *command, cwd=None, **environment):
        process = self.start(*command, cwd=cwd, **environment)
        try:
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def wait_for(self, name, seconds=20):
        """Waits until a mock has made this file."""
        end = time.monotonic() + seconds
        while not (self.path / name).exists():
            assert time.monotonic() < end, f"{name} was not made within {seconds} s"
            time.sleep(0.02)


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)
