"""Quotation checking: verify that claimed quotations stand verbatim in the stored source.

The rule, in full:

* **verified**: the claimed words stand in the source in this order, with nothing between them, with the same letters,
  accents, capitals and punctuation, from a word's beginning to a word's end: *anti-clericale*, *1.500*, *3,50*, *12°*, *10%*,
  *due milioni* are each one word, over a line's end too; behind an elision a word begins (*l'amico*). These alone are no
  differences in wording: white space (a line break for a space; any or none beside a mark), ` / ` where the source breaks a
  line, the shape of apostrophes, quotation marks, dashes and ellipses, the Unicode form of accented letters, characters
  nobody sees, the numbers of notes. The quoter's own marks at the ends are not the source's: an ellipsis at either end, and
  a last full stop, comma, semicolon or colon, may be missing there, unless the source has «?», «!» or «…» in its place: a
  question is no statement. A last «?» or «!» that the quoter left out is shown again.
* **repaired**: the same words in the same order, but for capitals, letters of other alphabets that look alike, punctuation
  left out or exchanged (never moved, and never «?», «!» and «.» for each other), spellings of one word (`slips.same_word`),
  and in one word of four a letter that makes no word at all (`slips.typing_slip`). Also: pieces joined by `[…]` that stand
  verbatim in this order within `OMISSION` characters, when what is left out denies nothing in their sentences; words that
  the quoter put in, in brackets or as *– dice Lucia –*. It is replaced by the source's exact words (those left out included,
  those put in not): what is shown is always the source.
* **unverified**: everything else. A word left out, put in or exchanged, or lines joined that do not follow each other,
  is not repaired: it may change the sense.

Verified or repaired, a quotation is shown with the words of its sentence that deny, condition, ask or attribute what it
says (`cuts.turned`), in brackets: «[Non è vero che] Lucia ami don Rodrigo». Of several places the one that needs none counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from stilnovo.chat.cuts import denied_beside, denies
from stilnovo.chat.matching import Match, best_match, indexed, joined_pieces
from stilnovo.chat.wording import LETTER
from stilnovo.library.records import Chapter, Passage, Work, citation
from stilnovo.library.store import Library

Status = Literal["verified", "repaired", "unverified"]
_WRAPPING = ' \t\n«»“”"„'
_COMPOUND_AT_END = re.compile(r"(?<=[^\W\d_])-\n[ \t]*(?=[^\W\d_])")
_SINGLE = frozenset("'’‘‚`‹›")
_PAIRS = (("«", "»"), ("“", "”"))


@dataclass(frozen=True)
class Quote:
    """A quotation with its verification status and its place in the source.

    `text` is the source's own words (the claimed ones when unverified) at `start` to `end` of the work's stored text; `before`
    and `after` are the words of the sentence around it that turn what it says, empty for none.
    `answer_start` to `answer_end` is where it stands in the text of the answer, with its marks and its citation. All offsets
    count characters as Python does (Unicode code points, not UTF-16 units).
    """

    claimed: str
    status: Status
    text: str
    section: Chapter | None = None
    start: int = 0
    end: int = 0
    verses: str = ""
    before: str = ""
    after: str = ""
    answer_start: int = 0
    answer_end: int = 0

    @property
    def sound(self) -> bool:
        """Whether the quoted words stand in the source."""
        return self.status != "unverified"

    @property
    def citation(self) -> str:
        """Author, work, section and verses; empty when unverified."""
        return citation(self.section, self.verses) if self.section else ""

    @property
    def shown(self) -> str:
        """The words on one line, verses separated by ` / `, with what turns their sense in brackets."""
        before = f"[{self._one_line(self.before)}] " if self.before else ""
        gap = "" if self.after[:1] in ",;:.!?" else " "
        after = f"{gap}[{self._one_line(self.after)}]" if self.after else ""
        return before + self._one_line(self.text) + after

    @property
    def brief(self) -> str:
        """A word or two as shown in passing: what turns their sense only where it denies them directly."""
        return self.shown if denied_beside(self.before, self.after) else self._one_line(self.text)

    def _one_line(self, text: str) -> str:
        text = _COMPOUND_AT_END.sub("-", text)
        lines = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
        return (" / " if self.verses else " ").join(lines)

    def printed(self, midway: str = "") -> str:
        """*«…» (Autore, Opera, cap. I)*, `midway` before its first word."""
        left, right = "“”" if set("«»") & set(self.shown) else "«»"
        return f"{left}{midway}{self.shown}{right} ({self.citation})"

    def at(self, start: int, length: int) -> Quote:
        """The quotation placed in an answer: `length` characters from `start` on."""
        return replace(self, answer_start=start, answer_end=start + length)

    def moved(self, by: int) -> Quote:
        """The quotation with its offset shifted, for an answer that became part of a longer one."""
        return replace(self, answer_start=self.answer_start + by, answer_end=self.answer_end + by)

    def as_dict(self) -> dict[str, object]:
        """The quotation as a JSON object."""
        section = self.section
        return {
            "quote": self.text,
            "status": self.status,
            "work": section.work.title if section else "",
            "author": section.work.author if section else "",
            "section": section.label if section else "",
            "verses": self.verses,
            "start": self.start,
            "end": self.end,
            "citation": self.citation,
            "shown": self.shown,
            "before": self.before,
            "after": self.after,
            "claimed": self.claimed,
            "sha256": section.work.sha256 if section else "",
            "answer_start": self.answer_start,
            "answer_end": self.answer_end,
        }


def _unwrapped(claimed: str) -> str:
    """Remove the quotation marks around a quotation; a mark whose partner stands inside belongs to the source and stays."""
    whole, bare = claimed.strip(), claimed.strip(_WRAPPING)
    for left, right in _PAIRS:
        if bare.count(right) > bare.count(left) and whole.startswith(left):
            bare = left + bare
        elif bare.count(left) > bare.count(right) and whole.endswith(right):
            bare = bare + right
    return bare


#: What a quoter puts in brackets: another capital ([l]a barca), words of his own ([Renzo] partì), a word on the print ([sic]).
_LETTER_CHANGED = re.compile(rf"\[({LETTER}{{1,3}})\](?={LETTER})")
_INSERTED = re.compile(
    r"\[(?!\s{0,3}(?:…|\.\.\.|[Pp]?\s?\d))([^\[\]]{1,60})\]|\((?:corsiv|sic\b|n\.\s?d\.)[^()]{0,60}\)"
)
#: A word that the quoter's own line breaks.
_BROKEN = re.compile(rf"(?<={LETTER})[-‐¬]\n\s*(?={LETTER})")


#: Who says it, put in by the quoter: «Addio – dice Lucia – monti».
_SAYS = (
    r"(?:dice|disse|diceva|scrive|scrisse|rispond\w+|rispose|aggiun\w+|continua|continuò|prosegue|proseguì|esclam\w+|osserva|osservò|ricorda|spiega|grid\w+"
    r"|replic\w+|afferm\w+|nota|narra|racconta|confess\w+|ammette|ammise|comment\w+|chiede|chiese|domand\w+|canta|conclude|concluse)"
)
_SPEAKER_PUT_IN = re.compile(
    rf"(?<=[\w,;.!?…])\s*[–—-]\s?{_SAYS}\b[^–—«»“”\n]{{0,60}}[–—-]\s?(?=\S)|(?<=\w),\s{_SAYS}\s[^,–—«»“”\n]{{1,40}},\s"
)


def _forms(claimed: str) -> Iterator[tuple[str, bool]]:
    """Ways of reading a claim, and whether each can be verified: without its marks, with broken words joined, without insertions."""
    bare = _unwrapped(claimed)
    yield bare, True
    if bare[:1] in _SINGLE and bare[-1:] in _SINGLE and len(bare) > 2:
        yield bare[1:-1].strip(), True
    if _BROKEN.search(bare):
        yield _BROKEN.sub("", bare), True
    if "[" in bare or "(" in bare:
        plain = _LETTER_CHANGED.sub(r"\1", bare)
        if plain != bare:
            yield plain, False
        if (without := _INSERTED.sub("", plain)) != plain and not any(
            denies(m.group()) for m in _INSERTED.finditer(plain)
        ):
            yield without.strip(), False
    if (said := _SPEAKER_PUT_IN.sub(" ", bare)) != bare:
        yield said, False


def verify(claimed: str, section: Chapter, text: str) -> Quote:
    """Verify a quotation against one section of a work whose stored source is `text`."""
    source = indexed(text, section.body, section.end)
    best: Match | None = None
    for form, exact in _forms(claimed):
        match = best_match(form, source, exact)
        if match is not None and (best is None or match.rank < best.rank):
            best = match
        if best is not None and best.rank < 2:
            break
    if best is None:
        best = joined_pieces(_unwrapped(claimed), source)
    if best is None:
        return Quote(claimed, "unverified", _unwrapped(claimed))
    start, end = section.body + best.start, section.body + best.end
    before, after = best.before, best.after
    status: Status = "verified" if best.exact else "repaired"
    return Quote(claimed, status, text[start:end], section, start, end, section.verses(start, end), before, after)


def verify_among(claimed: str, library: Library, passages: Iterable[Passage]) -> Quote:
    """Verify a quotation against the sections of several passages, in order; the best status counts.

    Words of two speakers, run together as if one said them, are no quotation.
    """
    best = unverified = Quote(claimed, "unverified", claimed.strip(_WRAPPING))
    for section in {passage.section.id: passage.section for passage in passages}.values():
        quote = verify(claimed, section, library.text(section.work))
        if quote.sound and _of_two_speakers(quote, section.work, library):
            quote = unverified
        if quote.status == "verified":
            return quote
        best = quote if quote.sound and not best.sound else best
    return best


def _of_two_speakers(quote: Quote, work: Work, library: Library) -> bool:
    """Whether a speaker's name, which is none of the author's running text, stands between the quoted words."""
    if "\n" not in quote.text:
        return False
    return any(item.kind == "speaker" and quote.start < item.at < quote.end for item in library.apparatus(work))
