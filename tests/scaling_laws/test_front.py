"""Evaluations against each other: the front against its definition, and the command on shipped evaluations."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdit_jax.scaling_laws.front import Point, draw, front, of_data, read

ROOT = Path(__file__).parents[2]
SPIKING = ("mnist", "mnist_4_calls", "mnist_2_calls")


def test_the_pareto_front_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    pairs = [(d, e) for d, e in rng.uniform(0, 5, (300, 2)).round(1).tolist() if d + e > 3]
    points = [Point("", str(i), "", 100, 1, d, None, {"pJ": e}) for i, (d, e) in enumerate(pairs)]
    better = lambda q, p: q != p and q[0] <= p[0] and q[1] <= p[1]
    best = {pair for pair in pairs if not any(better(other, pair) for other in pairs)}
    found = front(points)
    assert {(p.distance, p.energy["pJ"]) for p in found} == best and len(found) == len(best) > 5
    assert [p.energy["pJ"] for p in found] == sorted(p.energy["pJ"] for p in found)
    assert front(points, "with_memory_pJ") == []


def test_the_command_shows_that_four_calls_are_on_the_front(small, tmp_path):
    places = "SDiT=docs/results/mnist_sdit*.json," + ",".join(f"spikes=docs/results/{name}.json" for name in SPIKING)
    done = small.run("compare", f"--evaluations={places}", "--lines=as published=4650", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "compare.json").read_text())
    best = [{"network": "spikes", "name": name} for name in ("mnist_2_calls", "mnist_4_calls")]
    assert found["front"]["mnist"]["pJ"] == best
    networks = {point["name"]: point["network"] for point in found["points"]}
    assert networks == dict.fromkeys(SPIKING, "spikes") | dict.fromkeys(("mnist_sdit", "mnist_sdit_guided"), "SDiT")
    four = next(point for point in found["points"] if point["name"] == "mnist_4_calls")
    assert f"| 4 | {four['distance']:.3g} |" in done.stdout and 1e3 * four["energy"]["pJ"] == pytest.approx(0.178, rel=0.01)
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.size[1] > picture.size[0]  # Two accounts, one data set.

    again = small.run("compare", f"--evaluations={tmp_path / 'compare.json'}", "--account=pJ", f"--out={tmp_path / 'again'}")
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "again" / "compare.json").read_text()) == found


def test_the_name_of_a_folder_may_have_an_equals_sign(tmp_path):
    folder = tmp_path / "003-seed=1,depth=2"
    folder.mkdir()
    (folder / "evaluation.json").write_text((ROOT / "docs" / "results" / "mnist.json").read_text())
    for place, network in ((f"{folder}", folder.name), (f"{tmp_path}/*=*", folder.name), (f"a network={folder}", "a network")):
        assert [(point.network, point.name) for point in read([place], "fd_classifier/train")] == [(network, folder.name)]


def test_each_data_set_has_a_panel_and_a_front_of_its_own(tmp_path):
    points = [Point("a", str(i), data, 9, 1, 1.0 + i, None, {"pJ": 1.0 + i}) for data in ("b", "c") for i in range(3)]
    assert {data: [front(found)] for data, found in of_data(points).items()} == {"b": [points[:1]], "c": [points[3:4]]}
    draw(points, tmp_path / "one.png", "fd", lines={"d": 3.0})
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size == (1600, 592)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--evaluations=nothing.json", "nothing.json: No such file"),
        ("--evaluations=docs/scaling.json", "docs/scaling.json: not an evaluation"),
        (
            "--evaluations=docs/results/mnist_sdit.json --distance=fid/train",
            "docs/results/mnist_sdit.json: has no fid/train, but",
        ),
        ("--evaluations=docs/results/mnist.json --lines=release", "--lines: found 'release', must be NAME=MJ"),
    ],
)
def test_mistakes_are_one_line(small, tmp_path, flags, words):
    done = small.run("compare", f"--out={tmp_path / 'out'}", *flags.split())
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "out").exists()
