"""Take the words out of a file in the plainest way there is, to check what the readers made of it.

Unusual: this shares no code with the readers and understands next to nothing. Character data of XML by expat, what stands
between the tags of HTML, of Word by its text elements, of a PDF page by page. Two words are apart unless nothing lies
between them but what may join them.
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
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import unquote

from stilnovo.errors import needs
from stilnovo.library.source_elements import (
    INSIDE,
    JOIN,
    OPTIONAL,
    PRIVATE,
    REQUIRED,
    SOFT,
    page_words,
    start_tags,
    tei_words,
    word_words,
)

#: Two words are apart; they may be one; a hyphen at a line's end stands between them; they are one with a tag inside.
APART, MAY_JOIN, BROKEN, ONE = 0, 1, 2, 3

_ALIKE = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
_ALIKE |= dict.fromkeys([0x00AD, 0x200C, 0x200D, 0x2060, 0xFEFF], "") | {0x200B: SOFT}
_SOFT_HYPHEN_BREAK = re.compile("\u00ad(?=[ \t]*\n)")
_WORD = re.compile(r"[^\W_]+(?:[\u0300-\u036f]+[^\W_]*)*")
_BREAK = re.compile(rf"[-‐‑¬=⸗][ \t]*[\n{SOFT}{JOIN}]")
_CANDIDATES = ("cp1252", "latin-1", "cp850", "cp437", "mac_roman", "utf-16-le", "utf-16-be")


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


def _epub(data: bytes, known: frozenset[str]) -> str:
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = set(archive.namelist())
    package = next(a["full-path"] for tag, a in start_tags(archive.read("META-INF/container.xml")) if tag == "rootfile")
    tags = start_tags(archive.read(package))
    items = {a.get("id"): a for tag, a in tags if tag == "item"}
    pages, seen = list[str](), set[str]()
    for tag, attributes in tags:
        item = items.get(attributes.get("idref")) if tag == "itemref" else None
        href = unquote((item or {}).get("href", "")).partition("#")[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(package), href))
        if item and path in members and path not in seen and "htm" in item.get("media-type", "") + path:
            seen.add(path)
            pages.append(page_words(_decoded(archive.read(path), known)))
    return "\n\n".join(pages)


def _docx(data: bytes, _: frozenset[str]) -> str:
    archive = zipfile.ZipFile(io.BytesIO(data))
    parts = ("document", "footnotes", "endnotes", "comments", "header", "footer")
    names = sorted(
        (parts.index(match.group(1)), name)
        for name in archive.namelist()
        if (match := re.fullmatch(rf"word/({'|'.join(parts)})\d*\.xml", name))
    )
    return "\n\n".join(word_words(archive.read(name)) for _, name in names)


def _pdf(data: bytes, _: frozenset[str]) -> str:
    with needs("pypdf", "documents"):
        from pypdf import PdfReader
    return "\n\n".join(page.extract_text() or "" for page in PdfReader(io.BytesIO(data)).pages)


def _optional(match: re.Match[str]) -> str:
    return f"{OPTIONAL}{match.group().replace('<', ' ')}{REQUIRED}"


#: Code of Markdown: a block between fences, its first line with a language's name; a span between backticks.
_FENCED = re.compile(
    r"^(?P<fence>[ >]*(?P<mark>`{3,}|~{3,})[^\n]*)\n(?P<block>.*?)(?:^[ >]*(?P=mark)[`~]*[ \t]*$|\Z)", re.S | re.M
)
_SPAN = re.compile(r"(?<!`)(`+)(?!`)((?:[^\n]|\n(?!\s*\n))+?)(?<!`)\1(?!`)")
# What is no word of the reader's: tags in lines that may be code, comments, marks of notes, addresses, attributes.
_NO_WORDS = [
    re.compile(r"^(?: {4}|\t)[^<\n]*<[^\n]*", re.M),
    re.compile(r"<!--(?:.*?-->|.*)|\[\^[^\]\n]*\]:?|<[a-zA-Z][a-zA-Z0-9+.-]*:[^\s<>]*>", re.S),
    re.compile(r"^ {0,3}\[[^\]]{1,300}\]:\s*\S*.*$(?:\n[ \t]+[\"'(].*$)?|\{[#.:=][^}\n]{0,300}\}", re.M),
    re.compile(r"(?<=\])(?:\([^()]{0,999}(?:\([^()\n]*\)[^()\n]*)?\)|\s?\[[^\]]{0,300}\])"),
]


def _markdown(data: bytes, known: frozenset[str]) -> str:
    text = _decoded(data, known)
    text = re.sub(r"\A(---|\+\+\+)\n.*?\n(?:\1|\.\.\.)\n", _optional, text, count=1, flags=re.S)
    text = re.sub(r"\A(?:%.*\n)+", _optional, text)
    pieces, at = list[str](), 0
    for code in _FENCED.finditer(text):
        fence, block = html.escape(code["fence"]), html.escape(code["block"])
        pieces += [_marked_down(text[at : code.start()]), f"\n{OPTIONAL}{fence}{REQUIRED}\n{block}\n"]
        at = code.end()
    return page_words("".join([*pieces, _marked_down(text[at:])]))


def _marked_down(text: str) -> str:
    """Markdown outside blocks of code: marks of emphasis may stand inside a word."""
    tag = re.compile(r"<[^>\n]*>")
    text = _NO_WORDS[0].sub(lambda line: tag.sub(_optional, line.group()), text)
    for pattern in _NO_WORDS[1:]:
        text = pattern.sub(_optional, text)
    pieces, at = list[str](), 0
    for span in _SPAN.finditer(text):
        pieces += [_emphasised(text[at : span.start()]), html.escape(span.group(2))]
        at = span.end()
    return "".join([*pieces, _emphasised(text[at:])])


def _emphasised(text: str) -> str:
    return re.sub(r"<(?![a-zA-Z/!])", " ", re.sub(r"[*~`\\\[\]^_]", SOFT, text))


def _text(data: bytes, known: frozenset[str]) -> str:
    text = _decoded(data, known)
    if re.search(r"&(?:[a-z]+|#\d+);", text):
        text = max((text, html.unescape(text)), key=lambda form: _shared(form, known))
    return text.translate(PRIVATE).replace("_", SOFT)


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
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(PRIVATE)


def _page(data: bytes, known: frozenset[str]) -> str:
    return page_words(_decoded(data, known))


def _tei(data: bytes, _: frozenset[str]) -> str:
    return tei_words(data)


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
