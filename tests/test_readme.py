"""The console commands and the Python example of README and docs run and print what is shown; every link has a target."""

import ast
import functools
import importlib
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sessions():
    """(command, shown output) of every "$ sdit" line in a console block, README first; a repeated command counts once."""
    found = {}
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                found.setdefault(command, []).extend(output.splitlines())
    return found


def masked(line):
    """A line without its numbers, which depend on the machine, and without its padding."""
    return " ".join(re.sub(r"[\d.,]+", "#", line).split())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_commands_run_in_their_order_and_print_what_is_shown(tmp_path):
    for name in ("configs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert len(sessions()) >= 4
    for command, shown in sessions().items():
        program, *arguments = shlex.split(command)
        assert program == "sdit"
        done = subprocess.run(
            [sys.executable, "-m", "sdit_jax", *arguments],
            cwd=tmp_path, env=os.environ.copy(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed = {masked(line) for line in re.split(r"[\r\n]", done.stdout + done.stderr)}
        missing = [line for line in shown if line != "..." and "images/s" not in line and masked(line) not in printed]
        assert not missing, f"{command}\n{printed}"
    for flag, value in re.findall(r"--(out|workdir)=(?!pretrained:)(\S+)", " ".join(sessions())):
        assert (tmp_path / value).exists(), f"--{flag}={value}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_python_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (example,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(), re.DOTALL)
    namespace = {}
    exec(example, namespace)
    assert namespace["images"].shape == (4, 28, 28, 1) and namespace["images"].std() > 50
    assert namespace["clean"].shape == (4, 28, 28, 1) and len(namespace["spikes"]) == 20
    assert namespace["run"].config.model.width == 24 and namespace["run"].step == 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_and_file_that_a_page_names_is_there(page):
    text = page.read_text()
    names = re.findall(r"\]\((?!http)([^)#]*)", text)
    assert [name for name in names if not (page.parent / name).exists()] == []
    commands = re.findall(r"(?<![\w/])(?:configs|launch)/\w+\.\w+", text)
    assert [name for name in commands if not (ROOT / name).exists()] == []
    code = re.findall(r"`((?:\w+/)*[a-z_]+\.py)`", text)
    assert [name for name in code if not ((ROOT / name).exists() or (ROOT / "sdit_jax" / name).exists())] == []
    assert re.findall(r"@\w+@|TODO|FIXME|XXX", text) == []


def is_in_the_package(name):
    """Whether a dotted name below sdit_jax is a module, or something in one."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        with suppress(ModuleNotFoundError):
            found = importlib.import_module(".".join(["sdit_jax", *parts[:i]]))
            return functools.reduce(lambda value, part: getattr(value, part, None), parts[i:], found) is not None
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_functions_that_a_page_names_are_in_the_package(page):
    from sdit_jax.config import default_config, flattened

    fields = flattened(default_config({}))
    rooms = {path.stem for path in (ROOT / "sdit_jax").iterdir()} - {"config"}  # Its fields: below.
    named = re.findall(r"`(?:sdit_jax\.)?([a-z_]+(?:\.\w+)+)(?:\([^`]*\))?`", page.read_text())
    named = [name for name in named if name.split(".")[0] in rooms and not name.endswith((".py", ".json", ".jsonl", ".html"))]
    assert [name for name in named if name not in fields and not is_in_the_package(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_a_page_shows_can_be_parsed(page):
    for example in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        ast.parse(example)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_heading_that_a_page_links_to_is_there(page):
    for name, anchor in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", page.read_text()):
        headings = re.findall(r"^#+ (.*)$", (page.parent / name if name else page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_fields_that_a_page_names_are_in_the_configuration(page):
    from sdit_jax.config import default_config, flattened
    from sdit_jax.models import preset

    known = flattened(default_config(preset("small")))
    groups = {name.rsplit(".", 1)[0] for name in known if "." in name}
    for name in re.findall(r"(?<![\w/.])(?:--)?config\.((?:\w+\.)*\w+)", page.read_text()):
        assert name in known or name in groups or name in ("json", "py", "RENAMED", "FIELD"), name


def test_the_readme_is_short_and_lists_every_page():
    text = PAGES[0].read_text()
    assert len(text.splitlines()) <= 170
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in text] == []
