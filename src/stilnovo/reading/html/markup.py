"""Read HTML: web pages, Project Gutenberg's editions, the chapters inside an EPUB.

Every word of a page's body is kept, the author's as text, all else (notes, page numbers, tables of contents, licences,
what the site adds) apart, in its place; scripts and styles are left out, nothing is fetched, nothing is run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache

from stilnovo.errors import InputError
from stilnovo.reading.html.flow import ApartFlow, Aside, Flow, MainFlow
from stilnovo.reading.html.html_tree import BLOCKS, Element, page_text, parse_page
from stilnovo.reading.html.notes import find_notes, is_heading
from stilnovo.reading.html.outline import ContentsEntry, Outline
from stilnovo.reading.html.page_contents import find_contents
from stilnovo.reading.html.page_kind import around_work
from stilnovo.reading.html.roles import apparatus_kind, is_initial, is_line, is_poem, line_number, marks
from stilnovo.reading.html.title_page import without_title_page
from stilnovo.reading.names import Names, direct_name, from_header, old_year
from stilnovo.reading.note_marks import is_note_mark
from stilnovo.reading.text_builder import ApparatusKind, Book, TextBuilder

_LEFT_OUT = frozenset(["script", "style", "head", "rp"])
_PLAIN = frozenset(["pre", "xmp", "listing", "plaintext"])
_LETTER_ALT = re.compile(
    r"(?:.{0,30}\b(?:initial|letter|lettera|capolettera|iniziale|lettrine|drop ?cap|initiale)\W+)?[«“\"]?([^\W\d_])[.\"”]?",
    re.I,
)


class _Page:
    """The flows of a page as its tree is walked: the author's text, and what stands apart as it comes."""

    def __init__(self, main: MainFlow, kinds: Mapping[Element, ApparatusKind], outline: Outline, path: str) -> None:
        self.main, self.kinds, self.outline, self.path = main, kinds, outline, path
        self.apart: list[ApartFlow] = []
        self.plain = self.verse = 0
        self.headings: list[Element] = []
        self.later: list[str] = []

    @property
    def flow(self) -> Flow:
        """The flow that is written to."""
        return self.apart[-1] if self.apart else self.main

    def start(self, element: Element) -> bool:
        """Begin an element; returns whether its children are to be read."""
        tag = element.tag
        if tag in _LEFT_OUT:
            return False
        line = is_line(element)
        if tag == "br":
            self.flow.pieces.append("\n")
        elif tag in ("td", "th"):
            self.flow.pieces.append("\t")
        elif tag == "img":
            self.image(element)
        elif tag in BLOCKS or line:
            self.close(self.gap(element))
        self.note_place(element)
        kind = self.kinds.get(element) or apparatus_kind(element) or self.raised(element)
        kind = None if kind == "figure" and _is_letter(element) else kind
        if kind and (not self.apart or self.opens_inside(element, kind)):
            self.apart.append(ApartFlow(kind, self.main.vocabulary, element))
        self.plain += tag in _PLAIN
        self.verse += line or is_poem(element)
        if is_initial(element):
            self.flow.marked_initial = True
        if not self.apart and (is_heading(element) or tag == "hgroup"):
            self.headings.append(element)
        return True

    def gap(self, element: Element) -> str:
        """What stands before and after a block: a line's end for one that is a line of a stanza."""
        if element.tag == "p" and self.verse and element.parent is not None and is_poem(element.parent):
            lines = element.parent.tag in ("div", "blockquote") and not element.find("br", "div")
            return "\n" if lines else "\n\n"
        if is_line(element):
            return "\n"
        return "\n\n" if is_poem(element) else BLOCKS.get(element.tag, "\n")

    def opens_inside(self, element: Element, kind: ApparatusKind) -> bool:
        """Whether an element stands apart from what stands apart itself: other words than those, or a note among notes."""
        outer = self.apart[-1].kind
        if kind != outer:
            return kind in ("note", "page", "line number", "figure")
        if kind != "note" or element not in self.kinds or element.tag not in BLOCKS or len(self.apart) > 1:
            return False
        whole = self.apart[0]
        if whole.notes is None:
            inside = whole.element.walk() if isinstance(whole.element, Element) else []
            whole.notes = sum(self.kinds.get(other) == "note" and other.tag in BLOCKS for other in inside[1:])
        return whole.notes > 1

    def note_place(self, element: Element) -> None:
        """Tell that an id is reached, once the words before it in its paragraph are put."""
        name = element.attributes.get("id") or element.attributes.get("name")
        if not name or self.apart:
            return
        if any(piece.strip() for piece in self.main.pieces[-8:]):
            self.later.append(name)
        else:
            self.outline.reach(self.path, name)

    def raised(self, element: Element) -> ApparatusKind | None:
        """What an element is that is set high: perhaps the mark of a note."""
        return "note" if element.tag == "sup" and is_note_mark(element.words(), self.flow.last_words()) else None

    def close(self, gap: str, verse: bool = False) -> None:
        """End a line or paragraph; within a heading, only a line of it."""
        if self.headings and not self.apart:
            if self.main.pieces:
                self.main.pieces.append("\n")
            return
        self.flow.close(gap, verse or self.verse > 0)
        if not self.apart:
            for name in self.later:
                self.outline.reach(self.path, name)
            self.later.clear()

    def end(self, element: Element) -> None:
        """End an element."""
        tag, verse = element.tag, self.verse > 0
        line = is_line(element)
        self.plain -= tag in _PLAIN
        self.verse -= line or is_poem(element)
        outermost = bool(self.headings) and self.headings[0] is element and not self.apart
        if self.headings and self.headings[-1] is element:
            self.headings.pop()
        if self.apart and self.apart[-1].element is element:
            self.leave()
        if outermost:
            inside = [int(other.tag[1]) for other in element.walk() if is_heading(other)]
            self.main.close(BLOCKS[tag], False, min(inside, default=6))
            pictured = " ".join(image.get("alt") for image in element.find("img")).strip()
            if pictured and not element.words():
                self.outline.picture(pictured)
        elif tag in BLOCKS or line:
            self.close(self.gap(element), verse)
        elif tag in ("td", "th"):
            self.flow.pieces.append("\t")

    def leave(self) -> None:
        """End what stood apart, and put it where it stood."""
        for aside in self.apart.pop().result():
            if aside.kind == "line number":
                aside.number = line_number(aside.text)
            self.flow.apart(aside)

    def image(self, element: Element) -> None:
        """Take in an image: a letter that begins a word, or a figure with its description."""
        words = " ".join(element.get("alt").split())
        letter = _LETTER_ALT.fullmatch(words)
        if letter and letter.group(1).isupper() and not self.apart:
            self.main.initial(letter.group(1), Aside("figure", words))
        elif words:
            self.flow.apart(Aside("figure", words))


def _is_letter(element: Element) -> bool:
    """Whether all that an element shows is the image of one letter."""
    images = element.find("img") if element.tag in ("div", "span", "p", "figure") else []
    letter = _LETTER_ALT.fullmatch(images[0].get("alt").strip()) if len(images) == 1 else None
    return letter is not None and letter.group(1).isupper() and not element.words()


def write(
    builder: TextBuilder,
    root: Element,
    kinds: Mapping[Element, ApparatusKind],
    outline: Outline,
    page: str = "",
    whole: ApparatusKind | None = None,
) -> None:
    """Append the text of a page to a builder.

    Args:
        builder: What is written to.
        root: The page.
        kinds: The elements that stand apart, beside those that say so themselves.
        outline: Told the places of the page as they are reached.
        page: Its path in the book.
        whole: The kind of apparatus that the whole page is; None: it is text.
    """

    @cache
    def vocabulary() -> Counter[str]:
        return Counter(re.findall(r"[^\W\d_]+", root.words().lower()))

    main = MainFlow(builder, vocabulary, outline.begin)
    walk = _Page(main, {**kinds, root: whole} if whole else kinds, outline, page)
    outline.reach(page, "")
    walk.start(root)
    open_: list[tuple[Element, Iterator[Element | str]]] = [(root, iter(root.children))]
    while open_:
        element, children = open_[-1]
        child = next(children, None)
        if child is None:
            open_.pop()
            walk.end(element)
        elif isinstance(child, str):
            walk.flow.say(child, walk.plain > 0)
        elif walk.start(child):
            open_.append((child, iter(child.children)))
    main.end()


def named(root: Element) -> Names:
    """Author, title and year as the head of a page says them."""
    fields: dict[str, str] = {}
    for element in root.find("meta", "title"):
        key = (element.get("name") or element.get("property") or element.tag).lower()
        words = " ".join((element.get("content") or element.words()).split())
        fields.setdefault(key.removeprefix("dc.").removeprefix("dcterms.").removeprefix("og:"), words)
    title, source = re.subn(r"\s*[|–—-]\s*(Wikisource|Project Gutenberg).*$", "", fields.get("title", ""))
    title = title.rpartition("/")[2] if source and "Wikisource" in fields["title"] else title
    title = re.sub(r"^The Project Gutenberg eBook of ", "", title, flags=re.I)
    parts = re.match(r"(.+), (?:by|di) (.+)$", title)
    title, author = parts.groups() if parts else (title, "")
    author = direct_name(fields.get("author") or fields.get("creator") or author)
    names = Names(title, author, old_year(fields.get("date", "")))
    headers = [e for e in root.walk() if not {"pg-machine-header", "pg-header"}.isdisjoint(marks(e)[1])]
    return names.over(from_header(headers[-1].lines())) if headers else names


def page(content: str, name: str) -> Book:
    """Read the text of an HTML page.

    Raises:
        InputError: there is nothing in it.
    """
    root = parse_page(content, name)
    kinds = {**around_work(root), **find_contents(root, "", [""], find_notes({"": root}))}
    # A page without headings has its sections where its table of contents leads.
    headed = sum(map(is_heading, root.walk())) > 1
    links = [] if headed else [e for listed, kind in kinds.items() if kind == "contents" for e in listed.find("a")]
    entries = [
        ContentsEntry(link.words(), 1, "", link.get("href")[1:]) for link in links if link.get("href")[:1] == "#"
    ]
    builder, outline = TextBuilder(), Outline([entry for entry in entries if entry.label])
    write(builder, root, kinds, outline)
    outline.finish(builder)
    if not builder.length and not builder.apparatus:
        raise InputError(f"{name} holds no page.", "There is no word in it.", "Save it as plain text (.txt).")
    return without_title_page(builder, named(root))


def parse(data: bytes, name: str) -> Book:
    """Read an HTML page.

    Raises:
        InputError: there is nothing in it.
    """
    return page(page_text(data, name), name)
