"""What works without a clone: the names of the shipped configs, and a wheel that holds all that the commands need."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import sdit_jax
from sdit_jax import config
from sdit_jax.errors import InputError
from sdit_jax.training.sweep import read_sweep

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
BUILD = ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")

TO_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


def run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source archive of a copy, so that nothing is written into the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    source, out = folder / "source", folder / "out"
    for room in ("sdit_jax", "configs"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILD:
        shutil.copy(ROOT / name, source)
    run("-c", TO_SDIST, out, cwd=source)
    (archive,) = out.glob("*.tar.gz")
    run("-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={out}", archive, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_the_name_of_a_shipped_config_is_its_file():
    assert list(config.shipped()) == NAMES and {"digits", "small"} <= set(NAMES)
    for name in NAMES:
        assert config.locate(name, "config") == str(ROOT / "configs" / f"{name}.py")
    assert config.locate("small:fashion_mnist,tiny=1", "config") == f"{ROOT}/configs/small.py:fashion_mnist,tiny=1"


def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits.py").write_text("")
    assert config.locate("digits.py:tiny", "config") == "digits.py:tiny"
    assert config.locate(f"{tmp_path}/digits.py", "config") == f"{tmp_path}/digits.py"
    with pytest.raises(InputError, match="^config: no such file ./digits$"):
        config.locate("./digits", "config")


def test_a_shipped_sweep_is_found_by_its_name(small):
    assert read_sweep("scaling:rates", small.config(), ())[0].config.model.width == 24
    with pytest.raises(InputError, match="^sweep: found 'scale', allowed are ablations, "):
        read_sweep("scale", small.config())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flags", [("--config=digits:tiny",), ("-config=digits:tiny",), ("--config", "digits:tiny")])
def test_a_command_takes_a_name_in_every_spelling(small, tmp_path, flags):
    done = small.run("train", *flags, f"--workdir={tmp_path}", "--config.seed=7", "--dry_run", preset=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^seed: 7$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("verb", ["train", "sweep", "plan"])
def test_an_unknown_name_is_one_line_with_all_names(small, tmp_path, verb):
    done = small.run(verb, "--config=digts:tiny", f"--workdir={tmp_path / 'run'}", preset=False)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    message = f"error: --config: found 'digts', allowed are {', '.join(NAMES)}, or a path that ends in .py"
    assert done.stderr.splitlines() == [message]


def test_the_wheel_holds_configs_weights_and_types(wheel):
    """Every file of the package, and the configs inside of it."""
    files = {path for path in (ROOT / "sdit_jax").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    wanted = {str(path.relative_to(ROOT)) for path in files} | {f"sdit_jax/configs/{name}.py" for name in NAMES}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == wanted
    assert {"sdit_jax/py.typed", "sdit_jax/pretrained/mnist.safetensors", "sdit_jax/report/page.html"} <= found


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    found = Parser().parsestr(text["METADATA"])
    assert (found["Name"], found["Version"]) == ("sdit_jax", sdit_jax.__version__)
    assert found["License-Expression"] == "Apache-2.0" and "LICENSE" in text
    assert found.get_payload() == (ROOT / "README.md").read_text()
    (link,) = found.get_all("Project-URL")
    assert link.split(", ")[1] in (ROOT / "CITATION.cff").read_text()
    assert "sdit = sdit_jax.commands.command_line:main" in text["entry_points.txt"]
    minors = re.findall(r"Python :: 3\.(\d+)", text["METADATA"])
    assert found["Requires-Python"] == f"<3.{int(minors[-1]) + 1},>=3.{minors[0]}"


def test_what_is_unpacked_from_the_wheel_reads_its_own_configs(wheel, tmp_path):
    """As an installed package does; some of the configs read others."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from sdit_jax.config import locate; import runpy; path = locate('ablations', ''); print(path)"
    code += "; print(runpy.run_path(path)['get_config']('fashion_mnist').data.name)"
    printed = run("-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path)).splitlines()
    assert printed == [str(tmp_path / "sdit_jax" / "configs" / "ablations.py"), "fashion_mnist"]


def test_the_version_is_in_one_place():
    files = [*map(ROOT.joinpath, BUILD), ROOT / "CITATION.cff", *(ROOT / "sdit_jax").rglob("*.py")]
    pattern = re.compile(rf"version[\W_]+{re.escape(sdit_jax.__version__)}\b", re.IGNORECASE)
    assert [file for file in files if pattern.search(file.read_text())] == [ROOT / "sdit_jax" / "__init__.py"]
