"""The scripts a person runs: they parse, refuse an old Python in one line, and install only once."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(ROOT.glob("launch/*.sh"))


def bash(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        ["bash", *map(str, arguments)], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def script(path, text):
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path):
    done = bash("-n", path)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def checkout(tmp_path):
    """A checkout's packaging files with its own launch folder, beside a bin folder of fake Pythons."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "launch").mkdir()
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", "launch/environment.sh"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def test_an_old_python_is_one_line(checkout):
    for name in ("python", "python3", "python3.11", "python3.12"):
        script(checkout / "bin" / name, 'if [ "$1" = --version ]; then echo Python 3.10.13; else exit 1; fi\n')
    done = bash("-c", ". launch/environment.sh", cwd=checkout, PATH=f"{checkout / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "error: found Python 3.10.13; Python 3.11 or 3.12 is needed (name one with PYTHON=/path/to/python)"
    ]
    assert not (checkout / ".venv").exists()


def test_the_environment_is_installed_once_and_again_when_it_changed(checkout):
    fake = 'case "$*" in\n  *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;\n  *pip*) echo "$*" >> installed;;\nesac\n'
    script(checkout / "bin" / "python3.12", fake + "exit 0\n")
    path = f"{checkout / 'bin'}:/usr/bin:/bin"

    def installs(extras=""):
        done = bash("-c", ". launch/environment.sh", cwd=checkout, PATH=path, EXTRAS=extras)
        assert done.returncode == 0, done.stderr
        return len((checkout / "installed").read_text().splitlines())

    assert installs() == 1
    assert installs() == 1
    assert installs("test") == 2
    assert installs() == 2
    with (checkout / "constraints.txt").open("a") as file:
        file.write("# newer\n")
    assert installs("test") == 3
    assert "--constraint constraints.txt" in (checkout / "installed").read_text()
