"""A run starts from the weights of another, whatever else differs; what does not fit is named before anything is written."""

import shutil

import numpy as np
import pytest

from sdit_jax.errors import InputError
from sdit_jax.sampling.run import open_run
from sdit_jax.sampling.weights import flat
from sdit_jax.training.loop import train_and_evaluate
from sdit_jax.training.setup import make_setup


def test_a_new_state_holds_the_averaged_weights_of_another_run(small, trained):
    there = flat(open_run(trained.workdir, "ema").variables)
    state = make_setup(small.config(init=str(trained.workdir), model__spiking_steps=2, seed=7)).new_state()
    assert int(state.step) == 0
    for variables in (state.variables, state.ema):
        here = flat(variables)
        assert here.keys() == there.keys()
        for name, array in here.items():
            np.testing.assert_array_equal(array, there[name], err_msg=name)


def test_arrays_that_start_anew_may_have_another_shape(small, trained):
    there = flat(open_run(trained.workdir, "ema").variables)
    config = small.config(init=str(trained.workdir), init_new="label_embed,_blocks/.*mu_k", model__num_classes=0)
    config.model.label_dropout, config.samples.guidance = 0.0, 1.0
    here = flat(make_setup(config).new_state().variables)
    equal = {name: bool((array == there[name]).all()) for name, array in here.items()}
    assert "label_embed/table" not in here and {name for name in equal if not equal[name]} == {
        name for name in there if "_blocks/" in name and name.endswith("mu_k")
    }
    config.init_new = ""
    with pytest.raises(InputError, match=r"config.init: .* differs in label_embed/table \(\(11, 8\) there, no array here\)"):
        make_setup(config).new_state()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"init": "nowhere"}, "nowhere: no such run folder"),
        (
            {"init": "pretrained:mnist"},
            "config.init: pretrained:mnist differs in .* and [0-9]+ more; config.init_new starts anew",
        ),
        ({"init": "RUN", "init_new": "trunk"}, "config.init_new: found 'trunk', which is in no array's name"),
        ({"init": "RUN", "init_new": "("}, "config.init_new: found '\\(', must be a regular expression"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_written(small, trained, tmp_path, changes, error):
    config = small.config(**{name: value.replace("RUN", str(trained.workdir)) for name, value in changes.items()})
    with pytest.raises(InputError, match=error):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_that_has_begun_resumes_without_them(small, trained, tmp_path):
    source, workdir = tmp_path / "source", tmp_path / "run"
    shutil.copytree(trained.workdir, source)
    config = small.config(init=str(source), duration="2 steps", samples__every="never")
    train_and_evaluate(config, workdir)
    shutil.rmtree(source)
    config.duration = "3 steps"
    assert int(train_and_evaluate(config, workdir).step) == 3
