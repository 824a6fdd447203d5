"""The parts of a Word document: what the archive's relationships name, its styles, its notes, its names.

A .docx is an archive of XML files that point to each other. Elements are known by their local names, since the strict
and the transitional form of the format differ in nothing else. Styles have names in the language of whoever made them,
so that a heading is told by its outline level first, along the chain of styles that it is based on.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from typing import TYPE_CHECKING, NamedTuple

from stilnovo.errors import InputError, needs, reported
from stilnovo.reading.archive import member
from stilnovo.reading.names import Names, direct_name
from stilnovo.reading.text_builder import ApparatusKind, tag_of

if TYPE_CHECKING:
    from lxml.etree import _Element

_HEADING = re.compile(
    r"(?:heading|titolo|überschrift|titre|título|titulo|título|nagłówek|rubrik|kop|otsikko|overskrift|заголовок) ?([1-9])\b",
    re.I,
)
#: Styles without an outline level whose name says what they are, and their depth.
_NAMED = {
    "title": 0, "titolo": 0, "part": 1, "parte": 1, "part title": 1, "titolo parte": 1, "titolo di parte": 1, "chapter": 2,
    "capitolo": 2, "chapter title": 2, "titolo capitolo": 2, "titolo di capitolo": 2,
}  # fmt: skip
_KINDS: tuple[tuple[re.Pattern[str], ApparatusKind], ...] = (
    (re.compile(r"(?:toc|contents|table of contents|sommario|indice|index)(?: ?\d| heading|\Z)", re.I), "contents"),
    (re.compile(r"(?:titolo|intestazione) (?:sommario|indice)", re.I), "contents"),
    (re.compile(r"(?:caption|didascalia|legenda?|beschriftung|légende)\Z", re.I), "figure"),
    (re.compile(r"(?:(?:foot|end)note text|testo nota)", re.I), "note"),
)
_NO_NAME = re.compile(
    r"python-docx|unknown|user|utente|admin(?:istrator)?|(?:windows|microsoft office) user|word document", re.I
)


class WordStyle(NamedTuple):
    """A style: its name, its own outline level (None: says nothing), and the style that it is based on."""

    name: str
    outline: int | None
    based_on: str
    list_id: str = ""
    list_level: str = ""


def attribute_of(element: _Element | None, attribute: str = "val") -> str:
    """An attribute by its local name; empty where the element or the attribute is absent."""
    if element is None:
        return ""
    return next((str(v) for k, v in element.attrib.items() if str(k).rpartition("}")[2] == attribute), "")


def child(element: _Element | None, *path: str) -> _Element | None:
    """The first descendant along a path of local names; None where there is none."""
    for name in path:
        element = next((e for e in element if tag_of(e) == name), None) if element is not None else None
    return element


def _xml_tree(data: bytes, name: str) -> _Element:
    """Parse XML; no entity is resolved, nothing is fetched.

    Raises:
        InputError: not well-formed.
        MissingExtra: lxml is not installed.
    """
    with needs("lxml", "documents"):
        from lxml import etree
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    with reported(f"{name} is damaged.", "Take another copy.", errors=(etree.XMLSyntaxError, ValueError)):
        return etree.fromstring(data, parser)


class WordParts:
    """The parts of a document, each parsed when it is asked for; what cannot be read is named in `warnings`.

    Raises:
        InputError: there is no document in the archive.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.archive, self.name = archive, name
        self.warnings: list[str] = []
        self.members = frozenset(archive.namelist())
        main = [path for kind, path in self.relations("").values() if kind == "officeDocument" and path]
        self.main = main[0] if main else "word/document.xml"
        if self.main not in self.members:
            raise InputError(f"{name} is damaged.", f"It lacks {self.main}.", "Save it anew, or as .txt.")
        self.related = self.relations(self.main)
        self.styles = self._styles()

    def relations(self, path: str) -> dict[str, tuple[str, str]]:
        """What a part points to: identifier to the kind of relation and the path in the archive; empty path: outside."""
        folder, file = posixpath.split(path)
        root = self.tree(posixpath.join(folder, "_rels", f"{file}.rels"))
        relations = {}
        for element in root if root is not None else ():
            kind, target = attribute_of(element, "Type").rpartition("/")[2], attribute_of(element, "Target")
            inside = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            relations[attribute_of(element, "Id")] = (
                kind,
                "" if attribute_of(element, "TargetMode") == "External" else inside,
            )
        return relations

    def tree(self, path: str) -> _Element | None:
        """Parse a part; None where it is absent or, with a warning, where it cannot be read."""
        if path not in self.members:
            return None
        try:
            return _xml_tree(member(self.archive, path, self.name), f"{self.name}: {path}")
        except InputError as error:
            if path == self.main:
                raise
            self.warnings.append(f"{path} cannot be read: {error.found or error.what}")
            return None

    def parts(self, *kinds: str) -> list[_Element]:
        """The parts that the document points to by relations of these kinds, in the order of their paths."""
        paths = sorted({path for kind, path in self.related.values() if kind in kinds and path})
        return [root for root in map(self.tree, paths) if root is not None]

    def notes(self) -> dict[tuple[str, str], _Element]:
        """Footnotes, endnotes and comments by what they are and their identifier, without the rules between them."""
        return {
            (tag_of(element), attribute_of(element, "id")): element
            for root in self.parts("footnotes", "endnotes", "comments")
            for element in root
            if tag_of(element) in ("footnote", "endnote", "comment") and "eparator" not in attribute_of(element, "type")
        }

    def names(self) -> Names:
        """Title and author that the file's properties give."""
        root = next((self.tree(path) for kind, path in self.relations("").values() if kind == "core-properties"), None)
        title, author = (
            " ".join((getattr(child(root, tag), "text", "") or "").split()) for tag in ("title", "creator")
        )
        if _NO_NAME.fullmatch(title) or re.search(r"\.\w{2,5}$|^Microsoft", title):
            title = ""
        return Names(title, "" if _NO_NAME.fullmatch(author) else direct_name(author))

    def _styles(self) -> dict[str, WordStyle]:
        styles = {}
        for root in self.parts("styles"):
            for element in root:
                if tag_of(element) == "style":
                    outline = attribute_of(child(element, "pPr", "outlineLvl"))
                    styles[attribute_of(element, "styleId")] = WordStyle(
                        attribute_of(child(element, "name")),
                        int(outline) if outline.isdecimal() else None,
                        attribute_of(child(element, "basedOn")),
                        attribute_of(child(element, "pPr", "numPr", "numId")),
                        attribute_of(child(element, "pPr", "numPr", "ilvl")),
                    )
        return styles

    def _chain(self, style: str) -> list[WordStyle]:
        chain: list[WordStyle] = []
        while style and len(chain) < 20:
            chain.append(self.styles.get(style, WordStyle(style, None, "")))
            style = chain[-1].based_on
        return chain

    def level(self, properties: _Element | None) -> int | None:
        """Depth of a paragraph as a heading, 1 the outermost and 0 the work's title; None: it is no heading."""
        outlines = [attribute_of(child(properties, "outlineLvl"))]
        chain = self._chain(attribute_of(child(properties, "pStyle")))
        if outlines[0].isdecimal():
            return int(outlines[0]) + 1 if int(outlines[0]) < 9 else None
        for style in chain:
            if style.outline is not None:
                return style.outline + 1 if style.outline < 9 else None
            if match := _HEADING.match(style.name):
                return int(match.group(1))
            if style.name.lower() in _NAMED:
                return _NAMED[style.name.lower()]
        return None

    def numbered(self, properties: _Element | None) -> tuple[str, int] | None:
        """The list that a paragraph is numbered in, and how deep in it; None: it is not numbered."""
        own = child(properties, "numPr")
        chain = self._chain(attribute_of(child(properties, "pStyle")))
        list_id = attribute_of(child(own, "numId")) or next((style.list_id for style in chain if style.list_id), "")
        depth = attribute_of(child(own, "ilvl")) or next((style.list_level for style in chain if style.list_level), "0")
        return (list_id, int(depth)) if list_id not in ("", "0") and re.fullmatch("[0-8]", depth) else None

    def kind(self, properties: _Element | None) -> ApparatusKind | None:
        """What a paragraph is by its style, when that is not the author's running text."""
        names = [style.name for style in self._chain(attribute_of(child(properties, "pStyle")))]
        return next((kind for name in names for pattern, kind in _KINDS if pattern.match(name)), None)

    def marks_note(self, properties: _Element | None) -> bool:
        """Whether a run has the style of the number of a note."""
        name = " ".join(style.name for style in self._chain(attribute_of(child(properties, "rStyle"))))
        return bool(re.search(r"(?:foot|end)note (?:reference|anchor|symbol)|rimando nota", name, re.I))
