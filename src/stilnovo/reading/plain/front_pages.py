"""Find the pages of a plain text that are the book's and not the work's: title page, table of contents.

A table of contents is what stands under its own name (*Indice*), line by line, until a line begins the text itself: one
that is long, or that the table has already named. A title page is the short lines before everything else that name
author, title, publisher and place. Dedications and prefaces are the author's words and stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from stilnovo.reading import numerals
from stilnovo.reading.names import Names
from stilnovo.reading.plain.letters import is_date
from stilnovo.reading.text_builder import Span, paragraphs
from stilnovo.text.italian import fold

_CONTENTS = re.compile(
    r"^[ \t_*=#]*(?:(?:INDICE|Indice|SOMMARIO|Sommario)(?:[ \t]+(?:GENERALE|generale|DEI CAPITOLI|dei capitoli|DELLE MATERIE|delle materie"
    r"|DEL VOLUME|del volume|DEI? .{3,30}|dei? .{3,30}|DELLE .{3,30}|delle .{3,30}|\(questa pagina\)))?"
    r"|T(?:AVOLA|avola) (?:DELLE|delle) (?:MATERIE|materie)|TAVOLA|(?:TABLE OF )?CONTENTS|(?:Table of )?Contents"
    r"|TABLE DES MATI[ÈE]RES|Table des mati[èe]res|INHALT|Inhalt|[ÍI]NDICE)[ \t_*=.:]*$",
    re.M,
)
# Lines in a row that are numbered as chapters are: a table of contents without its name, if each stands elsewhere too.
_LIST = re.compile(
    r"(?:^[ \t]*(?:(?:capitolo|cap\.|canto|parte|libro|atto|scena|novella|lettera|chapter)[ \t]+\w+|[IVXLC]+"
    r"|\d{1,3})\b[^\n]{0,80}\n)+(?=[ \t]*\n)",
    re.I | re.M,
)
_CONTENTS_WORD = re.compile(
    r"\n[ \t_*=#]*(?:INDICE|Indice|SOMMARIO|Sommario|T|CONTENTS|Contents|I[Nn]|[ÍI]NDICE)[^\n]{0,60}(?=\n|\Z)"
)
#: The longest line of a table of contents, and the longest title page.
_ENTRY, _TITLE_PAGE = 140, 1200
_PAGE = re.compile(
    r"(?:\.{2,}|(?:\. ){2,}|…|\t|[ ]{2,}|[»,—–]\s*|\s-+\s*|\bp(?:ag|g)?\.?\s*)\s*(?:[0-9]{1,4}|[ivxlc]{1,7}|[IVXLC]{1,7}|[»\"'])\s*\.?\s*$"
    r"|(?<![\d\W]) [0-9]{1,4}\s*$"
)
_NUMBERED = re.compile(
    r"^\W*(?:capitolo|cap\.?|canto|parte|libro|atto|scena|novella|lettera|sonetto|chapter|giornata|volume|tomo|act|scene|part|book)\W+\w+\W*$",
    re.I,
)
_PRINT = re.compile(
    r"\b(?:editor[ei]s?|edizion[ei]|tip(?:ografia|\.)|stamperia|stabilimento|libreria|presso|propriet[àa]['’]? letteraria|ristampa"
    r"|copyright|migliaio|volume|tomo|traduzione|traduttore|a cura|con (?:prefazione|introduzione|note"
    r"|illustrazioni)|illustrat[oaie]|diritti"
    r"|romanzo|novell[ae]|racconti?|versi|poesie|poema|comm?edia|tragedia|dramma|liriche|rime|opere|scritti|melodramma|libretto"
    r"|fratelli|figli|treves|sonzogno|zanichelli|le monnier|barb[eè]ra|bemporad|mondadori|laterza|einaudi|hoepli|vallecchi|sommaruga|galli"
    r"|milano|firenze|torino|roma|napoli|venezia|bologna|palermo|genova|lanciano|catania|parigi|londra|leipzig|publish\w*|press|printed"
    r"|new york|london|paris|act[es]?|in (?:due|tre|quattro|cinque) att[io]|in versi|in prosa)\b",
    re.I,
)
_YEAR = re.compile(r"\b(?:1[4-9]\d\d|20[0-2]\d|M[DCLXVI]{3,})\b")
_BY = re.compile(
    r"^\W*(?:di|by|da|de|von|del|della|dell['’].*|opera di|romanzo di|autore.*)\W*$|^\W*(?:di|by|de)\s+[A-ZÀ-Ü]", re.I
)
_DEDICATION = re.compile(
    r"^\W*(?:a(?:l|llo|lla|i|gli|lle|d)?|all['’]\w+|in memoria|alla memoria|dedica\w*|to|à|prefazione|introduzione|proemio|prologo"
    r"|avvertenza|al lettore|ai lettori|personaggi|interlocutori|attori|argomento)\b",
    re.I,
)
_HEADING = re.compile(
    r"^\W*(?:(?:capitolo|cap\.|canto|parte|libro|atto|scena|novella|lettera|sonetto|chapter|giornata)\b.{1,24}|[IVXLC]+\W*|\d{1,3}\W*)$",
    re.I,
)
_FINE = re.compile(r"^\W*(?:fine|finis|the end|fin)\b[^\n]{0,40}$", re.I)


def _same(line: str) -> str:
    """A line as it is compared: letters and figures, without a page number."""
    return " ".join(re.findall(r"[^\W_]+", fold(line if _NUMBERED.match(line) else _PAGE.sub("", line))))


def contents(text: str) -> list[Span]:
    """Find tables of contents; those whose entries stand nowhere in the text, and have no pages, are none."""
    spans: list[Span] = []
    lines: Counter[str] | None = None
    lists = [match for match in _LIST.finditer(text, 0, 20_000) if "\n" in match.group().strip()]
    named = _CONTENTS.finditer(text) if _CONTENTS_WORD.search("\n" + text) else ()
    for match in sorted([*named, *lists], key=lambda match: match.start()):
        if spans and match.start() < spans[-1][1]:
            continue
        if lines is None:
            lines = Counter(_same(line) for line in text.split("\n") if 0 < len(line) <= _ENTRY)
        if match in lists:
            entries = [_same(line) for line in match.group().strip().split("\n")]
            if len(entries) >= 3 and all(_stands(entry, lines) for entry in entries):
                spans.append((match.start(), match.end(), "contents"))
            continue
        end = _contents_end(text, match.end(), lines)
        if end > match.end():
            spans.append((match.start(), end, "contents"))
    return spans


def _contents_end(text: str, start: int, lines: Counter[str]) -> int:
    """End of the table of contents whose heading ends at `start`: its last entry that has a page or stands in the text."""
    listed: Counter[str] = Counter()
    end, paged, loose = start, 0, 0
    for begin, stop in paragraphs(text, start, min(len(text), start + 60_000)):
        at = begin
        gap = (
            text[:begin].endswith("\n\n\n\n")
            if begin < 9
            else text[begin - 9 : begin].replace(" ", "").endswith("\n\n\n\n")
        )
        for line in text[begin:stop].split("\n"):
            entry, page = _same(line), bool(_PAGE.search(line)) and not _NUMBERED.match(line)
            if _FINE.match(line) or len(line.strip()) > _ENTRY or not (page or _is_entry(line)):
                return end
            if gap and entry in listed and not page:  # the text itself, after a gap
                return end
            paged += page
            names = {entry, *_titles(entry)}
            # What stands in the text as often as in the table: a chapter's heading.
            if page or any((listed[n] + 1) * (1 + (n == entry)) <= lines[n] for n in names if len(n) > 2):
                end, loose = min(at + len(line), stop), 0
            else:
                loose += 1
            if loose > (12 if paged < 3 else 4):
                return end
            listed.update(names)
            at += len(line) + 1
    return end


def _stands(entry: str, lines: Counter[str]) -> bool:
    """Whether an entry of a list stands elsewhere in the text, too, on a line of its own."""
    return any(lines[name] > (name == entry) for name in {entry, *_titles(entry)} if len(name) > 2)


def _titles(entry: str) -> Iterator[str]:
    """What an entry may be called in the text: *parte prima 1 la casa* is *parte prima*, *1 la casa*, *la casa*, too."""
    words = entry.split()
    if len(words) > 1 and (words[0].isdigit() or numerals.value(words[0].upper())):
        yield words[0]
        yield " ".join(words[1:])
    elif len(words) > 1 and (words[1].isdigit() or numerals.value(words[1].upper())):
        yield " ".join(words[:2])
        if len(words) > 2:
            yield " ".join(words[2:])
            yield from _titles(" ".join(words[2:]))


def _is_entry(line: str) -> bool:
    bare = line.strip(" \t_*=")
    return len(bare) <= 90 and not (bare.endswith((".", "!", "?", ";")) and len(bare.split()) > 14)


def title_page(text: str, names: Names) -> Span | None:
    """The title page at the head of a text; None where there is none.

    Its lines are short, and name author or title, or are of print: a place, a year, a publisher. One such line is not enough.
    """
    start = len(text) - len(text.lstrip())
    last, evidence, lines, closed = start, 0, 0, False
    known = [_same(name) for name in (names.title, names.author) if name]
    surname = known[-1].split()[-1] if names.author and known[-1] else ""
    for begin, stop in paragraphs(text, start, min(len(text), start + _TITLE_PAGE)):
        block = [line.strip() for line in text[begin:stop].split("\n")]
        named = any(_names_work(line, known, surname) for line in block)
        printed = any(_PRINT.search(line) or _YEAR.search(line) or _BY.match(line) for line in block)
        if _HEADING.match(block[0]):
            closed = True
            break
        if any(len(line) > 70 for line in block) or len(block) > 8 or is_date(block[0]):
            break
        if not named and (_DEDICATION.match(block[0]) and not _BY.match(block[0])):
            closed = True
            break
        if not named and not printed and not all(line == line.upper() for line in block):
            break
        evidence += named + printed
        lines += len(block)
        last = stop if named or printed else last
    return (start, last, "title page") if evidence >= 2 or (evidence and closed and lines >= 2) else None


def _names_work(line: str, known: Sequence[str], surname: str) -> bool:
    words = _same(line)
    return bool(words) and (words in known or (bool(surname) and surname in words.split() and len(words.split()) <= 5))
