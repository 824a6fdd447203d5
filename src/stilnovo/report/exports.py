"""What a page offers to download, and how a command takes the same out of the page: tables as text, figures as SVG.

Tables are written in every format when the page is made, and lie in it as JSON, so that the page's script and
`stilnovo report` give the same files. A figure stands alone: its own style sheet, in the light colours, is a part of it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError, reported
from stilnovo.report.paper import FORMATS, PaperTable

BLOCK = "exports"
_STYLE = Path(__file__).with_name("templates") / "style.css"
_FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
_SVG = re.compile(r'<svg [^>]*class="chart"[^>]*aria-labelledby="([^" ]+)-title[^>]*>.*?</svg>', re.DOTALL)
_WIDE = "-736"  # of the two widths in which a chart is drawn


@dataclass(frozen=True)
class PageExports:
    """What a page holds: tables by section and format, and whole SVG files by name."""

    tables: dict[str, dict[str, str]]
    figures: dict[str, str]


def exports_block(tables: Sequence[PaperTable]) -> str:
    """The JSON for a page's script, which an attribute of the page holds."""
    content: dict[str, Any] = {"tables": {table.key: table.texts() for table in tables}, "css": chart_style()}
    return json.dumps(content, ensure_ascii=False)


def read_exports(page: str) -> PageExports:
    """Take tables and figures out of a page.

    Raises:
        InputError: the page was made by a version that did not offer them.
    """
    found = re.search(rf'<div id="{BLOCK}" data-content="([^"]*)"', page)
    if found is None:
        raise InputError(
            "The page offers nothing to take out.", "An older version made it, or it is no page of a run.",
            "Make it again with the command that wrote it.",
        )  # fmt: skip
    with reported("The page is damaged.", errors=(ValueError, KeyError, TypeError, AttributeError, RecursionError)):
        content = json.loads(html.unescape(found[1]))
        figures = {
            key.removesuffix(_WIDE): standalone(svg, content["css"])
            for key, svg in ((match[1], match[0]) for match in _SVG.finditer(page))
            if key.endswith(_WIDE)
        }
        tables = {key: {form: str(texts[form]) for form in FORMATS} for key, texts in content["tables"].items()}
        if strange := [key for key in (*tables, *figures) if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key)]:
            raise ValueError(f"{strange[0]!r} is no name of a table or figure")
    return PageExports(tables, figures)


def standalone(svg: str, css: str) -> str:
    """An `<svg>` element of a page as a file of its own, on white."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    width, height = (box[1], box[2]) if box else ("736", "400")
    opened = svg.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" ', 1)
    head, sign, rest = opened.partition(">")
    ground = f'<style>{css}</style><rect width="{width}" height="{height}" fill="#fff"/>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}{sign}{ground}{rest}\n'


@cache
def chart_style() -> str:
    """The charts' part of the style sheet with its colours written out, since few programs know CSS variables."""
    text = _STYLE.read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+):\s*([^;}]+)[;}]", text[: text.index("@media")]))
    rules = re.findall(r"^((?:svg)?\.chart[^{]*)\{([^}]*)\}", text, re.MULTILINE)
    lines = []
    for selector, body in rules:
        if re.match(r"\s*--(curve):", body) or ":hover" in selector:
            continue
        for name in [f"curve-{index}" for index in range(6)] if re.search(r"--(curve)\)", body) else [""]:
            known = colours | ({"curve": colours[name]} if name else {})
            where = f"{selector.strip()}{f'.{name}' if name else ''}"
            lines.append(f"{where}{{{_written_out(body, known).strip()}}}")
    return "".join(lines)


def _written_out(body: str, colours: Mapping[str, str]) -> str:
    known = {**colours, "sans": _FONT}
    fixed = re.sub(r"(?<![\w-])(?:display|width|height): [^;]*;\s*", "", body)  # a file has a size of its own
    return re.sub(r"var\(--([\w-]+)\)", lambda found: known[found[1]], fixed)
