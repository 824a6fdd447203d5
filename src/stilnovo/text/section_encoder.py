"""Encode a rendered conversation as its tokeniser would encode the whole, though people's words are only ever text.

A tokeniser finds the special tokens first and encodes the sections between them. Here the first half is done by hand,
outside the words that people wrote (`inert`), so that no text can hold a control token; a section goes to the
tokeniser, which finds none in it. Some tokenisers treat the beginning of a text in their own way (SentencePiece's space
before the first word): a section is encoded as what it is, the beginning of a text, what follows a special token, or
what goes on after a cut.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from tokenizers import AddedToken
from tokenizers import Tokenizer as Fast

Place = Literal["first", "after", "within"]  # the beginning of a text, behind a special token, behind a cut
_SHORT = 24  # characters of a section that is remembered: headers and line ends
Spans = Iterable[tuple[int, int]]


def spellings(tokens: Collection[str]) -> re.Pattern[str]:
    """Compile a pattern that finds the longest of these tokens at the leftmost place; without tokens it finds nothing."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, tokens), key=len, reverse=True))) or r"(?!)")


def masked(text: str, spans: Spans) -> str:
    """Replace what stands in these spans, in order, by characters of no token; everything keeps its place."""
    parts, behind = list[str](), 0
    for start, end in spans:
        parts += [text[behind:start], "\0" * (end - start)]
        behind = end
    return "".join([*parts, text[behind:]])


def disjoint(spans: Spans) -> list[tuple[int, int]]:
    """Join spans that overlap; the result is in order."""
    merged = list[tuple[int, int]]()
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class SectionEncoder:
    """Encodes rendered texts section by section.

    Args:
        fast: The tokeniser, set to find no special token in a text.
        specials: Special tokens and their ids.
    """

    def __init__(self, fast: Fast, specials: Mapping[str, int]) -> None:
        added = {token.content: token for token in fast.get_added_tokens_decoder().values()}
        self._ids = {
            text: index for text, index in specials.items() if text and (text not in added or added[text].special)
        }
        self._added: dict[str, AddedToken] = {text: added[text] for text in self._ids if text in added}
        self._pattern = spellings(self._ids)
        views: dict[Place, Fast] = {"first": fast, "after": _view(fast, "after"), "within": _view(fast, "within")}

        def section(text: str, place: Place) -> tuple[int, ...]:
            return tuple(views[place].encode(text, add_special_tokens=False).ids)

        self._views = views
        self._short: Callable[[str, Place], tuple[int, ...]] = lru_cache(1024)(section)
        self._long = section

    def encode(
        self, text: str, inert: Spans = (), cuts: Collection[int] = (), seams: Collection[int] = ()
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Encode a text; yields (where a part begins, in characters, its ids).

        Args:
            text: A rendered conversation.
            inert: Parts in which no special token is read.
            cuts: Places behind which the text is encoded separately.
            seams: Places at which a part ends too, though the text is encoded as a whole: a token across one ends the part.
        """
        marks = sorted(place for place in cuts if 0 < place < len(text))
        seams = sorted(seams)
        at = 0
        place: Place = "first"
        for start, end, token in self._specials(text, inert, marks):
            yield from self._parts(text, at, start, place, marks, seams)
            yield start, (self._ids[token],)
            at, place = end, "after"
        yield from self._parts(text, at, len(text), place, marks, seams)

    def _specials(self, text: str, inert: Spans, marks: Sequence[int]) -> Iterator[tuple[int, int, str]]:
        """Find the special tokens outside the inert parts, with the white space that each takes to itself."""
        behind = 0
        for match in self._pattern.finditer(masked(text, inert)):
            start, end = match.span()
            added = self._added.get(match[0])
            if (
                added is not None
                and added.single_word
                and (_is_word(text[:start][-1:]) or _is_word(text[end : end + 1]))
            ):
                continue
            if added is not None and added.lstrip:
                lower = max([behind, *marks[: bisect_right(marks, start)][-1:]])
                start = lower + len(text[lower:start].rstrip())
            if added is not None and added.rstrip:
                upper = min([len(text), *marks[bisect_left(marks, end) :][:1]])
                end = upper - len(text[end:upper].lstrip())
            yield start, end, match[0]
            behind = end

    def _parts(
        self, text: str, start: int, end: int, place: Place, marks: Sequence[int], seams: Sequence[int]
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        for stop in [*marks[bisect_right(marks, start) : bisect_left(marks, end)], end]:
            if start < stop:
                part = text[start:stop]
                inside = seams[bisect_right(seams, start) : bisect_left(seams, stop)]
                if inside:
                    yield from self._divided(part, start, place, inside)
                else:
                    yield start, self._short(part, place) if len(part) <= _SHORT else self._long(part, place)
                start, place = stop, "within"

    def _divided(
        self, text: str, start: int, place: Place, seams: Sequence[int]
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        encoding = self._views[place].encode(text, add_special_tokens=False)
        begins, ids = [start + begin for begin, _ in encoding.offsets], encoding.ids
        places = [bisect_left(begins, seam) for seam in seams]
        for at, (begin, end) in zip((start, *seams), pairwise((0, *places, len(ids))), strict=True):
            yield at, tuple(ids[begin:end])


def _is_word(character: str) -> bool:
    return bool(character) and (character.isalnum() or character == "_")


def _view(fast: Fast, place: Place) -> Fast:
    """The same tokeniser for a section elsewhere than at a text's beginning; itself where that makes no difference."""
    steps: dict[str, Any] = {}
    for name, step in (("normalizer", fast.normalizer), ("pre_tokenizer", fast.pre_tokenizer)):
        steps[name] = None if step is None else json.loads(step.__getstate__())
    changed = {name: _unprefixed(step, place) for name, step in steps.items()}
    if changed == steps:
        return fast
    view = Fast.from_str(json.dumps({**json.loads(fast.to_str()), **changed}))
    view.encode_special_tokens = True
    return view


def _unprefixed(step: Any, place: Place) -> Any:
    """A normaliser or pre-tokeniser (its JSON) without what it puts before a text that does not begin here; None for nothing."""
    if not isinstance(step, dict):
        return step
    always = place == "within"
    match step:
        case {"type": "Sequence"}:
            (key,) = step.keys() & {"normalizers", "pretokenizers"}
            kept = [_unprefixed(inner, place) for inner in step[key]]
            return {**step, key: [inner for inner in kept if inner is not None]}
        case {"type": "Prepend"} if always:
            return None
        case {"type": "Metaspace", "prepend_scheme": "first"}:
            return {**step, "prepend_scheme": "never"}
        case {"type": "Metaspace", "prepend_scheme": "always"} if always:
            return {**step, "prepend_scheme": "never"}
        case {"type": "ByteLevel", "add_prefix_space": True} if always:
            return {**step, "add_prefix_space": False}
    return step
