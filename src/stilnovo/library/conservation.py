"""Check the law of conservation: the words of a file are the words of the stored text and its apparatus, once, in order.

Both sides become lists of words; what the file calls one word may be several here (a note's number inside it), and the
other way round (a hyphen at a line's end), so words are compared by their letters and boundaries are checked after.
Unusual: the alignment is a patience diff, words that stand once on both sides held as anchors, so that a novel with any
number of faults takes a fraction of a second. Words of the apparatus may have moved (footnotes); the author's may not.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import PurePath
from typing import Any, NamedTuple

from stilnovo.library.source_words import APART, BROKEN, MARKED, ONE, Words, plain_letters, source_words, words_of
from stilnovo.reading.text_builder import Apparatus, ApparatusKind

_EXAMPLES = 5
_SHORT = 400  # pairs of words that are tried one by one
_LONGEST_JOIN = 16  # words of one side that may be one word of the other


@dataclass
class Conservation:
    """How the stored words differ from the file's.

    Attributes:
        words: Words of the file that must be stored.
        lost: Words of the file that are not stored.
        foreign: Stored words that the file does not have.
        glued: Stored words that are two in the file.
        split: Stored words that are one in the file.
        moved: Words of the author's that stand in another order than in the file.
        apparatus: Words of each kind of apparatus.
        marked: Whether files of this kind mark their apparatus.
    """

    words: int
    marked: bool
    lost: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    glued: list[str] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    apparatus: dict[ApparatusKind, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the words that is apparatus."""
        return sum(self.apparatus.values()) / max(1, self.words)

    @property
    def broken(self) -> int:
        """How many words break the law."""
        return sum(map(len, (self.lost, self.foreign, self.glued, self.split, self.moved)))

    @property
    def kept(self) -> bool:
        """Whether the law holds."""
        return not self.broken

    def problems(self) -> list[str]:
        """One line for each way in which the law is broken, with examples."""
        said = [
            (self.lost, "of the file {} not stored"),
            (self.foreign, "{} stored that the file does not have"),
            (self.glued, "{} stored without the space that the file has"),
            (self.split, "{} stored with a space that the file does not have"),
            (self.moved, "{} stored in another order than in the file"),
        ]
        return [
            f"{len(words):,} word{'s' * (len(words) > 1)} {what.format('are' if len(words) > 1 else 'is')}: "
            f"{', '.join(words[:_EXAMPLES])}{' …' * (len(words) > _EXAMPLES)}"
            for words, what in said
            if words
        ]


class _Stored(NamedTuple):
    """Stored words: their letters, whether each is the author's, and whether it goes on the author's word before it."""

    letters: list[str]
    author: list[bool]
    goes_on: list[bool]


def _stored(text: str, apparatus: Sequence[Apparatus]) -> tuple[_Stored, dict[ApparatusKind, int]]:
    stored, counts = _Stored([], [], []), Counter[ApparatusKind]()

    def put(words: list[str], author: bool, goes_on: bool = False) -> None:
        stored.letters.extend(words)
        stored.author.extend([author] * len(words))
        stored.goes_on.extend([goes_on, *[False] * (len(words) - 1)][: len(words)])

    done = 0
    for item in [*apparatus, None]:
        until = len(text) if item is None else item.at
        if until > done or item is None:
            piece = text[done:until]
            inside = bool(piece) and done > 0 and piece[0].isalnum() and text[done - 1].isalnum()
            put(words_of(plain_letters(piece)).letters, True, inside)
            done = until
        if item is not None:
            words = words_of(plain_letters(item.text)).letters
            counts[item.kind] += len(words)
            put(words, False)
    return stored, dict(counts)


class _Run(NamedTuple):
    """File words `i` to `i_end` have the letters of stored words `j` to `j_end`; one by one, where `equal`."""

    i: int
    i_end: int
    j: int
    j_end: int
    equal: bool


def _joined(a: list[str], i: int, i_end: int, b: list[str], j: int, j_end: int) -> tuple[int, int] | None:
    """Ends of the fewest words from `i` and `j` on that have the same letters."""
    left, right = a[i], b[j]
    i, j = i + 1, j + 1
    for _ in range(2 * _LONGEST_JOIN):
        if left == right:
            return i, j
        if len(left) < len(right):
            if i == i_end or not right.startswith(left):
                return None
            left, i = left + a[i], i + 1
        else:
            if j == j_end or not left.startswith(right):
                return None
            right, j = right + b[j], j + 1
    return None


def _once(words: list[str], start: int, end: int, size: int) -> dict[tuple[str, ...], int]:
    """Runs of `size` words that stand once in `words[start:end]`, with where."""
    places: dict[tuple[str, ...], int] = {}
    for at in range(start, end - size + 1):
        run = tuple(words[at : at + size])
        places[run] = -1 if run in places else at
    return {run: at for run, at in places.items() if at >= 0}


def _anchors(a: list[str], i: int, i_end: int, b: list[str], j: int, j_end: int, size: int) -> list[tuple[int, int]]:
    """Places of runs of words that stand once on both sides, the longest chain of them that rises on both."""
    there = _once(b, j, j_end, size)
    pairs = [(at, there[run]) for run, at in _once(a, i, i_end, size).items() if run in there]
    tails: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for n, (_, at) in enumerate(pairs):
        place = bisect_left(tails, at)
        before.append(last[place - 1] if place else -1)
        if place == len(tails):
            tails.append(at)
            last.append(n)
        else:
            tails[place], last[place] = at, n
    chain, n = [], last[-1] if last else -1
    while n >= 0:
        chain.append(pairs[n])
        n = before[n]
    return chain[::-1]


def _nearest(a: list[str], i: int, i_end: int, b: list[str], j: int, j_end: int) -> Iterator[_Run]:
    """What agrees in two short pieces without an anchor, the nearest first."""
    while i < i_end and j < j_end and (i_end - i) * (j_end - j) <= _SHORT:
        pairs = sorted((x + y, x, y) for x in range(i, i_end) for y in range(j, j_end))
        nearest = next(((x, y, ends) for _, x, y in pairs if (ends := _joined(a, x, i_end, b, y, j_end))), None)
        if nearest is None:
            return
        x, y, (i, j) = nearest
        yield _Run(x, i, y, j, a[x] == b[y])


def _runs(a: list[str], b: list[str]) -> Iterator[_Run]:
    """Align two lists of words; yields what agrees, in order."""
    todo = [(0, len(a), 0, len(b), 4)]
    while todo:
        i, i_end, j, j_end, size = todo.pop()
        while i < i_end and j < j_end:
            start = i
            while i < i_end and j < j_end and a[i] == b[j]:
                i, j = i + 1, j + 1
            if i > start:
                yield _Run(start, i, j - (i - start), j, True)
            ends = _joined(a, i, i_end, b, j, j_end) if i < i_end and j < j_end else None
            if ends is None:
                break
            yield _Run(i, ends[0], j, ends[1], False)
            i, j = ends
        if i == i_end or j == j_end:
            continue
        if not size:
            yield from _nearest(a, i, i_end, b, j, j_end)
            continue
        anchors = _anchors(a, i, i_end, b, j, j_end, size)
        if not anchors:
            todo.append((i, i_end, j, j_end, size // 2))
            continue
        # Each piece begins at an anchor, up to the next; the first before them all, where only smaller runs can agree.
        starts = [(i, j), *anchors]
        pieces = [(*at, *to) for at, to in zip(starts, [*anchors, (i_end, j_end)], strict=True)]
        todo += [
            (x, x_end, y, y_end, size if n else size // 2) for n, (x, y, x_end, y_end) in reversed([*enumerate(pieces)])
        ]


def compare(data: bytes, name: str, text: str, apparatus: Sequence[Apparatus]) -> Conservation:
    """Compare a stored text and its apparatus with the file it was read from.

    Args:
        data: The bytes of the file.
        name: Its name; the suffix says of what kind it is.
        text: The stored text.
        apparatus: What is kept apart from it, in order.
    """
    suffix = PurePath(name).suffix.lower()
    stored, counts = _stored(text, apparatus)
    source = source_words(data, name, frozenset(stored.letters))
    words, marked = len(source.letters) - sum(source.optional), suffix in MARKED
    result = _compared(source, stored, Conservation(words, marked, apparatus=counts))
    if result.moved or result.foreign:
        # A note that stands elsewhere in the file may be longer than what it moved over: the author's words come first.
        order = sorted(range(len(stored.author)), key=lambda n: not stored.author[n])
        turned = _Stored(*(list(map(column.__getitem__, order)) for column in stored))  # type: ignore[arg-type]
        again = _compared(source, turned, Conservation(words, marked, apparatus=counts), sum(stored.author))
        result = min(result, again, key=lambda either: either.broken)
    return result if suffix != ".pdf" else _letters_alone(result)


def _letters_alone(result: Conservation) -> Conservation:
    """What counts of a PDF, which draws letters in any order and no spaces: that none is lost and none put in."""
    # Old fonts print an accent before its letter.
    letters = [
        unicodedata.normalize("NFD", "".join(words)).replace("ı", "i") for words in (result.lost, result.foreign)
    ]
    lost, foreign = (Counter(char for char in word if char.isalnum()) for word in letters)
    same = lost == foreign
    return replace(result, glued=[], split=[], moved=[], **(dict[str, Any](lost=[], foreign=[]) if same else {}))


def _compared(source: Words, stored: _Stored, result: Conservation, until: int | None = None) -> Conservation:
    """Fill in what differs; only the stored words before `until` are held to the file's order."""
    runs = list(_runs(source.letters, stored.letters[:until]))
    _boundaries(source, stored, runs, result)
    _missing(source, stored, runs, result)
    return result


def _missing(source: Words, stored: _Stored, runs: list[_Run], result: Conservation) -> None:
    """Add words that no run holds: lost, foreign, or moved."""
    agreed = [_Run(0, 0, 0, 0, True), *runs, _Run(len(source.letters), 0, len(stored.letters), 0, True)]
    only_source = [n for run, following in pairwise(agreed) for n in range(run.i_end, following.i)]
    only_stored = [n for run, following in pairwise(agreed) for n in range(run.j_end, following.j)]
    elsewhere = Counter(stored.letters[n] for n in only_stored if not stored.author[n])
    elsewhere_author = Counter(stored.letters[n] for n in only_stored if stored.author[n])
    here = Counter(source.letters[n] for n in only_source)
    # A word that a reader may drop can have been taken for the same word that it may not.
    optional = [n for n, its in enumerate(source.optional) if its]
    dropped = set(only_source)
    spare = Counter(source.letters[n] for n in optional if n not in dropped)
    for n in only_source:
        word = source.letters[n]
        if elsewhere[word]:
            elsewhere[word] -= 1
        elif elsewhere_author[word]:
            elsewhere_author[word] -= 1
            result.moved.append(word)
        elif spare[word] and not source.optional[n]:
            spare[word] -= 1
        elif not source.optional[n]:
            result.lost.append(word)
    for n in only_stored:
        word = stored.letters[n]
        if here[word]:
            here[word] -= 1
        else:
            result.foreign.append(word)


def _boundaries(source: Words, stored: _Stored, runs: list[_Run], result: Conservation) -> None:
    """Add words that are glued or split. Only the author's count: of the apparatus nothing is quoted."""
    starts = [0, *accumulate(map(len, source.letters))]  # every place in the file's letters where a word begins

    def gap(at: int) -> int:
        n = bisect_left(starts, at)
        return source.gaps[n] if starts[n] == at and n < len(source.gaps) else ONE

    before, expected = None, 0  # where the author's word before ended in the file's letters; the next stored word
    for run in runs:
        if any(stored.author[expected : run.j]):
            before = None
        expected, at = run.j_end, starts[run.i]
        for j in range(run.j, run.j_end):
            end = at + len(stored.letters[j])
            if stored.author[j]:
                if not run.equal and APART in source.gaps[bisect_right(starts, at) : bisect_left(starts, end)]:
                    result.glued.append(stored.letters[j])
                if before is not None and (stored.goes_on[j] or not run.equal or gap(at) == ONE):
                    first, second = gap(before), gap(at)
                    if stored.goes_on[j] and first != BROKEN and APART in (first, second):
                        result.glued.append(stored.letters[j])
                    elif not stored.goes_on[j] and first == second == ONE:
                        result.split.append(stored.letters[j])
                before = end
            at = end
