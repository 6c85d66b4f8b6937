"""Commands as processes: what they write, and one line with exit code 2 for every error in the input."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdit_jax import images

pytestmark = pytest.mark.filterwarnings("ignore")
REFERENCE = Path(__file__).parents[1] / "reference" / "sdit_release_tiny.npz"


def assert_one_clear_line(done, *words):
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert all(word in lines[0] for word in words), lines[0]


TRAINING_MISTAKES = {
    "unknown field": (("--config.model.widht=64",), ("config.model.widht", "unknown", "width")),
    "unknown group": (("--config.modell.width=64",), ("config.modell.width", "unknown", "model")),
    "wrong type": (("--config.batch_size=many",), ("config.batch_size", "many")),
    "unknown flag": (("--wokdir=x",), ("wokdir",)),
    "unknown argument": (("--config=configs/digits.py:tyni",), ("tyni", "tiny")),
    "no such config": (("--config=configs/digit.py",), ("configs/digit.py", "no such file")),
    "image size not divisible by patch": (("--config.model.patch_size=3",), ("config.model.image_size", "8", "3")),
    "no such surrogate": (("--config.model.surrogate=arctan",), ("config.model.surrogate", "arctan", "atan")),
    "no duration": (("--config.duration=soon",), ("config.duration", "soon", "epochs")),
    "missing data": (("--config.data.name=mnist", "--config.data.dir=/nowhere"), ("config.data.dir", "/nowhere")),
    "unknown data": (("--config.data.name=minst",), ("config.data.name", "minst", "mnist")),
    "grey as two channels": (("--config.model.channels=2",), ("config.model.channels", "2", "1 or 3")),
    "seed too large": (("--config.seed=4294967296",), ("config.seed", "4294967296", "4294967295")),
    "no guidance": (("--config.samples.guidance=nan",), ("config.samples.guidance", "nan")),
    "unset variable": (("--workdir=",), ("--workdir", "missing")),
    "weights as a run folder": (("--workdir=pretrained:mnist",), ("--workdir", "pretrained:mnist", "run folder")),
    "two weights of the loss": (
        ("--config.diffusion.min_snr=5", "--config.diffusion.loss_space=x0"),
        ("diffusion.min_snr", "loss_space"),
    ),
    "unknown sampler": (("--config.samples.sampler=rk45",), ("config.samples.sampler", "rk45", "ddim")),
}


@pytest.mark.parametrize("mistake", TRAINING_MISTAKES)
def test_a_mistake_in_training_is_one_line_and_writes_nothing(small, tmp_path, mistake):
    flags, words = TRAINING_MISTAKES[mistake]
    assert_one_clear_line(small.run("train", f"--workdir={tmp_path / 'run'}", *flags), *words)
    assert os.listdir(tmp_path) == []


def test_a_batch_that_does_not_divide_over_the_devices_names_both_numbers(small, virtual_devices, tmp_path):
    done = small.run("train", f"--workdir={tmp_path / 'run'}", "--config.batch_size=12", **virtual_devices(8))
    assert_one_clear_line(done, "config.batch_size", "12", "8 devices")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs folders that nobody can write")
@pytest.mark.parametrize("folder", ["/proc/run", "/proc/self"])
def test_a_folder_that_cannot_be_made_or_written_is_named(small, folder):
    assert_one_clear_line(small.run("train", f"--workdir={folder}"), folder, "cannot be written")


SAMPLING_MISTAKES = {
    "missing folder": ("missing", (), ("missing", "no such run folder")),
    "empty folder": ("empty", (), ("empty", "config.json")),
    "no checkpoint": ("unsaved", (), ("unsaved", "checkpoint")),
    "label out of range": ("trained", ("--labels=3,10",), ("--labels", "'10'", "0..9")),
    "label that is no number": ("trained", ("--labels=three",), ("--labels", "three", "0..9")),
    "too many steps": ("trained", ("--steps=1001",), ("--steps", "1001", "1000")),
    "unknown sampler": ("trained", ("--sampler=rk45",), ("--sampler", "rk45", "ddim")),
    "unknown weights": ("trained", ("--weights=best",), ("weights", "best", "ema")),
    "no images": ("trained", ("--n=0",), ("n", "0")),
    "nothing to show beside": ("trained", ("--beside=none.npz",), ("none.npz", "no such file")),
    "label of another alphabet": ("trained", ("--labels=²",), ("--labels", "0..9")),
    "guidance not finite": ("trained", ("--guidance=nan",), ("--guidance", "nan")),
    "out cannot be made": ("trained", ("--out=/proc/samples",), ("/proc/samples", "cannot be written")),
    "damaged config": ("damaged", (), ("damaged", "config.json")),
}


@pytest.mark.parametrize("mistake", SAMPLING_MISTAKES)
def test_a_mistake_in_sampling_is_one_line_and_writes_nothing(small, trained, tmp_path, mistake):
    name, flags, words = SAMPLING_MISTAKES[mistake]
    (tmp_path / "empty").mkdir()
    (tmp_path / "unsaved").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"model": 3}')
    (tmp_path / "unsaved" / "config.json").write_text(json.dumps(trained.config.to_dict()))
    workdir = trained.workdir if name == "trained" else tmp_path / name
    assert_one_clear_line(small.run("sample", f"--workdir={workdir}", f"--out={tmp_path / 'out'}", *flags), *words)
    assert not (tmp_path / "out").exists()


def test_samples_are_a_function_of_seed_and_labels(small, trained, tmp_path):
    flags = (f"--workdir={trained.workdir}", "--n=6", "--steps=3", "--labels=3,7", "--batch_size=4")
    for out, more in (("a", ()), ("b", ()), ("c", ("--seed=1", f"--beside={tmp_path / 'a' / 'samples.npz'}"))):
        done = small.run("sample", *flags, f"--out={tmp_path / out}", *more)
        assert done.returncode == 0, done.stderr
    a, b, c = (np.load(tmp_path / out / "samples.npz") for out in "abc")
    assert a["arr_0"].dtype == np.uint8 and a["arr_0"].shape == (6, 8, 8, 1)
    assert a["labels"].dtype == np.int32 and a["labels"].tolist() == [3, 7, 3, 7, 3, 7]
    np.testing.assert_array_equal(a["arr_0"], b["arr_0"])
    assert (a["arr_0"] != c["arr_0"]).any()
    corner = np.asarray(Image.open(tmp_path / "a" / "grid.png"))[:64:8, :64:8, 0]
    np.testing.assert_array_equal(corner, a["arr_0"][0, :, :, 0])
    both = np.asarray(Image.open(tmp_path / "c" / "grid.png"))
    np.testing.assert_array_equal(both, images.beside(images.grid(a["arr_0"]), images.grid(c["arr_0"])))


def test_an_imported_release_gives_the_releases_samples(small, tmp_path):
    """Sampling from the imported folder equals sampling the released weights by hand."""
    import jax

    from sdit_jax.config import default_config
    from sdit_jax.diffusion import samplers
    from sdit_jax.diffusion.objective import make_objective
    from sdit_jax.images import to_uint8
    from sdit_jax.models import build, release

    done = small.run("import_release", f"--checkpoint={REFERENCE}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    done = small.run("sample", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", "--n=4", "--steps=5")
    assert done.returncode == 0, done.stderr
    made = np.load(tmp_path / "out" / "samples.npz")

    config, params = release.load(REFERENCE)
    keys = [jax.random.split(jax.random.fold_in(jax.random.key(0), i))[0] for i in range(4)]
    x_T = jax.numpy.stack([jax.random.normal(key, (8, 8, 3)) for key in keys])
    apply, objective = jax.jit(build(config.to_dict()).apply), make_objective(default_config(config.to_dict()).diffusion)
    denoise = lambda x, t: objective.denoised(apply({"params": params}, x, t, made["labels"]), x, t)
    by_hand = to_uint8(samplers.sample(denoise, x_T, objective.schedule, method="ddim", steps=5))
    assert np.abs(np.int32(made["arr_0"]) - np.int32(by_hand)).max() <= 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"] == config.to_dict()


@pytest.mark.parametrize("mistake", ["missing", "not a checkpoint", "occupied"])
def test_a_mistake_in_importing_is_one_line_and_writes_nothing(small, tmp_path, mistake):
    (tmp_path / "noise.npz").write_bytes(b"noise")
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "config.json").write_text("{}")
    checkpoint = {"missing": tmp_path / "gone.npz", "not a checkpoint": tmp_path / "noise.npz", "occupied": REFERENCE}[mistake]
    workdir = tmp_path / ("occupied" if mistake == "occupied" else "new")
    done = small.run("import_release", f"--checkpoint={checkpoint}", f"--workdir={workdir}")
    assert_one_clear_line(done, str(workdir if mistake == "occupied" else checkpoint))
    assert not (tmp_path / "new").exists()


PLANNING_MISTAKES = {
    "unknown chip": (("--chip=v9",), ("--chip", "v9", "v5p")),
    "no chip": ((), ("--chip", "missing")),
    "no topology": (("--compile",), ("--topology", "missing")),
    "a chip beside a topology": (("--compile", "--topology=v5e:2x4", "--chip=v5e"), ("--chip", "--compile")),
    "a topology that is not compiled for": (("--chip=v5e", "--topology=v5e:2x4"), ("--topology", "v5e:2x4", "--compile")),
    "mesh": (("--chip=v5p", "--devices=8", "--config.mesh.fsdp=3"), ("config.mesh", "fsdp 3", "8")),
    "out of a folder that is not there": (("--chip=v5p", "--out=/nowhere/plan.json"), ("--out", "/nowhere/plan.json")),
}


@pytest.mark.parametrize("mistake", PLANNING_MISTAKES)
def test_a_mistake_in_planning_is_one_line(small, mistake):
    flags, words = PLANNING_MISTAKES[mistake]
    assert_one_clear_line(small.run("plan", "--config=configs/digits.py:tiny", *flags), *words)


def test_a_plan_prints_what_it_writes(small, tmp_path):
    flags = (
        "--config=configs/digits.py:tiny",
        "--devices=8",
        "--chip=v5e",
        "--weak_scaling",
        f"--out={tmp_path / 'plan.json'}",
    )
    done = small.run("plan", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["devices"] == 8 and found["images"] == 2 and found["parameters"] == 17_017
    assert "17,017 parameters" in done.stdout and "fits" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "x 1 x 1" in line]
    assert [row["devices"] for row in found["weak_scaling"]] == [2**i for i in range(13)]
    assert len(rows) == 13 and rows[-1].startswith("| 4,096 | 4096 x 1 x 1 | 16 |")
