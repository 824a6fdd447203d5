"""Find tables of contents, transcriber's notes and lists of characters among the elements of a page.

A table of contents is a list of links into the book, or short lines under a heading that says *Indice*. None of these is
text of the author's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import takewhile

from stilnovo.reading.html.html_tree import BLOCKS, Element
from stilnovo.reading.html.notes import is_heading, place
from stilnovo.reading.text_builder import ApparatusKind

_CONTENTS = re.compile(
    r"\W*(?:(?:table of )?contents|indice(?: (?:dei capitoli|generale|delle materie|del volume|dell'opera))?|sommario"
    r"|table des mati[èe]res|inhalt(?:sverzeichnis)?|[ií]ndice|tavola delle materie|inhoud|list of illustrations|illustrations)\W*",
    re.I,
)
_TRANSCRIBER = re.compile(
    r"\W*(?:transcriber['’]?s?['’]? notes?|not[ae] (?:del|di) trascri\w+|notes? (?:du|de) transcri\w+|anmerkungen zur transkription)\W*"
    , re.I,
)  # fmt: skip
# What the links between the pages of a book on the web say.
_ELSEWHERE = re.compile(
    r"(?:\W|(?:indice|sommario|contents|home|next|previous|prev|precedente|successiv[oa]|seguente|capitolo|chapter|pagina|page|avanti"
    r"|indietro|torna|back|to|top|up|su|inizio|all|al|alla|the|table|of|copertina|frontespizio)\b)+",
    re.I,
)
_TO_PAGE = re.compile(r"(?:\.{3,}|…|\s)\s*(?:pag\.\s*)?\d{1,4}\W*\Z")
#: A list is a table of contents from so many links that hold this share of its letters.
_LINKS, _SHARE = 3, 0.6
#: A title or a line of links consists of no more elements than this.
_FEW = 30
_TITLES: tuple[tuple[re.Pattern[str], ApparatusKind], ...] = (
    (_CONTENTS, "contents"),
    (_TRANSCRIBER, "transcriber"),
    (
        re.compile(
            r"\W*(?:personaggi|interlocutori|persone|dramatis person(?:ae|æ)|personnages|personajes|personen)\W*", re.I
        ),
        "other",
    ),
)


def letters_of(text: str) -> int:
    """How many letters and figures a text has."""
    return sum(map(str.isalnum, text))


def _counts(
    root: Element, page: str, pages: Collection[str], notes: Collection[Element]
) -> dict[Element, tuple[int, int, int, int]]:
    """Letters, letters in links into the book, such links, and elements, in every element."""
    counts: dict[Element, list[int]] = {}
    for element in reversed(root.walk()):
        count = counts.setdefault(element, [0, 0, 0, 1])
        count[0] += sum(letters_of(child) for child in element.children if isinstance(child, str))
        target = place(page, element.get("href")) if element.tag == "a" and element.get("href") else None
        if target and (target[0] in pages or target[0] == page):
            count[1:3] = count[0], 1
        if element in notes:
            count[:3] = 0, 0, 0
        if element.parent is not None:
            above = counts.setdefault(element.parent, [0, 0, 0, 1])
            above[:] = [a + b for a, b in zip(above, count, strict=True)]
    return {element: (count[0], count[1], count[2], count[3]) for element, count in counts.items()}


def find_contents(
    root: Element, page: str, pages: Collection[str], notes: Mapping[Element, ApparatusKind]
) -> dict[Element, ApparatusKind]:
    """Find tables of contents, and transcriber's notes, among the elements of a page beside its `notes`; all together."""
    kinds: dict[Element, ApparatusKind] = dict(notes)
    counts = _counts(root, page, pages, notes)

    def linked(element: Element) -> bool:
        letters, inside, links, _ = counts[element]
        return links > 0 and inside >= _SHARE * letters > 0

    for element in root.walk():
        if (
            element.tag in BLOCKS
            and counts[element][0] <= 80
            and counts[element][3] <= _FEW
            and linked(element)
            and _ELSEWHERE.fullmatch(element.words())
        ):
            kinds[element] = "contents"
        if element.tag in ("ul", "ol", "table", "dl") and linked(element) and counts[element][2] >= _LINKS:
            kinds[element] = "contents"
        blocks = [child for child in element.children if isinstance(child, Element) and child.tag in BLOCKS]
        run: list[Element] = []
        for block in [*blocks, None]:
            if block is not None and linked(block) and counts[block][0] < 2000:
                run.append(block)
            elif block is None or counts[block][0]:
                if sum(counts[b][2] for b in run) >= _LINKS:
                    kinds.update(dict.fromkeys(run, "contents"))
                run = []
        _under_titles(blocks, counts, kinds)
    return kinds


def _leads(element: Element, count: tuple[int, int, int, int]) -> bool:
    """Whether a block is links, or ends in the number of a page; an empty one may stand among such."""
    letters, inside, _, _ = count
    return inside >= _SHARE * letters or (letters <= 90 and _TO_PAGE.search(element.words()) is not None)


def _under_titles(
    blocks: list[Element], counts: dict[Element, tuple[int, int, int, int]], kinds: dict[Element, ApparatusKind]
) -> None:
    """Take what follows a heading *Indice*, *Personaggi* or *Nota del trascrittore* for that, up to the next heading."""
    for at, block in enumerate(blocks):
        letters, _, _, elements = counts[block]
        if not 0 < letters <= 60 or elements > _FEW or block.tag == "nav":
            continue
        title = block.words()
        kind = next((kind for pattern, kind in _TITLES if pattern.fullmatch(title)), None)
        if kind is None or (kind == "other" and not is_heading(block)):
            continue
        following = []
        for other in blocks[at + 1 : at + 400]:
            if is_heading(other) or other.tag in ("section", "article"):
                break
            following.append(other)
        if kind == "contents" and not is_heading(
            block
        ):  # no heading may end it: only what leads somewhere belongs to it
            following = list(takewhile(lambda e: _leads(e, counts[e]), following))
        full = [other for other in following if counts[other][0]]
        if not full:
            continue
        links = all(counts[other][1] >= _SHARE * counts[other][0] for other in full)
        listed = (
            links
            or all(_TO_PAGE.search(other.words()[-80:]) for other in full[:50])
            or len(full) >= _LINKS
            or full[0].tag in ("ul", "ol", "table", "dl")
        )
        short = listed and all(kinds.get(other) == "contents" or counts[other][0] <= 90 for other in full)
        if kind == "contents" and not short and kinds.get(full[0]) == "contents":
            following = full[:1]
        elif sum(counts[other][0] for other in full) > 3000 if kind == "transcriber" else not short:
            continue
        kinds.update(dict.fromkeys([block, *following], kind))
