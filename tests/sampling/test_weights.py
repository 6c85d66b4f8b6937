"""Weights in a file: what comes back is what went in, and what does not fit is named."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sdit_jax.errors import InputError
from sdit_jax.sampling import weights
from sdit_jax.sampling.how import Sampling
from sdit_jax.sampling.provenance import sampling_protocol
from sdit_jax.sampling.run import open_run

pytestmark = pytest.mark.filterwarnings("ignore")
HOW: dict = {"n": 3, "sampling": Sampling("ddim", 2), "labels": "none", "seed": 0}


def write(path, run, dtype="float32", config=None):
    weights.write(path, config or run.config, run.variables, weights=run.weights, step=run.step, dtype=dtype)
    return path


@pytest.fixture(scope="module")
def run(trained):
    return open_run(trained.workdir)


@pytest.fixture
def file(run, tmp_path):
    return write(tmp_path / "small.safetensors", run)


def test_float32_comes_back_to_the_bit_with_the_same_protocol(run, trained, file):
    found = open_run(file)
    jax.tree.map(np.testing.assert_array_equal, found.variables, run.variables)
    jax.tree.map(np.testing.assert_array_equal, found.variables, trained.state.ema)
    assert found.config == run.config and (found.model, found.weights, found.step) == (run.model, "ema", 4)
    assert sampling_protocol(found, **HOW) == sampling_protocol(run, **HOW)


def test_a_file_from_before_a_field_was_there_has_its_default(run, file):
    with safe_open(file, "np") as found:
        told = found.metadata()
    older = json.loads(told["config"])
    del older["mesh"], older["model"]["token_shift"], older["diffusion"]["prediction"]
    del told["sha256"]
    save_file(load_file(file), file, told | {"config": json.dumps(older)})
    found = open_run(file)
    assert found.config.mesh == run.config.mesh and found.config.diffusion.prediction == "noise"
    assert found.model == run.model


def test_raw_weights_are_the_raw_ones(trained, tmp_path):
    found = open_run(write(tmp_path / "raw.safetensors", open_run(trained.workdir, "raw")))
    jax.tree.map(np.testing.assert_array_equal, found.variables, trained.state.variables)
    assert found.weights == "raw"


@pytest.mark.parametrize("dtype, bits", [("bfloat16", 8), ("float16", 11)])
def test_shorter_types_round_to_the_nearest(run, tmp_path, dtype, bits):
    path = write(tmp_path / "short.safetensors", run, dtype)
    assert {array.dtype.name for array in load_file(path).values()} == {dtype}
    for name, found in weights.flat(open_run(path).variables).items():
        full = np.asarray(weights.flat(run.variables)[name], np.float64)
        exponent = np.maximum(np.frexp(full)[1], -13 if dtype == "float16" else -125)  # Below, numbers are evenly spaced.
        np.testing.assert_array_equal(found, np.ldexp(np.rint(np.ldexp(full, bits - exponent)), exponent - bits))
        assert found.dtype == jnp.float32


def test_a_file_reads_as_its_docstring_says(run, file):
    with safe_open(file, "np") as found:
        told = found.metadata()
        assert set(found.keys()) == {*weights.flat(run.variables)} and "in_blocks/time_mix/key/kernel" in set(found.keys())
    varying = {"config": "", "sha256": ""}
    assert told | varying == {"format": "sdit_jax 1", "weights": "ema", "step": "4"} | varying and len(told["sha256"]) == 64
    assert json.loads(told["config"])["model"]["width"] == 8


def test_the_same_run_gives_the_same_bytes(run, file, tmp_path):
    for i in range(8):  # The library's own order of metadata changes from one call to the next.
        assert write(tmp_path / f"{i}.safetensors", run).read_bytes() == file.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_no_place_of_a_machine_gets_into_a_file_and_none_counts_in_a_protocol(run, tmp_path):
    config = run.config.copy_and_resolve_references()
    config.data.name, config.data.dir = "npz:/home/me/a.npz", "/home/me/data"
    config.evaluation.classifier = config.evaluation.inception = "/home/me/weights"
    told = dataclasses.replace(run, config=config)
    path = write(tmp_path / "small.safetensors", told)
    assert b"/home/me" not in path.read_bytes() and config.data.dir == "/home/me/data"
    found = open_run(path)
    assert found.config.data.name == "npz" and found.config.data.dir == ""
    hashes = [sampling_protocol(each, **HOW)["config_sha256"] for each in (told, found, run)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert weights.without_place("tfds:mnist:3.0.1") == "tfds:mnist:3.0.1"


def test_numbers_too_large_for_a_type_are_named_and_leave_the_old_file(run, file):
    before = file.read_bytes()
    large = dataclasses.replace(run, variables=jax.tree.map(lambda leaf: leaf + 1e5, run.variables))
    with pytest.raises(InputError, match=r"dtype: found float16, in which \S+ is not finite \(up to 1e\+05\)"):
        write(file, large, "float16")
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == [file.name]


def changed(path, arrays=None, **metadata):
    """Rewrites a file with some arrays and metadata changed, those that are None left out, and without its hash."""
    with safe_open(path, "np") as file:
        told = file.metadata() | {"sha256": None} | metadata
    all_arrays = load_file(path) | (arrays or {})
    save_file(
        {name: array for name, array in all_arrays.items() if array is not None},
        path,
        {name: text for name, text in told.items() if text is not None},
    )


KERNEL = "in_blocks/time_mix/key/kernel"
FAULTS = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged or not safetensors"),
    "empty": (lambda path: path.write_bytes(b""), "damaged or not safetensors"),
    "gone": (lambda path: path.unlink(), "no such file"),
    "of another": (lambda path: save_file({"a": np.zeros(3, np.float32)}, path), "found format None, must be 'sdit_jax 1'"),
    "newer": (lambda path: changed(path, format="sdit_jax 2"), "found format 'sdit_jax 2', must be 'sdit_jax 1'"),
    "without step": (lambda path: changed(path, step=None), "damaged, found 'ema' weights of step ''"),
    "of unknown weights": (lambda path: changed(path, weights="best"), "damaged, found 'best' weights"),
    "without config": (lambda path: changed(path, config=None), "damaged, not JSON"),
    "with a dot in a name": (lambda path: changed(path, config='{"model": {"a.b": 1}}'), "config.model.a: "),
    "without model": (lambda path: changed(path, config="{}"), "damaged, not a configuration with a model"),
    "with an unknown field": (lambda path: changed(path, config='{"model": {}, "x": 1}'), "config.x: unknown field"),
    "missing": (lambda path: changed(path, {KERNEL: None}), f"{KERNEL}: missing"),
    "left over": (lambda path: changed(path, {"b": np.zeros(3)}), "b: the network has no such array"),
    "shape": (lambda path: changed(path, {KERNEL: np.zeros((3, 5), np.float32)}), rf"{KERNEL}: found float32 of \(3, 5\)"),
    "type": (lambda path: changed(path, {KERNEL: np.zeros((1, 8, 8), np.int32)}), f"{KERNEL}: found int32 of"),
    "not finite": (lambda path: changed(path, {KERNEL: load_file(path)[KERNEL] * np.nan}), f"{KERNEL}: found a number that"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_used_is_named(file, fault):
    damage, words = FAULTS[fault]
    damage(file)
    with pytest.raises(InputError, match=rf"^{file}: {words}"):
        open_run(file)


def test_no_flipped_bit_is_used(file):
    """In shipped files too, whose numbers are read before anything else is done with them."""
    rng = np.random.default_rng(0)
    for path, flips in ((file, 120), *((path, 20) for path in sorted(weights.PRETRAINED.glob("*.safetensors")))):
        sound, damaged = path.read_bytes(), file.with_name("damaged.safetensors")
        header = 8 + int.from_bytes(sound[:8], "little")
        for i in range(flips):  # Half of them in the header, which is small.
            content, place = bytearray(sound), int(rng.integers(8 * (header if i % 2 else len(sound))))
            content[place // 8] ^= 1 << place % 8
            damaged.write_bytes(content)
            with pytest.raises(InputError, match="damaged"):
                open_run(damaged)


def test_a_file_holds_one_kind_of_weights(file):
    assert open_run(file, "ema").weights == "ema"
    with pytest.raises(InputError, match="weights: found 'raw', but .*small.safetensors holds 'ema'"):
        open_run(file, "raw")
    assert open_run(file, step=4).step == 4
    with pytest.raises(InputError, match="--step: found 2, but .*small.safetensors holds 4"):
        open_run(file, step=2, prefix="--")


def test_a_step_of_a_run_is_opened(trained):
    assert open_run(trained.workdir, step=2).step == 2
    with pytest.raises(InputError, match="step: found 3, .* has the checkpoints 2, 4"):
        open_run(trained.workdir, step=3)


def test_shipped_weights_are_found_by_name(run, file, monkeypatch):
    monkeypatch.setattr(weights, "PRETRAINED", file.parent)
    jax.tree.map(np.testing.assert_array_equal, open_run("pretrained:small").variables, run.variables)
    write(file.parent / "large.safetensors", run)
    for name in ("smal", "", "../small"):
        with pytest.raises(InputError) as error:
            open_run(f"pretrained:{name}")
        assert str(error.value) == f"pretrained:{name}: not shipped, allowed are pretrained:large, pretrained:small"
    assert weights.find("pretrained") is None  # It may name a run folder.


@pytest.mark.parametrize("path", sorted(weights.PRETRAINED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_shipped_file_can_be_used(path):
    assert open_run(f"pretrained:{path.stem}").config.data.dir == ""
