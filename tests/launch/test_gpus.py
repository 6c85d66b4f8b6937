"""gpus.sh restarts training after exit code 75 and kills, ends on every other code, and forwards signals."""

import signal

import pytest

ENDS = {
    "done": ((0,), 0),
    "stopped twice": ((75, 75, 0), 0),
    "killed": ((137, 0), 0),
    "aborted, then failed": ((134, 1), 1),
    "failed": ((1,), 1),
    "a mistake": ((2,), 2),
    "Ctrl-C": ((130,), 130),
    "no end": ((75, 75, 75), 75),
}


@pytest.mark.parametrize("codes, end", ENDS.values(), ids=ENDS)
def test_training_runs_again_until_it_is_done_or_failed(checkout, codes, end):
    checkout.without_environment()
    checkout.answers("python", *codes)
    done = checkout.run("launch/gpus.sh", "--config=a b", "--workdir=c", RESTARTS="2")
    assert done.returncode == end
    assert checkout.calls() == ["environment cuda"] + ["python -m sdit_jax train --config=a b --workdir=c"] * len(codes)


@pytest.mark.parametrize("sent, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_and_the_end_waited_for(checkout, sent, code):
    checkout.without_environment()
    saves = f"trap 'sleep 0.3; echo saved >> $ROOT/calls; exit {code}' {sent.name[3:]}"
    checkout.fake("python", f"{saves}\ntouch $ROOT/up\nwhile :; do sleep 0.05; done")
    process = checkout.start("launch/gpus.sh")
    checkout.wait_for("up")
    process.send_signal(sent)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert checkout.calls() == ["environment cuda", "python -m sdit_jax train", "saved"]
