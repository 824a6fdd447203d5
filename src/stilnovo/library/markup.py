"""Read HTML: web pages, Project Gutenberg's editions, the chapters inside an EPUB.

Only text is taken. Scripts, styles, forms and navigation are left out, nothing is fetched, nothing is run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stilnovo.errors import needs, reported
from stilnovo.library.decoding import decode
from stilnovo.library.names import Names, direct_name, old_year
from stilnovo.library.text_builder import Book, TextBuilder, tag_of

if TYPE_CHECKING:
    from lxml.etree import _Element

_LEFT_OUT = frozenset([
    "head", "script", "style", "noscript", "template", "iframe", "object", "embed", "applet", "svg", "math", "form",
    "button", "select", "textarea", "nav", "audio", "video", "canvas", "figure", "img",
])  # fmt: skip
# What has to stand between the text of an element and that around it.
_GAPS = dict.fromkeys(["div", "li", "tr", "dt", "dd", "address", "center", "caption"], "\n") | dict.fromkeys([
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "dl", "table", "section", "article", "hr",
    "header", "footer",
], "\n\n")  # fmt: skip
_BOILERPLATE = re.compile(r"pg-?(?:header|footer|boilerplate)|\bws-noexport\b|\bmw-editsection\b", re.I)
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_DEPTH = re.compile(r"h([1-6])\Z")


class _Page:
    """Text of a tree as it is walked: words collected until a block ends."""

    def __init__(self, writer: TextBuilder) -> None:
        self.writer, self.words, self.gap, self.depth = writer, list[str](), "\n\n", 0

    def say(self, text: str | None, plain: bool) -> None:
        """Add running text; `plain` keeps its line breaks."""
        if text:
            self.words.append(text if plain else re.sub(r"\s+", " ", text))

    def close(self, gap: str) -> None:
        """End a line or paragraph; `gap` is put before the next."""
        lines = [" ".join(line.split()) for line in "".join(self.words).split("\n")]
        self.words.clear()
        text = "\n".join(lines).strip()
        if text and self.depth:
            self.writer.heading([line for line in lines if line], self.depth)
        elif text:
            self.writer.put(text, self.gap)
        # The widest gap since the last words counts.
        self.gap = gap if text or len(gap) > len(self.gap) else self.gap


def write(writer: TextBuilder, root: _Element, base: int = 0) -> None:
    """Append the text of an HTML tree to a builder; `base` is added to the depth of its headings."""
    from lxml import etree

    out = _Page(writer)
    plain = 0
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        tag = tag_of(element).lower()
        level = _DEPTH.match(tag)
        if event == "start":
            marks = f"{element.get('id') or ''} {element.get('class') or ''}"
            if not tag or tag in _LEFT_OUT or element.get("hidden") is not None or _BOILERPLATE.search(marks):
                walk.skip_subtree()
                element.text = None
                continue
            if tag == "br":
                out.words.append("\n")
            elif tag in _GAPS:
                out.close(_GAPS[tag])
            out.depth = base + int(level.group(1)) if level else out.depth
            plain += tag == "pre"
            out.say(element.text, plain > 0)
        else:
            if tag in _GAPS:
                out.close(_GAPS[tag])
            out.depth = 0 if level else out.depth
            plain -= tag == "pre"
            out.say(element.tail if element is not root else None, plain > 0)
    out.close("\n\n")


def tree(content: str, name: str) -> _Element:
    """Parse HTML leniently into a tree.

    Raises:
        InputError: there is nothing in it.
        MissingExtra: lxml is not installed.
    """
    with needs("lxml", "documents"):
        from lxml import etree, html
    parser = html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True)
    with reported(f"{name} holds no page.", "Save it as plain text (.txt).", errors=(etree.ParserError, ValueError)):
        return html.document_fromstring(_DECLARATION.sub("", content), parser=parser)


def _named(root: _Element) -> Names:
    fields: dict[str, str] = {}
    for element in root.iter("meta", "title"):
        key = (element.get("name") or element.get("property") or element.tag).lower()
        words = (element.get("content") or element.text or "").split()
        fields.setdefault(key.removeprefix("dc.").removeprefix("dcterms.").removeprefix("og:"), " ".join(words))
    title = re.sub(r"\s*[|–—-]\s*(?:Wikisource|Project Gutenberg).*$", "", fields.get("title", ""))
    title = re.sub(r"^The Project Gutenberg eBook of ", "", title, flags=re.I)
    parts = re.match(r"(.+), (?:by|di) (.+)$", title)
    title, author = parts.groups() if parts else (title, "")
    author = direct_name(fields.get("author") or fields.get("creator") or author)
    return Names(title, author, old_year(fields.get("date", "")))


def page(content: str, name: str) -> Book:
    """Read the text of an HTML out.

    Raises:
        InputError: there is nothing in it.
        MissingExtra: lxml is not installed.
    """
    root = tree(content, name)
    names, writer = _named(root), TextBuilder()
    write(writer, root)
    return writer.book(names)


def parse(data: bytes, name: str) -> Book:
    """Read an HTML out.

    Raises:
        InputError: there is nothing in it.
        MissingExtra: lxml is not installed.
    """
    return page(decode(data, name), name)
