"""Find what a page carries besides the author's words: page numbers, running heads, footnotes, captions, broken words.

A plain text marks none of these, so each is found by a rule with evidence of its own: page numbers count up and break
sentences; a running head comes again with them; a note's mark in the text has a note that begins with it; a caption
stands in brackets that name it. A number that only looks like one of these stays in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

from stilnovo.reading import numerals
from stilnovo.reading.hyphens import Hyphens
from stilnovo.reading.text_builder import ApparatusKind, Edit, disjoint, paragraphs
from stilnovo.reading.verse import is_verse
from stilnovo.text.italian import fold

_FIGURE = re.compile(
    r"\[[ \t_]*(?:Illustrazion[ei]|Illustrations?|Figur[ae]|Immagin[ei]|Frontespizio|Incisione|Vignetta|Decorazione)\b",
    re.I,
)
_IN_PAGE = re.compile(
    r"(?:\[(?:Pg|pag|pagina|page|p)\.?[ \t]*(\d{1,4}|[ivxlc]{1,8})\]|\{(?:pg|pag|p)?\.?[ \t]*(\d{1,4}|[ivxlc]{1,8})\})",
    re.I,
)
_ALONE = re.compile(
    r"\n(?P<line>[ \t]*(?:[—–~=*\[(-]+[ \t]*|[Pp][Aa][Gg](?:ina|\.)[ \t]*)?(?P<number>\d{1,4})[ \t]*[—–~=*\])-]*[ \t]*)(?=\n)"
)
_ARGUMENT = re.compile(r"^[ \t_*]*(?:ARGOMENTO|Argomento)[ \t_*.:]*\n\s*(?:[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*)", re.M)
# Patterns that begin with a line's end are found several times as fast as those that begin with ^.
_SHORT_LINE = re.compile(r"\n(?P<line>[ \t]*\d[^\n]{3,66}|[^\n]{3,66}\d[ \t]*)(?=\n|\Z)")
_HEAD = re.compile(r"[ \t]*(?:(\d{1,4})[ \t.—–-]+(\D[^\n]{2,60}?)|([^\n]{2,60}?\D)[ \t.—–-]+(\d{1,4}))[ \t]*$")
_KIND = re.compile(
    r"^(?:capitolo|cap|canto|parte|libro|atto|scena|novella|lettera|sonetto|chapter|giornata|volume|tomo|episodio)s?$"
)
_BODY = re.compile(
    r"^[ \t_]*(?:note[ \t.:]+)?(?:\[(?:nota?|footnote|note)?[ \t]*(?P<square>\d{1,3}|[a-zA-Z]|\*{1,3})[.:]?\]?"
    r"|\((?P<round>\d{1,3}|\*{1,3})\))[ \t:.]+(?=\S)",
    re.I | re.M,
)
_BRACKET_LINE = re.compile(r"\n[ \t_]*(?:N[Oo][Tt][Ee][ \t.:]+)?[\[(]")
_MARK = re.compile(r"(?<=[^\s\[(])[ \t]?(?:\[(\d{1,3}|[a-zA-Z]|\*{1,3})\]|\((\d{1,3}|\*{1,3})\))")
_NOTES = re.compile(r"^[ \t_*]*(?:NOTE|Note|NOTA|FOOTNOTES|Footnotes|NOTES)[ \t_*.:]*$", re.M)
_BROKEN = re.compile(r"[-‐‑¬\u00ad](?<=[^\W\d_].)[ \t]*\n[ \t]*(?=[^\W\d_])")
#: A page of verse has at least so many lines.
_PAGE_LINES = 16
#: One in so many running heads stands in the middle of a sentence.
_SENTENCES = 4
#: The least of a page between two heads, and how much alike two readings of one are.
_PAGE, _ALIKE = 250, 0.75
_BLANKS = " \t\n"
_ENDS = '.!?…:;»”")*_]—–'


class _Cut(NamedTuple):
    """What is taken out at `text[start:end]`; on `lines` of its own, or inside one, where `instead` takes its place."""

    start: int
    end: int
    kind: ApparatusKind | None
    lines: bool = False
    instead: str = ""


def edits(text: str) -> list[Edit]:
    """Find everything of these kinds, in order, without overlaps: arguments win over captions, those over notes, and so on."""
    taken: list[_Cut] = []
    for cuts in (_arguments(text), _figures(text), _notes(text), _pages_of(text), _joins(text)):
        taken = disjoint([*taken, *cuts])
    return _with_gaps(text, taken)


def typed(text: str) -> list[Edit]:
    """Find what people type in documents, too: arguments, captions in brackets, notes with their marks."""
    return _with_gaps(text, disjoint([*_arguments(text), *_figures(text), *_notes(text)]))


def _with_gaps(text: str, cuts: Sequence[_Cut]) -> list[Edit]:
    """Edits of what was found: whole lines go with the white space around, so that a sentence across them is one."""
    changes: list[Edit] = []
    i = 0
    while i < len(cuts):
        first, j = cuts[i], i
        if not first.lines:
            changes.append(Edit(first.start, first.end, first.kind, first.instead))
            i += 1
            continue
        while j + 1 < len(cuts) and cuts[j + 1].lines and not text[cuts[j].end : cuts[j + 1].start].strip():
            j += 1
        left, right = first.start, cuts[j].end
        while left > 0 and text[left - 1] in _BLANKS and (not i or left > cuts[i - 1].end):
            left -= 1
        while right < len(text) and text[right] in _BLANKS and (j + 1 == len(cuts) or right < cuts[j + 1].start):
            right += 1
        ends = [*(item.start for item in cuts[i + 1 : j + 1]), right]
        starts = [left, *(item.start for item in cuts[i + 1 : j + 1])]
        gaps = [""] * (j - i) + [_gap(text, left, right, text[left : first.start], text[cuts[j].end : right])]
        changes += [
            Edit(start, end, item.kind, gap)
            for start, end, item, gap in zip(starts, ends, cuts[i : j + 1], gaps, strict=True)
        ]
        i = j + 1
    return changes


def _gap(text: str, left: int, right: int, before: str, after: str) -> str:
    """What is left between the words on both sides of lines that were taken out."""
    if left == 0 or right == len(text):
        return ""
    if "\n" not in before and "\n" not in after:
        return " " if before or after else ""
    within = text[left - 1] not in _ENDS or text[right].islower()
    return "\n" if within else "\n\n"


def _arguments(text: str) -> list[_Cut]:
    if "ARGOMENTO" not in text and "Argomento" not in text:
        return []
    return [_Cut(*match.span(), "argument", lines=True) for match in _ARGUMENT.finditer(text)]


def _figures(text: str) -> list[_Cut]:
    cuts = []
    for match in _FIGURE.finditer(text):
        depth = 1
        for bracket in re.compile(r"[\[\]]").finditer(text, match.end(), match.end() + 2000):
            depth += 1 if bracket.group() == "[" else -1
            if not depth:
                cuts.append(_Cut(match.start(), bracket.end(), "figure", lines=True))
                break
    return cuts


def _increasing(numbers: Sequence[int], step: int) -> bool:
    """Whether nearly all numbers are followed by one a little larger."""
    ahead = sum(0 < b - a <= step for a, b in pairwise(numbers))
    return len(numbers) > 1 and ahead >= 0.8 * (len(numbers) - 1)


def _value(numeral: str) -> int:
    return int(numeral) if numeral.isdigit() else numerals.value(numeral.upper()) or 0


def _pages_of(text: str) -> list[_Cut]:
    """Pages of a text; its first line is found like the others, which begin behind a line's end."""
    return [item._replace(start=item.start - 1, end=item.end - 1) for item in _pages("\n" + text)]


def _pages(text: str) -> list[_Cut]:
    marked = [(match, _value(match[1] or match[2])) for match in _IN_PAGE.finditer(text)]
    cuts = []
    if len(marked) >= 2 and _increasing([number for _, number in marked if number], 40):
        cuts = [_within(text, match.start(), match.end()) for match, _ in marked]
    lone = _ascending(list(_ALONE.finditer(text)))
    breaking = sum(_breaks(text, match.start("line"), match.end()) for match in lone)
    if len(lone) >= 3 and breaking >= max(2, 0.25 * len(lone)) and not _stanzas(text, lone):
        cuts += [_Cut(match.start("line"), match.end(), "page", lines=True) for match in lone]
    cuts += _running_heads(text, lone if cuts else [])
    return cuts


def _stanzas(text: str, lone: Sequence[re.Match[str]]) -> bool:
    """Whether numbers stand between stanzas: verse, and fewer lines of it than a page has."""
    bodies = [text[a.end() : b.start()] for a, b in pairwise(lone)][:20]
    lines = sorted(sum(bool(line.strip()) for line in body.split("\n")) for body in bodies)
    return lines[len(lines) // 2] < _PAGE_LINES and is_verse("\n".join(bodies))


def _within(text: str, start: int, end: int) -> _Cut:
    """A page's number: a line, or inside one, where white space beside it stays and none is made inside a word."""
    opens, closes = not text[:start].rpartition("\n")[2].strip(), not text[end : end + 200].partition("\n")[0].strip()
    if opens and closes:
        return _Cut(start, end, "page", lines=True)
    while start and text[start - 1] in " \t":
        start -= 1
    blank = text[start] in " \t" or text[end : end + 1] in (" ", "\t")
    while end < len(text) and text[end] in " \t":
        end += 1
    return _Cut(start, end, "page", instead="" if opens or closes or not blank else " ")


def _ascending(matches: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """Lone numbers that count up as pages do, one to three at a time; strays between them are left out."""
    best: list[re.Match[str]] = []
    run: list[re.Match[str]] = []
    for match in matches:
        number = int(match["number"])
        if run and 0 < number - int(run[-1]["number"]) <= 3:
            run.append(match)
        elif run and number <= int(run[-1]["number"]) + 40 and len(run) > 3 and number != 1:
            continue
        else:
            best, run = max(best, run, key=len), [match]
    return max(best, run, key=len)


def _breaks(text: str, start: int, end: int) -> bool:
    """Whether what stands at `text[start:end]` interrupts a sentence."""
    before, after = text[max(0, start - 80) : start].rstrip(), text[end : end + 80].lstrip()
    return bool(before and after) and (before[-1] not in _ENDS or after[0].islower())


def _running_heads(text: str, pages: Sequence[re.Match[str]]) -> list[_Cut]:
    """Lines that come again and again with a number that grows, or beside the numbers of pages."""
    heads: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for line in _SHORT_LINE.finditer(text):
        match = _HEAD.match(line["line"])
        words = re.findall(r"[^\W\d_]+", fold(match[2] or match[3])) if match else []
        if match and words and not (len(words) == 1 and _KIND.match(words[0])):
            heads[" ".join(words)].append((line.start("line"), line.end(), int(match[1] or match[4])))
    cuts: list[_Cut] = []
    for places in heads.values():
        rising = all(a[2] < b[2] for a, b in pairwise(places))
        broken = sum(_breaks(text, start, end) for start, end, _ in places)
        if len(places) >= 3 and rising and broken * _SENTENCES >= len(places):
            cuts += [_Cut(start, end, "running head", lines=True) for start, end, _ in places]
    cuts += _heads_in_turn(text, sorted((*place, words) for words, places in heads.items() for place in places))
    beside: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for page in pages:
        for start, end in _neighbours(text, page.start("line"), page.end()):
            beside[" ".join(fold(text[start:end]).split())].append((start, end))
    for spans in beside.values():
        if len(spans) >= 3:
            cuts += [_Cut(start, end, "running head", lines=True) for start, end in spans]
    return cuts


def _heads_in_turn(text: str, heads: Sequence[tuple[int, int, int, str]]) -> list[_Cut]:
    """Heads of the few pages of an excerpt, or misread here and there: one for each page, by turns author and title."""
    runs: list[list[tuple[int, int, int, str]]] = []
    for head in heads:
        at = next(
            (run for run in reversed(runs[-8:]) if run[-1][2] + 1 == head[2] and head[0] - run[-1][1] > _PAGE), None
        )
        if at is None:
            runs.append([head])
        else:
            at.append(head)
    cuts = []
    for run in runs:
        alike = [
            any(
                SequenceMatcher(None, run[i][3], run[j][3]).ratio() > _ALIKE
                for j in (i - 2, i - 1, i + 1, i + 2)
                if 0 <= j < len(run)
            )
            for i in range(len(run))
        ]
        broken = sum(_breaks(text, start, end) for start, end, _, _ in run)
        if len(run) >= 3 and sum(alike) >= 0.75 * len(run) and broken >= 0.5 * len(run):
            cuts += [_Cut(start, end, "running head", lines=True) for start, end, _, _ in run]
    return cuts


def _neighbours(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The line before and the line after `text[start:end]`, if they are short and blank lines part them from the text."""
    spans = []
    before, after = text[max(0, start - 120) : start].rstrip(), text[end : end + 120]
    if before:
        stop = max(0, start - 120) + len(before)
        begin = max(text.rfind("\n", 0, stop) + 1, stop - 100)
        spans += [(begin, stop)] if text[max(0, begin - 40) : begin].rstrip(" \t").endswith("\n\n") else []
    if after.strip():
        begin = end + len(after) - len(after.lstrip())
        close = text.find("\n", begin)
        close = close if close >= 0 else len(text)
        spans += [(begin, close)] if re.match(r"[ \t]*(?:\n[ \t]*\n|\n?\Z)", text[close : close + 80]) else []
    return [(a, b) for a, b in spans if 3 <= b - a <= 60]


def _notes(text: str) -> list[_Cut]:
    """Notes and their marks, where a mark in the text has a note, and a note its mark."""
    if not _BRACKET_LINE.search(text):
        return []
    bodies = [match for match in _BODY.finditer(text) if _opens(text, match.start())]
    if not bodies:
        return []
    starts = {match.start("square") if match["square"] else match.start("round") for match in bodies}
    marks = [match for match in _MARK.finditer(text) if match.start(1 if match[1] else 2) not in starts]
    named = Counter(_name(match[1] or match[2], bool(match[1])) for match in marks)
    bodies = [match for match in bodies if named[_name(match["square"] or match["round"], bool(match["square"]))]]
    owned = {_name(match["square"] or match["round"], bool(match["square"])) for match in bodies}
    cuts = [
        _Cut(*match.span(), "note", instead=" " if text[match.end() : match.end() + 1].isalnum() else "")
        for match in marks
        if _name(match[1] or match[2], bool(match[1])) in owned
    ]
    begins = [match.start() for match in bodies]
    for match, following in zip(bodies, [*begins[1:], len(text)][: len(bodies)], strict=True):
        cuts.append(_Cut(match.start(), _note_end(text, match, following), "note", lines=True))
    for heading in _NOTES.finditer(text):
        at = bisect_left(begins, heading.end())
        if at < len(begins) and not text[heading.end() : begins[at]].strip():
            cuts.append(_Cut(*heading.span(), "note", lines=True))
    return cuts


def _name(mark: str, square: bool) -> str:
    return f"{'[' if square else '('}{mark}"


def _opens(text: str, start: int) -> bool:
    """Whether a line begins a paragraph, or follows a line that is a note's or ends a sentence."""
    before = text[max(0, start - 200) : start].rstrip(" \t")
    if not before.strip() or before.endswith("\n\n"):
        return True
    return before.rstrip()[-1] in '.!?…»”")]' or bool(re.search(r"\n[ \t]*[\[(](?:\d{1,3}|\*+)[\])][^\n]*\n\Z", before))


def _note_end(text: str, match: re.Match[str], following: int) -> int:
    """End of a note: of its bracket, where that holds all of it (*[Nota 1: …]*), else of its paragraph and those indented."""
    start = match.start()
    opened = match.group().lstrip(" \t_")
    if opened[0] == "[" and "]" not in opened:
        close = text.find("]", match.end(), match.end() + 8000)
        if close >= 0:
            return close + 1
    blocks = paragraphs(text, start, min(len(text), following, start + 20_000))
    _, end = next(blocks)
    for begin, stop in blocks:
        indent = begin - (text.rfind("\n", 0, begin) + 1)
        if not text[begin - indent : begin + 4].startswith(("    ", "\t")):
            break
        end = stop
    return min(end, following)


def _joins(text: str) -> list[_Cut]:
    """Join words that the end of a line breaks, in prose."""
    breaks = list(_BROKEN.finditer(text))
    if not breaks:
        return []
    hyphens = Hyphens(text.split("\n"))
    cuts: list[_Cut] = []
    verse_until, prose_until = -1, -1
    for match in breaks:
        at = match.start()
        if at > max(verse_until, prose_until):  # what stands around the next breaks is verse, or prose
            end = text.find("\n\n", at + 3000)
            end = len(text) if end < 0 else min(end, at + 6000)
            start = max(text.rfind("\n\n", 0, at), at - 1500, 0)
            verse = is_verse(text[start:end])
            verse_until, prose_until = (end, prose_until) if verse else (verse_until, end)
        if at <= verse_until:
            continue
        line = text[text.rfind("\n", 0, at) + 1 : match.end()].rstrip()
        whole = hyphens.joined(line[-80:], text[match.end() : match.end() + 80])
        if whole is not None:
            cuts.append(_Cut(at, match.end(), None, instead="-" if whole.endswith("-") else ""))
    return cuts
