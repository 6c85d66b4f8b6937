"""in_pieces.sh stops training after its minutes, goes on when it is called again, and evaluates what is done."""

import pytest

FLAGS = ("--config=c", "--workdir=runs/a b", "--config.data.dir=d e")
TRAIN = "python -m sdit_jax train --config=c --workdir=runs/a b --config.data.dir=d e"
EVALUATE = (
    "python -m sdit_jax evaluate --workdir=runs/a b --data_dir=d e --n=10000 --sampler=dpmpp_2m --steps=20 --guidance=2 "
    "--out=runs/a b/evaluation/end"
)


@pytest.mark.parametrize("codes, end", [((0, 0), 0), ((75,), 75), ((1,), 1), ((2,), 2), ((0, 2), 2)])
def test_only_what_is_done_is_evaluated(checkout, codes, end):
    checkout.without_environment()
    checkout.answers("python", *codes)
    done = checkout.run("launch/in_pieces.sh", "5", *FLAGS)
    assert done.returncode == end
    assert checkout.calls("python") == [TRAIN, EVALUATE][: len(codes)]
    assert ("saved after 5 minutes; rerun to go on" in done.stderr) == (end == 75)


def test_training_is_told_to_save_after_its_minutes(checkout):
    checkout.without_environment()
    checkout.fake("python", "trap 'echo saved >> $ROOT/calls; exit 75' TERM\nwhile :; do sleep 0.05; done")
    done = checkout.run("launch/in_pieces.sh", "0.01", *FLAGS)
    assert done.returncode == 75, done.stderr
    assert checkout.calls()[1:] == [TRAIN, "saved"]


@pytest.mark.parametrize(
    "arguments, words",
    [((), "MINUTES: found ''"), (("--config=c",), "MINUTES: found '--config=c'"), (("5", "--config=c"), "--workdir: missing")],
)
def test_mistakes_are_one_line(checkout, arguments, words):
    checkout.without_environment()
    done = checkout.run("launch/in_pieces.sh", *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert checkout.calls() == []
