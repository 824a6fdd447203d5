"""Words that a line's end breaks: joined again, unless the hyphen is the word's own.

Which it is, the text itself says first: the form that it has elsewhere. Then a capital behind the hyphen, figures, and
the first halves that Italian joins with a hyphen (anglo-siciliano). A name in two long halves (Azzecca-garbugli) keeps
its hyphen, for a printer breaks an ordinary name seldom just so, and Italian has few that are as long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_HYPHENS = "-‐‑¬\u00ad"
_BROKEN = re.compile(rf"([^\W_]+(?:[-’'][^\W_]+)*)([{_HYPHENS}])\Z")
_LINE_ENDS = re.compile(rf"(?<=[^\W_])[{_HYPHENS}]\n\s*")
_BEGINS = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_WORD = re.compile(r"[^\W\d_]+(?:[-‐‑][^\W\d_]+)*")
#: First halves of compounds that are written with a hyphen.
_FIRSTS = frozenset([
    "anglo", "italo", "austro", "russo", "greco", "serbo", "nippo", "ispano", "luso", "tosco", "lombardo", "ligure", "siculo",
    "romano", "veneto", "arabo", "ebraico", "latino", "sardo", "turco", "slavo", "storico", "politico", "socio", "economico", "critico",
    "filosofico", "ex", "non", "fisico", "chimico", "medico", "tecnico", "comico", "tragico", "lirico", "epico",
])  # fmt: skip
_LONG_HALF = 6


def broken(line: str) -> bool:
    """Whether a line ends inside a word: with a hyphen right behind a letter or figure."""
    return bool(_BROKEN.search(line))


class Hyphens:
    """Decides by the words of one text, given as its lines."""

    def __init__(self, lines: Iterable[str]) -> None:
        text = "\n".join(lines).lower().replace("‐", "-").replace("‑", "-")
        self.words = Counter(_WORD.findall(text))
        for match in _LINE_ENDS.finditer(text):  # the halves of a broken word are no words
            left, right = (
                _WORD.findall(text[max(0, match.start() - 60) : match.start()]),
                _WORD.match(text, match.end()),
            )
            self.words.subtract([*left[-1:], *([right.group()] if right else [])])

    def joined(self, line: str, following: str) -> str | None:
        """The end of a broken word's line as it goes on in the next: without hyphen, or with it; None: nothing to join."""
        match, right = _BROKEN.search(line), _BEGINS.match(following)
        if match is None or right is None:
            return None
        bare = line[: match.start(2)]
        return bare if match.group(2) in "¬\u00ad" or not self._own(match.group(1), right.group()) else bare + "-"

    def _own(self, left: str, right: str) -> bool:
        """Whether the hyphen between two halves is the word's own."""
        if left[-1].isdigit() or right[0].isdigit():
            return True
        whole, parted = self.words[(left + right).lower()], self.words[f"{left}-{right}".lower()]
        if whole or parted:
            return parted > whole
        if right[0].isupper():
            return not left.isupper()
        half = re.split(r"[-’']", left)[-1]
        if half.lower() in _FIRSTS and len(right) > 3:
            return True
        long = len(half) >= _LONG_HALF and len(right) >= _LONG_HALF
        return long and half[0].isupper() and not left.isupper() and half[-1] in "aeio"
