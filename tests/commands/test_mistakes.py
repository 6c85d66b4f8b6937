"""Mistakes over all commands: exit code 2, at most two lines on stderr, no traceback, and nothing written."""

import json
import os

import numpy as np
import pytest

TRAIN = "train --workdir=out --config="
SAMPLE = "sample --out=out --workdir="
EVALUATE = "evaluate --out=out --noyardsticks --workdir="
FILE = "evaluate --out=out --samples="
TINY = f"{TRAIN}digits:tiny "
WEIGHTS = "pretrained:mnist"

# (command, words of the message)
MISTAKES = [
    # Configurations.
    (f"{TRAIN}number.py", "config: found 3, get_config must return a ConfigDict"),
    (f"{TRAIN}nothing.py", "config: found None"),
    (f"{TRAIN}without.py", "get_config"),
    (f"{TRAIN}syntax.py", "expected ':'"),
    (f"{TRAIN}raises.py", "no such thing"),
    (f"{TRAIN}neighbour.py", "gone_small.py"),
    (f"{TRAIN}other.py", "config.a: unknown field"),
    (f"{TRAIN}gone.py", "--config: no such file gone.py"),
    (f"{TRAIN}digit", "--config: found 'digit', allowed are"),
    (f"{TRAIN}digits:huge", "config argument 'huge'"),
    (f"{TRAIN}digits:tiny=maybe", "config argument 'tiny': found 'maybe'"),
    ("train --workdir=out", "--config: missing"),
    ("train --config=digits:tiny", "--workdir: missing"),
    # Fields.
    (f"{TINY}--config.batch_size=abc", "--config.batch_size: found 'abc', must be an integer"),
    (f"{TINY}--config.batch_size=0", "config.batch_size: found 0"),
    (f"{TINY}--config.batch_size=-3", "config.batch_size: found -3"),
    (f"{TINY}--config.batch_size=1.5", "--config.batch_size: found '1.5', must be an integer"),
    (f"{TINY}--config.optimizer.learning_rate=fast", "--config.optimizer.learning_rate: found 'fast', must be a number"),
    (f"{TINY}--config.optimizer.learning_rate=nan", "config.optimizer.learning_rate: found nan"),
    (f"{TINY}--config.optimizer.learning_rate=-1", "config.optimizer.learning_rate: found -1"),
    (f"{TINY}--config.optimizer.name=sgd", "config.optimizer.name: found 'sgd', allowed are"),
    (f"{TINY}--config.optimizer.schedule=step", "config.optimizer.schedule: found 'step'"),
    (f"{TINY}--config.model.bidirectional=maybe", "--config.model.bidirectional: found 'maybe', must be true or false"),
    (f"{TINY}--config.model.widht=3", "did you mean 'width'"),
    (f"{TINY}--config.modell.width=3", "unknown field 'modell'"),
    (f"{TINY}--config.model=3", "--config.model=3"),
    (f"{TINY}--config.model.name=unet", "config.model.name: found 'unet'"),
    (f"{TINY}--config.model.neuron=spike", "config.model.neuron: found 'spike', allowed are"),
    (f"{TINY}--config.model.depth=3", "config.model.depth: found 3"),
    (f"{TINY}--config.model.patch_size=3", "config.model.image_size: found 8, must be divisible by"),
    (f"{TINY}--config.model.tau=0", "config.model.tau: found 0"),
    (f"{TINY}--config.model.num_classes=3", "config.model.num_classes: found 3"),
    (f"{TINY}--config.duration=long", "config.duration: found 'long'"),
    (f"{TINY}--config.duration=never", "config.duration: found 'never'"),
    (f"{TINY}--config.duration=50%", "config.duration: found '50%'"),
    (f"{TINY}--config.checkpoint.keep=0", "config.checkpoint.keep: found 0"),
    (f"{TINY}--config.log.every=sometimes", "config.log.every: found 'sometimes'"),
    (f"{TINY}--config.mesh.data=3", "config.mesh"),
    (f"{TINY}--config.mesh.data=0", "config.mesh.data: found 0"),
    (f"{TINY}--config.microbatches=5", "config.microbatches"),
    (f"{TINY}--config.profile=105:100", "config.profile: found '105:100', must be the first and the last step, as in"),
    (f"{TINY}--config.profile=100:105", "config.profile: found '100:105', must end by step 20, the last"),
    (f"{TINY}--config.seed=-1", "config.seed: found -1"),
    (f"{TINY}--config.spike_penalty=-1", "config.spike_penalty: found -1"),
    (f"{TINY}--config.ema.half_life=inf", "config.ema.half_life: found inf"),
    (f"{TINY}--config.diffusion.schedule=cubic", "config.diffusion.schedule: found 'cubic'"),
    (f"{TINY}--config.diffusion.prediction=x1", "config.diffusion.prediction: found 'x1'"),
    (f"{TINY}--config.diffusion.loss=l1", "config.diffusion.loss: found 'l1'"),
    (f"{TINY}--config.samples.sampler=rk45", "config.samples.sampler: found 'rk45'"),
    (f"{TINY}--config.samples.steps=100000", "config.samples.steps: found 100000"),
    (f"{TINY}--config.evaluation.every=1 --config.evaluation.names=fvd", "config.evaluation.names: found 'fvd'"),
    (f"{TINY}--config.init=nowhere", "nowhere: no such run folder"),
    (f"{TINY}--config.init={WEIGHTS}", "config.init: pretrained:mnist differs in"),
    # Data.
    (f"{TINY}--config.data.name=minst", "config.data.name: found 'minst'"),
    (f"{TINY}--config.data.name=mnist", "config.data.dir: empty"),
    (f"{TINY}--config.data.name=mnist --config.data.dir=gone", "gone"),
    (f"{TINY}--config.data.name=folder:gone", "gone"),
    (f"{TINY}--config.data.name=npz:text.npz", "text.npz"),
    (f"{TINY}--config.data.split=dev", "config.data.split: found 'dev'"),
    (f"{TINY}--config.data.resize=sinc", "config.data.resize: found 'sinc'"),
    # Trained networks.
    (f"{SAMPLE}gone", "gone: no such run folder"),
    (f"{SAMPLE}gone --process=1", "--process: found 1, needs a --coordinator"),
    ("evaluate --workdir=gone --coordinator=localhost:1 --processes=2 --process=2", "--process: found 2, allowed are 0..1"),
    (f"{SAMPLE}.", "not a run folder"),
    (f"{SAMPLE}pretrained:mnits", "pretrained:mnits: not shipped"),
    (f"{SAMPLE}gone.safetensors", "gone.safetensors: no such file"),
    (f"{SAMPLE}text.safetensors", "text.safetensors: damaged"),
    (f"{SAMPLE}s3://bucket/run", "--workdir: found 's3://bucket/run', must be a path"),
    (f"{SAMPLE}{WEIGHTS} --labels=x", "--labels: found 'x'"),
    (f"{SAMPLE}{WEIGHTS} --labels=10", "--labels: found '10'"),
    (f"{SAMPLE}{WEIGHTS} --n=abc", "--n: found 'abc', must be an integer"),
    (f"{SAMPLE}{WEIGHTS} --n=0", "n"),
    (f"{SAMPLE}{WEIGHTS} --steps=0", "--steps: found 0"),
    (f"{SAMPLE}{WEIGHTS} --sampler=rk45", "--sampler: found 'rk45'"),
    (f"{SAMPLE}{WEIGHTS} --guidance=inf", "--guidance: found inf"),
    (f"{SAMPLE}{WEIGHTS} --guidance=strong", "--guidance: found 'strong', must be a number"),
    (f"{SAMPLE}{WEIGHTS} --weights=raw", "--weights: found 'raw'"),
    (f"{SAMPLE}{WEIGHTS} --step=7", "--step: found 7"),
    (f"{SAMPLE}{WEIGHTS} --seed=-1", "seed"),
    (f"{SAMPLE}{WEIGHTS} --colour=red", "colour"),
    (f"{SAMPLE}{WEIGHTS} more", "more: unexpected argument"),
    (f"sample --workdir={WEIGHTS} --out=text.npz", "text.npz: the folder cannot be written"),
    (f"{EVALUATE}{WEIGHTS}", "--data_dir"),
    (f"{EVALUATE}{WEIGHTS} --samples=a.npz", "--workdir, --samples: set exactly one"),
    (f"{FILE}gone.npz --reference=digits", "gone.npz"),
    (f"{FILE}text.npz --reference=digits", "text.npz"),
    (f"{FILE}floats.npz --reference=digits", "floats.npz: found arr_0 of float64"),
    (f"export --workdir={WEIGHTS} --out=out.pt", "--out: found out.pt"),
    (f"export --workdir={WEIGHTS} --out=out.safetensors --dtype=int8", "int8"),
    (f"animate --workdir={WEIGHTS} --out=out.mp4", "--out: found out.mp4"),
    (f"animate --workdir={WEIGHTS} --out=out.png --label=11", "--label: found 11"),
    ("verify", "missing"),
    ("verify gone", "gone: not a run folder"),
    # Others.
    ("import_release --checkpoint=gone.pt --workdir=out", "gone.pt: no such file"),
    ("import_release --checkpoint=text.npz --workdir=out", "text.npz"),
    ("fit_classifier --data=minst --out=out.npz", "'minst'"),
    ("plan --config=digits:tiny --chip=v9", "--chip: found 'v9'"),
    ("plan --config=digits:tiny", "--chip: missing"),
    ("sweep --config=digits:tiny --workdir=out --run", "sweep"),
    ("curves gone --out=out", "gone"),
    ("scaling gone --out=out", "gone"),
    ("bench --what=speed --out=out.json", "--what: found 'speed'"),
    ("trane --workdir=out", "command: found 'trane', allowed are"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that mistakes name."""
    folder = tmp_path_factory.mktemp("mistakes")
    configs = {
        "number": "def get_config(arg=None):\n    return 3\n", "nothing": "def get_config(arg=None):\n    return None\n",
        "without": "x = 1\n", "syntax": "def get_config(arg=None)\n",
        "raises": "def get_config(arg=None):\n    raise KeyError('no such thing')\n",
        "neighbour": "import runpy\ndef get_config(arg=None):\n    return runpy.run_path('gone_small.py')['get_config']()\n",
        "other": "import ml_collections\ndef get_config(arg=None):\n    return ml_collections.ConfigDict({'a': 1})\n",
    }  # fmt: skip
    for name, text in configs.items():
        (folder / f"{name}.py").write_text(text)
    for name in ("text.npz", "text.safetensors"):
        (folder / name).write_text("text")
    np.savez(folder / "floats.npz", np.zeros((3, 8, 8, 1)))
    return folder


@pytest.mark.parametrize("command, words", MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_a_line_and_writes_nothing(small, folder, command, words):
    before = sorted(os.listdir(folder))
    verb, *flags = command.split(" ")
    done = small.run(verb, *flags, preset=False, folder=folder)
    assert done.returncode == 2, done.stderr + done.stdout
    assert done.stderr.count("\n") <= 2 and "Traceback" not in done.stderr and words in done.stderr, done.stderr
    assert sorted(os.listdir(folder)) == before


def test_a_platform_without_a_device_is_named(small, tmp_path):
    flags = (f"--workdir={WEIGHTS}", f"--out={tmp_path / 'out'}")
    done = small.run("sample", *flags, preset=False, forked=False, JAX_PLATFORMS="cuda")
    assert done.returncode == 2 and done.stderr == "error: JAX_PLATFORMS: found 'cuda', for which JAX finds no device here\n"


def test_what_the_file_system_says_is_a_line(small, trained, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(trained.config.to_dict()))
    (tmp_path / "config.json").rename(tmp_path / "kept")
    (tmp_path / "config.json").symlink_to("config.json")  # A loop, which also the superuser cannot read.
    done = small.run("verify", tmp_path, preset=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
