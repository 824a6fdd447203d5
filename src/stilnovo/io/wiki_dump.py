"""A MediaWiki XML dump as a stream of pages, parsed and forgotten page by page, so that memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from stilnovo.errors import InputError


def pages(stream: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Every page of a dump: id, title, namespace, redirect, wikitext.

    Raises:
        InputError: when the file is no such dump, or ends before it should; it names the last whole page.
    """
    count, last = 0, ""
    try:
        events = ElementTree.iterparse(stream, events=("start", "end"))
        root = next(events)[1]
        if _name(root) != "mediawiki":
            raise InputError(f"{path} is no MediaWiki dump.", f"Its root is <{_name(root)}>.", "Give pages-articles.")
        for event, element in events:
            if event == "end" and _name(element) == "page":
                page = _page(element)
                count, last = count + 1, page["title"]
                root.clear()  # the pages before this one
                yield page
    except (ElementTree.ParseError, EOFError, OSError, ValueError) as error:
        where = f"After page {count} ({last!r}): {str(error)[:120]}" if count else str(error)[:160]
        raise InputError(f"{path} is damaged or ends too early.", where, "Get it again.") from error


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _page(page: ElementTree.Element) -> dict[str, Any]:
    fields = {_name(child): child for child in page}
    revision = {_name(child): child for child in fields.get("revision", ())}

    def text(element: ElementTree.Element | None) -> str:
        return "" if element is None else element.text or ""

    return {
        "id": text(fields.get("id")), "title": text(fields.get("title")), "namespace": int(text(fields.get("ns")) or 0),
        "redirect": "redirect" in fields, "wikitext": text(revision.get("text")),
    }  # fmt: skip
