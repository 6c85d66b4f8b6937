"""Evaluations against each other: the front against its definition, and the command on shipped evaluations."""

import json

import numpy as np
import pytest
from PIL import Image

from sdit_jax.scaling_laws.front import Point, front

SHIPPED = ("mnist", "mnist_guided", "mnist_spike_driven", "mnist_spike_driven_4_calls", "mnist_spike_driven_2_calls")


def test_the_front_is_what_no_other_betters():
    rng = np.random.default_rng(0)
    points = [
        Point(str(i), 100, 1, round(d, 1), None, {"pJ": round(e, 1)}) for i, (d, e) in enumerate(rng.uniform(0, 5, (60, 2)))
    ]
    worse = lambda p, q: q.distance <= p.distance and q.energy["pJ"] <= p.energy["pJ"] and q[3::2] != p[3::2]
    best = [point for point in points if not any(worse(point, other) for other in points)]
    found = front(points)
    assert {(p.distance, p.energy["pJ"]) for p in found} == {(p.distance, p.energy["pJ"]) for p in best} and len(found) > 3
    assert [p.energy["pJ"] for p in found] == sorted(p.energy["pJ"] for p in found)
    assert front(points, "with_memory_pJ") == []


def test_the_command_shows_that_four_calls_are_on_the_front(small, tmp_path):
    places = ",".join(f"docs/results/{name}.json" for name in SHIPPED)
    done = small.run("compare", f"--evaluations={places}", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["front"]["pJ"] == ["mnist_spike_driven_2_calls", "mnist_spike_driven_4_calls"]
    four = next(point for point in found["points"] if point["name"] == "mnist_spike_driven_4_calls")
    assert f"| 4 | {four['distance']:.3g} |" in done.stdout and 1e3 * four["energy"]["pJ"] == pytest.approx(0.178, rel=0.01)
    assert Image.open(tmp_path / "compare.png").size[0] > 1000


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--evaluations=nothing.json", "nothing.json: No such file"),
        ("--evaluations=docs/scaling.json", "docs/scaling.json: not an evaluation"),
        ("--evaluations=docs/results/mnist.json --distance=fid/train", "docs/results/mnist.json: has no fid/train, but"),
    ],
)
def test_mistakes_are_one_line(small, tmp_path, flags, words):
    done = small.run("compare", f"--out={tmp_path / 'out'}", *flags.split())
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "out").exists()
