"""metrics.jsonl and TensorBoard events of a run folder."""

import json

import numpy as np
from tensorboardX import SummaryWriter

from sdit_jax.training.metrics import MetricWriter, read_evaluations, read_scalars


def steps(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_scalars_are_one_json_line_per_step(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write_scalars(3, {"loss": np.float32(0.5), "firing_rate/mid_block.time_neurons": 0.25})
    writer.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 3, "loss": 0.5, "firing_rate/mid_block.time_neurons": 0.25}


def test_reopening_drops_what_was_not_saved_and_what_was_damaged(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write_scalars(step, {"loss": 1.0})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    (tmp_path / "metrics.jsonl").write_bytes(b"\xb8\x00\n" + (tmp_path / "metrics.jsonl").read_bytes())  # Lost power.
    assert sorted(read_scalars(tmp_path / "metrics.jsonl")) == [1, 2, 3]
    writer = MetricWriter(tmp_path, 2)
    writer.write_scalars(3, {"loss": 2.0})
    writer.close()
    assert steps(tmp_path) == [1, 2, 3]


def evaluation(value):
    return [{"weights": weights, "values": {"fid": value}} for weights in ("ema", "raw")]


def test_an_evaluation_that_is_done_again_is_recorded_once(tmp_path):
    for start in (0, 2):  # Killed after step 4, whose checkpoint was not saved.
        writer = MetricWriter(tmp_path, start)
        for step in range(start + 2, 5, 2):
            writer.write_evaluation(step, evaluation(3.0))
        writer.close()
    writer.write_evaluation(4, evaluation(1.0))
    assert read_evaluations(tmp_path, 2) == [{"step": 2, **record} for record in evaluation(3.0)]
    assert read_evaluations(tmp_path, 4) == [{"step": 4, **record} for record in evaluation(1.0)]
    assert len((tmp_path / "evaluation.jsonl").read_text().splitlines()) == 4


def test_everything_reaches_tensorboard(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    assert isinstance(writer.events, SummaryWriter)
    writer.write_scalars(1, {"loss": 1.0})
    writer.write_images(1, {"samples": np.zeros((4, 4, 3), np.uint8)})
    writer.write_hparams({"seed": 0})
    writer.flush()
    writer.close()
    written = b"".join(path.read_bytes() for path in tmp_path.glob("events.*"))
    assert all(tag in written for tag in (b"loss", b"samples", b"seed"))
