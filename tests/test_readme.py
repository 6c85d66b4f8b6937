"""The README's commands run as they stand there, in their order, and write what it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands():
    """The lines of the README's console blocks that start with "$ python"."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [line[2:] for block in blocks for line in block.replace("\\\n", "").splitlines() if line.startswith("$ python")]


@pytest.mark.filterwarnings("ignore")
def test_the_commands_run_in_their_order(tmp_path):
    for name in ("configs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert len(commands()) >= 4
    for line in commands():
        _, *arguments = shlex.split(line)
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=os.environ.copy(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    for flag, value in re.findall(r"--(out|workdir)=(?!pretrained:)(\S+)", " ".join(commands())):
        assert (tmp_path / value).exists(), f"--{flag}={value}"


@pytest.mark.filterwarnings("ignore")
def test_the_python_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    namespace = {}
    exec(example, namespace)
    assert namespace["images"].shape == (4, 8, 8, 1)
    assert abs(namespace["images"]).max() <= 1


def test_every_picture_and_file_that_it_names_is_there():
    names = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
