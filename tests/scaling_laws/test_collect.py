"""Runs read from folders: finished, stopped, diverged, damaged, and of other tasks."""

import json
import shutil

import pytest

from sdit_jax.errors import InputError
from sdit_jax.models import build
from sdit_jax.scaling_laws.collect import collect, differing
from sdit_jax.scaling_laws.compute import cost

TEST = "evaluation/ema/loss/test"


@pytest.fixture
def folder(trained, tmp_path):
    """make(name, changes, scalars): a copy of the finished run with fields changed and scalars added to its last step."""
    config = json.loads((trained.workdir / "config.json").read_text())
    lines = (trained.workdir / "metrics.jsonl").read_text()

    def make(name, changes=(), scalars=()):
        changed = json.loads(json.dumps(config))
        for field, value in dict(changes).items():
            *groups, leaf = field.split(".")
            group = changed
            for part in groups:
                group = group[part]
            group[leaf] = value
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(changed))
        (tmp_path / name / "metrics.jsonl").write_text(lines + json.dumps({"step": 4, **dict(scalars)}) + "\n")
        return tmp_path

    return make


def test_a_trained_run_is_read_with_its_images_compute_and_last_loss(trained, tmp_path):
    shutil.copytree(trained.workdir, tmp_path / "one", ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "notes").mkdir()
    found = collect(tmp_path)
    (run,) = found.runs
    last = json.loads((trained.workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert (found.loss, run.losses["loss"], found.left_out) == ("loss", last["loss"], [])
    assert (run.name, run.images, run.spiking_steps) == ("one", 4 * 16, 4)
    assert (run.width, run.depth, run.blocks) == (8, 2, 3)
    assert run.flops == 64 * cost(build(trained.config.model)).training


def test_the_held_out_loss_is_preferred_where_half_of_the_runs_have_it(folder):
    folder("a", scalars={TEST: 0.3})
    folder("b", scalars={TEST: 0.2})
    folder("c")
    found = collect(folder("d"))
    assert [run.losses[TEST] for run in found.runs] == [0.3, 0.2] and found.loss == TEST
    assert found.left_out == [f"c: {TEST} is not measured", f"d: {TEST} is not measured"]
    found = collect(folder("e"))
    assert (found.loss, len(found.runs)) == ("loss", 5)
    assert len(collect(folder("f"), loss=TEST).runs) == 2


def test_stopped_diverged_and_damaged_runs_are_left_out_with_a_reason(folder):
    folder("whole")
    folder("epochs", {"duration": "0.2 epochs"})  # 18 steps of the digits' 1,438 images.
    folder("stopped", {"duration": "9 steps"})
    folder("diverged", scalars={"loss": float("nan")})
    folder("silent")
    (folder("damaged") / "damaged" / "config.json").write_text("{")
    path = folder("last")
    (path / "silent" / "metrics.jsonl").write_text('{"step": 1')
    found = collect(path)
    assert [run.name for run in found.runs] == ["last", "whole"]
    damaged, epochs, silent, stopped, diverged = found.left_out
    assert "damaged" in damaged and "not JSON" in damaged
    assert epochs == "epochs: stopped at step 4 of 18" and stopped == "stopped: stopped at step 4 of 9"
    assert "no step is logged" in silent and diverged == "diverged: loss is nan"
    assert [run.name for run in collect(path, keep_unfinished=True).runs] == ["epochs", "last", "stopped", "whole"]


def test_incomparable_losses_are_an_error_and_other_differing_fields_are_named(folder):
    folder("a")
    path = folder("b", {"optimizer.learning_rate": 0.5, "seed": 3, "duration": "3 steps"})
    assert differing(collect(path).runs) == ["optimizer.learning_rate", "seed"]
    folder("variance", scalars={"vb": 0.1})
    with pytest.raises(InputError, match="some runs learn the variance"):
        collect(path)
    shutil.rmtree(path / "variance")
    folder("timesteps", {"diffusion.distribution": "logit_normal"}, {TEST: 0.3})
    assert [run.name for run in collect(path, loss=TEST).runs] == ["timesteps"]  # At fixed timesteps losses compare.
    with pytest.raises(InputError, match="config.diffusion.distribution is logit_normal and uniform"):
        collect(path)
    shutil.rmtree(path / "timesteps")
    folder("c", {"diffusion.schedule": "linear"})
    with pytest.raises(InputError, match="config.diffusion.schedule is cosine and linear"):
        collect(path)
    shutil.rmtree(path / "c")
    folder("huber", {"diffusion.loss": "pseudo_huber"}, {TEST: 0.3})
    folder("mse", scalars={TEST: 0.2})
    for loss in ("loss", TEST):
        with pytest.raises(InputError, match="config.diffusion.loss is mse and pseudo_huber"):
            collect(path, loss=loss)


def test_a_folder_without_runs_is_an_error(tmp_path, folder):
    with pytest.raises(InputError, match="no such folder"):
        collect(tmp_path / "gone")
    with pytest.raises(InputError, match="holds no finished run"):
        collect(tmp_path)
    with pytest.raises(InputError, match="holds no finished run.*stopped at step 4 of 9"):
        collect(folder("stopped", {"duration": "9 steps"}))
