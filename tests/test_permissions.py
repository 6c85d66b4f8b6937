"""What may not be read is named in a line, with exit code 2, and nothing is changed: no checkpoint set aside, no file written.

The superuser may read everything; as such, commands run without that capability.
"""

import os
import shutil
import subprocess

import pytest

CAPABILITIES = "-dac_override,-dac_read_search"
PREFIX = [] if os.geteuid() else ["setpriv", f"--bounding-set={CAPABILITIES}", f"--inh-caps={CAPABILITIES}"]


@pytest.fixture(scope="module")
def run(small, trained, tmp_path_factory):
    """run(locked, verb, *flags): a command on a copy of a finished run in which a file or folder may not be read."""
    folder = tmp_path_factory.mktemp("permissions")
    (folder / "secret").write_text("")
    (folder / "secret").chmod(0)
    if (
        shutil.which((PREFIX or ["true"])[0]) is None
        or subprocess.run([*PREFIX, "cat", folder / "secret"], check=False).returncode == 0
    ):
        pytest.skip("files without permission can be read here")

    def call(locked, verb, *flags):
        workdir = folder / "run"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(trained.workdir, workdir)
        before, mode = sorted(workdir.rglob("*")), (workdir / locked).stat().st_mode
        (workdir / locked).chmod(0)
        command = [*PREFIX, *small.command(verb, *(flag.format(run=workdir, out=folder / "out") for flag in flags))]
        done = subprocess.run(command, cwd=small.root, capture_output=True, text=True, check=False)
        (workdir / locked).chmod(mode)
        assert sorted(workdir.rglob("*")) == before and not (folder / "out").exists()
        return done, workdir

    return call


@pytest.mark.parametrize(
    "locked, command",
    [
        ("config.json", "sample --workdir={run} --out={out}"),
        ("checkpoints/4/sha256.json", "export --workdir={run} --out={out}/weights.safetensors"),
        ("checkpoints/4", "train --workdir={run} --config.duration=8"),
    ],
)
def test_what_may_not_be_read_is_named(run, locked, command):
    done, workdir = run(locked, *command.split())
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {workdir / locked}") and "Permission denied" in line, done.stderr
