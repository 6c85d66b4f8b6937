"""The curves command on run folders with known values."""

import json

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def runs(small, tmp_path):
    """Two runs: one with averaged weights and two layers of neurons, one with raw weights only and a truncated last line."""

    def write(name, batch_size, *lines, end="\n"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        config = small.config(batch_size=batch_size).to_dict()
        (tmp_path / "runs" / name / "config.json").write_text(json.dumps(config))
        (tmp_path / "runs" / name / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + end)

    rates = {"firing_rate/a": 0.1, "firing_rate/b": 0.3}
    write("000-averaged", 16, {"step": 10, "loss": 1.0, **rates}, {"step": 20, "loss": 0.5, "firing_rate/a": 0.5},
        {"step": 20, "evaluation/ema/fd/train": 7.0, "evaluation/raw/fd/train": 9.0})  # fmt: skip
    write("001-raw", 256, {"step": 2, "evaluation/raw/fd/train": 90.0}, {"step": 4, "loss": 0.25}, end='\n{"step": 6, "lo')
    return tmp_path / "runs"


def test_values_are_plotted_against_images_seen(small, runs, tmp_path):
    done = small.run("curves", runs, f"--out={tmp_path / 'out'}", "--scalars=loss,fd/train,firing_rate")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "curves.json").read_text()) == [
        {"run": "000-averaged", "scalars":
            {"loss": [[160, 1.0], [320, 0.5]], "fd/train": [[320, 7.0]], "firing_rate": [[160, 0.2], [320, 0.5]]}},
        {"run": "001-raw", "scalars": {"loss": [[1024, 0.25]], "fd/train": [[512, 90.0]], "firing_rate": []}},
    ]  # fmt: skip
    assert "| 001-raw | 1,024 | 0.25 | 90 | - |" in done.stdout
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        inked = (np.asarray(picture.convert("RGB")) < 240).any(-1)
    assert all(part.mean() > 0.01 for part in np.array_split(inked, 3, axis=1))  # Three panels.


def test_the_folder_may_be_a_single_run(small, runs, tmp_path):
    done = small.run("curves", runs / "001-raw", f"--out={tmp_path / 'out'}", "--scalars=evaluation/raw/fd/train")
    assert done.returncode == 0, done.stderr
    assert "| 001-raw | 512 | 90 |" in done.stdout


def test_names_of_runs_are_text(small, runs, tmp_path):
    (runs / "001-raw").rename(runs / r"$\frac{$ <b>")
    done = small.run("curves", runs, f"--out={tmp_path / 'out'}", "--scalars=loss")
    assert done.returncode == 0 and r"$\frac{$ <b>" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("folder", "scalars", "words"),
    [
        ("nowhere", "loss", ("nowhere", "no such folder")),
        ("empty", "loss", ("empty", "no run folder")),
        ("runs", "", ("--scalars", "at least one")),
        ("runs", "loss,fid", ("--scalars", "'fid'", "evaluation/ema/fd/train", "firing_rate/a")),
    ],
)
def test_an_error_is_one_line_and_writes_nothing(small, runs, tmp_path, folder, scalars, words):
    (tmp_path / "empty").mkdir()
    done = small.run("curves", tmp_path / folder, f"--out={tmp_path / 'out'}", f"--scalars={scalars}")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "out").exists()
