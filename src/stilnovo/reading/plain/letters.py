"""Find the letters of an epistolary novel and the days of a diary: headings that are a place and a date.

*Da' colli Euganei, 11 Ottobre 1797*; *13 Ottobre*; *Milano, 4 Dicembre, sera*; *Mercoledì, ore 5*. A date inside a sentence,
or under a preface, is none: a heading stands alone on its line, has words after it, and is one of several.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from stilnovo.reading.headings import PARTS, Heading
from stilnovo.text.italian import STOP_WORDS, fold

_MONTH = (
    r"(?:gennai?o|febbrai?o|marzo|aprile|maggio|giugno|luglio|agosto|settembre|ottobre|novembre|dicembre"
    r"|genn\.|febbr?\.|sett\.|ott\.|nov\.|dic\.)"
)
_WEEKDAY = r"(?:luned[iì]['’]?|marted[iì]['’]?|mercoled[iì]['’]?|gioved[iì]['’]?|venerd[iì]['’]?|sabato|domenica)"
_HOUR = (
    r"(?:(?:di |la |a |all['’]|sul |verso |nella )?(?:mattin[ao]|sera|notte|alba|mezzogiorno|mezzod[iì]"
    r"|mezzanotte|pomeriggio|tramonto|aurora|giorno|vespro)"
    r"|(?:alle |a |le )?ore \S+(?: \S+)?(?: di \w+)?|di nuovo|più tardi|tardi|idem|festa|pasqua|natale)"
)
_DAY = r"(?:(?:il|li|lì|addì|a dì|a['’]|ai|dì|il dì|addi['’])\s+)?(?:\d{1,2}[°ºoª.]?|primo|1mo)(?:\s*(?:e|,|-|–)\s*\d{1,2}[°º.]?)?"
_YEAR = r"(?:(?:del(?:l['’])?\s*)?(?:1[0-9]\d\d|20\d\d|['’]\d\d|MD?C{0,3}[CDLXVIM]{2,}))"
_PLACE = r"[A-ZÀ-Þ][^\W\d_]*['’]?(?:[ .'’-]+[^\W\d_]+['’]?){0,5}"
_DATE = rf"(?:{_WEEKDAY}[ ,]+)?{_DAY}\s*(?:di\s+)?{_MONTH}(?:[ ,]+{_YEAR})?"
_LINE = re.compile(
    rf"[ \t_*—–-]*(?P<title>(?:(?P<place>{_PLACE})\s*(?P<comma>,|\."
    rf"|\s[—–-])?\s+)?(?P<date>{_DATE})(?:\s*[,.;—–-]*\s*(?:{_HOUR}|{_WEEKDAY}))*"
    rf"(?:\s*[,(]\s*(?P<after>[A-ZÀ-Þ][\w'’. ]{{2,30}})\)?)?)[ \t_*.,:;—–)-]*$",
    re.I,
)
_SHORT_DAY = re.compile(
    rf"[ \t_*—–-]*(?P<title>{_WEEKDAY}(?:[ ,]+{_HOUR})*|{_DAY}[ ,]+{_WEEKDAY}(?:[ ,]+{_HOUR})*|(?:{_PLACE},\s*)?{_WEEKDAY}[ ,]+\d{{1,2}}"
    rf"(?:[ ,]+{_HOUR})*)[ \t_*.,:;—–-]*$",
    re.I,
)
# Patterns that begin with a line's end are found several times as fast as those that begin with ^.
_SHORT_LINE = re.compile(r"\n([^\n]{4,120})(?=\n)")
_NUMBERED_LINE = re.compile(r"\n(?=[^\n\d]{0,80}\d)([^\n]{4,120})(?=\n)|\n([^\n]{0,60}\bprimo [^\n]{3,60})(?=\n)")
_NAMES_DAY = re.compile(rf"\b(?:{_MONTH}|{_WEEKDAY})(?!\w)", re.I)
#: A signature has its date right before the next heading; a letter has words first.
_WORDS = 20
_FEWEST = 3


def is_date(line: str) -> bool:
    """Whether a line is a date, with or without its place, and nothing else."""
    match = _LINE.match(line)
    return match is not None and _placed(match)


def _placed(match: re.Match[str]) -> bool:
    """Whether what stands before a date is a place: capitals at its head, few words, no verb's sentence."""
    place, after = match["place"], match["after"]
    if place and not (match["comma"] or (" " not in place.strip() and fold(place.strip(" '’")) not in STOP_WORDS)):
        return False
    return (not place or place[0].isupper()) and (not after or after[0].isupper())


def dated(text: str) -> list[Heading]:
    """Find headings that are dates; none where there are fewer than three."""
    sure = _with_words(text, _on_lines(text, _NUMBERED_LINE, _LINE))
    if len(sure) < _FEWEST:
        return []
    starts = {heading.start for heading in sure}
    days = [day for day in _on_lines(text, _SHORT_LINE, _SHORT_DAY) if day.start not in starts]
    # A weekday alone is a heading only where days with their dates are.
    return _distinct(_with_words(text, sorted([*sure, *days], key=lambda heading: heading.start)))


def in_sections(text: str, headings: Sequence[Heading]) -> tuple[Heading, ...]:
    """Add the dates that head letters in the sections of a text: in each that holds several, unless it is a chapter of its own.

    Args:
        text: The text.
        headings: Its headings, which its source marks.
    """
    days, starts = dated(text), [heading.start for heading in headings]
    by_section: dict[int, list[Heading]] = defaultdict(list)
    for day in days:
        at = bisect_right(starts, day.start) - 1
        if at < 0 or day.start >= headings[at].end:
            by_section[at].append(day)
    added: list[Heading] = []
    for at, inside in by_section.items():
        above = headings[at] if at >= 0 else None
        if len(inside) >= _FEWEST and (above is None or above.number is None or above.kind in PARTS):
            level = above.level + 1 if above else min(heading.level for heading in headings)
            added += [replace(day, level=level) for day in inside]
    return tuple(sorted([*headings, *added], key=lambda heading: heading.start))


def _on_lines(text: str, lines: re.Pattern[str], date: re.Pattern[str]) -> list[Heading]:
    headings = []
    for candidate in lines.finditer("\n" + text):
        line, begin = candidate.group()[1:], candidate.start()
        match = date.match(line) if _NAMES_DAY.search(line) else None
        if match and ("place" not in match.groupdict() or _placed(match)) and _apart(text, begin, begin + len(line)):
            title = " ".join(match["title"].split()).strip(" ,;")
            headings.append(Heading(begin + match.start("title"), begin + match.end("title"), 2, "data", None, title))
    return headings


def _apart(text: str, start: int, end: int) -> bool:
    """Whether a line begins a paragraph: after a blank line, the beginning, or a line that ends a sentence."""
    before = text[:start].rstrip(" \t") if start < 80 else text[start - 80 : start].rstrip(" \t")
    if not before or before.endswith("\n\n") or not before.strip():
        return True
    return before.rstrip("\n")[-1] in '.!?…»”"’—–-)*_' and text[end : end + 40].strip() != ""


def _with_words(text: str, headings: Sequence[Heading]) -> list[Heading]:
    ends = [*(heading.start for heading in headings[1:]), len(text)][: len(headings)]
    return [
        h
        for h, end in zip(headings, ends, strict=True)
        if len(text[h.end : min(end, h.end + 400)].strip(" \n\t._*")) >= _WORDS
    ]


def _distinct(headings: list[Heading]) -> list[Heading]:
    """Add the year that was said last to dates that would be called alike: 3 May in a diary of several years."""
    counts = Counter(heading.label.lower() for heading in headings)
    year, distinct = "", []
    for heading in headings:
        said = re.search(r"\b(1[0-9]\d\d|20\d\d)\b", heading.label)
        year = said.group() if said else year
        repeated = counts[heading.label.lower()] > 1 and year and not said
        distinct.append(replace(heading, label=f"{heading.label} ({year})") if repeated else heading)
    return distinct
