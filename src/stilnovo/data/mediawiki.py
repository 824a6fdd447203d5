"""A MediaWiki XML dump as a stream of pages, and wikitext as plain text.

The dump is parsed page by page and forgotten page by page, so that memory does not grow with it. Wikitext is parsed by
mwparserfromhell: templates, tables, references, files and categories go, links and formatting leave their words, and a
heading becomes a line of its own between blank lines, as in `wikimedia/wikipedia`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from stilnovo.data.streams import open_stream
from stilnovo.errors import InputError

_DROPPED_TAGS = frozenset(
    {"ref", "references", "gallery", "table", "math", "score", "timeline", "imagemap", "syntaxhighlight"}
)
_DROPPED_LINKS = re.compile(r"(?i)^:?(file|image|immagine|categoria|category|portale|progetto|[a-z-]{2,12}):")
_BLANK_LINES = re.compile(r"\n{3,}")
_MAGIC = re.compile(r"__[A-Z]+__")


def pages(path: Path) -> Iterator[dict[str, Any]]:
    """Every page of a dump (`.xml`, `.xml.bz2`, `.xml.gz`): id, title, namespace, redirect, wikitext.

    Raises:
        InputError: when the file is no such dump, or ends before it should; it names the last whole page.
    """
    count, last = 0, ""
    try:
        with open_stream(path) as file:
            stream = ElementTree.iterparse(file, events=("start", "end"))
            root = next(stream)[1]
            if _name(root) != "mediawiki":
                raise InputError(
                    f"{path} is no MediaWiki dump.", f"Its root is <{_name(root)}>.", "Give pages-articles."
                )
            for event, element in stream:
                if event == "end" and _name(element) == "page":
                    page = _page(element)
                    count, last = count + 1, page["title"]
                    root.clear()  # the pages before this one
                    yield page
    except (ElementTree.ParseError, EOFError, OSError, ValueError) as error:
        where = f"After page {count} ({last!r}): {str(error)[:120]}" if count else str(error)[:160]
        raise InputError(f"{path} is damaged or ends too early.", where, "Fetch it again.") from error


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _page(page: ElementTree.Element) -> dict[str, Any]:
    found = {_name(child): child for child in page}
    revision = {_name(child): child for child in found["revision"]} if "revision" in found else {}

    def text(element: ElementTree.Element | None) -> str:
        return "" if element is None else element.text or ""

    return {
        "id": text(found.get("id")), "title": text(found.get("title")), "namespace": int(text(found.get("ns")) or 0),
        "redirect": "redirect" in found, "wikitext": text(revision.get("text")),
    }  # fmt: skip


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
