"""Speeds between two records, without pauses; a trace holds the steps that are asked for."""

from types import SimpleNamespace

import jax
import pytest

from sdit_jax.training import speed
from sdit_jax.training.profile import Profile
from sdit_jax.training.speed import SPEEDS, Speed


@pytest.fixture
def clock(monkeypatch):
    """clock.now: the seconds that pass."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def measured(clock, peak):
    """Four steps of 32 images and 5 TFLOP on a device in 10 s, of which input takes 1 s and a checkpoint 2 s; and a pause."""
    found = Speed(6, images=32, flops=5e12, peak=peak)
    for what, seconds in (("input", 1), ("checkpoint", 2)):
        with found.waiting(what):
            clock.now += seconds
    with found.paused():
        clock.now += 50
    clock.now += 7
    return found


def test_speeds_are_those_of_the_time_without_pauses(clock):
    found = measured(clock, peak=4e12)
    assert found.scalars(10) == {
        "images_per_second": 12.8, "tflops_per_device": 2.0, "mfu": 0.5, "input_share": 0.1, "checkpoint_share": 0.2,
    }  # fmt: skip
    assert tuple(found.scalars(10)) == SPEEDS
    assert str(found) == ", 2 TFLOP/s a device, 50.0% of peak, input 10.0%, checkpoints 20.0%"


def test_without_a_stated_peak_there_is_no_share_of_it(clock):
    found = measured(clock, peak=None)
    assert [*found.scalars(10)] == [name for name in SPEEDS if name != "mfu"] and "peak" not in str(found)


def test_where_no_step_lies_between_there_is_no_speed(clock):
    found = measured(clock, peak=None)
    found.restart(10)
    assert found.scalars(10) == {} and str(found) == ""


def test_a_trace_holds_its_steps_and_is_written_once(tmp_path):
    work = jax.jit(lambda x: x + 1)
    profile, resumed = Profile((2, 3), tmp_path), Profile((2, 3), tmp_path)
    assert [int(profile.call(step, work, step)) for step in range(1, 6)] == [2, 3, 4, 5, 6]
    resumed.call(4, work, 4)
    profile.close()
    (path,) = tmp_path.glob("profile/plugins/profile/*/*.xplane.pb")
    traced = jax.profiler.ProfileData.from_file(str(path))
    events = [event for plane in traced.planes for line in plane.lines for event in line.events if event.name == "train"]
    assert sorted(dict(event.stats)["step_num"] for event in events) == [2, 3]


def test_a_trace_that_is_cut_short_is_written(tmp_path):
    profile = Profile((1, 100), tmp_path)
    profile.call(1, lambda: None)
    profile.close()
    profile.close()
    assert list(tmp_path.rglob("*.xplane.pb"))
