"""Evaluators: mistakes raise before training, and values equal those of the metrics."""

import json

import jax
import numpy as np
import pytest

from sdit_jax.data import sources
from sdit_jax.diffusion.process import add_noise
from sdit_jax.errors import InputError
from sdit_jax.metrics import compare
from sdit_jax.metrics.features import classifier_features, classifier_of, extract, make_extractor
from sdit_jax.metrics.reference import make_reference
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.how import Sampling
from sdit_jax.training.evaluators import make_evaluator
from sdit_jax.training.loop import train_and_evaluate
from sdit_jax.training.setup import make_setup

EVALUATION = {
    "evaluation__every": "2 steps", "evaluation__n": 70, "evaluation__batch_size": 40, "evaluation__steps": 4,
    "evaluation__names": "fd_classifier, loss",
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return {split: sources.load("digits", split, "") for split in ("train", "test")}


@pytest.fixture(scope="module")
def extractor():
    return classifier_features("digits")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SDIT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_during_training_averaged_and_raw_weights_are_evaluated(small, tmp_path, digits, extractor):
    config = small.config(**EVALUATION, samples__n=1, optimizer__learning_rate=0.05)
    state = train_and_evaluate(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    written = {line["step"]: line for line in lines if any(name.startswith("evaluation/") for name in line)}
    assert list(written) == [2, 4]
    records = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    assert [(record["step"], record["weights"]) for record in records] == [(2, "ema"), (2, "raw"), (4, "ema"), (4, "raw")]
    protocol = records[0]["protocol"]
    assert (protocol["n"], protocol["steps"], protocol["sampler"], protocol["labels"]) == (70, 4, "ddim", "each in turn")
    assert protocol["references"]["test"] == {"source": "digits", "n": 359, "sha256": digits["test"].fingerprint}

    setup = make_setup(config)
    labels = example_labels(70, 10)
    sampler = make_sampler(setup.model, setup.objective, Sampling("ddim", 4, 1.0, clip_x0=True))
    for weights, variables in (("ema", state.ema), ("raw", state.variables)):
        made = generate(sampler, variables, labels, seed=config.seed, batch_size=40)
        extracted = extract(extractor, made)
        expected = {f"{name}": value for name, value in compare.score_alone(extractor, extracted, labels).items()}
        for split in ("train", "test"):
            scores = compare.score(extractor, extracted, make_reference(extractor, digits[split], "digits", split))
            expected |= {f"{name}/{split}": value for name, value in scores.items()}
        for name, value in expected.items():
            np.testing.assert_allclose(written[4][f"evaluation/{weights}/{name}"], value, rtol=1e-4, err_msg=name)
        losses = {name: value for name, value in written[4].items() if name.startswith(f"evaluation/{weights}/mse/test/t")}
        np.testing.assert_allclose(np.mean(list(losses.values())), written[4][f"evaluation/{weights}/mse/test"], rtol=1e-6)
        assert len(losses) == 10 and losses[f"evaluation/{weights}/mse/test/t999"] < 1.5
    assert written[4]["evaluation/ema/fd_classifier/train"] != written[4]["evaluation/raw/fd_classifier/train"]


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"evaluation__names": "fd_classifer"},
            "config.evaluation.names: found 'fd_classifer', allowed are fd_classifier, fid",
        ),
        ({"evaluation__names": ""}, "config.evaluation.names: found ''"),
        ({"evaluation__n": 64}, "config.evaluation.n: found 64 images, fd_classifier needs at least 65"),
        ({"evaluation__sampler": "rk45"}, "config.evaluation.sampler: found 'rk45'"),
        ({"evaluation__every": "often"}, "config.evaluation.every: found 'often'"),
        ({"evaluation__names": "fid", "evaluation__inception": "no/such.pth"}, "no/such.pth: no such file"),
    ],
)
def test_mistakes_raise_before_training(small, changes, words):
    with pytest.raises(InputError, match=words):
        make_setup(small.config(**EVALUATION | changes))


def test_a_run_without_evaluation_makes_no_evaluator(small):
    assert make_setup(small.config(evaluation__names="nonsense")).evaluate is None


@pytest.mark.parametrize(
    "source, name",
    [
        ("mnist", "mnist"), ("mnist:DATA/mnist", "mnist"), ("tfds:cifar10:3.0.2", "cifar10"),
        ("tfds:imagenet_resized/64x64", None), ("folder:mnist", None),
    ],
)  # fmt: skip
def test_a_source_has_the_classifier_of_its_data_set(source, name):
    assert classifier_of(source) == name


def test_a_source_without_classifier_is_an_error_with_the_remedy():
    with pytest.raises(InputError, match="no classifier for 'folder:faces', there are digits.*fit_classifier"):
        make_extractor("fd_classifier", "folder:faces")
    assert make_extractor("fd_classifier", "folder:faces", classifier="cifar10").channels == 3


def test_the_loss_is_that_of_the_test_split(small, digits):
    """Against the loss of the same images at the same timestep, with noise of another seed."""
    setup = make_setup(small.config(**EVALUATION | {"evaluation__names": "loss"}))
    variables = setup.new_state().variables
    found = dict(make_evaluator(setup.config, setup.model, setup.objective)(variables))
    x_0 = jax.numpy.asarray(digits["test"].images[:256], jax.numpy.float32) / 127.5 - 1
    noise, t = jax.random.normal(jax.random.key(1), x_0.shape), jax.numpy.full(len(x_0), 999)
    x_t = add_noise(setup.objective.schedule, x_0, t, noise)
    output = jax.jit(setup.model.apply)(variables, x_t, t, digits["test"].labels[:256])
    expected = setup.objective.losses(output, x_0, x_t, t, noise)["mse"].mean()
    np.testing.assert_allclose(found["mse/test/t999"], expected, rtol=0.05)
