"""Character data of HTML and XML for the law of conservation, with marks for the tags between words.

A file becomes one string in which private characters stand for what is not text: where a word may go on (`SOFT`, `JOIN`,
`INSIDE`), and where words begin and end that a reader may drop.
"""

from __future__ import annotations

import html
import re
import unicodedata
from abc import ABC, abstractmethod
from contextlib import suppress
from html.entities import html5
from xml.parsers import expat

#: A word may go on here; it goes on here whatever white space says; it does go on; optional words begin; they end.
SOFT, JOIN, INSIDE, OPTIONAL, REQUIRED = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"

PRIVATE = dict.fromkeys(map(ord, (SOFT, JOIN, INSIDE, OPTIONAL, REQUIRED)), "\ufffd")
# Names of characters that old XML has beside HTML's.
_ACCENTS = dict(zip(
    ("acute", "grave", "circ", "uml", "tilde", "macr", "breve", "cedil", "caron", "ring", "dot", "ogon", "dblac"),
    "\u0301\u0300\u0302\u0308\u0303\u0304\u0306\u0327\u030c\u030a\u0307\u0328\u030b", strict=True,
))  # fmt: skip
_GREEK = dict(zip([
    "agr", "bgr", "ggr", "dgr", "egr", "zgr", "eegr", "thgr", "igr", "kgr", "lgr", "mgr", "ngr", "xgr", "ogr", "pgr", "rgr",
    "sgr", "tgr", "ugr", "phgr", "khgr", "psgr", "ohgr",
], "αβγδεζηθικλμνξοπρστυφχψω", strict=True))  # fmt: skip
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
# What stands in the head of a page; anything else ends it.
_HEAD = frozenset(["title", "meta", "link", "base", "script", "style", "noscript", "template", "object"])
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
_EMPTY = frozenset(["lb", "pb", "cb", "gb", "milestone"])
_OTHER_READING = {"sic": "corr", "corr": "sic", "orig": "reg", "reg": "orig", "abbr": "expan", "expan": "abbr"}
_ONE_READING = frozenset(["choice", "app", "subst"])


#: What is no text in a page: comments, declarations, tags. Each takes the rest of the file where it does not end.
_TAG = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))|<!\[CDATA\[(?P<cdata>.*?)(?:\]\]>|\Z)|<[!?/](?![a-zA-Z])[^>]*+(?:>|\Z)"
    r"|<(?P<end>/?)(?P<tag>[a-zA-Z][^\s/>]*+)(?P<attributes>(?:[^>\"'=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+')?+|[\"'])*+)(?:>|\Z)"
    r"|<[!?][^>]*+(?:>|\Z)",
    re.S,
)
_ALTERNATIVE = re.compile(r"(?<![\w-])alt\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))", re.I)
_SCRIPT_END = {tag: re.compile(rf"</{tag}", re.I) for tag in ("script", "style")}


def page_words(text: str) -> str:
    """Take everything in the body of a web page but scripts and styles; other texts of pictures are optional."""
    pieces = list[str]()
    at, head, last = 0, False, ""

    def say(data: str) -> None:
        if not head and data:
            pieces.append(html.unescape(data) if "&" in data else data)

    while (token := _TAG.search(text, at)) is not None:
        between, at = text[at : token.start()], token.end()
        say(between)
        last = "" if between else last
        if token["cdata"]:
            say(token["cdata"])
        if not token["tag"]:
            continue
        tag, end, attributes = token["tag"].lower().rpartition(":")[2], bool(token["end"]), token["attributes"]
        # The head ends where its end is said, or where something stands that is never in it.
        head = not (end and tag == "head") and (tag == "head" or (head and (end or tag in _HEAD)))
        if alternative := _ALTERNATIVE.search(attributes) if "alt" in attributes.lower() else None:
            pieces.append(
                f"{OPTIONAL}{html.unescape(alternative[1] or alternative[2] or alternative[3] or '')}{REQUIRED}"
            )
        # One tag between two letters is inside a word; two may be two lines of a poem.
        mark = "\n" if tag in _APART else SOFT if last == INSIDE or tag not in _INLINE else INSIDE
        last = mark
        if not (end and tag in _VOID):
            pieces.append(mark)
        if tag in _SCRIPT_END and not end and not attributes.endswith("/"):
            closing = _SCRIPT_END[tag].search(text, at)
            at = closing.start() if closing else len(text)
    say(text[at:])
    return "".join(pieces)


def _named(name: str) -> str:
    """The character of an entity: HTML's, a letter with its accent, a Greek letter, the long s."""
    accented = re.fullmatch(rf"([A-Za-z])({'|'.join(_ACCENTS)})", name)
    if (known := html5.get(f"{name};")) is not None:
        return known
    if accented:
        return unicodedata.normalize("NFC", accented.group(1) + _ACCENTS[accented.group(2)])
    return _GREEK.get(name, "ſ" if name == "longs" else "\ufffd")


class _XmlWords(ABC):
    """Character data of XML."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.path: list[str] = []
        self.after: list[str] = []  # for each open element, the mark that follows it
        self.skipped = self.texts = 0

    def parse(self, data: bytes) -> str:
        parser = expat.ParserCreate(namespace_separator="}")
        parser.UseForeignDTD(True)
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
        parser.CharacterDataHandler = self.say
        parser.SkippedEntityHandler = lambda name, _: self.say(_named(name))
        parser.buffer_text = True
        parser.Parse(data, True)
        return "".join(self.pieces)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition("}")[2]
        self.path.append(tag)
        self.after.append(JOIN if attributes.get("join") in ("right", "both") else "")
        self.texts += tag.lower() == "text"
        if self.drops(tag):
            self.skipped += 1
            if self.skipped == 1:
                self.pieces.append(OPTIONAL)
        self.pieces.append(self.mark(tag, attributes))

    def end(self, _: str) -> None:
        tag = self.path.pop()
        self.texts -= tag.lower() == "text"
        self.pieces.append(self.after.pop() + (self.mark(tag, {}) if tag not in _EMPTY else ""))
        if self.drops(tag):
            self.skipped -= 1
            if self.skipped == 0:
                self.pieces.append(REQUIRED)

    @abstractmethod
    def say(self, data: str) -> None:
        """Take character data."""

    @abstractmethod
    def mark(self, tag: str, attributes: dict[str, str]) -> str:
        """What stands for a tag."""

    @abstractmethod
    def drops(self, tag: str) -> bool:
        """Whether a reader may leave an element out."""


class _TeiWords(_XmlWords):
    """Everything inside `text`, and the other reading where an attribute has it (P4: `<sic corr="…">`)."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        super().start(name, attributes)
        other = attributes.get(_OTHER_READING.get(self.path[-1], ""), "")
        if other and self.texts and self.path[-2] not in _ONE_READING:
            said = f"{OPTIONAL}{SOFT}{other.translate(PRIVATE)}{SOFT}{REQUIRED}"
            if self.path[-1] in ("corr", "reg", "expan"):
                self.pieces.append(said)
            else:
                self.after[-1] = said

    def say(self, data: str) -> None:
        if self.texts:
            between = self.path[-1] in _ONE_READING and not data.strip()
            self.pieces.append(SOFT if between else data.translate(PRIVATE))

    def mark(self, tag: str, attributes: dict[str, str]) -> str:
        if attributes.get("break") == "no" or attributes.get("join") in ("left", "both"):
            return JOIN
        return "\n" if tag in _TEI_APART or tag.startswith("div") else INSIDE if tag in _TEI_INLINE else SOFT

    def drops(self, tag: str) -> bool:
        return tag in _TEI_NOT_TEXT


class _WordWords(_XmlWords):
    """The text of a part of a Word document, deleted text too."""

    def say(self, data: str) -> None:
        if self.path[-1] in ("t", "delText"):
            self.pieces.append(data.translate(PRIVATE))

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


def tei_words(data: bytes) -> str:
    """Take everything inside the `text` elements of a TEI document."""
    return _TeiWords().parse(data)


def word_words(data: bytes) -> str:
    """Take the text of a part of a Word document, deleted text too."""
    return _WordWords().parse(data)


def start_tags(data: bytes) -> list[tuple[str, dict[str, str]]]:
    """List the start tags of an XML document with their attributes, up to where it is damaged."""
    elements = _StartTags()
    with suppress(expat.ExpatError):
        elements.parse(data)
    return elements.tags
