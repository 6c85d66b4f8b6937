"""The search for the best way to draw in few calls: its candidates cost what they may, and it finds a known optimum."""

import numpy as np
import pytest

import sdit_jax
from sdit_jax import tuning
from sdit_jax.data import sources
from sdit_jax.diffusion.schedule import cosine
from sdit_jax.metrics.features import make_extractor
from sdit_jax.metrics.reference import make_reference
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.run import open_run

T = 1000


@pytest.fixture(scope="module")
def search(trained):
    extractor, real = make_extractor("fd_classifier", "digits"), sources.load("digits", "train", "", 8, None)
    reference = make_reference(extractor, real, "digits", "train")
    return tuning.Search(open_run(trained.workdir), extractor, reference, n=70, seed=1, batch_size=70)


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 7, 8])
def test_every_form_costs_the_calls_that_were_asked_for(calls):
    rng, forms = np.random.default_rng(calls), list(tuning.forms(calls, guidance=True))
    assert len(forms) == len(set(forms)) and list(tuning.forms(calls, guidance=False)) == forms[:1]
    for form in forms:
        numbers = tuning._start(form)
        for x in (numbers, numbers + rng.normal(size=numbers.shape)):
            sampling = tuning._sampling(form, x, T, clip_x0=True)
            assert sampling.levels[0] == T - 1 and list(sampling.levels) == sorted({*sampling.levels}, reverse=True)
            assert sampling.calls(cosine(T)) == calls and 0 <= sampling.churn <= 1 and min(sampling.levels) >= 0


@pytest.mark.parametrize(
    "how",
    [{"churn": 0.6}, {"churn": 1.0, "guidance": 2.0, "interval": (300, 800)}, {"guidance": 1.5}],
    ids=lambda how: "-".join(how),
)
def test_candidates_are_drawn_as_the_sampler_draws_them(search, how):
    run, labels = search.run, example_labels(10, 10)
    sampling = Sampling("ddim", clip_x0=True, levels=(999, 700, 300), **how)
    expected = generate(make_sampler(run.model, run.objective, sampling), run.variables, labels, seed=3, batch_size=10)
    program = tuning._make_program(run.model, run.objective, 3, clip_x0=True)
    scales = np.float32([sampling.guidance if 300 <= t <= 800 or not sampling.interval else 1 for t in sampling.levels])
    drawn = program(
        run.variables, labels, np.arange(10, dtype=np.int32), np.uint32(3), np.int32(sampling.levels), scales,
        np.float32(sampling.churn),
    )  # fmt: skip
    np.testing.assert_allclose(np.asarray(drawn, int), expected.astype(int), atol=1)


def test_a_known_optimum_is_found(search, monkeypatch):
    """Of the three forms of four calls with two levels free or one."""
    best = np.array([999, 620, 310])

    def distance(sampling):
        if len(sampling.levels) != 3:
            return 9.0
        low, high = sampling.interval
        wrong = high != 620 and high < 999  # Guidance in the last step.
        return float(np.square((np.array(sampling.levels) - best) / 100).sum() + 4 * (sampling.churn - 0.8) ** 2 + wrong)

    monkeypatch.setattr(search, "distance", distance)
    reported = []
    found = search.best(4, 150, lambda sampling, value: reported.append((value, sampling)))
    assert np.abs(np.array(found.levels) - best).max() < 12 and abs(found.churn - 0.8) < 0.1
    assert distance(found) == min(reported, key=lambda pair: pair[0])[0] and len(reported) <= 160


def test_the_distance_is_that_of_an_evaluation(search, trained, tmp_path):
    how = {"sampler": "ddim", "levels": (999, 700, 300), "churn": 0.5, "guidance": 2.0, "interval": (300, 800)}
    scores = sdit_jax.load(trained.workdir).evaluate(
        tmp_path, n=70, seed=1, batch_size=70, yardsticks=False, report=False, **how
    )
    sampling = Sampling(**how, clip_x0=search.run.config.diffusion.clip_x0)
    assert search.distance(sampling) == pytest.approx(scores.scores["fd_classifier/train"], rel=1e-3)
