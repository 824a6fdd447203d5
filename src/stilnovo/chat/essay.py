"""Check the quotations of any text, an essay or a chatbot's answer, against a whole library.

Each quotation is *verified* (its words stand in the library, by the rule in `quotes.py`), *inexact* (nearly: the source's own
words and the difference are given; what is put right or shortened with […] is inexact too), *misattributed* (its words stand in
the library, but in another work, or by another author, than the text says) or *not found*. Titles are no quotations, and words
of three at most that nobody is said to have written are not counted.

What the text says of where a quotation comes from is read, in this order, from what follows it (parenthesis, dash, footnote),
from its own sentence, and from the sentence before. A reference after the quotation must be right in all that it names; of
several names in a sentence one must be.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from stilnovo.chat.citing import NOTE_LINE, NOTE_MARK, Citation, NamesOfWorks, citation_after, ending_citation, refers
from stilnovo.chat.claims import Claim, announced_lines, claim_at, paired
from stilnovo.chat.marks import STARTS
from stilnovo.chat.nearest import Nearest, Step, difference
from stilnovo.chat.quotes import Quote
from stilnovo.errors import InputError, check_types
from stilnovo.library.store import Library
from stilnovo.text.italian import words

CheckStatus = Literal["verified", "inexact", "misattributed", "not_found"]
#: Characters of a text that can be checked, and of one quotation before it is checked in parts.
TEXT_AT_MOST, LONGEST_QUOTATION = 1_000_000, 4000
#: The most words that only name or stress something; the most of a title that the library does not know.
_STRESSED, _TITLE = 3, 8
_SENTENCE_END = re.compile(r"[.!?…]+[»”\"’')\]]*(?=\s+[«“\"(·>—–]?\s*[A-ZÀ-Ý·])|(?<![:\s])[ \t]*\n[ \t]*\n")
_WORK_WORD = re.compile(
    r"\b(?:romanz\w+|oper[ae]|poesi[ae]|poem\w+|sonett\w+|novell[ae]|raccont\w+|sagg\w+|libr\w+|film|titol\w+|intitolat\w+|"
    r"capitol\w+|cant[oi]|rivist[ae]|articol\w+|commedi[ae]|tragedi[ae]|raccolt[ae]|canzon[ei])\s+(?:\w+\s+){0,2}[*_]?\Z", re.I,
)  # fmt: skip
_DATED = re.compile(r"\s*(?:,|\()\s*\d{4}\b")
#: What a reference may hold beside names: places, editions, remarks.
_NO_NAME = re.compile(
    r"\b(?:cap|capitol\w+|cant[oi]|vv?|pp?|pagg?|att[oi]|scen[ae]|libr[oi]|part[ei]|ivi|ibid\w*|op|cit|ed|vol|cfr|inf\w*|purg\w*|par|"
    r"paradiso|corsiv\w+|cors|trad|mi[oa]|nostr\w+|corsivo|nota|[IVXLCDM]+)\b\.?", re.I,
)  # fmt: skip
_PERSON = re.compile(r"\b[A-ZÀ-Ý][a-zà-ÿ]{2,}")


class NoteText(NamedTuple):
    """A note of the text, apart from it: its words, and the offset in the text where its mark stood."""

    text: str
    at: int


@dataclass(frozen=True)
class CheckedQuotation:
    """A quotation of a text, with what the library says of it.

    Attributes:
        claimed: Its words in the text.
        status: verified, inexact, misattributed or not_found.
        start: Where it begins in the text (or in its note), marks included.
        end: Where it ends.
        paragraph: Number of its paragraph, from 1; of a note, that of its mark.
        note: Number of the note that it stands in, from 1; 0 in the text itself.
        attribution: Where the text says that it comes from; empty where it does not.
        source: The source's own words and their place; None where nothing was found.
        difference: How the source differs, word by word; empty where it does not.
    """

    claimed: str
    status: CheckStatus
    start: int
    end: int
    paragraph: int
    note: int
    attribution: str
    source: Quote | None
    difference: tuple[Step, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The quotation as a JSON object."""
        return {
            "claimed": self.claimed, "status": self.status, "start": self.start, "end": self.end, "paragraph": self.paragraph,
            "note": self.note, "attribution": self.attribution, "citation": self.source.citation if self.source else "",
            "source": self.source.as_dict() if self.source else None,
            "difference": [step._asdict() for step in self.difference],
        }  # fmt: skip


def check_text(
    library: Library, text: str, notes: Sequence[NoteText] = (), works: Sequence[int] = ()
) -> list[CheckedQuotation]:
    """Check every quotation of a text and of its notes, in the text's order, then the notes'.

    Args:
        library: Where they are looked up.
        text: The text.
        notes: Its notes, where they stand apart.
        works: Ids of the works that are looked through; all by default.

    Raises:
        InputError: the text is too long, or there is nothing to look through.
    """
    check_types(Library, library=library)
    check_types(str, text=text)
    if len(text) + sum(len(note.text) for note in notes) > TEXT_AT_MOST:
        raise InputError(
            "The text is too long.",
            f"{len(text):,} characters; {TEXT_AT_MOST:,} can be checked at once.",
            "Check it in parts.",
        )
    if not library.works():
        raise InputError(
            "The library is empty.", "There is nothing to check against.", "Run: stilnovo library add FILE …"
        )
    check = _Check(library, works)
    starts = [match.start() for match in re.finditer(r"\S(?:[^\n]|\n(?![ \t]*\n))*", text)]
    checked = list(check.quotations(text, notes, starts, 0, 0))
    for number, note in enumerate(notes, start=1):
        checked += check.quotations(note.text, (), starts, number, note.at)
    return checked


def counts(checked: Sequence[CheckedQuotation]) -> dict[str, int]:
    """How many quotations have each status."""
    return {status: sum(quotation.status == status for quotation in checked) for status in get_args(CheckStatus)}


class _Attribution(NamedTuple):
    """What a text says of a quotation's origin: its words, the works and authors it names, and whether all must be right."""

    said: str = ""
    titled: frozenset[int] = frozenset()
    by: frozenset[int] = frozenset()
    anonymous: frozenset[int] = frozenset()
    strict: bool = False
    foreign: bool = False

    def fits(self, work: int) -> bool:
        """Whether a quotation that stands in a work comes from where the text says."""
        if self.foreign:
            return False
        if self.strict:
            return (not self.titled or work in self.titled) and (not self.by or work in self.by | self.anonymous)
        return not (self.titled or self.by) or work in self.titled | self.by


class _Check:
    """One checking: the library, and the names of its works."""

    def __init__(self, library: Library, works: Sequence[int]) -> None:
        self._names = NamesOfWorks(library.works())
        self._nearest = Nearest(library, works)

    def quotations(
        self, text: str, notes: Sequence[NoteText], starts: Sequence[int], note: int, at: int
    ) -> Iterator[CheckedQuotation]:
        """Check the quotations of one text; `note` and `at` say which note it is of which place."""
        claims = list(self._claims(text))
        masked = _masked(text, [claim for claim, _ in claims])
        labelled = {line["mark"]: line["text"] for line in map(NOTE_LINE.match, text.splitlines()) if line}
        for claim, cited in claims:
            attribution = self._attribution(masked, claim, cited, notes, labelled)
            place = bisect_right(starts, at if note else claim.start)
            bare = CheckedQuotation(
                claim.words, "not_found", claim.start, claim.end, place, note, attribution.said, None
            )
            yield self._looked_up(bare, attribution)

    def _refer(self, text: str) -> bool:
        return refers(text, self._names) or _foreign(text)

    def _claims(self, text: str) -> Iterator[tuple[Claim, Citation]]:
        """The quotations of a text and what cites directly after each, without titles and words that only name."""
        at, inside = 0, ""
        while at < len(text):
            if inside:
                claim: Claim | None = paired(text, at, inside, final=True, limit=LONGEST_QUOTATION, inside=True)
            elif place := STARTS.search(text, at):
                at = place.start()
                claim = announced_lines(text, at, final=True) if text[at] == ":" else None
                claim = claim or claim_at(text, at, final=True, limit=LONGEST_QUOTATION)
            else:
                return
            if claim is None:
                at += 1
                continue
            cited = citation_after(text, claim.end, self._refer, final=True)
            if ending := ending_citation(claim.words, self._refer):
                inner = ending.group().strip(" \n\t()[].,;—–-")
                claim = claim._replace(words=claim.words[: ending.start()].rstrip())
                cited = cited._replace(references=(inner, *cited.references))
            inside = claim.open
            if self._counts(text, claim, cited):
                yield claim, cited
            elif not claim.strong:
                at += 1
                continue
            at = max(claim.end, at + 1)

    def _counts(self, text: str, claim: Claim, cited: Citation) -> bool:
        count = len(words(claim.words))
        if not count or self._names.is_title(claim.words):
            return False
        if count <= _STRESSED:
            return count > 1 and bool(cited.references)
        if not claim.strong:
            return claim.introduced or cited.cites
        titled = count <= _TITLE and not cited.cites and claim.words[0].isupper() and claim.words[-1] not in ".!?…,;"
        before = text[max(0, claim.start - 60) : claim.start]
        return not (titled and (_WORK_WORD.search(before) or _DATED.match(text, claim.end)))

    def _attribution(
        self, masked: str, claim: Claim, cited: Citation, notes: Sequence[NoteText], labelled: dict[str, str]
    ) -> _Attribution:
        """Where the text says that a quotation comes from."""
        said = [*cited.references, *(labelled[mark] for mark in cited.notes if mark in labelled)]
        said += [note.text for note in notes if claim.end <= note.at <= cited.end + 2]
        for reference in said:
            works = self._named(reference, strict=True)
            if works.titled or works.by:
                return works
            if _foreign(reference):
                return works._replace(foreign=True)
        for context in _contexts(masked, claim.start, cited.end):
            works = self._named(context, strict=False)
            if works.titled or works.by:
                return works
        return _Attribution(" ".join(said[:1]))

    def _named(self, text: str, *, strict: bool) -> _Attribution:
        titled = frozenset(work.id for work in self._names.titled(text))
        by = frozenset(work.id for work in self._names.by(text))
        said = re.sub("·+", "…", " ".join(text.split())).strip(" .,;:…")
        return _Attribution(said, titled, by, self._names.anonymous, strict)

    def _looked_up(self, bare: CheckedQuotation, attribution: _Attribution) -> CheckedQuotation:
        named = attribution.titled & attribution.by or attribution.titled | attribution.by
        best: Quote | None = None
        for quote in self._nearest.places(bare.claimed, named):
            assert quote.section is not None
            if quote.status == "verified" and attribution.fits(quote.section.work.id):
                return replace(bare, status="verified", source=quote.at(bare.start, bare.end - bare.start))
            if best is None or (quote.status == "verified") > (best.status == "verified"):
                best = quote
        if best is None:
            return bare
        assert best.section is not None
        exact = best.status == "verified"
        steps = () if exact else difference(bare.claimed, best.text)
        status: CheckStatus = "verified" if exact else "inexact"
        if not attribution.fits(best.section.work.id):
            status = "misattributed"
        return replace(bare, status=status, source=best.at(bare.start, bare.end - bare.start), difference=steps)


def _masked(text: str, claims: Sequence[Claim]) -> str:
    """The text with its quotations blanked out, so that names inside them attribute nothing."""
    pieces, at = list[str](), 0
    for claim in claims:
        pieces += [text[at : claim.start], "·" * (claim.end - claim.start)]
        at = claim.end
    return "".join([*pieces, text[at:]])


def _contexts(masked: str, start: int, end: int) -> Iterator[str]:
    """The sentence around a quotation, then the one before it in its paragraph, unless that has a quotation of its own."""
    before, after = masked[max(0, start - 400) : start], masked[end : end + 200]
    ends = list(_SENTENCE_END.finditer(before + "X"))
    stop = _SENTENCE_END.search(after)
    yield f"{before[ends[-1].end() if ends else 0 :]} {after[: stop.end() if stop else len(after)]}"
    previous = before[ends[-2].end() if len(ends) > 1 else 0 : ends[-1].end()] if ends else ""
    if "·" not in previous and "\n\n" not in previous[-3:]:
        yield previous


def _foreign(reference: str) -> bool:
    """Whether a reference names a person or a work, whoever it is: *(Pirandello, Uno, nessuno e centomila)*."""
    names = _PERSON.findall(_NO_NAME.sub(" ", NOTE_MARK.sub(" ", reference)))
    return (
        bool(names)
        and len(reference) <= 200
        and bool(re.match(r"\W*(?:(?:cfr|da|in|di|v)\.?\s+)*[A-ZÀ-Ý]", reference))
        and (len(names) > 1 or bool(re.search(r"\d|,", reference)) or len(reference.split()) <= 3)
    )
