"""Wikitext as plain text, parsed by mwparserfromhell.

Templates, tables, references, files and categories go, links and formatting leave their words, and a heading becomes a
line of its own between blank lines, as in `wikimedia/wikipedia`.
"""

from __future__ import annotations

import re
from typing import Any

_DROPPED_TAGS = frozenset(
    {"ref", "references", "gallery", "table", "math", "score", "timeline", "imagemap", "syntaxhighlight"}
)
_DROPPED_LINKS = re.compile(r"(?i)^:?(file|image|immagine|categoria|category|portale|progetto|[a-z-]{2,12}):")
_BLANK_LINES = re.compile(r"\n{3,}")
_MAGIC = re.compile(r"__[A-Z]+__")


def plain_text(wikitext: str) -> str:
    """The words of a page of wikitext."""
    import mwparserfromhell
    from mwparserfromhell.nodes import Heading, Tag, Wikilink

    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    parts: list[str] = []
    for node in code.nodes:
        if isinstance(node, Heading):
            parts.append(f"\n\n{node.title.strip_code().strip()}\n\n")
        elif isinstance(node, Tag):
            parts.append(_tag(node))
        elif isinstance(node, Wikilink):
            parts.append(_link(node))
        else:
            parts.append(str(node.__strip__(normalize=True, collapse=True, keep_template_params=False) or ""))
    text = _MAGIC.sub("", "".join(parts)).replace("'''", "").replace("''", "")
    return _BLANK_LINES.sub("\n\n", "\n".join(line.strip() for line in text.split("\n"))).strip()


def _tag(node: Any) -> str:
    name = str(node.tag).strip().lower()
    if name in _DROPPED_TAGS:
        return ""
    if name in ("li", "dt", "dd"):  # a list's mark: its words follow as text
        return str(node.wiki_markup or "* ")
    if name in ("br", "hr"):
        return "\n"
    return plain_text(str(node.contents)) if node.contents is not None else ""


def _link(node: Any) -> str:
    title = str(node.title).strip()
    if _DROPPED_LINKS.match(title):
        return ""
    return str((node.text if node.text is not None else node.title).strip_code()).strip(":")
