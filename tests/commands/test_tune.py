"""`sdit tune`: what it finds is kept beside the weights, and drawn by --calls; errors are one line."""

import json
import shutil

import numpy as np
import pytest

from sdit_jax.sampling.run import open_run

QUICK = ("--n=70", "--evaluations=8")


@pytest.fixture(scope="module")
def tuned(small, trained, tmp_path_factory):
    """A run folder that was tuned for 1 and 3 calls."""
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    shutil.copytree(trained.workdir, workdir)
    done = small.run("tune", f"--workdir={workdir}", "--calls=1,3", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(workdir / "few_calls.json") and done.stdout.startswith(
        "1 calls: ddim1_levels999_"
    )
    return workdir


def test_calls_draw_as_the_fields_they_stand_for(small, tuned, tmp_path):
    how = json.loads((tuned / "few_calls.json").read_text())["3"]
    assert how["levels"][0] == 999 and how["sampler"] == "ddim"
    flags = [f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}" for name, value in how.items()]
    drawn = {}
    for name, given in (("few", ["--calls=3"]), ("fields", [flag for flag in flags if flag[:6] not in ("--clip", "--step")])):
        done = small.run("sample", f"--workdir={tuned}", f"--out={tmp_path / name}", "--n=6", *given)
        assert done.returncode == 0, done.stderr
        drawn[name] = dict(np.load(tmp_path / name / "samples.npz"))
    np.testing.assert_array_equal(drawn["few"]["arr_0"], drawn["fields"]["arr_0"])
    assert drawn["few"]["protocol"] == drawn["fields"]["protocol"]
    assert json.loads(str(drawn["few"]["protocol"]))["levels"] == how["levels"]


def test_a_file_keeps_what_was_found_and_tuning_adds_to_it(small, tuned, tmp_path):
    file = tmp_path / "few.safetensors"
    assert small.run("export", f"--workdir={tuned}", f"--out={file}").returncode == 0
    assert open_run(file).few_calls == open_run(tuned).few_calls
    done = small.run("tune", f"--workdir={file}", f"--out={file}", "--calls=2", *QUICK)
    assert done.returncode == 0, done.stderr
    found = open_run(file).few_calls
    assert list(found) == [1, 2, 3] and {n: found[n] for n in (1, 3)} == open_run(tuned).few_calls
    assert all(how.calls(open_run(file).objective.schedule) == calls for calls, how in found.items())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("sample --out=out --calls=5", "--calls: found 5, known are 1, 3; `sdit tune` finds more"),
        ("sample --out=out --calls=3 --steps=4", "--calls: found with --steps; it sets them"),
        ("sample --out=out --levels=3,900", "--levels: found 3,900, must descend within 999..0"),
        ("sample --out=out --levels=9x", "--levels: found '9x', must be whole numbers"),
        ("sample --out=out --sampler=ddim --churn=2", "--churn: found 2, allowed is 0..1 for ddim"),
        ("sample --out=out --sampler=heun --churn=0.5", "--churn: found 0.5, allowed is 0..0 for heun"),
        ("sample --out=out --guidance=2 --interval=500", "--interval: found 500, must be LOW,HIGH within 0..999"),
        ("tune --calls=0", "--calls: found 0, allowed are 1..32"),
        ("tune --calls=four", "--calls: found 'four', must be whole numbers"),
        ("tune --n=3", "--n: found 3 images, fd_classifier needs at least"),
        ("tune --out=few.pt", "--out: found few.pt, must be a .safetensors file"),
        ("tune --reference=mnist --data_dir=nowhere", "nowhere"),
    ],
)
def test_mistakes_are_one_line(small, tuned, tmp_path, monkeypatch, flags, words):
    verb, *rest = flags.split()
    done = small.run(verb, f"--workdir={tuned}", *rest, folder=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and words in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["[]", '{"4": 3}', '{"4": {"levels": "high"}}', "{", '{"4": {"sampler": "none"}}'])
def test_a_damaged_file_is_named(small, tuned, tmp_path, text):
    workdir = tmp_path / "run"
    shutil.copytree(tuned, workdir)
    (workdir / "few_calls.json").write_text(text)
    done = small.run("sample", f"--workdir={workdir}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 2 and "few_calls" in done.stderr and done.stderr.count("\n") == 1, done.stderr
