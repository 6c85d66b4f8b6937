"""`sdit evaluate`: what it prints and writes, and its errors."""

import json
import socket
import subprocess

import numpy as np
import pytest

FLAGS = ("--n=70", "--steps=2", "--batch_size=40", "--noyardsticks")
PROTOCOL = (
    "n", "size", "sampler", "steps", "guidance", "labels", "seed", "weights", "ema_half_life_images", "step", "config_sha256",
    "versions",
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def test_a_run_is_evaluated_with_a_report_and_not_drawn_twice(small, trained, tmp_path, cache):
    done = small.run("evaluate", f"--workdir={trained.workdir}", f"--out={tmp_path}", *FLAGS, SDIT_JAX_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == [str(tmp_path / "evaluation.json"), str(tmp_path / "report.html")]
    assert "No layer is spike-driven" in done.stdout
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    distances = [record for record in stored["values"] if record["name"] == "fd_classifier"]
    assert [record["reference"]["split"] for record in distances] == ["train", "test"]
    assert all(set(PROTOCOL) <= set(record) for record in stored["values"])
    assert distances[0]["weights"] == "ema" and distances[0]["ema_half_life_images"] == 100 and distances[0]["step"] == 4
    assert stored["energy"]["per_image"]["forward_passes"] == 2
    neurobench = stored["neurobench"]
    assert neurobench["SynapticOperations"]["Effective_ACs"] == 0 and 0 < neurobench["ActivationSparsity"] < 1
    assert neurobench["MembraneUpdates"] == stored["energy"]["neuron_updates"] > 0 and neurobench["Footprint"] > 0
    page = (tmp_path / "report.html").read_text()
    for section in ("From noise to image", "Nearest training images", "Firing rates", "Energy", "Protocol"):
        assert section in page
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["evaluation.json", "report.html", "samples.npz"]

    # The file of samples contains their protocol, and they are not drawn again.
    file = small.run(
        "evaluate", f"--samples={tmp_path / 'samples.npz'}", "--reference=digits", "--noyardsticks", "--noreport",
        SDIT_JAX_CACHE=cache,
    )  # fmt: skip
    assert file.returncode == 0, file.stderr
    again = json.loads((tmp_path / "samples_against_digits" / "evaluation.json").read_text())
    assert [record["value"] for record in again["values"]] == [record["value"] for record in stored["values"]]
    assert again["values"][0]["step"] == 4 and again["energy"] is None
    before = (tmp_path / "samples.npz").stat().st_mtime_ns
    repeated = small.run(
        "evaluate", f"--workdir={trained.workdir}", f"--out={tmp_path}", *FLAGS, "--noreport", SDIT_JAX_CACHE=cache
    )
    assert "already drawn" in repeated.stderr and (tmp_path / "samples.npz").stat().st_mtime_ns == before

    # Results of other samples are kept.
    for command in (["sample", "--n=70", "--steps=2"], ["evaluate", *FLAGS]):
        kept = (tmp_path / "samples.npz").read_bytes(), (tmp_path / "evaluation.json").read_bytes()
        changed = [*command, f"--workdir={trained.workdir}", f"--out={tmp_path}", "--seed=1"]
        refused = small.run(*changed, SDIT_JAX_CACHE=cache)
        assert refused.returncode == 2 and refused.stderr == (
            f"error: --out: {tmp_path / 'samples.npz'} holds other results; choose another folder, or set --overwrite\n"
        )
        assert kept == ((tmp_path / "samples.npz").read_bytes(), (tmp_path / "evaluation.json").read_bytes())
    assert small.run(*changed, "--overwrite", SDIT_JAX_CACHE=cache).returncode == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["protocol"]["seed"] == 1


@pytest.mark.slow
def test_the_report_of_a_non_spiking_network_omits_its_spikes(small, tmp_path, cache):
    from sdit_jax.training.loop import train_and_evaluate

    train_and_evaluate(small.config(model__neuron="gelu"), tmp_path / "run")
    done = small.run("evaluate", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", *FLAGS, SDIT_JAX_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["energy"]["neuron_updates"] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Loss by timestep</h2>" in page and "Firing rates</h2>" not in page
    for part in ("Firing rates", "Spikes"):
        assert f"{part}: not computed (the network has no spiking neurons)" in page


@pytest.mark.slow
def test_two_processes_with_a_cache_each_evaluate_as_one(small, trained, virtual_devices, tmp_path, cache):
    """The same samples and numbers, to the bit, and process 0 alone writes; an error is one of both."""
    flags = ("evaluate", f"--workdir={trained.workdir}", "--n=70", "--steps=2", "--batch_size=35")
    alone = small.run(*flags, f"--out={tmp_path / 'one'}", SDIT_JAX_CACHE=cache)
    assert alone.returncode == 0, alone.stderr

    def both(*more):
        with socket.socket() as at:
            at.bind(("localhost", 0))
            where = f"--coordinator=localhost:{at.getsockname()[1]}", "--processes=2"
        run = [
            subprocess.Popen(
                small.command(*flags, f"--out={tmp_path / 'two'}", *where, f"--process={i}", *more), cwd=small.root, text=True,
                env=virtual_devices(1) | {"SDIT_JAX_CACHE": str(tmp_path / f"cache{i}")},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for i in range(2)
        ]  # fmt: skip
        said = [process.communicate(timeout=400) for process in run]
        return [process.returncode for process in run], said

    codes, said = both()
    assert codes == [0, 0], said
    one, two = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two"))
    assert one == two and (tmp_path / "two" / "report.html").is_file()
    drawn = [np.load(tmp_path / name / "samples.npz")["arr_0"] for name in ("one", "two")]
    np.testing.assert_array_equal(*drawn)
    assert "fd_classifier" in said[0][0] and "fd_classifier" not in said[1][0]

    codes, said = both("--seed=1")
    assert codes == [2, 2] and all("holds other results" in errors.splitlines()[-1] for _, errors in said), said


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "--workdir, --samples: set exactly one of them"),
        (("--workdir={workdir}", "--n=64"), "--n: found 64 images, fd_classifier needs at least 65"),
        (("--workdir={workdir}", "--distance=fvd"), "--distance: found 'fvd', allowed are fd_classifier, fid"),
        (("--samples={npz}",), "--reference: missing"),
        (("--samples={npz}", "--reference=digits"), "bad.npz: found arr_0 of float64 (3, 8, 8, 1), must be uint8"),
    ],
)
def test_mistakes_are_one_line(small, trained, tmp_path, cache, flags, words):
    np.savez(tmp_path / "bad.npz", np.zeros((3, 8, 8, 1)))
    names = {"workdir": trained.workdir, "npz": tmp_path / "bad.npz"}
    if flags == ("--samples={npz}",):
        np.savez(tmp_path / "bad.npz", np.zeros((3, 8, 8, 1), np.uint8))
    done = small.run("evaluate", *(flag.format(**names) for flag in flags), SDIT_JAX_CACHE=cache)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr
    assert not list(tmp_path.rglob("evaluation*")) and not (trained.workdir / "evaluation").exists()
