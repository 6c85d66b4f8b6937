"""`sdit verify` names what is damaged and says what the run can still be used for."""

import shutil

import pytest

from sdit_jax import hashes
from sdit_jax.errors import InputError
from sdit_jax.sampling.verify import verify


@pytest.fixture
def workdir(trained, tmp_path):
    shutil.copytree(trained.workdir, tmp_path / "run")
    return tmp_path / "run"


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path, missing=20):
    path.write_bytes(path.read_bytes()[:-missing])


def damaged(workdir):
    return {finding.part: finding.found for finding in verify(workdir).findings if not finding.sound}


def test_a_finished_run_is_whole(workdir):
    found = verify(workdir)
    assert found.sound and found.use == "can be resumed, sampled and evaluated from step 4"
    parts = {finding.part: finding.found for finding in found.findings}
    assert parts["checkpoints/4"] == parts["checkpoints/2"] == "its files match their hashes"
    assert {"config.json", "metrics.jsonl", "samples/00000004.png"} <= parts.keys()


@pytest.mark.parametrize(
    "damage, part, words, use",
    [
        (lambda run: spoil(next((run / "checkpoints/4/params").rglob("manifest.ocdbt"))), "checkpoints/4", "damaged: params/",
         "can be resumed, sampled and evaluated from step 2"),
        (lambda run: shutil.rmtree(run / "checkpoints/4/ema"), "checkpoints/4", "is missing", "from step 2"),
        (lambda run: cut(run / "metrics.jsonl"), "metrics.jsonl", "damaged: line 4 is not JSON", "from step 4"),
        (lambda run: cut(run / "samples/00000004.png", 200), "samples/00000004.png", "damaged", "from step 4"),
        (lambda run: cut(run / "config.json"), "config.json", "damaged, not JSON", "cannot be used"),
    ],
    ids=["flipped bit", "missing files", "records", "picture", "configuration"],
)  # fmt: skip
def test_damage_is_named(workdir, damage, part, words, use):
    damage(workdir)
    found = damaged(workdir)
    assert found.keys() == {part} and words in found[part] and use in verify(workdir).use


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(workdir, monkeypatch):
    def refuse(folder, *_):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(hashes, "check", refuse)
    assert damaged(workdir) == {f"checkpoints/{step}": "cannot be read (Permission denied)" for step in (2, 4)}


def test_old_checkpoints_and_imported_weights(workdir):
    for step in (2, 4):
        (workdir / f"checkpoints/{step}/sha256.json").unlink()
        shutil.rmtree(workdir / f"checkpoints/{step}/optimizer")
    found = verify(workdir)
    assert found.sound and "holds weights only" in found.use
    assert {"it has no hashes, and was not checked"} == {f.found for f in found.findings if f.part.startswith("checkpoints/")}


def test_the_command_prints_it_and_exits_with_1_for_damage(small, workdir):
    done = small.run("verify", workdir, preset=False)
    assert done.returncode == 0 and done.stdout.endswith(f"{workdir} can be resumed, sampled and evaluated from step 4\n")
    cut(workdir / "metrics.jsonl")
    done = small.run("verify", workdir, preset=False)
    assert done.returncode == 1 and "DAMAGED metrics.jsonl" in done.stdout and done.stderr == ""
    assert small.run("verify", workdir.parent, preset=False).returncode == 2


def test_weights_in_a_file():
    found = verify("pretrained:mnist")
    assert found.sound and found.findings[0].found == "ema weights of step 4,062"
    with pytest.raises(InputError, match="not a run folder"):
        verify("nowhere")
