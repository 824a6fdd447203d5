"""Find titles that nothing marks but the room around them: *Il lupo e l'agnello* between larger gaps than paragraphs have.

Used only where a text has no other headings. One such line proves nothing; but where nearly every large gap of a text is
followed by one, they are the titles of its pieces. A line alone above a poem is its title, too.
"""

from __future__ import annotations

import re
from collections import Counter

from stilnovo.reading.headings import Heading
from stilnovo.reading.verse import is_verse

_GAP = re.compile(r"\n[ \t]*\n[ \t]*\n\s*")
_TITLE = re.compile(r"[ \t]*(?P<title>[«“\"'‘(_]?[A-ZÀ-Þ0-9][^\n]{1,70}?)[ \t_]*\n[ \t]*\n")
_NO_TITLE = re.compile(r"[.;:,—–-]\Z|\d\Z")
#: The fewest titles, and their share of the gaps.
_FEWEST, _SHARE = 3, 0.7
#: A poem has at least so many lines.
_POEM = 4


def _title_at(text: str, start: int) -> Heading | None:
    match = _TITLE.match(text, start)
    if match is None or _NO_TITLE.search(match["title"]) or not text[match.end() : match.end() + 200].strip():
        return None
    return Heading(match.start("title"), match.end("title"), 1, "nome", None, match["title"].strip("_ "))


def between_gaps(text: str) -> list[Heading]:
    """Find titles behind large gaps, each named once; none where other gaps are as large."""
    starts = [len(text) - len(text.lstrip()), *(match.end() for match in _GAP.finditer(text))]
    starts = [start for start in starts if start < len(text)]
    titles = [heading for start in starts if (heading := _title_at(text, text.rfind("\n", 0, start) + 1))]
    counts = Counter(heading.label for heading in titles)
    alone = [heading for heading in titles if counts[heading.label] == 1]
    return alone if len(alone) >= max(_FEWEST, _SHARE * len(starts)) else []


def above_poem(text: str) -> list[Heading]:
    """Find the title above the only poem of a text."""
    heading = _title_at(text, len(text) - len(text.lstrip("\n")))
    if heading is None:
        return []
    block = text[heading.end : heading.end + 4000].lstrip().partition("\n\n")[0]
    return [heading] if block.count("\n") + 1 >= _POEM and is_verse(text[heading.end :]) else []
