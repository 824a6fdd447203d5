"""Find headings in capitals: lines between blank lines, and titles at the head of a paragraph, each named once."""

from __future__ import annotations

import re
from collections import Counter

from stilnovo.reading import numerals
from stilnovo.reading.headings import Heading
from stilnovo.reading.plain.worded import NAMED, begins

# Bounded repetitions, as a text may be all capitals.
_CAPITAL_WORD = r"(?:(?=[A-ZÀ-ÖØ-Þ'’]{0,12}[A-ZÀ-ÖØ-Þ]{2})[A-ZÀ-ÖØ-Þ'’]{2,44}+|[AEIOÈ]|[LD]['’])"
CAPITALS = rf"{_CAPITAL_WORD}(?:[ \t]{{0,9}}[,:;–—-]?[ \t]{{1,9}}{_CAPITAL_WORD}|['’]{_CAPITAL_WORD}){{0,30}}"
_GLUED = re.compile(
    rf"(?<![A-ZÀ-ÖØ-Þ])(?=[A-ZÀ-ÖØ-Þ'’][^\Wa-zà-ÿ]|[AEIOÈLD][ '’])(?P<title>{CAPITALS})(?:\.{{3}}|[.!?…]?)(?=\s)(?!\s+[a-zà-ÿ])"
)
_ALONE = re.compile(r"[ \t]*(?P<title>[^\sa-zà-ÿ][^\na-zà-ÿ]{3,80}(?:\n[^\na-zà-ÿ]{4,80})?)(?=\n[ \t]*\n|\Z)")
_FINE = re.compile(r"\W*(?:FINE|FINIS|THE END|FIN|EXPLICIT)\b", re.I)
# I SEPOLCRI: the article, which no other follows.
_ARTICLE = re.compile(
    r"I (?!(?:I|IL|LO|LA|LE|GLI|UN|UNA|UNO|DI|DA|DEL|DELLA|DELLO|DEI|L['’]|IN|NEL|NELLA|A|AL|ALLA)\b)[A-ZÀ-Þ]{3,}I\b"
)
#: Titles nearer than this are one title.
_NEAR = 150


def alone(text: str) -> list[Heading]:
    """Find lines in capitals between blank lines, each named once."""
    headings: list[Heading] = []
    starts = [0, *(gap.end() for gap in re.finditer(r"(?<=\n)\n", text))]
    for match in filter(None, (_ALONE.match(text, start) for start in starts)):
        title = match.group("title")
        letters = sum(char.isalpha() for char in title)
        if " ".join(title.lower().split()).strip(" .*_") in NAMED or _FINE.match(title):
            continue
        if title.rstrip(" _*").endswith("!") or title[0] in '«"“—–-(':  # somebody shouts
            continue
        number = None if _ARTICLE.match(title) else numerals.leading(title)[0]
        if letters >= 4 and letters * 2 > len(title) and number is None:
            headings.append(
                Heading(match.start("title"), match.end("title"), 1, "nome", None, " ".join(title.split()).strip(" ."))
            )
    counts = Counter(heading.label for heading in headings)
    return [heading for heading in headings if counts[heading.label] == 1]


def glued(text: str) -> list[Heading]:
    """Find titles in capitals at the head of a paragraph, each occurring once: the pieces of a collection.

    What stands in capitals again and again is no title but a signature: *TUO PADRE DICEMBRE* is the title *DICEMBRE*.
    """
    runs = [
        (match.start("title"), match.end(), match.group("title"))
        for match in _GLUED.finditer(text)
        if begins(text, match.start())
    ]
    counts = Counter(title for _, _, title in runs)
    signatures = {title for title, n in counts.items() if n > 1}
    headings: list[Heading] = []
    for start, end, title in runs:
        heads = (title[: blank.start()] for blank in re.finditer(" ", title))
        signature = next((head for head in heads if head in signatures), "")
        start, title = start + len(signature), title[len(signature) :]
        start, title = start + len(title) - len(title.lstrip()), title.strip()
        if title.endswith((" I", " 1")):
            end, title = start + len(title) - 2, title[:-2]
        if counts[title] > 1 or sum(char.isalpha() for char in title) < 5 or numerals.value(title):
            continue
        if headings and start - headings[-1].end < _NEAR:
            headings.pop()
        headings.append(Heading(start, end, 1, "nome", None, title))
    return headings
