"""The scaling command on run folders whose losses follow a known law, and on a single run."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from sdit_jax.models import build
from sdit_jax.scaling_laws.compute import cost

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def runs(small, tmp_path):
    """Run folders that were never trained: real sizes, three budgets, losses by a law with 0.1 % noise; one is unfinished."""
    noise, place = np.random.default_rng(0), tmp_path / "runs"

    def write(name, config, images, spiking_steps):
        config.model.spiking_steps, config.duration = spiking_steps, f"{images} images"
        steps, N = round(images / 16), cost(build(config.model)).parameters
        loss = 0.1 + 30 * N**-0.6 + 20 * (16 * steps) ** -0.5 + 0.03 * spiking_steps**-1.0
        (place / name).mkdir(parents=True)
        (place / name / "config.json").write_text(json.dumps(config.to_dict()))
        line = {"step": steps, "evaluation/ema/loss/test": loss * np.exp(0.001 * noise.standard_normal())}
        (place / name / "metrics.jsonl").write_text(json.dumps(line) + "\n")

    for budget in (3e10, 1e11, 3e11):
        for width in (8, 12, 16, 24, 32):
            config = small.config(model__width=width)
            write(f"{budget:.0e}-{width}", config, round(budget / cost(build(config.model)).training), 4)
    for spiking_steps in (1, 2, 8, 16):
        config = small.config(model__width=16)
        write(f"steps-{spiking_steps}", config, round(1e11 / cost(build(config.model)).training), spiking_steps)
    write("unfinished", small.config(model__width=16), 1600, 4)
    path = place / "unfinished" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 100', '"step": 50'))
    return place


@pytest.mark.slow
def test_the_law_of_the_runs_is_found_and_written(small, runs, tmp_path):
    done = small.run("scaling", runs, f"--out={tmp_path / 'out'}", "--resamples=60")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "scaling.json").read_text())
    for name, true in (("exponent_N", 0.6), ("exponent_D", 0.5), ("exponent_T", 1.0)):
        low, high = found["intervals"]["values"][name]
        assert low <= true <= high and high - low < true, (name, low, high)
    assert found["numbers"]["E"] == pytest.approx(0.1, abs=0.01)
    assert found["numbers"]["error"] < 0.002 and found["loss"] == "evaluation/ema/loss/test"
    assert found["numbers"]["optimum"] == pytest.approx(0.5 / (0.6 + found["flops_per_image"]["exponent_N"] * 0.5), abs=0.05)
    assert [len(minimum["runs"]) for minimum in found["isoflop"]["minima"]] == [5, 5, 5]
    assert found["notes"] == ["left out: unfinished: stopped at step 50 of 100"]

    table = (tmp_path / "out" / "scaling.md").read_text()
    assert "exponent_T" in table and found["notes"][0] in table and table.count("\n| 16 |") == 7
    rows = list(csv.DictReader((tmp_path / "out" / "runs.csv").open()))
    assert len(rows) == 19 and {float(row["loss"]) for row in rows} == {run["loss"] for run in found["runs"]}
    with Image.open(tmp_path / "out" / "scaling.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    inked = (pixels < 240).any(-1)
    assert all(part.mean() > 0.02 for part in np.array_split(inked, 3, axis=1))  # Three panels.


def test_too_few_runs_have_no_law_and_a_note(small, trained, tmp_path):
    done = small.run("scaling", trained.workdir.parent, f"--out={tmp_path / 'out'}", "--loss=loss")
    assert done.returncode == 0, done.stderr
    assert "no term in N: the runs have 1 different value, 3 are needed" in done.stdout
    found = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert found["law"] is None and found["numbers"] == {} and found["loss"] == "loss"
    assert found["flops_per_image"] is None  # One network size does not determine an exponent.


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("/nowhere", "--out=OUT"), ("/nowhere", "no such folder")), (("EMPTY", "--out=OUT"), ("EMPTY", "no finished run"))],
)
def test_an_error_is_one_line_and_writes_nothing(small, tmp_path, flags, words):
    (tmp_path / "EMPTY").mkdir()
    place = {"EMPTY": tmp_path / "EMPTY", "--out=OUT": f"--out={tmp_path / 'OUT'}"}
    done = small.run("scaling", *(place.get(flag, flag) for flag in flags))
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "OUT").exists()
