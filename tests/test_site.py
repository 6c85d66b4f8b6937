"""The parts of the documentation site that need no build; launch/site.sh builds it and runs the tutorials."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
LINKS = """[code](../sdit_jax/api.py) [api.py](../sdit_jax/api.py) [tests](../tests) [`a[0]`](../configs/digits.py#L3)
[page](data.md#loaders)
[none](../none.py) ![picture](mnist.png) [web](https://jax.dev) [here](#there)"""


@pytest.fixture
def rewritten():
    pytest.importorskip("nbformat")
    hook = runpy.run_path(str(ROOT / "docs" / "hooks" / "links.py"))["on_page_markdown"]
    page = SimpleNamespace(file=SimpleNamespace(src_uri="training.md"))
    files = SimpleNamespace(get_file_from_path={"data.md": 1, "mnist.png": 1}.get)
    return lambda text: hook(text, page=page, files=files)


def test_links_out_of_the_site_lead_to_the_repository(rewritten, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    address = "https://github.com/owner/name/blob/HEAD"
    first, *others = rewritten(LINKS).splitlines()
    targets = {"code": "sdit_jax/api.py", "api.py": "sdit_jax/api.py", "tests": "tests", "`a[0]`": "configs/digits.py#L3"}
    assert first == " ".join(f"[{text}]({address}/{target})" for text, target in targets.items())
    assert others == LINKS.splitlines()[1:]


def test_without_an_address_of_the_repository_they_are_text(rewritten, monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert rewritten(LINKS).splitlines()[0] == "code `api.py` tests `a[0]`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_is_listed_and_stored_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert cells[0]["cell_type"] == "markdown" and any("import sdit_jax" in "".join(cell["source"]) for cell in cells)
    assert f"tutorials/{path.name}" in (ROOT / "mkdocs.yml").read_text()


def test_a_field_is_described_by_the_comments_at_its_definition():
    comments = runpy.run_path(str(ROOT / "docs" / "hooks" / "reference.py"))["comments"]
    source = """
        # About both lines
        # of it.
        width: int = at_least(1, 8)
        config.data.name = "a # b"  # Behind it.
        config.seed = 0
        # Above,
        depth: int = 2  # and behind.
    """
    assert comments(source) == {"width": "About both lines of it.", "data.name": "Behind it.", "depth": "Above, and behind."}
