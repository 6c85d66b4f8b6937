"""The report of an evaluation: its numbers, samples with nearest training images, and the network at work."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdit_jax import images
from sdit_jax.analysis.energy import account
from sdit_jax.analysis.neurobench import neurobench
from sdit_jax.analysis.observe import observe
from sdit_jax.analysis.spikes import denoising, probe
from sdit_jax.data.datasets import Images
from sdit_jax.data.transforms import to_channels
from sdit_jax.diffusion.process import add_noise
from sdit_jax.metrics import neighbours
from sdit_jax.metrics.evaluate import Evaluation
from sdit_jax.metrics.reference import spaced
from sdit_jax.report import Report
from sdit_jax.sampling.generate import example_labels
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.run import Run
from sdit_jax.sampling.samples import Samples

NEIGHBOURS = 200  # Samples, and real images, whose nearest training images are shown or counted.
PROBED, TIMESTEPS = 32, 10
DENOISED, FRAMES = 6, 8
ENERGY_IMAGES = 8
NO_RUN = "shown for a run folder that is evaluated against the data it was trained on"
NO_NEURONS = "the network has no spiking neurons"


def energy_of(run: Run, real: Images, sampling: Sampling) -> dict:
    """Energy per forward pass and per generated image, as JSON; firing rates of a few images at the middle timestep."""
    return operations_of(run, real, sampling)[0]


def operations_of(run: Run, real: Images, sampling: Sampling) -> tuple[dict, dict]:
    """(the energy of `energy_of`, NeuroBench's metrics of the same forward pass), as JSON."""
    chosen = spaced(len(real), ENERGY_IMAGES)
    x_0 = images.from_uint8(jnp.asarray(to_channels(real.images[chosen], run.model.channels, average=True)))
    labels = np.minimum(real.labels[chosen], run.model.num_classes)  # Greater ones become the null label.
    t = jnp.full(len(x_0), len(run.objective.schedule) // 2)
    x_t = add_noise(run.objective.schedule, x_0, t, jax.random.normal(jax.random.key(0), x_0.shape))
    seen = observe(run.model, run.variables, x_t, t, jnp.asarray(labels) if run.model.num_classes else None)
    found = account(run.model, seen)
    per_image = found.per_image(sampling.calls(run.objective.schedule))
    return found.to_dict() | {"per_image": per_image}, neurobench(seen, run.variables)


def build_report(
    samples: Samples, evaluation: Evaluation, references: Mapping[str, Images], run: Run | None, energy: dict | None
) -> Report:
    """The report of an evaluation; `run` only if the references are its training data."""
    trained_on, *held_out = references.values()
    shown = {
        "results": evaluation.values, "yardsticks": evaluation.yardsticks, "samples": samples.images, "labels": samples.labels,
        "protocol": samples.protocol, "energy": energy,
    }  # fmt: skip
    if run is None:
        missing: dict[str, str] = dict.fromkeys(("frames", "losses", "firing_rates", "raster", "energy", "neighbours"), NO_RUN)
        return Report("Evaluation of samples", str(samples.protocol.get("samples", "")), missing=missing, **shown)
    weights = "averaged" if run.weights == "ema" else "raw"
    subtitle = f"{run.config.data.name}, {weights} weights of step {run.step:,}, {len(samples.images):,} samples"
    shown["neighbours"] = _neighbours(samples.images, trained_on, held_out)
    inside = _inside(run, samples.protocol, trained_on)
    order = [layer["name"] for layer in (energy or {}).get("neurons", [])]
    for by_layer in ("firing_rates", "spikes") if order else ():
        if by_layer in inside:
            inside[by_layer] = dict(sorted(inside[by_layer].items(), key=lambda item: _place(item[0], order)))
    spiking = "firing_rates" in inside
    title = "A spiking diffusion network, evaluated" if spiking else "A diffusion network without spikes, evaluated"
    return Report(title, subtitle, **shown, **inside)


def _place(name, order):
    return order.index(name) if name in order else len(order)


def _neighbours(samples, trained_on, held_out):
    channels = samples.shape[-1]
    some = lambda all_images: to_channels(all_images[spaced(len(all_images), NEIGHBOURS)], channels)
    real = some(held_out[0].images) if held_out else None
    return neighbours.compare(some(samples), to_channels(trained_on.images, channels), real)


def _inside(run, protocol, real) -> dict[str, Any]:
    """Denoising, losses, firing rates and spikes of a run's network."""
    sampling = Sampling.from_dict(protocol)
    labels = example_labels(DENOISED, run.model.num_classes)
    _, frames = denoising(run.model, run.objective, run.variables, labels, sampling, seed=protocol["seed"], frames=FRAMES)
    steps = sampling.visited(run.objective.schedule)
    chosen = spaced(len(real), PROBED)
    timesteps = np.linspace(0, len(run.objective.schedule) - 1, TIMESTEPS).round().astype(int).tolist()
    found = probe(
        run.model, run.objective, run.variables, to_channels(real.images[chosen], run.model.channels), real.labels[chosen],
        timesteps=timesteps, seed=protocol["seed"],
    )  # fmt: skip
    losses = found.terms if len(found.terms) > 2 else {"mse": found.terms["mse"]}  # One term is the loss itself.
    inside = {
        "frames": frames, "frame_timesteps": [steps[i] for i in spaced(len(steps), len(frames))],
        "timesteps": found.timesteps, "losses": losses,
    }  # fmt: skip
    if not found.rates:
        return inside | {"missing": {"firing_rates": NO_NEURONS, "raster": NO_NEURONS}}
    caption = f"{found.raster_layer}, one image at timestep {found.raster_timestep}, its first channels"
    shown = {"raster": found.raster_TLC, "raster_caption": caption, "spikes": found.spikes}
    return inside | {"firing_rates": found.rates} | shown
