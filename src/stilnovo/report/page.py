"""Compose one self-contained HTML page from sections, with what all pages have in common.

Every text passes through Jinja's autoescaping; only the charts (escaped where they are built), the style sheet and the
page's own script enter as markup. The page also forbids itself, by a content security policy, any request and any script
but its own, so that a generated text could do nothing even if escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.table import Table
from rich.text import Text

from stilnovo.progress import counted
from stilnovo.report import numbers
from stilnovo.report.exports import exports_block
from stilnovo.report.paper import PaperTable
from stilnovo.report.plot import ends_text
from stilnovo.text.language import language

_TEMPLATES = Path(__file__).with_name("templates")
_WIDTHS = (736, 350)

#: Id (its template is `sections/<id>.html`), heading, how to read it, and whether there is anything to show.
Section = tuple[str, str, str, bool]


def compose(
    title: str,
    headline: str,
    environment: Mapping[str, Any],
    command: Sequence[str],
    sections: Sequence[Section],
    *,
    prose: str = "",
    recipe: str = "",
    facts: Sequence[tuple[str, str]] = (),
    tables: Sequence[PaperTable] = (),
    scripts: Sequence[str] = (),
    **values: object,
) -> str:
    """Compose the whole page as HTML text; write it as UTF-8. Empty sections are left out.

    Args:
        title: Of the page.
        headline: One honest sentence about what was found.
        environment: Commit, hardware, versions and date (`runlog.environment`).
        command: What the run was started with, the program first.
        sections: The page's own; those that all pages may have follow.
        prose: Name of the templates `prose/<name>-limits.html` and `prose/<name>-method.html`: what the page does not show,
            and how it was measured; every sentence is made from `values`.
        recipe: The run's recipe as YAML.
        facts: (what, value) pairs with which the run can be repeated.
        tables: What the page offers as CSV, LaTeX and Markdown, each below the section that its key names.
        scripts: Files of the templates' folder that go on from `page.js`.
        values: What the templates name.
    """
    script = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", *scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    limits, method = (  # escaped when they are rendered
        Markup(_environment().get_template(f"prose/{prose}-{part}.html").render(**values) if prose else "").strip()
        for part in ("limits", "method")
    )
    common: list[Section] = [
        ("limits", "What this does not show", "", bool(limits)),
        ("method", "How it was measured", "", bool(method)),
        ("settings", "Settings", "The recipe this run was made from.", bool(recipe)),
        ("repeat", "To reproduce it", "", bool(facts)),
        ("colophon", "Colophon", "", True),
    ]
    page = _environment().get_template("page.html").render(
        title=title, headline=headline, made={"date": "", "commit": "", "hardware": {}, "versions": {}, **environment},
        command=command_text(command), limits=limits, method=method,
        recipe=recipe.strip(), facts=facts, sections=[section for section in (*sections, *common) if section[3]],
        exports=exports_block(tables), script=script, script_hash=f"sha256-{digest}", **values,
    )  # fmt: skip
    return numbers.clean(page)


def command_text(command: Sequence[str]) -> str:
    """Format a command as it is typed, whatever the program's path."""
    return shlex.join(["stilnovo", *command[1:]])


def both_widths(draw: Callable[..., str | None], *what: object, key: str, **options: object) -> list[str | None]:
    """Draw a chart for a wide and for a narrow screen; both None where there is nothing to draw."""
    return [draw(*what, width=width, key=f"{key}-{width}", **options) for width in _WIDTHS]


def text_table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> Table:
    """Format a table for the terminal; the first column and those named in `left` are left-aligned."""
    table = Table(box=box.SIMPLE_HEAD, caption=Text(numbers.clean(caption)), caption_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 or heading in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(numbers.clean(cell)) for cell in row))
    return table


def _language_attribute(text: str) -> Markup:
    """The attribute of an element with this text: what is read aloud as Italian, since the pages are English."""
    return Markup(' lang="it"') if language(text) == "it" else Markup("")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": numbers.decimal,
        "signed": numbers.signed,
        "byte_size": numbers.byte_size,
        "p_value": numbers.p_value,
        "rate": numbers.rate,
        "duration": numbers.duration,
        "span": ends_text,
        "counted": counted,
        "lang": _language_attribute,
    }
    return environment
