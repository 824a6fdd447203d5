"""Take the words out of a file in the plainest way there is, to check what the readers made of it.

Unusual: this shares no code with the readers and understands next to nothing. Character data of XML by expat, of HTML
by the standard parser, of Word by its text elements, of a PDF page by page. A file becomes one string in which private
characters stand for what is not text: where a word may go on (`SOFT`, `JOIN`), and where words begin and end that a
reader may keep or drop (metadata, hidden text, navigation). Two words are apart unless nothing lies between them but
what may join them.
"""

from __future__ import annotations

import html
import io
import posixpath
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from html.entities import name2codepoint
from html.parser import HTMLParser
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import unquote
from xml.parsers import expat

from stilnovo.errors import needs

#: A word may go on here; it goes on here whatever white space says; it does go on; optional words begin; they end.
SOFT, JOIN, INSIDE, OPTIONAL, REQUIRED = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"
#: Two words are apart; they may be one; a hyphen at a line's end stands between them; they are one with a tag inside.
APART, MAY_JOIN, BROKEN, ONE = 0, 1, 2, 3

_PRIVATE = dict.fromkeys(map(ord, (SOFT, JOIN, INSIDE, OPTIONAL, REQUIRED)), "\ufffd")
_ALIKE = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
_ALIKE |= dict.fromkeys([0x00AD, 0x200C, 0x200D, 0x2060, 0xFEFF], "") | {0x200B: SOFT}
_SOFT_HYPHEN_BREAK = re.compile("\u00ad(?=[ \t]*\n)")
_WORD = re.compile(r"[^\W_]+(?:[\u0300-\u036f]+[^\W_]*)*")
_BREAK = re.compile(rf"[-‐‑¬=⸗][ \t]*[\n{SOFT}{JOIN}]")
_CANDIDATES = ("cp1252", "latin-1", "cp850", "cp437", "mac_roman", "utf-16-le", "utf-16-be")

# Elements of HTML inside which a word goes on, and those that part words; the others may do either.
_INLINE = frozenset([
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd",
    "label", "mark", "nobr", "q", "rb", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt",
    "u", "var", "rt", "rp",
])  # fmt: skip
_APART = frozenset([
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dir", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "html",
    "legend", "li", "main", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
])  # fmt: skip
_VOID = frozenset([
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
])  # fmt: skip
_SITE = frozenset([
    "head", "title", "script", "style", "noscript", "template", "svg", "form", "button", "select", "textarea", "iframe",
    "object", "audio", "video", "canvas", "nav", "applet",
])  # fmt: skip
# The same for TEI.
_TEI_INLINE = frozenset([
    "hi", "emph", "foreign", "name", "persName", "placeName", "seg", "g", "sic", "corr", "orig", "reg", "abbr", "expan", "ex",
    "am", "unclear",
])  # fmt: skip
_TEI_APART = frozenset([
    "p", "l", "lg", "head", "ab", "sp", "speaker", "item", "list", "row", "cell", "table", "opener", "closer", "byline", "lb",
    "pb", "cb", "gb", "milestone",
])  # fmt: skip
_TEI_NOT_TEXT = frozenset(["index", "interpGrp", "interp", "spanGrp", "linkGrp", "fs", "teiHeader"])
_ONE_READING = frozenset(["choice", "app", "subst"])


class Words(NamedTuple):
    """Words of a file or a text in order, what lies before each, and whether a reader may drop it."""

    letters: list[str]
    gaps: list[int]
    optional: list[bool]


def plain_letters(text: str) -> str:
    """Write a text in one form: NFC, no invisible characters, ligatures as letters."""
    return unicodedata.normalize("NFC", _SOFT_HYPHEN_BREAK.sub("-", text)).translate(_ALIKE)


def _gap(between: str) -> int:
    marks = between.replace(OPTIONAL, "").replace(REQUIRED, "")
    if marks == INSIDE:
        return ONE
    marks = marks.replace(INSIDE, "")
    if JOIN in marks or _BREAK.match(marks):
        return BROKEN
    return MAY_JOIN if not marks.strip(SOFT) else APART


def words_of(marked: str) -> Words:
    """Cut a string with marks into words."""
    letters, gaps, optional = list[str](), list[int](), list[bool]()
    known: dict[str, int] = {}
    end, inside, single = 0, False, 0
    for match in _WORD.finditer(marked):
        word, between = match.group(), marked[end : match.start()]
        end = match.end()
        kind = known.get(between)
        if kind is None:
            kind = known[between] = _gap(between)
        if OPTIONAL in between or REQUIRED in between:
            inside = between.rfind(OPTIONAL) > between.rfind(REQUIRED)
        single = single + 1 if len(word) == 1 and word.isalpha() else 0
        if single == 4 and not any(gaps[-2:]):  # S p e r a z a t o
            gaps[-2:] = [MAY_JOIN] * 2
        # An initial that stands alone in its block or on its line begins the word after it.
        initial = bool(letters) and len(letters[-1]) == 1 and letters[-1].isupper() and word[0].islower()
        if kind == APART and (single >= 4 or (initial and ("\n" in between or SOFT in between))):
            kind = MAY_JOIN
        letters.append(word)
        gaps.append(kind)
        optional.append(inside)
    return Words(letters, gaps, optional)


class _PageWords(HTMLParser):
    """The words of a web page; `book`: one of an EPUB, where navigation is a table of contents."""

    def __init__(self, book: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.skipped: list[str] = []
        self.site = _SITE - {"nav"} if book else _SITE

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "body" and self.skipped:
            self.skipped.clear()
            self.pieces.append(REQUIRED)
        hidden = tag in self.site or "hidden" in given or given.get("aria-hidden") == "true"
        hidden = hidden or "display:none" in (given.get("style") or "").replace(" ", "")
        if tag in _VOID:
            alternative = given.get("alt") or ""
            self.pieces += [f"{OPTIONAL}{alternative}{REQUIRED}"] if alternative and not self.skipped else []
        elif self.skipped and tag == self.skipped[-1]:
            self.skipped.append(tag)
        elif hidden and not self.skipped:
            self.skipped.append(tag)
            self.pieces.append(OPTIONAL)
        self.pieces.append(self.mark(tag))

    def mark(self, tag: str) -> str:
        # One tag between two letters is inside a word; two may be two lines of a poem.
        twice = bool(self.pieces) and self.pieces[-1] == INSIDE
        return "\n" if tag in _APART else SOFT if twice or tag not in _INLINE else INSIDE

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            self.pieces.append(self.mark(tag))
        if self.skipped and tag == self.skipped[-1]:
            self.skipped.pop()
            if not self.skipped:
                self.pieces.append(REQUIRED)

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def _html(text: str, book: bool = False) -> str:
    page = _PageWords(book)
    page.feed(text)
    page.close()
    return "".join(page.pieces)


class _XmlWords:
    """Character data of XML: `open` and `close` say what stands for a tag, `takes` whether an element's data counts."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.path: list[str] = []
        self.skipped = self.texts = 0

    def parse(self, data: bytes) -> str:
        parser = expat.ParserCreate(namespace_separator="}")
        parser.UseForeignDTD(True)
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
        parser.CharacterDataHandler = self.say
        parser.SkippedEntityHandler = lambda name, _: self.say(chr(name2codepoint.get(name, 0xFFFD)))
        parser.buffer_text = True
        parser.Parse(data, True)
        return "".join(self.pieces)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition("}")[2]
        self.path.append(tag)
        self.texts += tag == "text"
        if self.drops(tag):
            self.skipped += 1
            if self.skipped == 1:
                self.pieces.append(OPTIONAL)
        self.pieces.append(self.mark(tag, attributes))

    def end(self, _: str) -> None:
        tag = self.path.pop()
        self.texts -= tag == "text"
        self.pieces.append(self.mark(tag, {}) if tag not in ("lb", "pb", "cb", "gb", "milestone") else "")
        if self.drops(tag):
            self.skipped -= 1
            if self.skipped == 0:
                self.pieces.append(REQUIRED)

    def say(self, data: str) -> None:
        raise NotImplementedError

    def mark(self, tag: str, attributes: dict[str, str]) -> str:
        raise NotImplementedError

    def drops(self, tag: str) -> bool:
        raise NotImplementedError


class _TeiWords(_XmlWords):
    """Everything inside `text`."""

    def say(self, data: str) -> None:
        if self.texts:
            between = self.path[-1] in _ONE_READING and not data.strip()
            self.pieces.append(SOFT if between else data.translate(_PRIVATE))

    def mark(self, tag: str, attributes: dict[str, str]) -> str:
        if attributes.get("break") == "no":
            return JOIN
        return "\n" if tag in _TEI_APART or tag.startswith("div") else INSIDE if tag in _TEI_INLINE else SOFT

    def drops(self, tag: str) -> bool:
        return tag in _TEI_NOT_TEXT


class _WordWords(_XmlWords):
    """The text of a part of a Word document, deleted text too."""

    def say(self, data: str) -> None:
        if self.path[-1] in ("t", "delText"):
            self.pieces.append(data.translate(_PRIVATE))

    def mark(self, tag: str, attributes: dict[str, str]) -> str:
        if tag == "sym":
            code = next((value for name, value in attributes.items() if name.endswith("char")), "")
            return f"{OPTIONAL}{chr(int(code, 16))}{REQUIRED}" if re.fullmatch("[0-9A-Fa-f]{4}", code) else ""
        return {"p": "\n", "br": "\n", "cr": "\n", "tab": "\t", "tc": "\n", "noBreakHyphen": "-"}.get(tag, "")

    def drops(self, tag: str) -> bool:
        return tag == "Fallback"


class _StartTags(_XmlWords):
    """Start tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []

    def say(self, data: str) -> None:
        pass

    def mark(self, tag: str, attributes: dict[str, str]) -> str:
        self.tags.append((tag, attributes))
        return ""

    def drops(self, _: str) -> bool:
        return False


def _tags(data: bytes) -> list[tuple[str, dict[str, str]]]:
    elements = _StartTags()
    with suppress(expat.ExpatError):
        elements.parse(data)
    return elements.tags


def _epub(data: bytes, known: frozenset[str]) -> str:
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = set(archive.namelist())
    package = next(a["full-path"] for tag, a in _tags(archive.read("META-INF/container.xml")) if tag == "rootfile")
    tags = _tags(archive.read(package))
    items = {a.get("id"): a for tag, a in tags if tag == "item"}
    pages, seen = list[str](), set[str]()
    for tag, attributes in tags:
        item = items.get(attributes.get("idref")) if tag == "itemref" else None
        href = unquote((item or {}).get("href", "")).partition("#")[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(package), href))
        if item and path in members and path not in seen and "htm" in item.get("media-type", "") + path:
            seen.add(path)
            pages.append(_html(_decoded(archive.read(path), known), book=True))
    return "\n\n".join(pages)


def _docx(data: bytes, _: frozenset[str]) -> str:
    archive = zipfile.ZipFile(io.BytesIO(data))
    parts = ("document", "footnotes", "endnotes", "comments", "header", "footer")
    names = sorted(
        (parts.index(match.group(1)), name)
        for name in archive.namelist()
        if (match := re.fullmatch(rf"word/({'|'.join(parts)})\d*\.xml", name))
    )
    return "\n\n".join(_WordWords().parse(archive.read(name)) for _, name in names)


def _pdf(data: bytes, _: frozenset[str]) -> str:
    with needs("pypdf", "documents"):
        from pypdf import PdfReader
    return "\n\n".join(page.extract_text() or "" for page in PdfReader(io.BytesIO(data)).pages)


def _optional(match: re.Match[str]) -> str:
    return f"{OPTIONAL}{match.group()}{REQUIRED}"


def _markdown(data: bytes, known: frozenset[str]) -> str:
    text = _decoded(data, known)
    text = re.sub(r"\A(---|\+\+\+)\n.*?\n(?:\1|\.\.\.)\n", _optional, text, count=1, flags=re.S)
    text = re.sub(r"\A(?:%.*\n)+", _optional, text)
    text = re.sub(r"<!--.*?-->|^ {0,3}(?:```|~~~).*$|\[\^[^\]\n]*\]:?", _optional, text, flags=re.S | re.M)
    text = re.sub(r"^ {0,3}\[[^\]\n]+\]:.*$|\{[#.][^}\n]*\}", _optional, text, flags=re.M)
    text = re.sub(r"(?<=\])(?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|\[[^\]\n]*\])", _optional, text)
    text = re.sub(r"\\$", "", text, flags=re.M)
    text = re.sub(r"[*~`\\\[\]!^_]", SOFT, text)
    return _html(re.sub(r"<(?=[\s\d])", " ", text))


def _text(data: bytes, known: frozenset[str]) -> str:
    text = _decoded(data, known)
    if re.search(r"&(?:[a-z]+|#\d+);", text):
        text = max((text, html.unescape(text)), key=lambda form: _shared(form, known))
    return text.translate(_PRIVATE).replace("_", SOFT)


def _shared(text: str, known: frozenset[str]) -> int:
    """How many of the words of a text with other letters than ASCII are known."""
    return sum(word in known for word in _WORD.findall(plain_letters(text)) if not word.isascii())


def _decodings(data: bytes) -> Iterator[str]:
    for encoding in _CANDIDATES:
        with suppress(UnicodeDecodeError):
            yield data.decode(encoding)


def _decoded(data: bytes, known: frozenset[str]) -> str:
    """Decode bytes: UTF-8 or what its mark says; else in the encoding whose words are those that are `known`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = max(_decodings(data), key=lambda form: _shared(form, known))
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_PRIVATE)


def _page(data: bytes, known: frozenset[str]) -> str:
    return _html(_decoded(data, known))


def _tei(data: bytes, _: frozenset[str]) -> str:
    return _TeiWords().parse(data)


_KINDS: dict[str, Callable[[bytes, frozenset[str]], str]] = {
    ".md": _markdown, ".markdown": _markdown, ".xml": _tei, ".tei": _tei, ".html": _page, ".htm": _page, ".xhtml": _page,
    ".epub": _epub, ".docx": _docx, ".pdf": _pdf,
}  # fmt: skip
#: Suffixes of files that mark what is not the author's text; in the others it is told by rules.
MARKED = frozenset(_KINDS) - {".pdf"}


def source_words(data: bytes, name: str, known: frozenset[str]) -> Words:
    """Take the words out of the bytes of a file.

    Args:
        data: The file.
        name: Its name; the suffix says what it is.
        known: Words of the stored text, by which the encoding of a text without a mark is chosen.

    Raises:
        MissingExtra: a PDF, and pypdf is not installed.
    """
    suffix = PurePath(name).suffix.lower()
    if not suffix and data.startswith(b"%PDF"):
        suffix = ".pdf"
    return words_of(plain_letters(_KINDS.get(suffix, _text)(data, known)))
