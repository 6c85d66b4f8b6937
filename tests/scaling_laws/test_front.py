"""Evaluations against each other: the front against its definition, and the command on shipped evaluations."""

import json

import numpy as np
import pytest
from PIL import Image

from sdit_jax.scaling_laws.front import Point, front

SHIPPED = ("mnist_sdit", "mnist_sdit_guided", "mnist", "mnist_4_calls", "mnist_2_calls")


def test_the_pareto_front_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    pairs = [(d, e) for d, e in rng.uniform(0, 5, (300, 2)).round(1).tolist() if d + e > 3]
    points = [Point(str(i), 100, 1, d, None, {"pJ": e}) for i, (d, e) in enumerate(pairs)]
    better = lambda q, p: q != p and q[0] <= p[0] and q[1] <= p[1]
    best = {pair for pair in pairs if not any(better(other, pair) for other in pairs)}
    found = front(points)
    assert {(p.distance, p.energy["pJ"]) for p in found} == best and len(found) == len(best) > 5
    assert [p.energy["pJ"] for p in found] == sorted(p.energy["pJ"] for p in found)
    assert front(points, "with_memory_pJ") == []


def test_the_command_shows_that_four_calls_are_on_the_front(small, tmp_path):
    places = ",".join(f"docs/results/{name}.json" for name in SHIPPED)
    done = small.run("compare", f"--evaluations={places}", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["front"]["pJ"] == ["mnist_2_calls", "mnist_4_calls"]
    four = next(point for point in found["points"] if point["name"] == "mnist_4_calls")
    assert f"| 4 | {four['distance']:.3g} |" in done.stdout and 1e3 * four["energy"]["pJ"] == pytest.approx(0.178, rel=0.01)
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.size[0] > 1000


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--evaluations=nothing.json", "nothing.json: No such file"),
        ("--evaluations=docs/scaling.json", "docs/scaling.json: not an evaluation"),
        (
            "--evaluations=docs/results/mnist_sdit.json --distance=fid/train",
            "docs/results/mnist_sdit.json: has no fid/train, but",
        ),
    ],
)
def test_mistakes_are_one_line(small, tmp_path, flags, words):
    done = small.run("compare", f"--out={tmp_path / 'out'}", *flags.split())
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "out").exists()
