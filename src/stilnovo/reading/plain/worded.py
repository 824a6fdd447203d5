"""Find headings that say what they are: *CAPITOLO VIII*, *Canto primo*, *Scena ultima*, *Prologo*.

They stand on a line of their own, at the head of a paragraph, or in the middle of a line after a sentence's end, as e-texts
without line breaks have them; so they are found by their words, and `begins` looks at what stands before.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from stilnovo.reading import numerals
from stilnovo.reading.headings import CASES, CHAPTERS, KINDS, PARTS, Heading, kind_of, label_for
from stilnovo.reading.numerals import ORDINAL, PATTERN, roman

#: Headings that are a name, with or without capitals.
NAMED = (
    "introduzione", "prefazione", "prologo", "epilogo", "conclusione", "proemio", "appendice", "glossario", "dedica", "avvertenza",
    "premessa", "postfazione", "preambolo",
)  # fmt: skip
_AFTERWARDS = ("appendice", "glossario")  # outside the last part
# A heading begins the text or a line, or follows the end of a sentence. Looking for that at every letter of a novel is
# slow, so patterns look for what is rare (a word, a capital) and `begins` then looks back.
_SENTENCE_END = frozenset('.!?…»”")]—–―-')
_ORNAMENT = " \t*_=~#+|"
#: What follows a heading: the end of its line, or the beginning of a sentence.
AFTER = r"(?=[ \t*_=~#\]]*\s*(?:\Z|\n|[A-ZÀ-ÖØ-Þ«“\"'‘’(\[—–\-.¿¡]))"
_LAST = r"[Uu]ltim[oa]|ULTIM[OA]|[Uu]nic[oa]|UNIC[OA]|[Pp]enultim[oa]|PENULTIM[OA]"
_WORDED = re.compile(
    rf"[ \t]*(?:(?P<book>[A-ZÀ-Þ][\wà-ÿÀ-Þ]{{3,15}})[ \t]*[•·.:,–-][ \t]*)?(?P<kind>{CASES})\s+(?:[Nn][.°]\s*"
    rf"|\d{{1,2}}\.(?=[IVXLC]+\b))?(?P<number>{PATTERN}|{_LAST})\b"
    rf"(?:,(?P<inner>\d{{1,3}}))?[°ª]?[.:]?(?:{AFTER}|(?=,\s*(?i:{CASES})\s))"
)
_KIND = re.compile(rf"(?:{CASES})(?=\s)")
_BOOK = re.compile(
    r"[A-ZÀ-Þ][\wà-ÿÀ-Þ]{3,15}[ \t]*[•·:,–-][ \t]*\Z|(?:\A|(?<=\n))[ \t]*[A-ZÀ-Þ][\wà-ÿÀ-Þ]{3,15}[ \t]*\.[ \t]*\Z"
)
# LIBRO PRIMO, capitolo II
_INNER = re.compile(rf",\s*(?P<kind>(?i:{CASES}))\s+(?P<number>{PATTERN})\b[.:]?{AFTER}")
_TURNED = re.compile(rf"^[ \t*_=]*(?P<number>{ORDINAL}|{_LAST})[ \t]+(?P<kind>(?i:{CASES}))[ \t*_=.:]*$", re.I | re.M)
# Other kinds, which are words of every text, are headings only on lines of their own: FAVOLA IV, Notte seconda.
_OTHERS = tuple(kind for kind in KINDS if kind not in (*PARTS, *CHAPTERS))
_HOLDING = ("cantica", "sezione", "notte", "veglia", "intermezzo")
_OTHER = re.compile(
    rf"\n(?=[^\n]{{4,40}}(?:\n|\Z))[ \t*_=—–-]*(?P<kind>{'|'.join(f'{kind.upper()}|{kind.capitalize()}' for kind in _OTHERS)})[ \t]+"
    rf"(?P<number>{PATTERN}|{_LAST})(?P<end>[.:]?)[ \t*_=—–-]*(?=\n|\Z)"
)
# Cheap tests of whether a text has such lines at all.
_TURNED_LINE = re.compile(r"\n[ \t*_=]*[A-Za-zÀ-ÿ]{4,20}(?: [A-Za-z]{4,12})?[ \t]+[A-Za-zÀ-ÿ]{3,9}[ \t*_=.:]*(?=\n|\Z)")
_SPACED_LINE = re.compile(r"\n[ \t]*[A-ZÀ-Þ][ \t][A-ZÀ-Þ][ \t]")
_SPACED = re.compile(r"^[ \t]*(?P<title>(?:[A-ZÀ-Þ][ \t]){3,}[A-ZÀ-Þ](?:[ \t]+[A-ZÀ-Þ0-9])*)[ \t.]*$", re.M)
_NAMED_HEADING = r"(?P<name>{})\b\.?(?=[ \t*_=]*\n|\s+[\"“«A-ZÀ-Þ])"
_ORNAMENTS = re.compile(r"(?:[ \t.]*[*_=~#|§\])}—–-]+[ \t]*(?=\n|\Z))?(?:[ \t]*\n[ \t]*[=~_*-]{3,}[ \t]*(?=\n|\Z))?")


def begins(text: str, at: int) -> bool:
    """Whether position `at` begins the text, a line or a sentence."""
    back = at
    while back > 0 and text[back - 1] in " \t":
        back -= 1
    if back == 0 or text[back - 1] == "\n" or (back < at and text[back - 1] in _SENTENCE_END):
        return True
    while back > 0 and text[back - 1] in _ORNAMENT:
        back -= 1
    return back == 0 or text[back - 1] == "\n"


def _worded_at(text: str, kind: int, before: Heading | None) -> re.Match[str] | None:
    """Parse the worded heading whose kind (*Capitolo*) is at `kind`, with the book before it if there is one.

    It may also stand right behind the heading `before` of a part: *PARTE SECONDA CAPITOLO PRIMO*.
    """
    book = _BOOK.search(text[max(0, kind - 40) : kind])
    starts = [max(0, kind - 40) + book.start()] if book else []
    behind = before is not None and before.level == 1 and not text[before.end : kind].strip(_ORNAMENT)
    matches = (_WORDED.match(text, start) for start in [*starts, kind] if behind or begins(text, start))
    return next((match for match in matches if match and match.start("kind") == kind), None)


def _heading(start: int, end: int, word: str, numeral: str) -> Heading | None:
    kind, number = kind_of(word), numerals.value(numeral)
    level = 1 if kind in PARTS else 2
    if number is None:
        last = numeral.lower()
        return (
            Heading(start, end, level, kind, None, f"{kind.capitalize()} {last}")
            if last[-4:-1] in ("tim", "nic")
            else None
        )
    return Heading(start, end, level, kind, number, label_for(kind, number))


def worded(text: str) -> list[Heading]:
    """Find headings that name their kind and number, and those that are one of a few names (*Prologo*)."""
    headings: list[Heading] = []
    for candidate in _KIND.finditer(text):
        match = _worded_at(text, candidate.start(), headings[-1] if headings else None)
        if match is None or (headings and match.start() < headings[-1].end):
            continue
        heading = _heading(match.start(), match.end(), match["kind"], match["number"])
        if heading is None:
            continue
        headings += _parts(heading, match, text)
    headings += filter(None, map(_other, _OTHER.finditer("\n" + text)))
    headings += [
        heading
        for line in _TURNED_LINE.finditer("\n" + text)
        if (match := _TURNED.match(text, line.start()))
        and (heading := _heading(match.start("number"), match.end("kind"), match["kind"], match["number"]))
    ]
    if _SPACED_LINE.search("\n" + text):
        headings += filter(None, map(_spaced, _SPACED.finditer(text)))
    forms = [form for name in NAMED for form in (name.upper(), name.capitalize()) if form in text]
    # One by one: a pattern that begins with a word is found much faster than one that begins with any of several.
    named = [match for form in forms for match in re.finditer(_NAMED_HEADING.format(form), text)]
    counts: Counter[str] = Counter(match["name"] for match in named)
    for match in named:
        name = match["name"]
        if begins(text, match.start()) and (
            match.start() == 0 or name.isupper() or counts[name] == text.count(name) == 1
        ):
            level = 1 if name.lower() in _AFTERWARDS else 2
            headings.append(Heading(match.start("name"), match.end("name"), level, "nome", None, name.capitalize()))
    return headings


def _other(match: re.Match[str]) -> Heading | None:
    """A heading on a line of its own, found in the text behind one line's end."""
    heading = _heading(match.start("kind") - 1, match.end("end") - 1, match["kind"], match["number"])
    return replace(heading, level=1) if heading and heading.kind in _HOLDING else heading


def _parts(heading: Heading, match: re.Match[str], text: str) -> list[Heading]:
    """A heading with the book before it or the chapter after it: *Inferno • Canto I*, *Parte 1,2*, *Libro I, capitolo II*."""
    label, book, kind = heading.label, match["book"], heading.kind
    if inner := match["inner"]:
        number = int(inner)
        return [Heading(match.start("kind"), heading.end, 2, kind, number, f"{label}, Capitolo {roman(number)}")]
    if book and not book.lower().startswith(tuple(CHAPTERS)):
        return [
            Heading(heading.start, heading.end, heading.level, kind, heading.number, f"{book.capitalize()}, {label}")
        ]
    second = _INNER.match(text, heading.end)
    below = _heading(second.start("kind"), second.end(), second["kind"], second["number"]) if second else None
    return [heading, below] if below else [heading]


def _spaced(match: re.Match[str]) -> Heading | None:
    """A heading in spaced letters: *C A P I T O L O  I*."""
    words = [word.replace(" ", "").replace("\t", "") for word in re.split(r"[ \t]{2,}", match["title"])]
    whole = re.fullmatch(rf"({CASES})({PATTERN}|{_LAST})", "".join(words))
    return _heading(match.start("title"), match.end("title"), whole[1], whole[2]) if whole else None


def with_ornaments(text: str, heading: Heading) -> Heading:
    """A heading with the stars behind it and the line drawn under it."""
    match = _ORNAMENTS.match(text, heading.end)
    return replace(heading, end=match.end()) if match and match.end() > heading.end else heading
