"""Cleaning of encyclopaedia articles: sections without sentences, lists, tables and markup are removed.

`wikimedia/wikipedia` is already stripped of wikitext, but headings of empty sections ("Altri progetti", "Collegamenti
esterni"), bibliographies, list items and remains of tables are still there, and so are hundreds of thousands of stubs
that say the same sentence about different places. What is removed is counted; nothing is rewritten.
"""

from __future__ import annotations

import re
from collections import Counter

# Sections that hold references and links, not prose.
APPENDICES = frozenset({
    "altri progetti", "collegamenti esterni", "note", "bibliografia", "voci correlate", "fonti", "riferimenti", "sitografia",
    "riferimenti bibliografici", "discografia", "filmografia", "galleria d'immagini", "galleria di immagini", "annotazioni",
})  # fmt: skip
_SENTENCE_END = (".", "!", "?", "…", ":", ";", "»", '"', "”", ")")
_MARKUP = re.compile(r"^\s*(\{\||\|\}|\||!|\[\[|\{\{|\}\}|<|thumb\||px\||upright)")
_INNER_MARKUP = re.compile(r"\|\||\{\{|\}\}|\|thumb\|")
_REMAINS_CHARS = 200  # a longer line with such signs inside is prose with a formula
_LIST_MARK = re.compile(r"^\s*([*#•·;:]|[-–—]\s|\d{1,3}[.)]\s)")
_DISAMBIGUATION = re.compile(r"(?i)^.{0,80}\b(può (riferirsi|indicare)|possono (riferirsi|indicare)|si può riferire)\b")
_HEADING_CHARS = 60
_SHORT_RUN = 4  # so many short lines in a row are a list without marks


def article(text: str) -> tuple[str, Counter[str]]:
    """Remove appendices, lists and leftovers from an article; also returns how many lines were removed, by reason."""
    removed: Counter[str] = Counter()
    lines = _without_appendices([line.strip() for line in text.split("\n")], removed)
    lines = _without_lists(lines, removed)
    while len(lines) > 1 and (not lines[-1] or _is_heading(lines, len(lines) - 1)):
        removed["empty heading"] += bool(lines.pop())  # nothing follows it: its section is gone
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), +removed


def is_disambiguation(text: str) -> bool:
    """Whether an article only lists what its title may mean."""
    return bool(_DISAMBIGUATION.match(text[:200]))


def _is_heading(lines: list[str], at: int) -> bool:
    return (at == 0 or not lines[at - 1]) and _is_short(lines[at])


def _is_short(line: str) -> bool:
    return 0 < len(line) <= _HEADING_CHARS and not line.endswith(_SENTENCE_END)


def _without_appendices(lines: list[str], removed: Counter[str]) -> list[str]:
    prose: list[str] = []
    inside = False
    for at, line in enumerate(lines):
        if line.strip(" :=").lower() in APPENDICES and (at == 0 or not lines[at - 1] or inside):
            inside = True
        elif inside and _is_heading(lines, at) and at + 2 < len(lines) and len(lines[at + 2]) > 2 * _HEADING_CHARS:
            inside = False  # an appendix in the middle: prose goes on under the next heading
        if inside:
            removed["appendix"] += bool(line)
        else:
            prose.append(line)
    return prose


def _without_lists(lines: list[str], removed: Counter[str]) -> list[str]:
    prose: list[str] = []
    run: list[str] = []

    def close() -> None:
        if sum(map(bool, run)) >= _SHORT_RUN:
            removed["list"] += sum(map(bool, run))
        else:
            prose.extend(run)
        run.clear()

    for line in lines:
        if _MARKUP.match(line) or (len(line) <= _REMAINS_CHARS and _INNER_MARKUP.search(line)):
            removed["markup"] += 1
        elif _LIST_MARK.match(line):
            removed["list"] += 1
        elif _is_short(line) or (not line and run and run[-1]):
            run.append(line)
        else:
            close()
            prose.append(line)
    close()
    return prose
