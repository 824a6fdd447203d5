"""Find author, title and year in a file's header lines, title page or name.

Nothing is guessed beyond that: an author who is named nowhere stays empty, and the command line asks for `--author`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stilnovo.text.italian import STOP_WORDS, fold


@dataclass(frozen=True)
class Names:
    """Title, author and year of a work; empty or None when unknown."""

    title: str = ""
    author: str = ""
    year: int | None = None

    def over(self, other: Names) -> Names:
        """These names, with the gaps filled from `other`."""
        return Names(self.title or other.title, self.author or other.author, self.year or other.year)


_FIELDS = {
    "titolo": "title", "title": "title", "opera": "title", "autore": "author", "autrice": "author", "author": "author",
    "anno": "year", "data": "year", "date": "year", "year": "year", "original publication": "year",
}  # fmt: skip
_HEADER_LINE = re.compile(r"^\s*([A-Za-zÀ-ÿ' ]{4,24}):[ \t]*(.*?)\s*$")
_YEAR = re.compile(r"(?<!\d)(1[2-9][0-9]{2}|20[0-9]{2})(?!\d)")
_OLD_YEAR = re.compile(r"(?<!\d)1[2-9]\d\d(?!\d)")  # of a work, never of its electronic edition
_PERSON = re.compile(
    r"(?:[A-ZÀ-Þ]\.|[A-ZÀ-Þ][a-zà-ÿ]+)(?:\s+(?:de|di|da|del|della|dei|[A-ZÀ-Þ]\.|(?:[A-ZÀ-Þ]['’])?[A-ZÀ-Þ][a-zà-ÿ]+)){1,3}"
)
_CHAPTER = re.compile(
    r"(?:(?:capitolo|cap\.|canto|parte|libro|atto|scena|lettera|novella|giornata)\s+\S{1,20}(?:\s|\Z)|(?:prefazione|introduzione|prologo|proemio)\Z"
    r"|(?:[IVX]{1,5}|\d{1,3})[.)]?\Z)",
    re.I,
)
_PARTICLES = frozenset(["d", "da", "de", "dei", "del", "della", "delle", "di", "la", "lo"])
_ELISIONS = frozenset(["l", "d", "dell", "all", "nell", "sull", "dall", "c", "quell"])


def old_year(date: str) -> int | None:
    """The year in a file's own date, where it may be the work's: 1200 to 1999."""
    year = _OLD_YEAR.search(date)
    return int(year.group()) if year else None


def direct_name(name: str) -> str:
    """Put a catalogue name in direct order: *Fogazzaro, Antonio (1842-1911)* → *Antonio Fogazzaro*."""
    bare = re.sub(r"\s*\([^)]*\)", "", name).strip(" .,;")
    surname, comma, given = bare.partition(",")
    return f"{given.strip()} {surname.strip()}".strip() if comma else bare


def _fields(lines: list[str]) -> dict[str, str]:
    matches = [match for match in map(_HEADER_LINE.match, reversed(lines)) if match]  # the first of a kind wins
    named = {_FIELDS.get(fold(match.group(1)).strip(), ""): match.group(2) for match in matches}
    return {field: value for field, value in named.items() if field}


def from_header(text: str) -> Names:
    """Read names from lines such as `Title: …`, `AUTORE: …` anywhere in a header that is known to be one."""
    fields = _fields(text.split("\n"))
    year = _YEAR.search(fields.get("year", ""))
    return Names(fields.get("title", ""), direct_name(fields.get("author", "")), int(year.group()) if year else None)


def split_header(text: str) -> tuple[Names, str]:
    """Read names from the header block of a text, and return the text after it.

    A header block is the first paragraph, when all its lines are `Autore: …`, `Anno: …` and the like, but for one that
    may be the bare title. A text without one comes back as it is.
    """
    block, blank, rest = text.lstrip("\n").partition("\n\n")
    lines = [line.strip() for line in block.split("\n") if line.strip()]
    plain = [line for line in lines if not _fields([line])]
    if len(lines) > 8 or len(plain) > 1 or len(plain) == len(lines) or not blank:
        return Names(), text
    names = from_header(block)
    return names.over(Names(plain[0])) if plain else names, rest


def _title(parts: list[str]) -> str:
    words = ""
    for part in parts:
        elided = words.rpartition(" ")[2].lower() in _ELISIONS
        words += ("'" if elided else " " if words else "") + part
    return words[:1].upper() + words[1:]


def _author(parts: list[str]) -> str:
    """*De-Amicis-Edmondo* → *Edmondo De Amicis*: particles and the next word are the surname, the rest given names."""
    cut = 1
    while cut < len(parts) and parts[cut - 1].lower() in _PARTICLES:
        cut += 1
    return " ".join([*parts[cut:], _title(parts[:cut])]).strip()


def from_file_name(stem: str) -> Names:
    """Read names from a file name such as `Manzoni-Alessandro_I-promessi-sposi_1840` or `1895_fogazzaro_piccolo_mondo_antico`.

    A name of any other shape is taken for the title.
    """
    # a number after its name is Project Gutenberg's, not a year
    year = None if re.match(r"(?:gutenberg|pg)[-_]?\d", stem, re.I) else _YEAR.search(stem)
    bare = (stem[: year.start()] + stem[year.end() :] if year else stem).strip("_- ")
    published = int(year.group()) if year else None
    parts = [part for part in re.split(r"_+", bare) if part]
    if year and year.start() == 0 and len(parts) > 1:
        return Names(_title(" ".join(parts[1:]).split()), parts[0].capitalize(), published)
    if len(parts) == 2 and not re.search(r"\d", parts[0]):
        return Names(_title(re.split(r"[- ]+", parts[1])), _author(re.split(r"[- ]+", parts[0])), published)
    return Names(_title(re.split(r"[_\- ]+", bare)), "", published)


def from_title_page(text: str, hint: Names) -> Names:
    """Read names from the first two lines: one the author that the file name suggests, or a person's name, and the other the title.

    Where the file name suggests none, the first chapter has to begin right below them.
    """
    first = [line.strip() for line in text[:600].split("\n") if line.strip()][:5]
    lines = first[:2]
    if len(lines) < 2 or any(len(line) > 70 for line in lines):
        return Names()
    if not hint.author:
        bare = [re.sub(r"^(?:di|by)\s+", "", line, flags=re.I) for line in lines]
        persons = [line for line in bare if _PERSON.fullmatch(line) and fold(line).split()[0] not in STOP_WORDS]
        begins = any(_CHAPTER.match(line) for line in first[2:]) and not any(_CHAPTER.match(line) for line in lines)
        if len(persons) != 1 or not begins or any(line[-1] in ".,;:!?»”" for line in lines):
            return Names()
        title = lines[1 - bare.index(persons[0])]
        return Names(title.capitalize() if title.isupper() else title, persons[0])
    surname = fold(hint.author).split()[-1]
    for author, title in (lines, lines[::-1]):
        if fold(author).split()[-1:] == [surname] and len(author.split()) <= 4:
            return Names(title.capitalize() if title.isupper() else title, author)
    return Names()
