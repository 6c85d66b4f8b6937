"""The console command: its overview, the help of every verb, and unknown verbs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sdit_jax
from sdit_jax import files
from sdit_jax.commands import command_line
from sdit_jax.data import sources
from sdit_jax.errors import InputError, NoSuchSplit, data_fields_named

# Flags that the help of a verb must explain.
SHOWN = {
    "train": ("config", "workdir", "dry_run"),
    "sample": ("workdir", "sampler", "guidance", "calls"),
    "animate": ("out", "layers"),
    "evaluate": ("workdir", "samples", "inception"),
    "gallery": ("workdir", "sampler", "classifier"),
    "tune": ("calls", "evaluations"),
    "verify": (),
    "export": ("workdir", "dtype"),
    "import_release": ("checkpoint",),
    "prepare": ("archives",),
    "fit_classifier": ("widths",),
    "plan": ("chip", "slices"),
    "sweep": ("list", "index", "results"),
    "curves": ("scalars",),
    "compare": ("evaluations", "distance"),
    "scaling": ("resamples",),
    "bench": ("what",),
}
FAST = ("train", "sample")


def test_the_overview_explains_every_verb_in_a_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sdit"])
    command_line.main()
    _, _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SHOWN)
    assert all(re.fullmatch(r"\w+ +[A-Z].*\.", line) and len(line) < 100 for line in lines)


def test_the_version_is_that_of_the_package(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sdit", "--version"])
    command_line.main()
    assert capsys.readouterr().out == f"sdit_jax {sdit_jax.__version__}\n"


def test_an_unknown_verb_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sdit", "trian", "--workdir=x"])
    with pytest.raises(SystemExit) as stop:
        command_line.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("error: command: found 'trian', allowed are train, sample, ")


@pytest.mark.parametrize(
    "name, split, kind, message",
    [
        ("mnist", "train", InputError, "--data_dir: empty; set it to the folder that holds the original files of mnist"),
        ("minst", "train", InputError, f"--reference: found 'minst', allowed are {sources.ALLOWED}"),
        ("digits", "valid", NoSuchSplit, "config.data.split: found 'valid', digits has train, test"),
    ],
)
def test_an_error_in_a_field_of_the_data_names_the_flag_that_holds_it(name, split, kind, message):
    with pytest.raises(kind) as error, data_fields_named(name="--reference", dir="--data_dir"):
        sources.load(name, split, "")
    assert str(error.value) == message


@pytest.mark.parametrize(
    "arguments, field",
    [
        (("train", "--config=digits:tiny", "--workdir=s3://bucket/run"), "--workdir"),
        (("sample", "--workdir=pretrained:mnist", "--out=s3://bucket/samples"), "--out"),
        (("verify", "s3://bucket/run"), "folder"),
        (("prepare", "mnist", "--out=gs://bucket/data"), "--out"),
        (("import_release", "--checkpoint=gs://bucket/release.pt", "--workdir=run"), "--checkpoint"),
        (("fit_classifier", "--data=digits", "--out=gs://bucket/digits.npz"), "--out"),
    ],
)
def test_an_address_where_nothing_can_be_is_refused(small, tmp_path, arguments, field):
    done = small.run(*arguments, preset=False, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert re.match(rf"error: {field}: found '(gs|s3)://bucket/.*', must be a path", done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, place", [("folder", "gs://b/pictures"), ("tfds:mnist", "gs://b/data"), ("mnist", "s3://b/mnist")]
)
def test_data_that_cannot_be_read_from_there_are_refused(name, place):
    with pytest.raises(InputError, match=f"^config.data.dir: found '{place}', must be a path"):
        sources.open_source(name, "train", place)


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^--out: found 'gs://b/x', which needs the gcs extra: pip install 'sdit_jax\[gcs\]'"):
        files.as_path("gs://b/x", "--out")


def test_an_address_is_refused_from_python_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="folder: found 'gs:/bucket/run', must be a path"):
        files.make_folder(Path("gs://bucket/run"))
    assert not list(tmp_path.iterdir())


def test_the_installed_command_prints_the_overview():
    console = shutil.which("sdit", path=Path(sys.executable).parent)
    if console is None:
        pytest.skip("the package is not installed")
    done = subprocess.run([console], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, command_line.overview() + "\n")


@pytest.mark.parametrize("verb", [verb if verb in FAST else pytest.param(verb, marks=pytest.mark.slow) for verb in SHOWN])
def test_help_shows_examples_and_flags(small, verb):
    done = small.run(verb, "--help", preset=False, forked=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"    sdit {verb} " in done.stdout
    for flag in SHOWN[verb]:
        assert re.search(rf"^ +--(\[no\])?{flag}: \S", done.stdout, flags=re.M), flag
