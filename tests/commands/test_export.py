"""`sdit export`: the file gives the samples and scores of its run folder; errors are one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def file(small, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "new" / "small.safetensors"
    done = small.run("export", f"--workdir={trained.workdir}", f"--out={out}")
    assert done.returncode == 0 and done.stdout == f"{out}\n", done.stderr
    assert f"averaged weights of step 4, {out.stat().st_size:,} bytes" in done.stderr
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return out


def test_a_file_draws_the_pixels_that_the_run_draws(small, trained, file, tmp_path):
    found = {}
    for name, workdir in (("run", trained.workdir), ("file", file)):
        done = small.run("sample", f"--workdir={workdir}", f"--out={tmp_path / name}", "--n=6", "--steps=3", "--guidance=2")
        assert done.returncode == 0, done.stderr
        found[name] = dict(np.load(tmp_path / name / "samples.npz"))
    assert found["run"].keys() == found["file"].keys() == {"arr_0", "labels", "protocol"}
    for key in found["run"]:
        np.testing.assert_array_equal(found["run"][key], found["file"][key])
    assert (tmp_path / "run" / "grid.png").read_bytes() == (tmp_path / "file" / "grid.png").read_bytes()


@pytest.mark.slow
def test_a_file_is_evaluated_as_the_run_is(small, trained, file, tmp_path):
    flags = ("--n=70", "--steps=2", "--batch_size=40", "--noyardsticks", "--noreport")
    environment = {"SDIT_JAX_CACHE": str(tmp_path / "cache")}
    for name, workdir in (("run", trained.workdir), ("file", file)):
        done = small.run("evaluate", f"--workdir={workdir}", f"--out={tmp_path / name}", *flags, **environment)
        assert done.returncode == 0, done.stderr
    run, found = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("run", "file"))
    assert run == found and run["energy"] and len(run["values"]) > 4


def test_a_file_that_is_there_is_replaced(small, trained, file, tmp_path):
    out = tmp_path / "small.safetensors"
    out.write_bytes(b"older")
    done = small.run("export", f"--workdir={file}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == file.read_bytes()
    done = small.run("export", f"--workdir={trained.workdir}", f"--out={out}", "--weights=raw", "--dtype=bfloat16")
    assert done.returncode == 0 and "raw weights of step 4" in done.stderr
    assert out.stat().st_size < file.stat().st_size and [path.name for path in tmp_path.iterdir()] == [out.name]


def mistaken(done, *words):
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


EXPORTING = {
    "no checkpoint": (("--workdir={unsaved}",), ("unsaved: holds no checkpoints yet",)),
    "suffix": (("--out={tmp}/new/small.npz",), ("--out: found", "small.npz, must be a .safetensors file")),
    "a folder": (("--out={tmp}/folder.safetensors",), ("--out: found", "folder.safetensors, must be a .safetensors file")),
    "dtype": (("--dtype=float64",), ("dtype", "float64", "float32", "bfloat16", "float16")),
    "a folder that nobody can write": (("--out=/proc/small.safetensors",), ("/proc: the folder cannot be written",)),
}


@pytest.mark.parametrize("mistake", EXPORTING)
def test_a_mistake_in_exporting_is_one_line_and_writes_nothing(small, trained, tmp_path, mistake):
    if mistake.startswith("a folder that") and not Path("/proc").is_dir():
        pytest.skip("needs a folder that nobody can write")
    flags, words = EXPORTING[mistake]
    for name in ("unsaved", "folder.safetensors"):
        (tmp_path / name).mkdir()
    shutil.copy(trained.workdir / "config.json", tmp_path / "unsaved")
    places = {"tmp": tmp_path, "unsaved": tmp_path / "unsaved"}
    before = sorted(tmp_path.rglob("*"))
    default = (f"--workdir={trained.workdir}", f"--out={tmp_path / 'new' / 'small.safetensors'}")
    mistaken(small.run("export", *default, *(flag.format(**places) for flag in flags)), *words)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "verb, flags, words",
    [
        ("sample", ("--workdir=pretrained:unknown", "--out={tmp}/out"), "pretrained:unknown: not shipped, allowed are "),
        ("sample", ("--workdir={tmp}/gone.safetensors", "--out={tmp}/out"), "gone.safetensors: no such file"),
        ("sample", ("--workdir={tmp}/cut.safetensors", "--out={tmp}/out"), "cut.safetensors: damaged or not safetensors"),
        ("evaluate", ("--workdir=pretrained:unknown",), "pretrained:unknown: not shipped, allowed are "),
        ("evaluate", ("--workdir={file}",), "small.safetensors is not a run folder to write into"),
        ("evaluate", ("--workdir={file}", "--out={tmp}/out", "--reference=mnist"), "--data_dir: empty; set it to the folder"),
    ],
)
def test_a_mistake_in_using_a_file_is_one_line_and_writes_nothing(small, file, tmp_path, verb, flags, words):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-5])
    mistaken(small.run(verb, *(flag.format(tmp=tmp_path, file=file) for flag in flags)), words)
    assert list(tmp_path.iterdir()) == [cut] and [path.name for path in file.parent.iterdir()] == [file.name]
