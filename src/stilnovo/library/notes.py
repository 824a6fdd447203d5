"""Find the notes of a book that its pages do not call notes: by their marks, which link to them, and their links back.

`<a href="note.xhtml#n2">[2]</a>` is the mark of a note, the paragraph with the id `n2` is the note. A bare number that
links somewhere (a chapter in a list, a verse) is a mark only when what it links to links back, or when its name says so.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import unquote

from stilnovo.library.html_tree import BLOCKS, Element
from stilnovo.library.records import ApparatusKind
from stilnovo.library.roles import apparatus_kind, is_note_mark, is_plain_mark

_NAME = re.compile(
    r"(?:\A|[^a-z])(?:fn|ftn|fnref|footnote|endnote|edn|note|nota|noteref|sdfootnote|sdendnote|cite[-_]?note|fnote|ref|n)"
    r"[a-z]{0,3}[-_.:]*\d",
    re.I,
)
NOTE_TITLE = re.compile(
    r"\W*(?:note|notes|nota|foot-?notes?|end-?notes?|annotazioni|annotations|anmerkungen|fu(?:ß|ss)noten|notas|voetnoten|noter)\b"
    r"[^.!?;]{0,30}\W*",
    re.I,
)
_HEADING = re.compile(r"h[1-6]\Z")
#: A note of more words than this is sooner a chapter.
_LONGEST = 5000
#: What links to a note stands among so many first children of it.
_FIRST = 8

Place = tuple[str, str]


def place(page: str, reference: str) -> Place | None:
    """The page and the id that a link on `page` leads to; None: out of the book."""
    path, _, fragment = reference.strip().partition("#")
    if re.match(r"[a-z][a-z0-9+.-]*:|//", path, re.I) or (not path and not fragment):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(path))) if path else page
    return path, unquote(fragment)


def is_heading(element: Element) -> bool:
    """Whether it is one of h1 to h6."""
    return _HEADING.match(element.tag) is not None


class _Notes:
    """Marks and notes as they are found."""

    def __init__(self, pages: Mapping[str, Element]) -> None:
        self.kinds: dict[Element, ApparatusKind] = {}
        self.ids: dict[Place, Element] = {}
        self.order: dict[Element, int] = {}
        self.positions: dict[Element, dict[Element, int]] = {}
        self.bodies: dict[Element, list[Element]] = defaultdict(list)
        self.links: list[tuple[str, Element, Place]] = []
        self.backward: dict[Place, list[Element]] = defaultdict(list)
        for page, root in pages.items():
            for element in root.walk():
                self.order[element] = len(self.order)
                for name in ("id", "name"):
                    if value := element.attributes.get(name):
                        self.ids.setdefault((page, value), element)
                target = place(page, element.get("href")) if element.tag == "a" and "#" in element.get("href") else None
                if target and target[1]:
                    self.links.append((page, element, target))

    def next_block(self, element: Element) -> Element | None:
        """The next element beside this one."""
        parent = element.parent
        if parent is None:
            return None
        if parent not in self.positions:
            self.positions[parent] = {e: i for i, e in enumerate(parent.children) if isinstance(e, Element)}
        at = self.positions[parent].get(element, len(parent.children))
        return next((e for e in parent.children[at + 1 : at + 4] if isinstance(e, Element)), None)

    def body(self, target: Element) -> Element | None:
        """The note that begins at a link's target; None when none can."""
        here = target
        while here.tag not in BLOCKS and here.tag not in ("td", "th"):
            parent = here.parent
            if parent is None or parent.tag in ("body", "html"):
                return self.next_block(here) if not here.words() else None
            before: list[Element | str] = []
            for child in parent.children[:_FIRST]:
                if child is here:
                    break
                before.append(child)
            else:
                return None
            if any(child.strip() if isinstance(child, str) else child.words() for child in before):
                return None
            here = parent
        if not here.words() and here.tag != "dt":
            following = self.next_block(here)
            return (
                following if following is not None and following.tag in BLOCKS and not is_heading(following) else None
            )
        if here.tag in ("td", "th") and here.parent is not None and here.parent.tag == "tr":
            here = here.parent
        parent = here.parent
        if parent is not None and parent.tag in ("li", "dd", "aside") and parent.children[:3].count(here):
            here = parent
        unfit = here.tag in ("body", "html", "main") or is_heading(here) or any(map(is_heading, here.walk()))
        return None if unfit or len(here.words()) > _LONGEST * 8 else here

    def links_back(self, page: str, mark: Element, body: Element) -> bool:
        """Whether the note links to its mark."""
        near = {mark, mark.parent, *[child for child in mark.children if isinstance(child, Element)]}
        inside = [e for e in body.walk()[:60] if e.tag == "a"]
        back = {self.ids.get(target) for _, link, target in self._links_of(inside)}
        return bool((near - {None}) & back)

    def _links_of(self, anchors: list[Element]) -> list[tuple[str, Element, Place]]:
        if not hasattr(self, "_by_anchor"):
            self._by_anchor = {link[1]: link for link in self.links}
        return [self._by_anchor[anchor] for anchor in anchors if anchor in self._by_anchor]

    def mark(self, element: Element) -> None:
        """Take the element for the mark of a note, with the brackets and the like around it."""
        while (
            (parent := element.parent) is not None
            and parent.tag in ("sup", "small", "span", "b", "i", "strong", "em")
            and len(parent.children) <= _FIRST
            and is_note_mark(parent.words())
        ):
            element = parent
        self.kinds[element] = "note"

    def find(self) -> None:
        """Find marks and notes."""
        later = []
        for page, link, target in self.links:
            if not is_note_mark(text := link.words()):
                continue
            declared = apparatus_kind(link) == "note" or (
                link.parent is not None and apparatus_kind(link.parent) == "note"
            )
            named = _NAME.search(target[1]) or _NAME.search(link.get("id") or link.get("name"))
            raised = link.parent is not None and (link.parent.tag == "sup" or link.find("sup"))
            element = self.ids.get(target)
            if element is None:
                if declared or named or (raised and not is_plain_mark(text)):
                    self.mark(link)
            elif self.order[element] < self.order[link]:
                later.append((link, element))
            elif (body := self.body(element)) is not None and not _inside(link, body):
                if declared or raised or named or not is_plain_mark(text) or self.links_back(page, link, body):
                    self.mark(link)
                    self.note(body)
            elif declared or (raised and named):
                self.mark(link)
        for link, element in later:  # a note that is named a second time
            body = self.body(element)
            if body is not None and body in self.kinds and not any(_inside(link, e) for e in self.kinds if e is body):
                self.mark(link)

    def note(self, body: Element) -> None:
        """Take the element for a note; what defines a term with it."""
        self.kinds[body] = "note"
        if body.parent is not None:
            self.bodies[body.parent].append(body)
        following = self.next_block(body) if body.tag == "dt" else None
        while following is not None and following.tag == "dd":
            self.kinds[following] = "note"
            following = self.next_block(following)

    def complete(self) -> None:
        """Take the second paragraphs of notes and their title for notes where notes stand together."""
        for parent, bodies in self.bodies.items():
            blocks = [e for e in parent.children if isinstance(e, Element) and (e.tag in BLOCKS)]
            is_body = [self.kinds.get(e) == "note" for e in blocks]
            first, last = (
                is_body.index(True) if any(is_body) else 0,
                len(blocks) - 1 - is_body[::-1].index(True) if any(is_body) else -1,
            )
            together = sum(is_body) >= 0.5 * (last - first + 1)
            before = [e for e in blocks[:first] if e.words()]
            alone = all(is_heading(e) or NOTE_TITLE.fullmatch(e.words()[:80]) for e in before) and bool(bodies)
            if together:
                end = (
                    len(blocks)
                    if alone
                    and len(before) == len([*before])
                    and before
                    and NOTE_TITLE.fullmatch(before[-1].words()[:80])
                    else last + 1
                )
                for block in blocks[first:end]:
                    if is_heading(block) and not is_body[blocks.index(block)]:
                        break
                    self.kinds[block] = "note"
            if before and len(before[-1].words()) <= 60 and NOTE_TITLE.fullmatch(before[-1].words()):
                self.kinds[before[-1]] = "note"


def _inside(element: Element, other: Element) -> bool:
    here: Element | None = element
    while here is not None:
        if here is other:
            return True
        here = here.parent
    return False


def find_notes(pages: Mapping[str, Element]) -> dict[Element, ApparatusKind]:
    """Find the marks and the notes in the pages of a book, by path in reading order."""
    notes = _Notes(pages)
    notes.find()
    notes.complete()
    return notes.kinds
