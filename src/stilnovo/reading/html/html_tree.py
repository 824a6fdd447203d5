"""Parse HTML and XHTML into a tree of elements, leniently, in time linear in the page.

Unusual: written here. libxml2's HTML parser takes minutes for an element of 200,000 attributes and drops, without a word,
what stands deeper than some 2,000 elements; html.parser makes no tree. This one keeps every word: an element beyond the
depth or an attribute beyond the number that a page can use is dropped, never text. XHTML and HTML are read by the same
rules (`<a/>` is empty in both), as people's files mix them.
"""

from __future__ import annotations

import codecs
import html
import re
from collections import defaultdict
from contextlib import suppress

from stilnovo.errors import InputError
from stilnovo.reading.decoding import decode

#: Elements deeper than this are read as if they were not marked; attributes beyond so many of one element are dropped.
MOST_DEPTH, MOST_ATTRIBUTES = 256, 200
#: A page or book of more elements is refused: half a kilobyte each.
MOST_ELEMENTS = 2_000_000

#: Elements that stand on lines of their own, and what has to stand between their text and that around it.
BLOCKS = dict.fromkeys(
    [
        "div", "li", "tr", "dt", "dd", "address", "center", "caption", "option", "optgroup", "legend", "tbody", "thead", "tfoot",
        "summary", "figcaption", "select", "textarea", "button", "title", "text",
    ],
    "\n",
) | dict.fromkeys(
    [
        "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "dl", "table", "section", "article", "hr", "header",
        "footer", "aside", "nav", "main", "figure", "hgroup", "form", "fieldset", "details", "dialog", "body", "html", "menu", "dir",
        "xmp", "listing", "plaintext", "noscript", "iframe", "object", "video", "audio", "canvas", "svg", "template", "noframes",
    ],
    "\n\n",
)  # fmt: skip
_VOID = frozenset(
    [
        "area",
        "base",
        "basefont",
        "bgsound",
        "br",
        "col",
        "embed",
        "frame",
        "hr",
        "img",
        "input",
        "keygen",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    ]
)
_HEAD = frozenset(
    ["title", "meta", "link", "base", "basefont", "bgsound", "script", "style", "noscript", "template", "object"]
)
_HEADINGS = frozenset(["h1", "h2", "h3", "h4", "h5", "h6"])
# A start tag ends open elements of these names, up to the nearest of those.
_LISTS, _CELLS = frozenset(["ul", "ol", "menu", "dir", "table"]), frozenset(["table"])
_ENDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "li": (frozenset(["li"]), _LISTS),
    "dt": (frozenset(["dt", "dd"]), frozenset(["dl", "table"])),
    "dd": (frozenset(["dt", "dd"]), frozenset(["dl", "table"])),
    "td": (frozenset(["td", "th", "caption"]), _CELLS | {"tr"}),
    "th": (frozenset(["td", "th", "caption"]), _CELLS | {"tr"}),
    "tr": (frozenset(["tr", "td", "th", "caption"]), _CELLS),
    **dict.fromkeys(["tbody", "thead", "tfoot"], (frozenset(["tbody", "thead", "tfoot", "caption"]), _CELLS)),
    "option": (frozenset(["option"]), frozenset(["select", "datalist"])),
}
_P, _P_BOUNDS = (
    frozenset(["p"]),
    frozenset(["table", "td", "th", "caption", "button", "object", "svg", "foreignobject", "li", "dd", "dt", "aside"]),
)
# An end tag does not reach out of a cell or table for another element's sake.
_WALLS = frozenset(["td", "th", "caption", "table"])
_TABLE = frozenset(["table", "tbody", "thead", "tfoot", "tr", "td", "th", "caption", "body", "html"])

_MARK = re.compile(r"<(?:(?P<end>/)?(?P<tag>[A-Za-z][^\s/>]*)|(?P<comment>!--)|(?P<cdata>!\[CDATA\[)|(?P<other>[!?/]))")
_ATTRIBUTE = re.compile(r"""[\s/]*([^\s/>=][^\s/>=]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]*)))?""")
_TAG_END = re.compile(r"[\s/]*>")
_DOCTYPE = re.compile(r"!doctype\b[^>\[]*\[", re.I)
_LONG_REFERENCE = re.compile(r"&#[xX]?[0-9a-fA-F]{9,};?")
_XHTML = re.compile(r"\A[\s\ufeff]*<\?xml\b|<html\b[^>]*\bxmlns\s*=", re.I)
# Characters that are no letters: they allow or forbid a line to be broken.
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))


class Element:
    """An element: its name and attributes in small letters, its children (elements and text in order), its parent.

    `marks` is room for what its attributes are found to mean.
    """

    __slots__ = ("attributes", "children", "marks", "parent", "tag")

    def __init__(self, tag: str, attributes: dict[str, str], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element | str] = []
        self.marks: tuple[list[str], list[str]] | None = None

    def get(self, name: str) -> str:
        """An attribute; empty when it is not there."""
        return self.attributes.get(name, "")

    def walk(self) -> list[Element]:
        """This element and all below it, in order."""
        elements, waiting = [], [self]
        while waiting:
            element = waiting.pop()
            elements.append(element)
            waiting += [child for child in reversed(element.children) if isinstance(child, Element)]
        return elements

    def find(self, *tags: str) -> list[Element]:
        """All elements of these names, in order."""
        return [element for element in self.walk() if element.tag in tags]

    def lines(self) -> str:
        """The text of the element, each block that holds no other on a line."""
        leaves = [
            e
            for e in self.walk()
            if e.tag in BLOCKS and not any(c.tag in BLOCKS for c in e.children if isinstance(c, Element))
        ]
        return "\n".join(leaf.words() for leaf in leaves if leaf.tag != "title")

    def words(self) -> str:
        """The text of the element and all below it on one line."""
        pieces: list[str] = []
        waiting: list[Element | str] = [self]
        while waiting:
            node = waiting.pop()
            if isinstance(node, str):
                pieces.append(node)
            else:
                block = node.tag in BLOCKS or node.tag in ("br", "td", "th")
                waiting += [" ", *reversed(node.children), " "] if block else node.children[::-1]
        return " ".join("".join(pieces).split())


def characters(text: str) -> str:
    """Resolve character references and take out invisible characters."""
    if "&" in text:
        text = html.unescape(_LONG_REFERENCE.sub("\ufffd", text))
    return text if text.isascii() else text.translate(_INVISIBLE)


class _Tree:
    """Build the tree from tags and text as they come; end tags that are missing or too many do no harm."""

    def __init__(self, xhtml: bool, name: str, most: int) -> None:
        self.root = Element("html", {}, None)
        self.here, self.stack = self.root, [self.root]
        self.open = defaultdict(int, html=1)
        self.bare = True  # neither text nor its elements came yet
        self.xhtml, self.name, self.left = xhtml, name, most

    def pop(self) -> None:
        """End the innermost element."""
        self.open[self.stack.pop().tag] -= 1
        self.here = self.stack[-1]

    def end_up_to(self, tags: frozenset[str], bounds: frozenset[str]) -> None:
        """End the elements named in `tags` that are open inside the nearest of `bounds`, with all inside them."""
        for tag in tags:
            if self.open[tag]:
                break
        else:
            return
        last = len(self.stack)
        for at in range(len(self.stack) - 1, 0, -1):
            if self.stack[at].tag in tags:
                last = at
            elif self.stack[at].tag in bounds:
                break
        while len(self.stack) > last:
            self.pop()

    def begun(self) -> bool:
        """Whether the innermost element begins with words."""
        return any(isinstance(child, str) and not child.isspace() for child in self.here.children[:5])

    def text(self, text: str) -> None:
        """Add text."""
        if self.bare and self.here.tag in ("head", "html") and not text.isspace():
            self.end_up_to(frozenset(["head"]), frozenset())
            self.bare = False
        self.here.children.append(text)

    def start(self, tag: str, attributes: dict[str, str], empty: bool) -> None:
        """Start an element."""
        self.left -= 1
        if self.left < 0:
            raise InputError(f"{self.name} is refused: it has more elements than any book.", "", "Take another copy.")
        if tag in ("html", "body") and self.open[tag]:
            first = self.root if tag == "html" else next(e for e in self.stack if e.tag == "body")
            first.attributes = {**attributes, **first.attributes}
            return
        if self.bare and tag in _HEAD - {"template", "object"} and self.here is self.root:
            self.start("head", {}, False)
        self.bare = self.bare and tag in _HEAD | {"head"}
        if self.open["head"] and tag not in _HEAD and (tag == "body" or self.here.tag == "head"):
            self.end_up_to(frozenset(["head"]), frozenset())
        if tag in _ENDS:
            self.end_up_to(*_ENDS[tag])
        if tag == "p" or (tag in BLOCKS and not self.xhtml):
            self.end_up_to(_P, _P_BOUNDS)
        if tag in _HEADINGS or (tag == "p" and not self.xhtml and self.here.tag in _HEADINGS and self.begun()):
            self.end_up_to(_HEADINGS, _P_BOUNDS | {"div", "section", "article", "blockquote", "hgroup", "header"})
        element = Element(tag, attributes, self.here)
        self.here.children.append(element)
        if not empty and tag not in _VOID and len(self.stack) < MOST_DEPTH:
            self.stack.append(element)
            self.open[tag] += 1
            self.here = element

    def end(self, tag: str) -> None:
        """End the nearest open element of that name, when one can be ended here."""
        if tag in ("html", "body"):
            return
        if not self.open[tag]:
            if tag in BLOCKS:  # it ends nothing, but there was an end
                self.start("div", {}, True)
            return
        inline = tag not in BLOCKS and tag not in ("td", "th")
        for element in reversed(self.stack):
            if element.tag == tag:
                break
            if (inline and element.tag in BLOCKS) or (element.tag in _WALLS and tag not in _TABLE):
                return
        while self.stack[-1].tag != tag:
            self.pop()
        self.pop()


def _attributes(content: str, at: int) -> tuple[dict[str, str], int]:
    """Read the attributes of a tag from `at`; returns them and where they end."""
    attributes: dict[str, str] = {}
    while match := _ATTRIBUTE.match(content, at):
        at = match.end()
        if len(attributes) < MOST_ATTRIBUTES:
            value = match.group(2) or match.group(3) or match.group(4) or ""
            attributes.setdefault(match.group(1).lower(), html.unescape(value) if "&" in value[:5000] else value)
    return attributes, at


def _skip(content: str, mark: re.Match[str], last: dict[str, int]) -> int | None:
    """Where a comment, document type or instruction ends; None when `mark` begins none. `last`: where the last ends are."""
    at = mark.end()
    if mark.group("comment"):
        if content.startswith((">", "->"), at):
            return content.index(">", at) + 1
        return content.index("-->", at) + 3 if at <= last["-->"] else at
    if mark.group("other") == "/":
        return None
    subset = _DOCTYPE.match(content, mark.start() + 1)
    if subset and subset.end() <= last["]"]:
        at = content.index("]", subset.end())
    return content.index(">", at) + 1 if at <= last[">"] else None


def parse_page(content: str, name: str, most: int = MOST_ELEMENTS) -> Element:
    """Parse a page; its root is an `html` element.

    Raises:
        InputError: more than `most` elements.
    """
    tree = _Tree(bool(_XHTML.search(content[:3000])), name, most)
    last = {end: content.rfind(end) for end in (">", "]", "-->", "]]>")}
    at = searched = 0
    while (mark := _MARK.search(content, searched)) and mark.start() < last[">"]:
        literal = mark.group("cdata") and mark.end() <= last["]]>"]
        after = None if mark.group("tag") or mark.group("cdata") else _skip(content, mark, last)
        if not literal and after is None and not mark.group("tag"):
            searched = mark.end()
            continue
        if mark.start() > at:
            tree.text(characters(content[at : mark.start()]))
        if literal:
            after = content.index("]]>", mark.end()) + 3
            tree.text(content[mark.end() : after - 3].translate(_INVISIBLE))
        at = searched = _tag(tree, content, mark) if after is None else after
    if at < len(content):
        tree.text(characters(content[at:]))
    return tree.root


def _tag(tree: _Tree, content: str, mark: re.Match[str]) -> int:
    """Take in the tag that begins at `mark`; returns where it ends, with what it holds when that is no text."""
    tag = mark.group("tag").lower().rpartition(":")[2]
    attributes, at = _attributes(content, mark.end())
    closing = _TAG_END.match(content, at)
    empty = bool(closing and "/" in closing.group()) or content[at - 1 : at + 1] == "/>"
    at = closing.end() if closing else content.find(">", at) + 1 or len(content)
    if mark.group("end"):
        tree.end(tag)
        return at
    tree.start(tag, attributes, empty)
    if tag in ("script", "style") and not empty:
        end = re.compile(rf"</{tag}", re.I).search(content, at)
        return end.start() if end else len(content)
    return at


def page_text(data: bytes, name: str) -> str:
    """Decode the bytes of a page: by its byte-order mark, as UTF-8 when it is that, else by what it declares.

    Raises:
        InputError: empty, binary or damaged.
    """
    if not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8)):
        match = re.search(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", data[:4096])
        declared = match.group(1).decode("ascii").lower() if match else ""
        if declared and not _is_utf8(data, declared):
            declared = "cp1252" if declared in ("latin-1", "latin1", "iso-8859-1", "ascii", "us-ascii") else declared
            with suppress(LookupError, ValueError):  # a false declaration: the text itself has to tell
                data = data.decode(declared).encode("utf-8")
    return decode(data, name)


def _is_utf8(data: bytes, declared: str) -> bool:
    if declared.startswith(("iso-2022", "hz", "utf-7", "utf-16", "utf16", "utf-32")):
        return declared.startswith(("utf-16", "utf16", "utf-32")) and b"\x00" not in data[:200]
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
