"""All that a report shows of an evaluation: its numbers, and pictures of how the network came to its samples."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax import images
from sdit_jax.data.datasets import Images
from sdit_jax.data.transforms import to_channels
from sdit_jax.diffusion.process import add_noise
from sdit_jax.diffusion.samplers import visited
from sdit_jax.evaluation import neighbours
from sdit_jax.evaluation.energy import measure_energy
from sdit_jax.evaluation.evaluate import Evaluation
from sdit_jax.evaluation.features import match_channels
from sdit_jax.evaluation.probe import denoising, probe
from sdit_jax.evaluation.reference import spaced
from sdit_jax.evaluation.report import Report
from sdit_jax.evaluation.subject import Subject
from sdit_jax.sampling.generate import example_labels
from sdit_jax.sampling.run import Run

NEIGHBOURS = 200  # Samples and real images whose nearest training images are looked for.
PROBED, TIMESTEPS = 32, 10
DENOISED, FRAMES = 6, 8
ENERGY_IMAGES = 8
NO_RUN = "shown for a run folder that is evaluated against the data it was trained on"
NO_NEURONS = "the network has no spiking neurons"


def energy_of(run: Run, real: Images, steps: int, guidance: float) -> dict:
    """Energy per forward pass and per generated image, as JSON; rates are those of a few images at the middle timestep."""
    chosen = spaced(len(real), ENERGY_IMAGES)
    x_0 = images.from_uint8(jnp.asarray(match_channels(real.images[chosen], run.model.channels)))
    labels = np.minimum(real.labels[chosen], run.model.num_classes)  # Another data set's may be more: then of no class.
    t = jnp.full(len(x_0), len(run.objective.schedule) // 2)
    x_t = add_noise(run.objective.schedule, x_0, t, jax.random.normal(jax.random.key(0), x_0.shape))
    found = measure_energy(run.model, run.params, x_t, t, jnp.asarray(labels) if run.model.num_classes else None)
    return found.to_dict() | {"per_image": found.per_image(steps, guidance)}


def portray(
    subject: Subject, evaluation: Evaluation, references: Mapping[str, Images], run: Run | None, energy: dict | None
) -> Report:
    """The report of an evaluation; a run is given if the references are what it was trained on."""
    trained_on, *held_out = references.values()
    shown = {
        "results": evaluation.values, "yardsticks": evaluation.yardsticks, "samples": subject.images, "labels": subject.labels,
        "protocol": subject.protocol, "energy": energy,
    }  # fmt: skip
    if run is None:
        missing: dict[str, str] = dict.fromkeys(("frames", "losses", "firing_rates", "raster", "energy", "neighbours"), NO_RUN)
        return Report("Evaluation of samples", str(subject.protocol.get("samples", "")), missing=missing, **shown)
    weights = "averaged" if run.weights == "ema" else "raw"
    subtitle = f"{run.config.data.name}, {weights} weights of step {run.step:,}, {len(subject.images):,} samples"
    shown["neighbours"] = _neighbours(subject.images, trained_on, held_out)
    kind = "spiking diffusion transformer" if run.model.neuron == "lif" else "diffusion transformer without neurons"
    return Report(f"A {kind}, evaluated", subtitle, **shown, **_inside(run, subject, trained_on))


def _neighbours(samples, trained_on, held_out):
    channels = samples.shape[-1]
    some = lambda all_images: to_channels(all_images[spaced(len(all_images), NEIGHBOURS)], channels)
    real = some(held_out[0].images) if held_out else None
    return neighbours.compare(some(samples), to_channels(trained_on.images, channels), real)


def _inside(run, subject, real) -> dict[str, Any]:
    """Denoising, losses, firing rates and spikes of a run's network."""
    p = subject.protocol
    labels = example_labels(DENOISED, run.model.num_classes)
    _, frames = denoising(
        run.model, run.objective, run.params, labels, method=p["sampler"], steps=p["steps"], guidance=p["guidance"],
        clip_x0=p["clip_x0"], seed=p["seed"], frames=FRAMES,
    )  # fmt: skip
    steps = visited(run.objective.schedule, p["sampler"], p["steps"])
    chosen = spaced(len(real), PROBED)
    timesteps = np.linspace(0, len(run.objective.schedule) - 1, TIMESTEPS).round().astype(int).tolist()
    found = probe(
        run.model, run.objective, run.params, to_channels(real.images[chosen], run.model.channels), real.labels[chosen],
        timesteps=timesteps, seed=p["seed"],
    )  # fmt: skip
    losses = found.terms if len(found.terms) > 2 else {"mse": found.terms["mse"]}  # One term is the loss itself.
    inside = {
        "frames": frames, "frame_timesteps": [steps[i] for i in spaced(len(steps), len(frames))],
        "timesteps": found.timesteps, "losses": losses,
    }  # fmt: skip
    if not found.rates:
        return inside | {"missing": {"firing_rates": NO_NEURONS, "raster": NO_NEURONS}}
    caption = f"{found.raster_layer}, one image at timestep {found.raster_timestep}, its first channels"
    return inside | {"firing_rates": found.rates, "raster": found.raster_TLC, "raster_caption": caption}
