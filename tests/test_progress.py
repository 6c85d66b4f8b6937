"""Slow work says how far it is, in a log file too, where there is no terminal for a bar."""

from sdit_jax import progress
from sdit_jax.data import sources
from sdit_jax.sampling.samples import Samples
from sdit_jax.scoring import Scoring, evaluate_samples


def test_a_log_has_lines_with_what_is_done_and_the_time_left(capsys, monkeypatch):
    assert list(progress.progress(range(3), "quick")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "EVERY_S", 0)
    assert list(progress.progress(range(4), "samples", unit="batches")) == [0, 1, 2, 3]
    lines = capsys.readouterr().err.split("\n")
    assert lines.pop() == "" and len(lines) >= 3
    assert all(line.startswith("samples: ") and "/4 [" in line and "<" in line and "\r" not in line for line in lines)


def test_an_evaluation_says_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0)
    real = sources.load("digits", "test", "")
    samples = Samples(real.images[:100], real.labels[:100], {"sampler": None, "n": 100})
    evaluate_samples(samples, tmp_path, Scoring(reference="digits", report=False))
    said = capsys.readouterr().err
    for work in ("fd_classifier: samples", "fd_classifier: yardsticks of test"):
        assert f"{work}: 100%" in said, said
