"""Pictures and evaluations during training, and what is missing of them after a run was cut short."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sdit_jax import images, sharding
from sdit_jax.config import Config
from sdit_jax.sampling.generate import example_labels, generate, make_sampler
from sdit_jax.training.cadence import Due
from sdit_jax.training.metrics import MetricWriter, read_evaluations
from sdit_jax.training.setup import Setup
from sdit_jax.training.state import TrainState

log = logging.getLogger(__name__)


class Outputs:
    """Draws `samples/STEP.png` and evaluates, both with all processes; process 0 writes."""

    def __init__(self, setup: Setup, workdir: Path, writer: MetricWriter):
        self.setup, self.workdir, self.writer = setup, workdir, writer
        self._labels = example_labels(setup.config.samples.n, setup.model.num_classes)
        self._sampler = make_sampler(setup.model, setup.objective, setup.sampling, mesh=setup.mesh)

    def make(self, state: TrainState, due: Due) -> None:
        """Draws and evaluates a state where that is due. Files are written last: without one, an output is missing."""
        if due.draw:
            self._draw(state)
        if due.evaluate:
            self._evaluate(state)

    def _draw(self, state):
        step, config = int(state.step), self.setup.config
        variables = state.variables if state.ema is None else state.ema
        local = sharding.local(variables, self.setup.mesh)
        picture = images.grid(generate(self._sampler, local, self._labels, seed=config.seed, batch_size=config.samples.n))
        self.writer.write_images(step, {"samples": picture})
        self.writer.flush()
        if jax.process_index() == 0:
            path = picture_path(self.workdir, step)
            path.parent.mkdir(exist_ok=True)
            images.save_png(picture, path)

    def _evaluate(self, state):
        """Evaluates averaged and raw weights, as evaluation/ema/NAME and evaluation/raw/NAME."""
        step, evaluate = int(state.step), self.setup.evaluate
        assert evaluate is not None
        scalars: dict[str, float] = {}
        records: list[dict[str, Any]] = []
        for weights, variables in (("ema", state.ema), ("raw", state.variables)):
            if variables is None:
                continue
            values = dict(evaluate(sharding.local(variables, self.setup.mesh)))
            scalars |= {f"evaluation/{weights}/{name}": value for name, value in values.items()}
            records.append({"weights": weights, "values": values, "protocol": evaluate.protocol})
        log.info("%s", ", ".join(f"{name.removeprefix('evaluation/')} {value:.4g}" for name, value in scalars.items()))
        self.writer.write_scalars(step, scalars)
        self.writer.flush()
        self.writer.write_evaluation(step, records)


def missing(due: Due, config: Config, workdir: Path, step: int) -> Due:
    """Which of the pictures and evaluations that are due after a step are not in the run folder."""
    kinds = {"raw", "ema"} if config.ema.half_life else {"raw"}
    recorded = {record["weights"] for record in read_evaluations(workdir, step)}
    draw = due.draw and not picture_path(workdir, step).is_file()
    return Due(log=False, save=False, draw=draw, evaluate=due.evaluate and not kinds <= recorded)


def agreed_missing(setup: Setup, workdir: Path, step: int) -> Due:
    """`missing` after a saved step, as process 0 sees the folder; the same in all processes."""
    found = Due(False, False, False, False)
    if 0 < step <= setup.cadence.total:
        found = missing(setup.cadence.due(step), setup.config, workdir, step)
    agreed = multihost_utils.broadcast_one_to_all(np.array(found, np.int32))
    return Due(*(bool(value) for value in agreed))


def picture_path(workdir: Path, step: int) -> Path:
    """The grid of samples drawn after a step."""
    return workdir / "samples" / f"{step:08d}.png"
