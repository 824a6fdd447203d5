"""Find the place in a library whose words are a quotation's, or nearest to them.

The rarest words of the quotation, or words in a row, give passages (the full-text index), each widened to its neighbours, as quotations
cross the borders of passages. The verifier judges the best; where it finds none, words are aligned: a place is near when most
of the quotation's words, of its content words too, stand there in this order, and few are exchanged, missing or added.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import NamedTuple

from stilnovo.chat.matching import indexed, joined_pieces
from stilnovo.chat.quotes import Quote, verify
from stilnovo.chat.wording import skeleton
from stilnovo.library.index import Sought
from stilnovo.library.passages import TARGET
from stilnovo.library.records import Chapter
from stilnovo.library.store import Library
from stilnovo.text.italian import STOP_WORDS, analyse, stem, tokens

#: Words of a quotation that are looked up, passages that are looked through, and places that are judged.
SOUGHT_WORDS, PASSAGES, JUDGED = 10, 12, 4
#: Words in a row that are looked up where those were not enough; of a quotation at most so many words.
ROW, ROWS_AT_MOST = 4, 60
#: The share of the content words that a place must hold to be judged.
WINDOW_SHARE = 0.4
#: Near: these shares of the words and of the content words equal; so many edits, or this share of the words.
EQUAL_SHARE, CONTENT_SHARE, EDITS, EDIT_SHARE = 0.6, 0.5, 3, 0.25
_CUT, _WORD = re.compile(r"[^\W_]+"), re.compile(r"\S+")
_SHAPES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "“": '"', "”": '"', "«": '"', "»": '"', "„": '"'})


class Step(NamedTuple):
    """One step of a difference (`equal`, `replace`, `delete`, `insert`): words of the quotation, the source's in their place."""

    op: str
    quoted: str
    source: str


class Nearest:
    """Looks quotations up in a library, or in some of its works."""

    def __init__(self, library: Library, works: Sequence[int] = ()) -> None:
        self._library, self._works = library, tuple(works)

    def places(self, claimed: str, first: Collection[int] = (), *, every: bool = False) -> list[Quote]:
        """Places of a quotation, as quotations of the source: all that the verifier finds or, where it finds none, the nearest.

        Their status is the verifier's; `text` is the source's own words, also where it is `unverified`, and `section` is
        set. Verified ones come first; of one status, those in the works `first`. Unless `every` place is asked for, the first that
        is verified is enough.
        """
        forms = [word.form for word in tokens(skeleton(claimed)) if not word.elided]
        hits = self._by_rarest(forms, claimed, first) if forms else []
        places = self._judged(claimed, hits, forms, first, every)
        if not places and len(forms) >= ROW:
            places = self._judged(claimed, self._by_rows(claimed), forms, first, every)
        order = {"verified": 0, "repaired": 1, "unverified": 2}
        return sorted(places, key=lambda quote: order[quote.status])

    def _by_rarest(self, forms: Sequence[str], claimed: str, first: Collection[int]) -> list[int]:
        """Passages that hold the rarest words."""
        index, content = self._library.index, _content(forms)
        rarity = index.rarity({stem(form) for form in content})
        rarest = sorted(content, key=lambda form: -rarity[stem(form)])[:SOUGHT_WORDS]
        sought = Sought(surface=tuple(rarest)) if rarest else Sought(demanded=(_cut(claimed),))
        inside = [work for work in first if not self._works or work in self._works]
        named = index.match(sought, PASSAGES // 2, inside) if inside else []
        return list(dict.fromkeys(hit for hit, _ in [*named, *index.match(sought, PASSAGES, self._works)]))

    def _by_rows(self, claimed: str) -> list[int]:
        """Passages that hold some of the words in a row, most rows first: the rarest words may be those that were changed."""
        words, counted = _cut(claimed)[:ROWS_AT_MOST], Counter[int]()
        for i in range(len(words) - ROW + 1):
            sought = Sought(demanded=(words[i : i + ROW],))
            counted.update(hit for hit, _ in self._library.index.match(sought, JUDGED, self._works))
        return [passage for passage, _ in counted.most_common(PASSAGES)]

    def _judged(
        self, claimed: str, hits: Sequence[int], forms: Sequence[str], first: Collection[int], every: bool
    ) -> list[Quote]:
        """The places in some passages and around them: those that the verifier finds, or else the near ones, nearest first."""
        places, near = list[Quote](), list[tuple[float, Quote]]()
        for window, section in self._windows(claimed, hits, forms, first):
            text = self._library.text(section.work)
            quote = verify(claimed, window, text)
            if quote.sound:
                places.append(replace(quote, section=section, verses=section.verses(quote.start, quote.end)))
            elif not places and (aligned := _pieces(claimed, text, window) or aligned_words(claimed, text, window)):
                start, end, edits = aligned
                verses = section.verses(start, end)
                near.append((edits, Quote(claimed, "unverified", text[start:end], section, start, end, verses)))
            if quote.status == "verified" and not every:
                break
        return places or [quote for _, quote in sorted(near, key=lambda pair: pair[0])]

    def _windows(
        self, claimed: str, hits: Sequence[int], forms: Sequence[str], first: Collection[int]
    ) -> list[tuple[Chapter, Chapter]]:
        """The most promising places, each a section narrowed to where the words may stand, and the whole section."""
        reach, wanted, every_form = TARGET + len(claimed), set(_content(forms) or forms), set(forms)
        scored, seen = list[tuple[bool, float, Chapter, Chapter]](), set[tuple[int, int]]()
        for passage in self._library.passages(hits):
            section, text = passage.section, self._library.text(passage.section.work)
            start = max(section.body, passage.start - reach)
            start = max(
                section.body, text.rfind("\n", section.body, start) + 1, text.rfind(" ", section.body, start) + 1
            )
            end = min(section.end, passage.end + reach)
            end = (
                end
                if end == section.end
                else max(text.rfind(" ", start, end), text.rfind("\n", start, end), passage.end)
            )
            there = set(_cut(text[start:end]))
            # Where the content words are the ones that were changed, nearly all others stand there.
            share = max(len(wanted & there) / len(wanted), len(every_form & there) / len(every_form) - 0.3)
            if share >= WINDOW_SHARE and (section.id, passage.start // TARGET) not in seen:
                seen.add((section.id, passage.start // TARGET))
                scored.append((section.work.id not in first, -share, replace(section, body=start, end=end), section))
        scored.sort(key=lambda place: place[:2])
        named = [place for place in scored if not place[0]][:JUDGED]
        return [place[2:] for place in [*named, *[place for place in scored if place[0]][:JUDGED]]]


def _pieces(claimed: str, text: str, window: Chapter) -> tuple[int, int, float] | None:
    """Start and end in `text` of pieces joined by `[…]`, whatever was left out between them."""
    match = (
        joined_pieces(claimed, indexed(text, window.body, window.end), anything=True)
        if "…" in claimed or ".." in claimed
        else None
    )
    return (window.body + match.start, window.body + match.end, 0.0) if match else None


def _cut(text: str) -> tuple[str, ...]:
    return tuple(_CUT.findall(analyse(text)[0]))


def _content(forms: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(form for form in forms if form not in STOP_WORDS and len(form) > 1))


def aligned_words(claimed: str, text: str, window: Chapter) -> tuple[int, int, float] | None:
    """Start and end in `text` of the words of `window` that are nearest to the claimed ones, and the share of edits.

    None where nothing is near.
    """
    words, there = tokens(skeleton(claimed)), tokens(text[window.body : window.end])
    if len(words) < 3 or not there:
        return None
    forms, sources = [word.form for word in words], [word.form for word in there]
    places: dict[str, list[int]] = {}
    for i, form in enumerate(sources):
        places.setdefault(form, []).append(i)
    votes = Counter[int]()
    for i, form in enumerate(forms):
        weight = 1 if form in STOP_WORDS else 3
        for place in places.get(form, ())[:20]:
            votes[place - i] += weight
    best: tuple[float, int, int] | None = None
    spans = [
        (offset, room) for offset, _ in votes.most_common(2) for room in dict.fromkeys((4, max(4, len(forms) // 3)))
    ]
    for offset, room in spans:
        left = max(0, offset - room)
        part = sources[left : max(0, offset) + len(forms) + room]
        blocks = [
            block for block in SequenceMatcher(None, forms, part, autojunk=False).get_matching_blocks() if block.size
        ]
        if not blocks:
            continue
        equal = [form for block in blocks for form in forms[block.a : block.a + block.size]]
        begin = max(0, blocks[0].b - blocks[0].a)
        end = min(len(part), blocks[-1].b + blocks[-1].size + len(forms) - blocks[-1].a - blocks[-1].size)
        steps = SequenceMatcher(None, forms, part[begin:end], autojunk=False).get_opcodes()
        edits = sum(max(i2 - i1, j2 - j1) for op, i1, i2, j1, j2 in steps if op != "equal")
        content, stands = _content(forms), set(_content(equal))
        enough = len(equal) >= max(3, EQUAL_SHARE * len(forms)) and len(stands) >= max(1, CONTENT_SHARE * len(content))
        enough = enough or (len(equal) >= max(2 * ROW, EQUAL_SHARE * len(forms)) and bool(stands))
        if enough and edits <= max(EDITS, EDIT_SHARE * len(forms)) and (best is None or edits / len(forms) < best[0]):
            best = (edits / len(forms), left + begin, left + end)
    if best is None:
        return None
    share, begin, end = best
    return window.body + there[begin].start, window.body + there[end - 1].end, share


def difference(claimed: str, source: str) -> tuple[Step, ...]:
    """How the source differs from a quotation, word by word; the shape of marks and line breaks are no difference."""
    quoted, there = _words(claimed), _words(source)
    steps = SequenceMatcher(None, _keys(quoted), _keys(there), autojunk=False).get_opcodes()
    return tuple(Step(op, " ".join(quoted[i1:i2]), " ".join(there[j1:j2])) for op, i1, i2, j1, j2 in steps)


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text) if word != "/"]


def _keys(words: Sequence[str]) -> list[str]:
    return [word.translate(_SHAPES).strip('"') for word in words]
