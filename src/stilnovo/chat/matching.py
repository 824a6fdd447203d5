"""Where a quotation stands in a source, and how far its wording is the source's: the comparison behind `quotes.verify`.

A place is found by the folded words alone (`wording.IndexedText`), then judged word by word and mark by mark. Unusual: marks of
punctuation that a quoter leaves out or exchanges are put right, marks that he moves are not: «Grazia, impossibile giustiziarlo»
is not «Grazia impossibile, giustiziarlo».
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from stilnovo.chat.cuts import denies, turned
from stilnovo.chat.marks import APHAERESIS
from stilnovo.chat.slips import is_number, same_word, shows_no_accents, typing_slip
from stilnovo.chat.wording import UNSEEN, IndexedText, Mark, Parsed, folded, parsed, significant

#: Words from which on one in so many may have a slip.
REPAIR_WORDS, REPAIR_SHARE = 4, 0.25
#: Pieces joined by `[…]` stand within this many characters, and have at least so many words each.
OMISSION, OMISSION_WORDS = 600, 3
#: Places judged at most: so many, but for long quotations as many as have so many words together.
_PLACES_JUDGED, _WORDS_JUDGED = 300, 6000
_DOTS = r"(?:…\.*|\.{2,}…?)"
_BRACKETED_HEAD = re.compile(r"\[\s{0,3}(?:…|\.{2,6})\s{0,3}\]")
_BRACKETED_TAIL = re.compile(_BRACKETED_HEAD.pattern + r"\Z")
_OMITTED = re.compile(rf"\[\s{{0,3}}{_DOTS}\s{{0,3}}\]|\(\s{{0,3}}{_DOTS}\s{{0,3}}\)")
_SENTENCE_MARKS = frozenset(".?!")
_JOINTS = frozenset("-'")
_MAY_BE_ADDED = frozenset(',"—…()')
_SIGNED = re.compile(r"(?:^|[\s(])[-−–+±][ \t]?\Z|[€$£]\s?\Z")
_MINUS = re.compile(r"\s[-−–]\Z")
_UNIT_BEHIND = re.compile(r"\s?[%‰°ºª½¼¾²³]|\s+per\s+cento\b")
_GROUPS = re.compile(r"[ \u00a0\u2009\u202f]")


@dataclass(frozen=True)
class Match:
    """A place `start` to `end` of the source; `before` and `after` are the words around it that turn its sense."""

    start: int
    end: int
    exact: bool
    before: str = ""
    after: str = ""

    @property
    def rank(self) -> int:
        """The lower, the better: exact ones first, then those that need no more of their sentence."""
        return 2 * (not self.exact) + bool(self.before or self.after)


@lru_cache(maxsize=32)
def indexed(text: str, start: int, end: int) -> IndexedText:
    """The words of `text[start:end]`, indexed; the last sections looked at are remembered."""
    return IndexedText(text[start:end])


def best_match(claimed: str, source: IndexedText, exact: bool = True) -> Match | None:
    """The best place of a quotation in a source; None where its words do not stand. `exact` is whether it can be exact."""
    bare = _bare(claimed)
    claim = parsed(bare)
    dots = claimed.rstrip().endswith(("…", "..."))
    best: Match | None = None
    for first in _places(claim, source):
        match = _judged(claim, first, source, dots, exact)
        if match is not None and (best is None or match.rank < best.rank):
            best = match
            if best.rank == 0:
                break
    return best


def _bare(claimed: str) -> str:
    """A claim without invisible characters, and without the ellipses at its ends."""
    bare = UNSEEN.sub("", claimed).strip()
    for _ in range(3):
        dots = bare[len(bare.rstrip(".…")) :]
        if len(dots) > 1 or dots == "…":
            bare = bare[: -len(dots)].rstrip()
        elif match := _BRACKETED_TAIL.search(bare, max(0, len(bare) - 16)):
            bare = bare[: match.start()].rstrip()
        dots = bare[: len(bare) - len(bare.lstrip(".…"))]
        if len(dots) > 1 or dots == "…":
            bare = bare[len(dots) :].lstrip()
        elif match := _BRACKETED_HEAD.match(bare):
            bare = bare[match.end() :].lstrip()
    return bare


def _places(claim: Parsed, source: IndexedText) -> Iterator[int]:
    """Indices of source words where the claim may begin: all words equal when folded, or all but a few that the source never has."""
    forms = [folded(word)[0] for word in claim.words]
    judged = min(_PLACES_JUDGED, max(4, _WORDS_JUDGED // max(1, len(forms))))
    unknown = [i for i, form in enumerate(forms) if form not in source]
    if not unknown:
        for _, place in zip(range(judged), source.places(forms), strict=False):
            yield place
    elif len(forms) >= REPAIR_WORDS and len(unknown) <= REPAIR_SHARE * len(forms):
        edges = [-1, *unknown, len(forms)]
        begin, end = max(((a + 1, b) for a, b in pairwise(edges)), key=lambda run: run[1] - run[0])
        for _, place in zip(range(judged), source.places(forms[begin:end]), strict=False):
            yield place - begin


def _judged(claim: Parsed, first: int, source: IndexedText, dots: bool, exact: bool) -> Match | None:
    """The claim compared with the source's words from `first` on; None where it is not the same wording."""
    count = len(claim.words)
    window = source.window(first, count)
    if window is None:
        return None
    offset, text, begin = window
    place = parsed(text)
    if len(place.words) < begin + count or not _whole(place, begin, begin + count, len(claim.gaps[-1])):
        return None
    last = begin + count - 1
    if place.marked[last] and not claim.marked[-1]:
        place.marked[last] = not source.closes_quotation(offset + place.spans[last][1])
    same = exact and _verbatim(claim, place, begin)
    if not same and not _repairable(claim, place, begin, source):
        return None
    head, tail = place.gaps[begin], place.gaps[begin + count]
    start, end = place.spans[begin][0], place.spans[last][1]
    own = len(claim.gaps[0])
    if own and claim.keys(0) == sorted(mark.key for mark in head[-own:]):
        start = head[-own].start
    elif place.text[start - 1 : start] in ("'", "’") and APHAERESIS.match(place.text, start):
        start -= 1
    covered = _covered([mark.key for mark in claim.gaps[-1]], [mark.key for mark in tail], dots)
    quotes = sum(mark.key == '"' for gap in range(begin + 1, begin + count) for mark in place.gaps[gap])
    quotes += sum(mark.key == '"' and mark.start >= start for mark in head)
    if quotes % 2 and not covered and [mark.key for mark in tail[:1]] == ['"'] and not place.marked[last]:
        covered = 1
    if covered:
        end = tail[covered - 1].end
    before, after = turned(source.text, offset + start, offset + end)
    return Match(offset + start, offset + end, same, before, after)


def _whole(place: Parsed, begin: int, end: int, own: int) -> bool:
    """Whether words `begin` to `end` of the source are whole at both ends: no part of a compound, a figure, a number of several words.

    Of the marks behind them `own` are quoted too: a unit, it may be.
    """
    first, last = place.words[begin], place.words[end - 1]
    if begin and _inside(place, begin):
        return False
    if first.isdigit() and begin and _SIGNED.search(place.raw[begin]):
        return False
    if end < len(place.words) and (_inside(place, end) or [mark.key for mark in place.gaps[end]] == ["'"]):
        return False
    if own and place.gaps[end] and place.gaps[end][0].key in "%‰°½¼¾":
        return True
    behind = place.raw[end] + (place.words[end] if end < len(place.words) else "")
    behind += place.raw[end + 1] if end + 1 < len(place.raw) else ""
    return not (is_number(folded(last)[0]) and _UNIT_BEHIND.match(behind))


def _inside(place: Parsed, gap: int) -> bool:
    """Whether a gap between two words is inside one word: a hyphen, the point of a figure, an emphasis mark, *due milioni*."""
    before, after, raw = place.words[gap - 1], place.words[gap], place.raw[gap]
    keys = [mark.key for mark in place.gaps[gap]]
    if keys == ["-"] or (keys and keys[0][0] == "#" and len(keys[0]) > 1):
        return True
    if raw and not raw.strip("_*\u00ad\u200b\u200c\u200d\u2060\ufeff"):
        return True
    if raw == "." and 1 in (len(before), len(after)) and not before.isdigit():
        return True
    if before.isdigit() and after.isdigit():
        return _GROUPS.fullmatch(raw) is not None and len(before) <= 3 and len(after) == 3
    return raw.isspace() and "\n\n" not in raw and _one_number(before, after)


_CARDINAL = re.compile(
    "(?:un|due|tr[ei]|quattro|cinque|sei|sette|otto|nove|dieci|dodici|dicia|dician|(?:un|tre|quattor|quin|se)dici|vent[io]?|(?:trent|quarant"
    "|cinquant|sessant|settant|ottant|novant)[ao]?|du?e?cent[oi]?|cent[oi]?|mille|mila|milion[ei]|miliard[oi])+"
)
_FRACTION = re.compile("(?:terz|quart|quint|sest|settim|ottav|non|decim|ventesim|centesim|millesim)[oi]")


def _one_number(word: str, following: str) -> bool:
    """Whether two words are one number: *due mila*, *3 milioni*, *due terzi*."""
    a, b = folded(word)[0], folded(following)[0]
    if len(a) + len(b) > 60 or not (a.isdigit() or _CARDINAL.fullmatch(a)):
        return False
    return b.isdigit() or _CARDINAL.fullmatch(b) is not None or _FRACTION.fullmatch(b) is not None


def _covered(own: list[str], marks: list[str], dots: bool) -> int:
    """How many of the source's marks behind the last word belong to the quotation: those that it has, and a «?» or «!» in any case."""
    count = len(own) if own and own == marks[: len(own)] else 0
    if not count and own and sorted(own) == sorted(marks[: len(own)]):
        count = len(own)
    if dots and marks[count : count + 1] == ["…"]:
        count += 1
    upto = count
    while upto < len(marks) and marks[upto] in ("?", "!", "…"):
        upto += 1
    return upto if set(marks[count:upto]) & {"?", "!"} else count


def _verbatim(claim: Parsed, place: Parsed, begin: int) -> bool:
    """Whether the claim has the source's letters and marks, but for what the quoter may leave out at the ends."""
    count, last = len(claim.words), begin + len(claim.words) - 1
    if place.marked[last] and not claim.marked[-1] and place.words[last][-1] in "aeiouAEIOU":
        return False
    if not _same_letter_for_letter(claim, place, begin):
        head = place.gaps[begin][-len(claim.gaps[0]) :] if claim.gaps[0] else []
        if claim.words != place.words[begin : begin + count] or claim.keys(0) != sorted(mark.key for mark in head):
            return False
        for gap in range(1, count):
            if claim.keys(gap) != place.keys(begin + gap) or (_slashed(claim, gap) and not place.broken[begin + gap]):
                return False
    own, marks = [mark.key for mark in claim.gaps[-1]], [mark.key for mark in place.gaps[begin + count]]
    if claim.marked[-1] and not place.marked[last] and own[:1] == ['"']:
        own = own[1:]
    if not own:
        return True
    if sorted(own) == sorted(marks[: len(own)]):
        rest = marks[len(own) : len(own) + 1]
        return not (set(own) & {"?", "!"} and rest and rest[0] in "?!")
    if not {"?", "!", "…"} & set(marks) and own[0] in (".", ",", ";", ":"):
        return len(own) == 1 or own[1:] == marks[: len(own) - 1]
    return False


def _same_letter_for_letter(claim: Parsed, place: Parsed, begin: int) -> bool:
    """Whether the claim is a copy of the source up to its last word."""
    start = place.spans[begin][0] - claim.spans[0][0]
    length = claim.spans[-1][1]
    whole = place.spans[begin + len(claim.words) - 1][1] == start + length
    return start >= 0 and whole and place.text[start : start + length] == claim.text[:length]


def _slashed(claim: Parsed, gap: int) -> bool:
    return claim.broken[gap] and ("/" in claim.raw[gap] or "|" in claim.raw[gap])


def _repairable(claim: Parsed, place: Parsed, begin: int, source: IndexedText) -> bool:
    """Whether the claim has the source's words, written otherwise, and its marks, or fewer of them."""
    count = len(claim.words)
    window = place.words[begin : begin + count]
    no_accents = _writes_no_accents(claim, place, begin)
    slips = 0
    for i, (said, word) in enumerate(zip(claim.words, window, strict=True)):
        apostrophes = (claim.marked[i], place.marked[begin + i])
        if i == count - 1 and claim.marked[i] and not place.marked[begin + i] and word.isascii():
            apostrophes = (False, False)  # the quoter's own closing mark
        if said == word and apostrophes[0] == apostrophes[1]:
            continue
        if not same_word(said, word, apostrophes, no_accents, source.ascii):
            slips += 1
            if (
                count < REPAIR_WORDS
                or slips > REPAIR_SHARE * count
                or folded(said)[0] in source
                or not typing_slip(said, word)
            ):
                return False
    return _marks_agree(claim, place, begin) and _moods_agree(claim.gaps[-1], place.gaps[begin + count])


def _writes_no_accents(claim: Parsed, place: Parsed, begin: int) -> bool:
    """Whether the quoter types without accents and capitals, as in a search box: then a missing accent says nothing."""
    words = place.words[begin : begin + len(claim.words)]
    if any(claim.marked) or not all(word.isascii() for word in claim.words):
        return False
    if any(word != word.lower() for word in claim.words) and any(word != word.upper() for word in claim.words):
        return False
    inner = range(1, len(words))
    unmarked = not any(claim.gaps[gap] for gap in inner) and any(place.gaps[begin + gap] for gap in inner)
    accented = sum(not word.isascii() for word in words)
    pairs = list(zip(claim.words, words, strict=True))
    capitals = any(
        said[-1].isupper() != word[-1].isupper() or said[0].isupper() != word[0].isupper() for said, word in pairs
    )
    return unmarked or capitals or accented > 1 or any(shows_no_accents(a, b) for a, b in pairs)


def _marks_agree(claim: Parsed, place: Parsed, begin: int) -> bool:
    """Whether the marks between the words are the source's, or fewer, or others in their place; none moved."""
    added = dropped = 0
    quotes_added = quotes_dropped = False
    for gap in range(1, len(claim.words)):
        said, ours = claim.keys(gap), place.keys(begin + gap)
        if said == ours:
            continue
        figures = [[key for key in keys if significant(key)] for keys in (said, ours)]
        beside_figure = claim.words[gap - 1].isdigit() or claim.words[gap].isdigit()
        if figures[0] != figures[1] or (beside_figure and ("-" in said) != ("-" in ours)):
            return False
        signs = [_MINUS.search(raw) is not None for raw in (claim.raw[gap], place.raw[begin + gap])]
        if claim.words[gap].isdigit() and signs[0] != signs[1]:
            return False
        if not _moods_agree(claim.gaps[gap], place.gaps[begin + gap]):
            return False
        marks = _punctuation(said, claim.marked[gap - 1])
        source_marks = _punctuation(ours, place.marked[begin + gap - 1])
        if marks and not source_marks:
            added += 1
            if not marks <= _MAY_BE_ADDED or denies(claim.words[gap - 1]):
                return False
        dropped += bool(source_marks and not marks)
        quotes_added = quotes_added or ('"' in marks and '"' not in source_marks)
        quotes_dropped = quotes_dropped or ('"' in source_marks and '"' not in marks)
    return not (added and dropped) and added <= 2 and not (quotes_added and quotes_dropped)


def _punctuation(keys: list[str], marked: bool) -> set[str]:
    """The marks of a gap without what belongs to a word: hyphens, apostrophes (`marked`: one ends the word before)."""
    marks = keys.copy()
    if marked and '"' in marks:
        marks.remove('"')
    return set(marks) - _JOINTS


def _moods_agree(said: list[Mark], ours: list[Mark]) -> bool:
    """Whether the claim's «.», «?» and «!» in a gap do not contradict the source's; none contradicts nothing."""
    moods = {mark.key for mark in said} & _SENTENCE_MARKS
    source_moods = {mark.key for mark in ours} & _SENTENCE_MARKS
    if not moods:
        return True
    return moods == source_moods if source_moods or "?" in moods else True


def joined_pieces(claimed: str, source: IndexedText, *, anything: bool = False) -> Match | None:
    """The place from the first to the last piece around `[…]`; None where one does not stand in order.

    None too where what is left out denies, or is long, unless `anything` may be left out.
    """
    pieces = [piece for piece in _OMITTED.split(_bare(claimed)) if piece.strip()]
    return _in_order(pieces, source, anything) if len(pieces) > 1 else None


def _exact_places(piece: str, source: IndexedText) -> list[Match]:
    claim = parsed(piece.strip())
    if len(claim.words) < OMISSION_WORDS:
        return []
    judged = (_judged(claim, first, source, False, True) for first in _places(claim, source))
    return [match for match in judged if match is not None and match.exact]


def _in_order(pieces: list[str], source: IndexedText, anything: bool) -> Match | None:
    places = []
    for piece in pieces:
        places.append(_exact_places(piece, source))
        if not places[-1]:
            return None
    for first in places[0]:
        chain = [first]
        for options in places[1:]:
            following = next((match for match in options if match.start >= chain[-1].end), None)
            if following is None:
                return None
            chain.append(following)
        gaps = [source.text[a.end : b.start] for a, b in pairwise(chain)]
        if anything or (chain[-1].end - first.start <= OMISSION and not any(map(_turns_pieces, gaps))):
            return Match(first.start, chain[-1].end, False, first.before, chain[-1].after)
    return None


_STOP = re.compile(r"[.!?…]+[»”\"’')\]]*\s")


def _turns_pieces(left_out: str) -> bool:
    """Whether words left out deny in the sentences of the pieces around them; whole sentences between do not."""
    stops = [stop.end() for stop in _STOP.finditer(left_out)]
    return denies(left_out[: stops[0]]) or denies(left_out[stops[-1] :]) if stops else denies(left_out)
