"""The soak in its short form; docs/evidence.md has the long one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("processes, kills", [(1, 3), (2, 3)])
def test_killed_runs_end_where_an_undisturbed_one_does(tmp_path, processes, kills):
    out = tmp_path / "soak.json"
    command = [sys.executable, "-m", "tests.soak", f"--kills={kills}", f"--processes={processes}", f"--out={out}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert len(found["lives"]) == kills and set(found["lives_by_road"]) == {"streamed", "in memory", "on device"}
    assert all(found["equal"].values()) and found["checkpoints_lost"] == found["checkpoints_damaged"] == 0
