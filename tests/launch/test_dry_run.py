"""Every script parses, and --dry_run prints the commands in golden/ without running one.

REWRITE_GOLDEN=1 python -m pytest tests/launch/test_dry_run.py rewrites golden/; read the difference before committing it.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"
SCRIPTS = sorted(ROOT.glob("launch/*.sh"))
TRAIN = ("--config=configs/cifar10.py", "--workdir=/mnt/bucket/runs/it's mine", "--config.mesh.fsdp=8")
POD = {"NAME": "sdit", "ZONE": "us-east5-b", "TYPE": "v6e-64", "BUCKET": "my-bucket", "FLAGS": "--spot --network=mine"}
SET = {"NAME": "sdit", "IMAGE": "registry/sdit_jax:1", "BUCKET": "my-bucket", "HOSTS": "4"}
DRY_RUNS = {
    "gpus": ("gpus.sh", TRAIN, {}),
    "in_pieces": ("in_pieces.sh", ("25", *TRAIN), {"EXTRAS": "tpu"}),
    "slurm": ("slurm.sh", TRAIN, {"SBATCH": "--nodes=4 --partition=gpu"}),
    "slurm_array": ("slurm_array.sh", ("--config=configs/scaling.py", "--workdir=runs/scaling"), {"AT_ONCE": "4"}),
    "tpu_pod": ("tpu_pod.sh", ("up", *TRAIN), POD),
    "tpu_pod_multislice": ("tpu_pod.sh", ("create",), POD | {"TYPE": "v5litepod-256", "NODES": "2"}),
    "tpu_pod_stop": ("tpu_pod.sh", ("stop",), POD),
    "tpu_pod_log": ("tpu_pod.sh", ("log",), POD),
    "jobset_gpu": ("jobset.sh", ("gpu", *TRAIN), SET | {"CHIPS": "8"}),
    "jobset_tpu": (
        "jobset.sh",
        ("tpu", *TRAIN),
        SET | {"CHIPS": "4", "SLICES": "2", "ACCELERATOR": "tpu-v6e-slice", "TOPOLOGY": "4x4"},
    ),
}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_the_commands_and_runs_none(checkout, name):
    file, arguments, environment = DRY_RUNS[name]
    before = {path: path.stat().st_mtime_ns for path in checkout.path.rglob("*")}
    done = checkout.run(f"launch/{file}", *arguments, "--dry_run", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in checkout.path.rglob("*")} == before, "something was called or written"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        golden.write_text(done.stdout)
    assert done.stdout == golden.read_text()


def test_printed_commands_are_parsed_back_to_the_same_words(checkout):
    done = checkout.run("launch/gpus.sh", *TRAIN, "--dry_run")
    command = done.stdout.splitlines()[1]
    words = checkout.run("-c", f'python() {{ printf "%s\\n" "$@"; }}; {command}').stdout.splitlines()
    assert words == ["-m", "sdit_jax", "train", *TRAIN]


@pytest.mark.parametrize(
    "arguments, environment, words",
    [
        (("tpu_pod.sh", "up"), POD | {"ZONE": ""}, ("ZONE", "missing")),
        (("tpu_pod.sh", "upp"), POD, ("'upp'", "create, setup")),
        (("jobset.sh", "cpu"), SET, ("'cpu'", "gpu, tpu")),
        (("jobset.sh", "gpu"), SET, ("CHIPS", "missing")),
        (("jobset.sh", "tpu"), SET | {"CHIPS": "4"}, ("ACCELERATOR", "missing")),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_called(checkout, arguments, environment, words):
    done = checkout.run(f"launch/{arguments[0]}", *arguments[1:], **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line
    assert not checkout.calls()
