"""The sweep command: list, one run by index, all runs, a second time; and errors before anything is trained."""

import json
import os

import pytest

from sdit_jax.errors import InputError, TrainingFailed
from sdit_jax.training import sweep

pytestmark = pytest.mark.filterwarnings("ignore")
FILE = """
import importlib.util

def get_config(arg=None):
    spec = importlib.util.spec_from_file_location("digits", {digits!r})
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("tiny")
    config.update_from_flattened_dict({small!r})
    return config

def sweep(arg=None):
    {body}
"""
# The first and the last run share the compiled program of the smallest configuration.
THREE = 'yield from ({"duration": "2 steps"}, {"optimizer.learning_rate": 1e30, "data.flip": True}, {"data.flip": True})'
NAMES = ["000-duration=2_steps", "001-optimizer.learning_rate=1e+30,data.flip=True", "002-data.flip=True"]


@pytest.fixture
def config_file(small, tmp_path):
    """write(body): a config file over the smallest configuration, with that body of sweep()."""

    def write(body):
        fields = small.config().to_dict()
        changed = {f"{group}.{name}": value for group in ("model", "optimizer", "ema", "log", "samples", "checkpoint")
            for name, value in fields[group].items()}  # fmt: skip
        text = FILE.format(digits=str(small.root / "configs/digits.py"), small=changed | {"duration": "4 steps"}, body=body)
        (tmp_path / "many.py").write_text(text)
        return tmp_path / "many.py"

    return write


@pytest.mark.slow
def test_a_sweep_is_listed_trained_and_skipped_and_a_failed_run_is_named(small, config_file, tmp_path):
    flags = (f"--config={config_file(THREE)}", f"--workdir={tmp_path / 'runs'}")
    done = small.run("sweep", *flags, "--list")
    assert (done.returncode, done.stdout) == (0, "".join(f"{i} {name}\n" for i, name in enumerate(NAMES)))
    assert not (tmp_path / "runs").exists()

    done = small.run("sweep", *flags, "--index=2")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "runs") == [NAMES[2]]
    config = json.loads((tmp_path / "runs" / NAMES[2] / "config.json").read_text())
    assert config == small.config(data__flip=True).to_dict()
    picture = tmp_path / "runs" / NAMES[2] / "samples" / "00000004.png"
    drawn = picture.stat().st_mtime_ns

    done = small.run("sweep", *flags, "--run")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"run 1 of 3: {NAMES[0]}" in done.stderr and f"run 3 of 3 is finished: {NAMES[2]}" in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: 1 of 3 runs failed: {NAMES[1]}: step 2: loss term 'mse' is nan")
    assert picture.stat().st_mtime_ns == drawn
    assert (tmp_path / "runs" / NAMES[0] / "checkpoints" / "2").is_dir()

    done = small.run("sweep", *flags, f"--results={tmp_path / 'out' / 'all.json'}", "--scalars=loss,mse")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "all.json").read_text())
    assert [(one["run"], one["step"], one["of"]) for one in found] == [(NAMES[0], 2, 2), (NAMES[1], 1, 4), (NAMES[2], 4, 4)]
    assert found[2]["overrides"] == {"data.flip": True}
    written = (tmp_path / "runs" / NAMES[2] / "metrics.jsonl").read_text().splitlines()
    assert found[2]["scalars"] | {"step": 4} == json.loads(written[-1])
    (tmp_path / "runs" / NAMES[2] / "metrics.jsonl").write_text("\n".join([*written, '{"step": 5, "lo']))  # Truncated.
    assert small.run("sweep", *flags, f"--results={tmp_path / 'out' / 'all.json'}").returncode == 0
    assert json.loads((tmp_path / "out" / "all.json").read_text()) == found
    refused = small.run("sweep", *flags, f"--results={tmp_path / 'out'}")
    assert refused.returncode == 2 and "which is a folder" in refused.stderr

    header, _, first, cut, _, path = done.stdout.strip().splitlines()
    assert header == "| run | loss | mse |" and path == str(tmp_path / "out" / "all.json")
    assert first == f"| {NAMES[0]} | " + " | ".join([f"{found[0]['scalars']['loss']:.4g}"] * 2) + " |"
    assert cut.startswith(f"| {NAMES[1]} (step 1 of 4) | ")  # The second step failed.


MISTAKES = {
    "unknown field": ('yield {"seed": 1}\n    yield {"model.widht": 8}', ("many.py", "run 1", "config.model.widht", "unknown")),
    "unknown group": ('yield {"modell.width": 8}', ("run 0", "config.modell", "unknown")),
    "field inside of a value": ('yield {"model.width.x": 8}', ("run 0", "config.model.width", "no group")),
    "wrong type": ('yield {"seed": 1}\n    yield {"batch_size": "many"}', ("run 1", "config.batch_size", "many", "int")),
    "out of range": ('yield {"model.depth": 3}', ("run 0", "config.model.depth", "3", "even")),
    "no such schedule": ('yield {"optimizer.schedule": "step"}', ("run 0", "config.optimizer.schedule", "step", "cosine")),
    "overridden for all runs": ('yield {"model.tau": 3.0}', ("config.model.tau", "set by the sweep")),
    "no mapping": ("yield 3", ("run 0", "found 3")),
    "no name": ('yield 3, {"seed": 1}', ("run 0", "found (3, ", "a name")),
    "no runs": ("yield from ()", ("many.py", "no runs")),
    "an error of its own": ("yield 1 / 0", ("many.py", "ZeroDivisionError")),
}


def test_runs_may_be_named(small, config_file):
    file = config_file('yield "no neurons", {"seed": 3}\n    yield {"seed": 4}\n    yield "a/b", {}')
    runs = sweep.read_sweep(str(file), small.config())
    assert [run.name for run in runs] == ["000-no_neurons", "001-seed=4", "002-a_b"]
    assert [run.config.seed for run in runs] == [3, 4, small.config().seed] and runs[0].overrides == {"seed": 3}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_error_names_file_run_and_field(small, config_file, mistake):
    body, words = MISTAKES[mistake]
    with pytest.raises(InputError) as error:
        sweep.read_sweep(str(config_file(body)), small.config(), given=("model.tau",))
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--run",), ("run 1", "config.model.widht")),
        ((), ("--list, --index, --run",)),
        (("--list", "--run"), ("--list, --index, --run",)),
        (("--list", "--config.seed=4"), ("config.seed", "set by the sweep")),
    ],
)
def test_an_error_of_the_command_is_one_line_and_writes_nothing(small, config_file, tmp_path, flags, words):
    file = config_file('yield {"seed": 1}\n    yield {"model.widht": 8}')
    done = small.run("sweep", f"--config={file}", f"--workdir={tmp_path / 'runs'}", *flags)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_index_out_of_range_and_a_config_without_sweep_are_errors(small, config_file, tmp_path):
    done = small.run("sweep", f"--config={config_file(THREE)}", f"--workdir={tmp_path / 'runs'}", "--index=3")
    assert done.returncode == 2 and "--index: found 3, allowed are 0..2" in done.stderr
    done = small.run("sweep", f"--config={config_file(THREE)}", f"--workdir={tmp_path / 'runs'}", "--results=all.json")
    assert done.returncode == 2 and f"{tmp_path / 'runs'}: no run of this sweep has written anything" in done.stderr
    with pytest.raises(InputError, match="digits.py: defines no sweep"):
        sweep.read_sweep("configs/digits.py:tiny", small.config())


def test_a_typed_argument_reaches_the_sweep(small, config_file):
    file = config_file('yield {"seed": int(arg)}')
    runs = sweep.read_sweep(f"{file}:7", small.config())
    assert [(run.name, run.config.seed) for run in runs] == [("000-seed=7", 7)]


def test_a_stop_ends_the_sweep_and_a_failure_does_not(small, config_file, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    seen = []

    def train(config, workdir):
        seen.append(config.seed)
        if config.seed != 3:
            raise TrainingFailed("step 1: loss is nan") if config.seed == 1 else Stop

    monkeypatch.setattr(sweep, "train_and_evaluate", train)
    runs = sweep.read_sweep(str(config_file('yield from ({"seed": s} for s in (1, 3, 2, 3))')), small.config())
    with pytest.raises(Stop):
        sweep.train_all(runs, tmp_path)
    assert seen == [1, 3, 2]


def test_a_run_killed_before_it_wrote_its_configuration_is_trained_again(small, config_file, tmp_path, monkeypatch):
    runs, seen = sweep.read_sweep(str(config_file('yield {"seed": 5}')), small.config()), []
    (tmp_path / runs[0].name / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(sweep, "train_and_evaluate", lambda config, workdir: seen.append(config.seed))
    assert sweep.train_all(runs, tmp_path) == {} and seen == [5]


def test_a_field_inside_a_value_is_an_error_that_names_the_value(small):
    with pytest.raises(InputError, match=r"^config\.evaluation\.n\.x: unknown field; config\.evaluation\.n is no group$"):
        sweep.overridden(small.config(), {"evaluation.n.x": 1})
