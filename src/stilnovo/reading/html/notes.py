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

from stilnovo.reading.html.html_tree import BLOCKS, Element
from stilnovo.reading.html.roles import apparatus_kind, is_plain_mark, may_mark_note
from stilnovo.reading.text_builder import ApparatusKind

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
_NUMBERED = re.compile(r"[\[(]?(?:\d{1,3}|[*†‡])[\])]?[.:)\s]")
_TITLES = frozenset(["h1", "h2", "h3", "h4", "h5", "h6", "p", "div", "dt", "caption"])
_BODIES = frozenset(["p", "div", "li", "dd", "dt", "tr", "aside", "section", "blockquote", "ol", "ul", "dl", "table"])
_PAIRS = frozenset(["[]", "()", "{}"])
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
        self.around: dict[Element, ApparatusKind | None] = {}
        self.begun: dict[Element, Element | None] = {}
        self.bodies: dict[Element, list[Element]] = defaultdict(list)
        self.targets: dict[Element, Place] = {}
        self.backs: dict[Element, set[Element]] = {}
        for page, root in pages.items():
            for element in root.walk():
                self.order[element] = len(self.order)
                for name in ("id", "name"):
                    if value := element.attributes.get(name):
                        self.ids.setdefault((page, value), element)
                target = place(page, element.get("href")) if element.tag == "a" and "#" in element.get("href") else None
                if target and target[1]:
                    self.targets[element] = target

    def next_block(self, element: Element) -> Element | None:
        """The next element beside this one."""
        parent = element.parent
        if parent is None:
            return None
        at = self.position(element)
        return next((e for e in parent.children[at + 1 : at + 4] if isinstance(e, Element)), None)

    def kind_around(self, element: Element) -> ApparatusKind | None:
        """What the element around this one is by its own marks."""
        parent = element.parent
        if parent is not None and parent not in self.around:
            self.around[parent] = apparatus_kind(parent)
        return self.around[parent] if parent is not None else None

    def body(self, target: Element) -> Element | None:
        """The note that begins at a link's target; None when none can."""
        if target not in self.begun:
            self.begun[target] = self._body(target)
        return self.begun[target]

    def _body(self, target: Element) -> Element | None:
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

    def links_back(self, mark: Element, body: Element) -> bool:
        """Whether the note links to its mark, or right beside it."""
        if body not in self.backs:
            inside = [self.targets[e] for e in body.walk()[:60] if e in self.targets]
            self.backs[body] = {self.ids[target] for target in inside if target in self.ids}
        near = {mark, mark.parent, *[child for child in mark.children if isinstance(child, Element)]}
        return not self.backs[body].isdisjoint(near)

    def mark(self, element: Element) -> None:
        """Take the element for the mark of a note, with the brackets and the like around it."""
        while (
            (parent := element.parent) is not None
            and parent.tag in ("sup", "small", "span", "b", "i", "strong", "em")
            and len(parent.children) <= _FIRST
            and may_mark_note(parent.words())
        ):
            element = parent
        self.brackets(element)
        self.kinds[element] = "note"

    def brackets(self, mark: Element) -> None:
        """Move the brackets around a mark into it: `[<a>1</a>]`."""
        parent = mark.parent
        at = self.position(mark)
        if parent is None or not 0 < at < len(parent.children) - 1:
            return
        before, after = parent.children[at - 1], parent.children[at + 1]
        if isinstance(before, str) and isinstance(after, str) and f"{before[-1:]}{after[:1]}" in _PAIRS:
            mark.children = [before[-1], *mark.children, after[0]]
            parent.children[at - 1], parent.children[at + 1] = before[:-1], after[1:]

    def position(self, element: Element) -> int:
        """Where an element stands among its parent's children; -1: it has none."""
        parent = element.parent
        if parent is None:
            return -1
        if parent not in self.positions:
            self.positions[parent] = {e: i for i, e in enumerate(parent.children) if isinstance(e, Element)}
        return self.positions[parent].get(element, -1)

    def find(self) -> None:
        """Find marks and notes."""
        later = []
        for link, target in self.targets.items():
            if not may_mark_note(text := link.words()):
                continue
            declared = "note" in (apparatus_kind(link), self.kind_around(link))
            named = _NAME.search(target[1]) or _NAME.search(link.get("id") or link.get("name"))
            raised = link.parent is not None and (link.parent.tag == "sup" or link.find("sup"))
            element = self.ids.get(target)
            if element is None:
                if declared or named or (raised and not is_plain_mark(text)):
                    self.mark(link)
            elif self.order[element] < self.order[link]:
                later.append((link, element))
            elif (body := self.body(element)) is not None and not _inside(link, body):
                if declared or raised or named or not is_plain_mark(text) or self.links_back(link, body):
                    self.mark(link)
                    self.note(body)
            elif declared or (raised and named):
                self.mark(link)
            else:
                later.append((link, element))
        for link, element in later:  # a note that is named a second time
            bodies = [e for e in (element, *_around(element)) if self.kinds.get(e) == "note" and e.tag in _BODIES]
            if bodies and not any(_inside(link, body) for body in bodies):
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
        """Take the second paragraphs of notes, and their title, for notes where notes stand together."""
        for parent, bodies in self.bodies.items():
            blocks = [e for e in parent.children if isinstance(e, Element) and e.tag in BLOCKS]
            at = [n for n, e in enumerate(blocks) if self.kinds.get(e) == "note"]
            if not at or len(bodies) * 2 < at[-1] - at[0] + 1:
                continue
            # Below their own title all that follows is notes, up to the next heading.
            titled = at[0] > 0 and NOTE_TITLE.fullmatch(blocks[at[0] - 1].words()[:80]) is not None
            for block in blocks[at[0] : len(blocks) if titled else at[-1] + 1]:
                if is_heading(block):
                    break
                self.kinds[block] = "note"
        for element in list(self.order):
            leaf = element.tag in _TITLES and not any(
                isinstance(e, Element) and e.tag in BLOCKS for e in element.children
            )
            if leaf and len(element.children) < _FIRST and NOTE_TITLE.fullmatch(element.words()[:80]):
                self.title(element)

    def title(self, element: Element) -> None:
        """Take a heading *Note* for a part of the notes below it, and what is numbered below it for notes."""
        while (
            element.parent is not None and element.parent.tag in ("div", "header") and len(element.parent.children) < 4
        ):
            if element.parent.words() != element.words():
                break
            element = element.parent
        following: list[Element] = []
        other, most = self.next_block(element), 2000 if is_heading(element) else 3
        while other is not None and not is_heading(other) and len(following) < most:
            following.append(other)
            other = self.next_block(other)
        full = [e for e in following if e.words()]
        if not full:
            return
        numbered = sum(_NUMBERED.match(e.words()) is not None for e in full) * 10 >= len(full) * 6
        if self.kinds.get(full[0]) == "note" or apparatus_kind(full[0]) == "note" or self.holds_notes(full[0]):
            self.kinds[element] = "note"
        elif is_heading(element) and numbered and NOTE_TITLE.fullmatch(element.words()):
            self.kinds.update(dict.fromkeys([element, *full], "note"))

    def holds_notes(self, element: Element) -> bool:
        """Whether the first words in an element are a note."""
        for _ in range(_FIRST):
            first = next((e for e in element.children if isinstance(e, Element) and e.words()), None)
            if first is None:
                return False
            if self.kinds.get(first) == "note" or apparatus_kind(first) == "note":
                return first.tag in _BODIES
            element = first
        return False


def _around(element: Element) -> list[Element]:
    around = []
    while element.parent is not None:
        element = element.parent
        around.append(element)
    return around


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
