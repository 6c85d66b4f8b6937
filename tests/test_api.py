"""The package from Python: what `load`, `configure` and `train` give, against what the commands' own parts compute."""

import io
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import sdit_jax
from sdit_jax.errors import InputError
from sdit_jax.sampling.run import open_run

X = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def run(trained):
    return sdit_jax.load(trained.workdir)


def test_samples_are_those_of_the_command_and_show_themselves_as_a_grid(run, trained):
    how = {"sampler": "ddim", "steps": 3, "guidance": 2.0, "seed": 5}
    drawn = run.sample([3, 1, 4], **how)
    np.testing.assert_array_equal(drawn, open_run(trained.workdir).sample([3, 1, 4], **how))
    with Image.open(io.BytesIO(drawn._repr_png_())) as grid:
        assert grid.size == (3 * 64 + 2 * 2, 64)
    with Image.open(io.BytesIO(drawn[0]._repr_png_())) as one:
        assert one.size == (64, 64)
    assert drawn[0, 0]._repr_png_() is None and (drawn / 2)._repr_png_() is None
    compiled = dict(run._programs)
    run.sample([7, 7, 7], **how | {"seed": 6})
    assert compiled and run._programs == compiled  # Not compiled anew.


def test_a_run_prints_itself_in_a_line(run):
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.variables["params"]))
    assert repr(run) == f"<Run: {parameters:,} parameters, {run.model.summary}; averaged weights of step 4>"


@pytest.mark.parametrize("labels", [3, "3", [], [3.5], [[1, 2]]])
def test_labels_are_a_list_of_integers(run, labels):
    with pytest.raises(InputError, match="labels: found .*, must be a list of integers"):
        run.sample(labels, steps=1)


def test_images_of_grey_levels_are_refused(run):
    with pytest.raises(InputError, match="x: found uint8, must be numbers in -1..1"):
        run.spikes(np.zeros((1, 8, 8, 1), np.uint8), 5)


def test_denoise_is_the_networks_clean_image(run):
    t, y = jnp.array([5, 900]), jnp.array([3, 10])
    output = run.model.apply(run.variables, X, t, y)
    np.testing.assert_allclose(run.denoise(X, t, y), run.objective.denoised(output, X, t).x_0, atol=1e-5)
    np.testing.assert_allclose(run.denoise(X, 900)[1], run.denoise(X, t, y)[1], atol=1e-5)  # No label is label 10.


def test_spikes_are_those_whose_rates_the_network_reports(run):
    fired = run.spikes(X, 500, 3)
    _, sown = run.model.apply(run.variables, X, jnp.array([500, 500]), jnp.array([3, 3]), mutable=["spikes"])
    rates = sorted(float(rate) for rates in jax.tree.leaves(sown) for rate in np.ravel(rates))
    np.testing.assert_allclose(sorted(spikes.mean() for spikes in fired.values()), rates, rtol=1e-5)
    assert [set(np.unique(spikes)) <= {0, 1} for spikes in fired.values()] and list(fired)
    assert {layer["name"] for layer in run.energy()["neurons"]} == set(fired)


def test_energy_keeps_its_contract_and_counts_guided_passes(run):
    found = run.energy(steps=7, guidance=2.0)
    assert found["per_forward"]["pJ"] == pytest.approx(4.6 * found["per_forward"]["macs"] + 0.9 * found["per_forward"]["acs"])
    assert found["per_image"]["forward_passes"] == 14
    assert found["per_image"]["pJ"] == pytest.approx(14 * found["per_forward"]["pJ"])
    assert found["twin"]["pJ"] > 0
    json.dumps(found)


def test_an_evaluation_has_its_scores_and_files(run, tmp_path):
    found = run.evaluate(tmp_path, n=70, steps=2, yardsticks=False)
    stored = json.loads((tmp_path / "evaluation.json").read_text())["values"]
    assert found.scores["fd_classifier/test"] == next(
        record["value"] for record in stored if record["name"] == "fd_classifier" and record["reference"]["split"] == "test"
    )
    assert "fd_classifier" in repr(found) and str(found.report) in repr(found) and found.report.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:, :4], 5), r"x: found shape \(2, 4, 8, 1\), must be \(B, 8, 8, 1\)"),
        ((X, 1000), r"t: found 1000..1000, allowed are 0..999"),
        ((X, [1, 2, 3]), r"t: found int64 of shape \(3,\), must be one integer, or 2"),
        ((X, 5, 0.5), r"y: found float64 of shape \(\), must be one integer, or 2"),
        ((X, 5, [3, 11]), r"y: found 3..11, allowed are 0..10"),
    ],
)
def test_inputs_that_do_not_fit_are_named(run, arguments, message):
    with pytest.raises(InputError, match=message):
        run.denoise(*arguments)


def test_mistakes_in_samples_and_scores_are_those_of_the_commands_without_dashes(run, tmp_path):
    with pytest.raises(InputError, match="^guidance: found inf, must be a finite number$"):
        run.sample([3], guidance=float("inf"))
    with pytest.raises(InputError, match="^n: found 5 images, fd_classifier needs at least 65"):
        run.evaluate(tmp_path / "out", n=5)
    with pytest.raises(InputError, match="^data_dir: empty; set it to the folder that holds the original files of mnist$"):
        run.evaluate(tmp_path / "out", reference="mnist")
    assert not (tmp_path / "out").exists()


def test_a_configuration_is_a_shipped_one_with_other_values():
    config = sdit_jax.configure("digits:tiny", {"model.width": 24, "data.dir": "there"})
    assert (config.model.width, config.data.dir, config.data.name) == (24, "there", "digits")
    assert config.duration == sdit_jax.configure("digits:tiny").duration


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("digit", {}, "config: found 'digit', allowed are .*digits"),
        ("configs/none.py", {}, "config: no such file configs/none.py"),
        ("digits:small", {}, "'small'"),
        ("digits", {"model.widht": 3}, "config.model.widht: unknown field"),
        ("digits", {"modle.width": 3}, "config.modle: unknown field"),
        ("digits", {"model.width": "3"}, "config.model.width: found '3', must be of type int"),
        ("digits", {"model.width": 0}, "config.model.width: found 0"),
    ],
)
def test_mistakes_in_a_configuration_are_one_line(config, overrides, message):
    with pytest.raises(InputError, match=message):
        sdit_jax.configure(config, overrides)


def test_a_configuration_file_that_fails_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def get_config(arg=None):\n    return 1 / 0\n")
    with pytest.raises(InputError, match=f"{path}: ZeroDivisionError: division by zero"):
        sdit_jax.configure(str(path))


def test_training_gives_a_run_and_resumes(small, tmp_path):
    run = sdit_jax.train(small.config(), tmp_path)
    assert run.step == 4 and run.sample([0], steps=2).shape == (1, 8, 8, 1)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert sdit_jax.train(small.config(), tmp_path).step == 4 and (tmp_path / "metrics.jsonl").read_bytes() == before


def test_training_shows_its_log_where_nothing_else_does(small, trained, capsys, monkeypatch):
    sdit_jax.train(trained.config, trained.workdir)
    assert "nothing to do" not in capsys.readouterr().err  # Pytest has handlers of its own.
    log = logging.getLogger("sdit_jax")
    monkeypatch.setattr(log, "propagate", False)
    sdit_jax.train(trained.config, trained.workdir)
    assert "batch 16\n" in (shown := capsys.readouterr().err) and "nothing to do" in shown
    assert not log.handlers
