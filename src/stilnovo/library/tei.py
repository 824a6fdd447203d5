"""Read TEI (P4 and P5) as the Italian digital libraries write it: divisions, heads, paragraphs, lines of verse.

The parser is expat with every declaration refused: a document type with entities is an attack here, never a need.
"""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from xml.parsers import expat

from stilnovo.errors import InputError, reported
from stilnovo.library.headings import Heading, label_for, number_of
from stilnovo.library.names import Names, direct_name
from stilnovo.library.text_builder import Book, TextBuilder, tag_of

_DIVISION = re.compile(r"div\d*$")
_PART_KINDS = frozenset(["part", "parte", "group", "book", "libro", "volume", "cantica", "act", "atto"])
_BLOCKS = frozenset(
    ["p", "l", "head", "ab", "sp", "speaker", "stage", "item", "label", "lg", "quote", "opener", "closer"]
)
_LEFT_OUT = frozenset(["teiHeader", "note", "fw", "figDesc"])


def _words(element: ET.Element) -> str:
    """The running text of an element on one line, without notes and the like."""

    def pieces(inside: ET.Element) -> Iterator[str]:
        yield inside.text or ""
        for child in inside:
            yield from pieces(child) if tag_of(child) not in _LEFT_OUT else ()
            yield child.tail or ""

    return " ".join("".join(pieces(element)).split())


def _tree(data: bytes, name: str) -> ET.Element:
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")

    def refuse(*_: object) -> None:
        raise InputError(
            f"{name} declares XML entities.", "They can hide an attack.", "Remove the DOCTYPE's declarations."
        )

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    malformed = reported(
        f"{name} is not well-formed XML.", "Take another copy, or save it as .txt.", errors=expat.ExpatError
    )
    with malformed, reported(f"{name} cannot be read as XML.", "Save it as UTF-8.", errors=(ValueError, LookupError)):
        parser.Parse(data, True)
        return builder.close()


def _find(root: ET.Element, *tags: str) -> str:
    """Text of the first element reached by walking through `tags`, each a descendant of the one before."""
    here: ET.Element | None = root
    for tag in tags:
        here = next((e for e in here.iter() if tag_of(e) == tag), None) if here is not None else None
    return " ".join("".join(here.itertext()).split()) if here is not None else ""


def _names(root: ET.Element) -> Names:
    title = re.split(r"\s*[:.]\s*edizion", _find(root, "titleStmt", "title"))[0].strip(" .")
    dates = [  # those of first editions come first
        (e.get("type") != "firstEdition", int(year))
        for e in root.iter()
        if tag_of(e) == "bibl"
        for year in re.findall(r"(?<!\d)1[0-9]{3}(?!\d)", _find(e, "date"))
    ]
    return Names(title, direct_name(_find(root, "titleStmt", "author")), min(dates)[1] if dates else None)


class _Writer(TextBuilder):
    """Collect the text and the headings while walking the tree."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[Heading] = []

    def walk(self, element: ET.Element) -> None:
        """Write an element and everything below it."""
        tag = tag_of(element)
        if tag in _LEFT_OUT:
            return
        if _DIVISION.match(tag):
            self.division(element)
        elif tag != "lg" and tag in _BLOCKS and not any(tag_of(child) in _BLOCKS for child in element):
            if text := _words(element):
                self.put(text, "\n" if tag == "l" else "\n\n")
        else:
            if tag == "lg":
                self.put("", "\n")
            for child in element:
                self.walk(child)

    def division(self, element: ET.Element) -> None:
        """Write a division: its heads become one heading, the rest its body."""
        marked = list(itertools.takewhile(lambda child: tag_of(child) == "head", element))
        heads = [head for head in map(_words, marked) if head]
        if heads:
            start = self.put("\n".join(heads), "\n\n\n")
            nested = any(_DIVISION.match(tag_of(child)) for child in element)
            kind = "parte" if nested or (element.get("type") or "").lower() in _PART_KINDS else "capitolo"
            number, title = number_of(heads)
            label, title = (label_for(kind, number), title) if number and kind == "capitolo" else (heads[0], "")
            self.headings.append(Heading(start, self.length, 1 if kind == "parte" else 2, kind, number, label, title))
        for child in list(element)[len(marked) :]:
            self.walk(child)


def parse(data: bytes, name: str) -> Book:
    """Read a TEI document.

    Raises:
        InputError: not well-formed, with entity declarations, or not TEI (no `text` element).
    """
    root = _tree(data, name)
    body = next((e for e in root.iter() if tag_of(e) == "text"), None)
    if not tag_of(root).upper().startswith("TEI") or body is None:
        raise InputError(f"{name} is XML, but not TEI.", f"Its root element is <{tag_of(root)}>.", "Save it as .txt.")
    writer = _Writer()
    writer.walk(body)
    return Book(_names(root), writer.text, headings=tuple(writer.headings))
