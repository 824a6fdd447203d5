"""Answers from the library's records: authors, years, titles, how many works there are and which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stilnovo.chat.extracted import Extract
from stilnovo.chat.mentions import Namer, Read, same_work
from stilnovo.library.records import Work
from stilnovo.library.store import Library
from stilnovo.reading import numerals

_PERIODS = {
    "duecento": 12,
    "trecento": 13,
    "quattrocento": 14,
    "cinquecento": 15,
    "seicento": 16,
    "settecento": 17,
    "ottocento": 18,
    "novecento": 19,
}
_CENTURY = re.compile(
    rf"\b(?:d?e?l?l? ?(?P<name>{'|'.join(_PERIODS)})|(?P<roman>xi{{1,3}}|xiv|xv|xvi{{1,3}}|xix|xx) secolo)\b"
)
_ONES = ("zero", "una", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci")

NOT_HERE = "Nella biblioteca non c'è {}."
#: Works named in a list.
LISTED = 60


class Inquiry(NamedTuple):
    """A question in its library; `absent` is a name that the library lacks, masked as if it had it."""

    read: Read
    namer: Namer
    absent: str = ""

    @property
    def library(self) -> Library:
        """The library asked about."""
        return self.namer.library

    def works(self) -> list[Work]:
        """The works meant: those named, or those of the sections named; copies of one work once."""
        named = list(self.read.works) or list(dict.fromkeys(section.work for section in self.namer.sections(self.read)))
        once: list[Work] = []
        for work in sorted(named, key=lambda work: (not work.author, work.year is None)):
            if not any(same_work(work, other) for other in once):
                once.append(work)
        return once

    def by_author(self) -> list[Work]:
        """The works of the authors named, or all."""
        every = self.library.works()
        return [work for work in every if work.author in self.read.authors] if self.read.authors else every


def in_words(count: int, one: str, many: str, feminine: bool = True) -> str:
    """*una sola opera*, *due opere*, *17 capitoli*, *nessun autore*."""
    if count == 1:
        return f"{'una sola' if feminine else 'un solo'} {one}"
    if count == 0:
        return f"{'nessuna' if feminine else 'nessun'} {one}"
    return f"{_ONES[count] if count < len(_ONES) else count} {many}"


def joined(parts: Sequence[str]) -> str:
    """*a, b e c*."""
    return " e ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def titled(work: Work, author: bool = True) -> str:
    """*«Malombra» di Antonio Fogazzaro (1881)*."""
    by = f" di {work.author}" if author and work.author else ""
    return f"«{work.title}»{by}{f' ({work.year})' if work.year else ''}"


def listing(works: Sequence[Work], author: bool = True) -> str:
    """Works with their years, joined; the first `LISTED` of many."""
    more = [f"altre {len(works) - LISTED}"] if len(works) > LISTED else []
    return joined([*(titled(work, author) for work in works[:LISTED]), *more])


def from_records(text: str, works: Sequence[Work] = ()) -> Extract:
    """An answer that cites the records of some works."""
    return Extract(text, records=tuple(works), final=True)


def which(names: Sequence[str]) -> Extract:
    """Ask back which of several is meant."""
    return Extract(f"Di quale? La biblioteca ne ha più d'uno: {'; '.join(names)}.", asks_back=True, final=True)


def of_one_work(asked: Inquiry, answer: Callable[[Work], Extract]) -> Extract | None:
    """The answer for the work named; where several are, a question back."""
    works = asked.works()
    if not works:
        return None
    return answer(works[0]) if len(works) == 1 else which([titled(work) for work in works])


# Authors and years


def who_wrote(asked: Inquiry) -> Extract | None:
    """Whose a work is; where an author is named too, whether it is that author's."""
    works = asked.works()
    if not works:
        return None
    if not asked.read.works:
        found = [
            f"«{s.title or s.label.split(', ')[-1]}» è in {titled(s.work)}" for s in asked.namer.sections(asked.read)
        ]
        return from_records("; ".join(dict.fromkeys(found)) + ".", works)
    if claimed := asked.read.authors or ((asked.absent,) if asked.absent else ()):
        right = all(work.author in claimed for work in works)
        return from_records(f"{'Sì' if right else 'No'}: {'; '.join(map(_by, works))}.", works)
    return from_records("; ".join(map(_by, works)) + ".", works)


def _by(work: Work) -> str:
    if not work.author:
        return f"la biblioteca non sa di chi sia «{work.title}»"
    return f"«{work.title}» è di {work.author}"


def of_what_year(asked: Inquiry) -> Extract | None:
    """Of what year a work is."""
    works = asked.works()
    if not works:
        return None
    said = [
        f"«{work.title}»{f' di {work.author}' if work.author else ''} è del {work.year}" if work.year
        else f"di «{work.title}» la biblioteca non sa l'anno"
        for work in works
    ]  # fmt: skip
    return from_records("; ".join(said).capitalize() + "." if said[0][0] == "d" else "; ".join(said) + ".", works)


def all_authors(asked: Inquiry) -> Extract:
    """The authors, and how many they are."""
    works = asked.library.works()
    names = sorted({work.author for work in works if work.author}, key=lambda name: name.split()[-1])
    if not names:
        return from_records("La biblioteca non sa di chi siano le sue opere.", works)
    said = in_words(len(names), "autore", "autori", feminine=False)
    there = "C'è" if len(names) == 1 else "Ci sono"
    counted = re.search(r"\bquant", asked.read.masked)
    return from_records(
        f"{there} {said}{'' if counted and len(names) > LISTED else ': ' + joined(names[:LISTED])}.", works
    )


def most_represented(asked: Inquiry) -> Extract | None:
    """The authors of most works."""
    counts = Counter(work.author for work in asked.library.works() if work.author)
    if not counts:
        return None
    most = max(counts.values())
    names = [name for name in counts if counts[name] == most]
    said = in_words(most, "opera", "opere")
    works = [work for work in asked.library.works() if work.author in names]
    if len(names) == 1:
        return from_records(f"È {names[0]}, con {said}: {listing(works, author=False)}.", works)
    return from_records(f"Sono {joined(names)}, con {said} ciascuno.", works)


def who_is(asked: Inquiry) -> Extract:
    """What the records know of an author: which works there are."""
    works, names = asked.by_author(), joined(asked.read.authors)
    there = "c'è" if len(works) == 1 else "ci sono"
    said = in_words(len(works), "opera", "opere")
    return from_records(
        f"Chi sia {names} le schede non lo dicono; della sua mano {there} {said}: {listing(works, author=False)}.",
        works,
    )


# Works


def period(masked: str, years: Sequence[int]) -> tuple[int, int, str] | None:
    """The years that a question is limited to, and how that is said."""
    if match := _CENTURY.search(masked):
        century = _PERIODS.get(match["name"] or "", 0) or (numerals.value(match["roman"].upper()) or 1) - 1
        return (
            century * 100 + (1 if match["roman"] else 0),
            century * 100 + (100 if match["roman"] else 99),
            f"del {roman_century(century)}",
        )
    if not years:
        return None
    if len(years) > 1 and re.search(r"\b(?:tra|fra|dal|da)\b", masked):
        return min(years), max(years), f"dal {min(years)} al {max(years)}"
    if re.search(r"\b(?:prima|anterior\w+|precedent\w+|fino)\b", masked):
        return 0, years[0] - (0 if "fino" in masked else 1), f"prima del {years[0]}"
    if re.search(r"\b(?:dopo|successiv\w+|posterior\w+|a partire)\b", masked):
        return years[0] + 1, 9999, f"dopo il {years[0]}"
    return years[0], years[0], f"del {years[0]}"


def roman_century(century: int) -> str:
    """*XIX secolo* for 18."""
    return f"{numerals.roman(century + 1)} secolo"


def which_works(asked: Inquiry) -> Extract:
    """The works of an author, of a time, or all, and how many they are."""
    read = asked.read
    years = [int(read.text[mention.start : mention.end]) for mention in read.of("Y")]
    limits = period(read.masked, years)
    works = [w for w in asked.by_author() if not limits or (w.year is not None and limits[0] <= w.year <= limits[1])]
    of = (f" di {joined(read.authors)}" if read.authors else "") + (f" {limits[2]}" if limits else "")
    if re.search(r"\baltr[ieo]\b", read.masked) and read.works:
        works = [work for work in works if work not in read.works]
        of = f" oltre a {joined([f'«{work.title}»' for work in read.works])}"
    if not works:
        return Extract(NOT_HERE.format(f"nessuna opera{of}") if of else "La biblioteca è vuota.", final=True)
    there = "C'è" if len(works) == 1 else "Ci sono"
    return from_records(
        f"{there} {in_words(len(works), 'opera', 'opere')}{of}: {listing(works, author=len(read.authors) != 1)}.", works
    )


def how_long(asked: Inquiry) -> Extract | None:
    """How long a work is."""
    works = asked.works()
    return (
        from_records("; ".join(f"«{w.title}» ha {grouped(w.characters)} caratteri" for w in works) + ".", works)
        if works
        else None
    )


def grouped(number: int) -> str:
    """A number as it is written in Italian: *2.013.752*."""
    return f"{number:,}".replace(",", ".")


def extreme_work(asked: Inquiry) -> Extract | None:
    """The longest, shortest, oldest or newest work, of an author or of all."""
    masked = asked.read.masked
    longest = re.search(r"piu (lung|grand|estes)|maggior", masked)
    old = re.search(r"piu (antic|vecchi|lontan)|prim[ao] (?:in ordine|di tutt)", masked)
    works = asked.by_author()
    if re.search(r"piu (?:antic|vecchi|lontan|recent|nuov|modern|giovan)", masked):
        dated = [work for work in works if work.year is not None]
        if not dated:
            return from_records("La biblioteca non sa gli anni delle sue opere.", works)
        year = (min if old else max)(work.year or 0 for work in dated)
        chosen = [work for work in dated if work.year == year]
        return from_records(
            f"{'La più antica' if old else 'La più recente'} di cui si sa l'anno è {listing(chosen)}.", chosen
        )
    sized = (max if longest else min)(works, key=lambda work: work.characters)
    return from_records(
        f"{'La più lunga' if longest else 'La più breve'} è {titled(sized)}, con {grouped(sized.characters)} caratteri.",
        [sized],
    )


def is_there(asked: Inquiry) -> Extract | None:
    """Whether a work is in the library."""
    works = asked.works()
    if not works:
        return None
    by_others = [work for work in works if asked.read.authors and work.author not in asked.read.authors]
    if by_others:
        return from_records(
            f"C'è {listing(by_others)}; di {joined(asked.read.authors)} non c'è un'opera con questo titolo.", by_others
        )
    return from_records(f"Sì, c'è {listing(works)}." if len(works) == 1 else f"Sì, ci sono {listing(works)}.", works)
