"""Distillation: what a student is to learn, against the teacher's path written out; and a run that learns it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.diffusion import process, samplers
from sdit_jax.diffusion.objective import Objective
from sdit_jax.diffusion.schedule import cosine, linear
from sdit_jax.training.distillation import Teacher
from sdit_jax.training.examples import Examples

LEVELS, STRIDE = (999, 600, 300), 100
NULL = 10


class Network:
    """The exact denoiser of N(mean_y, 0.3^2) data; without a label their mean is 0. Predicts the clean image."""

    num_classes, channels = NULL, 1

    def __init__(self, schedule):
        self.schedule = schedule

    def apply(self, means, x, t, y):
        alpha, variance = (process.at(table, t, x) for table in (self.schedule.alphas, self.schedule.variances))
        mean = jnp.append(means, 0.0)[y].reshape(-1, *[1] * (x.ndim - 1))
        return (0.09 * alpha * x + variance * mean) / (0.09 * alpha**2 + variance)


def made(schedule, guidance, levels=LEVELS, stride=STRIDE):
    objective, model = Objective(schedule, prediction="x0"), Network(schedule)
    means = jnp.linspace(-0.3, 0.3, NULL)
    return Teacher(model, means, objective, guidance, stride, levels), model, objective, means


def drawn(model, objective, means, y_B, x, levels, guidance=1.0):
    """Steps of ddim along these levels; the last goes to the clean image."""
    at = lambda x, t, y: model.apply(means, x, t, y)
    none = jnp.full_like(y_B, NULL)
    predict = lambda x, t: (1 - guidance) * at(x, t, none) + guidance * at(x, t, y_B)
    denoise = lambda x, t: objective.denoised(predict(x, t), x, t)
    return samplers.sample(denoise, x, objective.schedule, method="ddim", timesteps=levels)


@pytest.mark.parametrize("schedule", [linear(1000), cosine(1000)], ids=["linear", "cosine"])
@pytest.mark.parametrize("t", [280, 150, 90, 40, 1, 0])
def test_below_the_last_level_a_student_learns_where_the_path_ends(schedule, t):
    """One guided step of the teacher, then the student's own step to the clean image; near it, the teacher's image."""
    teacher, model, objective, means = made(schedule, 2.0)
    y_B, x = jnp.array([1, 9]), 0.4 * jax.random.normal(jax.random.key(t), (2, 3, 3, 1))
    found = teacher.clean_images(model, objective, means, x, jnp.full(2, t), y_B)
    guided = drawn(model, objective, means, y_B, x, [t], guidance=2.0)
    if t < STRIDE:
        np.testing.assert_allclose(found, guided, atol=1e-4)
        return
    x_s = process.add_noise(
        schedule, guided, jnp.full(2, t - STRIDE), process.implied_noise(schedule, x, jnp.full(2, t), guided)
    )
    np.testing.assert_allclose(found, drawn(model, objective, means, y_B, x_s, [t - STRIDE]), atol=1e-4)


@pytest.mark.parametrize(("t", "b"), [(999, 600), (750, 600), (650, 600), (601, 600), (600, 300), (301, 300)])
def test_one_step_to_the_next_level_takes_the_student_where_teacher_and_student_lead(t, b):
    schedule = cosine(1000)
    teacher, model, objective, means = made(schedule, 1.5)
    y_B, x = jnp.array([1, 9]), 0.6 * jax.random.normal(jax.random.key(t), (2, 3, 3, 1))
    x_0 = teacher.clean_images(model, objective, means, x, jnp.full(2, t), y_B)
    at = lambda k, clean, x, t: process.add_noise(
        schedule, clean, jnp.full(2, k), process.implied_noise(schedule, x, jnp.full(2, t), clean)
    )
    s = max(t - STRIDE, b)
    x_s = at(s, drawn(model, objective, means, y_B, x, [t], guidance=1.5), x, t)
    x_b = x_s if s == b else at(b, drawn(model, objective, means, y_B, x_s, [s]), x_s, s)
    np.testing.assert_allclose(at(b, x_0, x, t), x_b, atol=2e-3)


def test_a_perfect_student_of_short_strides_learns_nothing_new():
    """Without guidance the teacher's path is the student's own, but for the length of steps."""
    schedule = cosine(1000)
    teacher, model, objective, means = made(schedule, 1.0, levels=(999,), stride=1)
    y_B, x = jnp.array([1, 9]), jax.random.normal(jax.random.key(0), (2, 3, 3, 1))
    t_B = jnp.array([400, 700])
    plain = model.apply(means, x, t_B, y_B)
    np.testing.assert_allclose(teacher.clean_images(model, objective, means, x, t_B, y_B), plain, atol=5e-3)


def test_examples_keep_the_noised_image():
    schedule = cosine(1000)
    teacher, model, objective, means = made(schedule, 2.0)
    t_B, noise = jnp.array([700, 200]), jax.random.normal(jax.random.key(1), (2, 3, 3, 1))
    x_0 = jnp.zeros_like(noise)
    x_t = process.add_noise(schedule, x_0, t_B, noise)
    found = teacher.targets(model, objective, means, Examples(x_0, t_B, noise, x_t, jnp.array([0, 9])))
    np.testing.assert_allclose(process.add_noise(schedule, found.x_0, t_B, found.noise), x_t, atol=1e-5)
    assert jnp.abs(found.x_0).max() > 0.05 and jnp.abs(found.x_0).max() <= 1


@pytest.mark.slow
def test_a_run_learns_from_a_teacher_and_resumes(small, trained, tmp_path):
    """With a teacher's images the loss of a network that starts as the teacher is small from the beginning."""
    flags = (
        f"--workdir={tmp_path / 'run'}", f"--config.init={trained.workdir}", f"--config.distillation.teacher={trained.workdir}",
        "--config.distillation.guidance=2.0", "--config.distillation.levels=999,400", "--config.duration=2 steps",
    )  # fmt: skip
    done = small.run("train", *flags)
    assert done.returncode == 0 and f"learning from {trained.workdir}" in done.stderr, done.stderr
    again = small.run("train", *flags)
    assert again.returncode == 0 and "already reached step 2" in again.stderr, again.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["teacher=nowhere"], "nowhere: no such run folder"),
        (
            ["teacher=pretrained:mnist"],
            "config.distillation.teacher: pretrained:mnist has (image size, channels, classes) (28, 1, 10)",
        ),
        (
            ["teacher=RUN", "levels=300,600"],
            "config.distillation.levels: found '300,600', must be timesteps that descend within",
        ),
        (["teacher=RUN", "levels=high"], "config.distillation.levels: found 'high'"),
        (["teacher=RUN", "stride=0"], "config.distillation.stride: found 0, allowed are 1..1000"),
        (["teacher=RUN", "guidance=inf"], "config.distillation.guidance: found inf"),
    ],
)
def test_mistakes_are_one_line(small, trained, tmp_path, flags, words):
    given = [f"--config.distillation.{flag.replace('RUN', str(trained.workdir))}" for flag in flags]
    done = small.run("train", f"--workdir={tmp_path / 'run'}", *given)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_another_schedule_is_refused(small, trained, tmp_path):
    flags = (
        f"--workdir={tmp_path / 'run'}",
        f"--config.distillation.teacher={trained.workdir}",
        "--config.diffusion.schedule=linear",
    )
    done = small.run("train", *flags)
    assert done.returncode == 2 and "was trained on another schedule; set config.diffusion to its" in done.stderr, done.stderr
