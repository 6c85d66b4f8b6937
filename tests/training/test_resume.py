"""Resuming: what may change, what is refused, and a run that has ended and is made longer."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from sdit_jax.errors import InputError
from sdit_jax.training.loop import train_and_evaluate
from sdit_jax.training.metrics import read_scalars
from sdit_jax.training.resume import DATA, check_same_run, lengthened, write_description
from sdit_jax.training.setup import make_setup

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorBoard warn about their own affairs.


def test_a_run_of_an_earlier_version_is_the_same_run(small, tmp_path):
    """Its configuration lacks younger fields and has old names for others."""
    config = small.config()
    saved = config.to_dict()
    saved["model"]["timesteps"] = saved["model"].pop("spiking_steps")
    del saved["model"]["name"], saved["data"]["margin"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    check_same_run(make_setup(config), tmp_path)
    saved["data"]["flip"] = True
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match="config.data.flip: found False, the run in .* has True"):
        check_same_run(make_setup(config), tmp_path)


@pytest.mark.parametrize("memory_GiB", [4.0, 0.0], ids=["in memory", "streamed"])
def test_data_that_changed_since_the_run_began_is_refused(small, pictures, tmp_path, memory_GiB):
    run = lambda **changes: make_setup(small.config(data__name="folder", data__memory_GiB=memory_GiB, **changes))
    setup = run(data__dir=str(pictures))
    workdir = tmp_path / "run"
    workdir.mkdir()
    write_description(setup, workdir)
    pictures = pictures.rename(tmp_path / "moved")  # They may lie elsewhere.
    check_same_run(run(data__dir=str(pictures)), workdir)
    kept = (workdir / DATA).read_text()
    (workdir / DATA).write_text(kept.splitlines()[0])  # All that runs of earlier versions kept.
    check_same_run(run(data__dir=str(pictures)), workdir)
    (workdir / DATA).write_text(kept)
    path = pictures / "3" / "13.png"
    size = path.stat().st_size
    Image.fromarray(np.zeros((12, 11), np.uint8)).save(path, compress_level=0)
    assert path.stat().st_size == size
    with pytest.raises(InputError, match="config.data: folder train has changed since the run in .*/run began"):
        check_same_run(run(data__dir=str(pictures)), workdir)


def test_another_teacher_under_the_same_name_is_refused(small, trained, tmp_path):
    teacher = shutil.copytree(trained.workdir, tmp_path / "teacher")
    config = small.config(distillation__teacher=str(teacher), distillation__levels="999,400")
    (tmp_path / "run").mkdir()
    write_description(make_setup(config), tmp_path / "run")
    check_same_run(make_setup(config), tmp_path / "run")
    train_and_evaluate(small.config(duration="5 steps"), teacher)
    with pytest.raises(InputError, match="config.distillation.teacher: .*/teacher has changed since the run"):
        check_same_run(make_setup(config), tmp_path / "run")


@pytest.fixture(scope="module")
def ended(small, tmp_path_factory):
    """A run of four steps whose learning rate has decayed to nothing, and a function that gives it another duration."""
    workdir = tmp_path_factory.mktemp("decayed") / "run"
    config = lambda duration: small.config(optimizer__schedule="cosine", optimizer__warmup="25%", duration=duration)
    train_and_evaluate(config("4 steps"), workdir)
    return workdir, config


def test_a_run_that_has_ended_is_made_longer_and_its_learning_rate_starts_anew(ended, tmp_path, caplog):
    workdir, config = shutil.copytree(ended[0], tmp_path / "run"), ended[1]
    caplog.set_level("INFO")
    straight = train_and_evaluate(config("12 steps"), workdir)
    assert "has ended at step 4: its learning rate starts anew, up to step 12" in caplog.text
    rates = [scalars["learning_rate"] for _, scalars in sorted(read_scalars(workdir / "metrics.jsonl").items())]
    peak = config("").optimizer.learning_rate
    cosine = lambda part: peak * (1 + np.cos(np.pi * part)) / 2
    first = [0, cosine(0), cosine(1 / 3), cosine(2 / 3)]  # Warm-up of a quarter of four steps, then of a quarter of eight.
    second = [0, peak / 2, *(cosine(i / 6) for i in range(6))]
    np.testing.assert_allclose(rates, first + second, rtol=1e-6)

    stopped = shutil.copytree(ended[0], tmp_path / "stopped")
    longer = lengthened(config("12 steps"), stopped)
    assert longer.optimizer.restart == 4
    shutil.copytree(workdir / "checkpoints" / "10", stopped / "checkpoints" / "10")
    write_description(make_setup(longer), stopped)
    resumed = train_and_evaluate(config("12 steps"), stopped)  # The folder knows where its rate starts anew.
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)


def test_before_its_end_a_decaying_learning_rate_fixes_the_duration(ended, tmp_path):
    workdir, config = shutil.copytree(ended[0], tmp_path / "run"), ended[1]
    shutil.rmtree(workdir / "checkpoints" / "4")
    with pytest.raises(InputError, match="config.duration: found '8 steps', .*; a run that has ended can be made longer"):
        train_and_evaluate(config("8 steps"), workdir)


def test_where_a_learning_rate_starts_anew_is_not_chosen(ended):
    workdir, config = ended
    chosen = config("8 steps")
    chosen.optimizer.restart = 3
    with pytest.raises(InputError, match="config.optimizer.restart: found 3, it is set where a run that has ended"):
        train_and_evaluate(chosen, workdir)
