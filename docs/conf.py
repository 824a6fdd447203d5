"""Sphinx over the project's own Markdown, each file where it lies, so that every link works on a page and in the repository.

    sphinx-build -W -c docs . site        (`make site`)

Nothing is fetched: the theme brings its fonts and scripts. `-W` makes a link that leads nowhere an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

project = "stilnovo"
author = "The stilnovo authors"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "results/*.md", "bench/README.md"]
html_theme = "furo"
html_title = "stilnovo"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

CONTENTS = """

```{toctree}
:hidden:

docs/install
docs/training
docs/travel
docs/benchmarks
docs/own_benchmarks
docs/servers
docs/bundles
docs/library
docs/results
docs/cli
docs/api
docs/tour
CONTRIBUTING
bench/README
results/README
results/experiment_smollm2_2026-11-25
results/LOG
CHANGELOG
SECURITY
```
"""


def add_contents(_app: Any, name: str, source: list[str]) -> None:
    """The side bar's order, which a reader of the repository's README does without."""
    if name == root_doc:
        source[0] += CONTENTS


def add_index(app: Any, _failure: Exception | None) -> None:
    """`index.html`, which a server shows for the folder, leads to the README's page."""
    place = Path(app.outdir) / "index.html"
    place.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={root_doc}.html">\n', encoding="utf-8")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("build-finished", add_index)
    app.connect("source-read", add_contents)
