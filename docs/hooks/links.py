"""Links of the site: from pages to the repository's files, and from the tutorials to Colab.

GITHUB_REPOSITORY, "owner/name", as GitHub Actions sets it, says where the repository is; without it such links are plain text.
"""

import os
import posixpath
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
INSTALL = """\
try:
    import sdit_jax
except ImportError:
    %pip install --quiet git+https://github.com/{}"""


def on_page_markdown(markdown, page, files, **_):
    """Links to files that are not part of the site lead to the repository, or become their text, as code where it is a path."""
    folder = posixpath.dirname(page.file.src_uri)

    def replaced(match):
        text, target = match[1], posixpath.normpath(posixpath.join("docs", folder, match[2]))
        if files.get_file_from_path(posixpath.relpath(target, "docs")) or not (ROOT / target).exists():
            return match[0]  # A page or picture of the site; or a mistake, which the strict build reports.
        repository = os.environ.get("GITHUB_REPOSITORY")
        if repository:
            return f"[{text}](https://github.com/{repository}/blob/HEAD/{target}{match[3] or ''})"
        return f"`{text}`" if re.fullmatch(r"[\w/.]+[/.][\w/.]+", text) else text

    return LINK.sub(replaced, markdown)


def on_page_content(html, page, **_):
    """A badge on top of a tutorial opens its published copy in Colab."""
    repository, name = os.environ.get("GITHUB_REPOSITORY"), page.file.src_uri
    if not repository or not name.endswith(".ipynb"):
        return html
    address = f"https://colab.research.google.com/github/{repository}/blob/gh-pages/{name}"
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    return f'<a href="{address}"><img src="{badge}" alt="Open in Colab"></a>\n{html}'


def on_post_build(config, **_):
    """The published copies of the tutorials, whose first cell installs the package where it is missing, as on Colab."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    for path in sorted(Path(config["docs_dir"]).glob("tutorials/*.ipynb")) if repository else ():
        notebook = nbformat.read(path, 4)
        cell = nbformat.v4.new_code_cell(INSTALL.format(repository), id="install")
        notebook.cells.insert(0, cell)
        nbformat.write(notebook, Path(config["site_dir"], "tutorials", path.name))
