"""The report of an evaluation, from a run with and without spikes."""

import dataclasses

import numpy as np

from sdit_jax.data import sources
from sdit_jax.metrics.evaluate import Evaluation
from sdit_jax.report.build import build_report
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.provenance import sampling_protocol
from sdit_jax.sampling.run import open_run
from sdit_jax.sampling.samples import Samples


def test_a_report_shows_the_network_at_work(trained):
    run, sampling, labels = open_run(trained.workdir), Sampling("ddim", 3, clip_x0=True), example_labels(6, 10)
    drawn = generate(make_sampler(run.model, run.objective, sampling), run.variables, labels, seed=0, batch_size=6)
    protocol = sampling_protocol(run, n=6, sampling=sampling, labels="each in turn", seed=0)
    references = {split: sources.load("digits", split, "") for split in ("train", "test")}
    build = lambda run: build_report(Samples(drawn, labels, protocol), Evaluation([], []), references, run, None)

    spiking = build(run)
    assert spiking.title == "A spiking diffusion network, evaluated"
    np.testing.assert_array_equal(spiking.frames[-1], drawn)  # The last step predicts the image itself.
    assert spiking.frame_timesteps[0] == 999 and len(spiking.frame_timesteps) == 3
    assert all(len(rates) == len(spiking.timesteps) == 10 for rates in spiking.firing_rates.values())
    assert spiking.raster.any() and len(spiking.neighbours.real_M) == 200

    baseline = build(dataclasses.replace(run, model=run.model.baseline()))
    assert baseline.title == "A diffusion network without spikes, evaluated"
    assert baseline.firing_rates is None and baseline.raster is None
    assert baseline.missing["raster"] == "the network has no spiking neurons"


def test_a_report_without_a_run_gives_the_reason_for_missing_parts():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    page = build_report(Samples(images, None, {"samples": "mine.npz"}), Evaluation([], []), {"train": None}, None, None)
    assert (page.title, page.subtitle) == ("Evaluation of samples", "mine.npz")
    assert set(page.missing) == {"frames", "losses", "firing_rates", "raster", "energy", "neighbours"}
