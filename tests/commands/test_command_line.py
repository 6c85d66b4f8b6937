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
    "sample": ("workdir", "sampler", "guidance"),
    "animate": ("out", "layers"),
    "evaluate": ("workdir", "samples", "inception"),
    "verify": (),
    "export": ("workdir", "dtype"),
    "import_release": ("checkpoint",),
    "prepare": ("archives",),
    "fit_classifier": ("widths",),
    "plan": ("chip", "slices"),
    "sweep": ("list", "index", "results"),
    "curves": ("scalars",),
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
    "arguments",
    [
        ("train", "--config=digits:tiny", "--workdir=gs://bucket/run"),
        ("sample", "--workdir=gs://bucket/run", "--out=samples"),
        ("sample", "--workdir=pretrained:mnist", "--out=s3://bucket/samples"),
        ("export", "--workdir=pretrained:mnist", "--out=gs://bucket/mnist.safetensors"),
    ],
)
def test_an_address_in_place_of_a_path_is_refused(small, tmp_path, arguments):
    done = small.run(*arguments, preset=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert re.match(r"error: --(workdir|out): found '(gs|s3)://bucket/.*', must be a path; mount the bucket", done.stderr)
    assert not (small.root / "gs:").exists() and not (small.root / "s3:").exists()


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
