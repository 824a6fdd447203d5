"""Check the quotations of any text, an essay or a chatbot's answer, against a whole library.

Each quotation is *verified* (its words stand in the library, by the rule in `quotes.py`), *inexact* (nearly: the source's own
words and the difference are given; what is put right or shortened with […] is inexact too), *misattributed* (its words stand in
the library, but in another work, or by another author, than the text says) or *not found*. Titles are no quotations, and words
of three at most that nobody is said to have written are not counted.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from stilnovo.chat.attribution import Attribution, PlaceDifference, attribution, is_foreign
from stilnovo.chat.citing import NOTE_LINE, Citation, NamesOfWorks, citation_after, ending_citation, refers
from stilnovo.chat.claims import Claim, announced_lines, claim_at, paired
from stilnovo.chat.marks import STARTS
from stilnovo.chat.nearest import Nearest, Step, difference
from stilnovo.chat.quotes import Quote
from stilnovo.errors import InputError, check_types
from stilnovo.library.store import Library
from stilnovo.text.italian import fold, words

CheckStatus = Literal["verified", "inexact", "misattributed", "not_found"]
#: Characters of a text that can be checked, and of one quotation before it is checked in parts.
TEXT_AT_MOST, LONGEST_QUOTATION = 1_000_000, 4000
#: Quotations of a text that are checked.
QUOTATIONS_AT_MOST = 3000
#: The most words that only name or stress something; the most of a title that the library does not know.
_STRESSED, _TITLE = 3, 8
_WORK_WORD = re.compile(
    r"\b(?:romanz\w+|oper[ae]|poesi[ae]|poem\w+|sonett\w+|novell[ae]|raccont\w+|sagg\w+|libr\w+|film|titol\w+|intitolat\w+|"
    r"capitol\w+|cant[oi]|rivist[ae]|articol\w+|commedi[ae]|tragedi[ae]|raccolt[ae]|canzon[ei])\s+(?:\w+\s+){0,2}[*_]?\Z", re.I,
)  # fmt: skip
#: Verbs that introduce words as somebody's own, however few; others name (*detto «il Grande Vecchio»*).
_SAID = re.compile(
    r"\b(?:scriv\w+|scriss\w+|dice|disse|dicono|legg\w+|recita\w*|rispo\w+|esclam\w+|grid\w+|conclud\w+)(?:\s+che|\s+così)?\s*[:,]?\s*\Z",
    re.I,
)
_SAYS_BEHIND = re.compile(
    r"\s*[,–—-]?\s*(?:(?:così|come)\s+)?(?:scriv\w+|scriss\w+|dice|disse|annota|afferm\w+|recita|esclama|legg\w+|si legge)\b",
    re.I,
)
_DATED = re.compile(r"\s*(?:,|\()[^()\n]{0,40}?\b\d{4}\b")
#: What cites on a line of its own, without a dash.
_LINE_BEHIND, _QUOTED_NEXT = re.compile(r"[.,;:]?\s*\n\s*[^\W\d_]"), re.compile(r"[.:]?\s*\n\s*[«“„\"‘>*]")


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
        place_differs: Whether the text names another place in the work (chapter, canto, verses) than where the words stand.
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
    place_differs: bool = False

    def as_dict(self) -> dict[str, object]:
        """The quotation as a JSON object."""
        return {
            "claimed": self.claimed, "status": self.status, "start": self.start, "end": self.end, "paragraph": self.paragraph,
            "note": self.note, "attribution": self.attribution, "citation": self.source.citation if self.source else "",
            "source": self.source.as_dict() if self.source else None,
            "difference": [step._asdict() for step in self.difference], "place_differs": self.place_differs,
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


class _Check:
    """One checking: the library, and the names of its works."""

    def __init__(self, library: Library, works: Sequence[int]) -> None:
        self._library, self._names = library, NamesOfWorks(library.works())
        self._nearest = Nearest(library, works)
        self._count = 0

    def quotations(
        self, text: str, notes: Sequence[NoteText], starts: Sequence[int], note: int, at: int
    ) -> Iterator[CheckedQuotation]:
        """Check the quotations of one text; `note` and `at` say which note it is of which place."""
        claims = list(self._claims(text))
        self._count += len(claims)
        if self._count > QUOTATIONS_AT_MOST:
            raise InputError(
                "The text has too many quotations.",
                f"At most {QUOTATIONS_AT_MOST:,} are checked at once.",
                "Check it in parts.",
            )
        masked = _masked(text, [claim for claim, _ in claims])
        labelled = {line["mark"]: line["text"] for line in map(NOTE_LINE.match, text.splitlines()) if line}
        for claim, cited in claims:
            said = [*cited.references, *(labelled[mark] for mark in cited.notes if mark in labelled)]
            said += [item.text for item in notes if claim.end <= item.at <= cited.end + 2]
            origin = attribution(said, masked, claim.start, cited.end, self._names)
            place = bisect_right(starts, at if note else claim.start)
            bare = CheckedQuotation(claim.words, "not_found", claim.start, claim.end, place, note, origin.said, None)
            checked = self._looked_up(bare, origin)
            asserted = claim.strong or _asserted(text, claim, cited)
            if checked.source or (asserted and not _maybe_title(text, claim)):
                yield checked

    def _refer(self, text: str) -> bool:
        return refers(text, self._names) or is_foreign(text)

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
            cited = citation_after(text, claim.end, self._refer, self._names.is_reference, final=True)
            if self._labelled(text, claim, cited):
                cited = Citation(claim.end)
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

    def _labelled(self, text: str, claim: Claim, cited: Citation) -> bool:
        """Whether the line below a quotation is the label of the next one: labels stand above, or this one is inside a sentence."""
        if not (_LINE_BEHIND.match(text, claim.end, cited.end) and _QUOTED_NEXT.match(text, cited.end)):
            return False
        above = text[max(0, claim.start - 200) : claim.start]
        return not above.endswith("\n") or self._refer(above.rstrip().rpartition("\n")[2])

    def _counts(self, text: str, claim: Claim, cited: Citation) -> bool:
        count = len(words(claim.words))
        if not count or self._names.is_title(claim.words):
            return False
        if count <= _STRESSED:
            said = count == _STRESSED and claim.strong and _SAID.search(text, max(0, claim.start - 60), claim.start)
            return count > 1 and bool(cited.references or said)
        if not claim.strong:
            return count > _TITLE or _asserted(text, claim, cited)
        before = text[max(0, claim.start - 60) : claim.start]
        dated = _DATED.match(text, claim.end) and not any(map(self._names.named, cited.references))
        return not (_like_title(claim) and ((_WORK_WORD.search(before) and not cited.cites) or dated))

    def _looked_up(self, bare: CheckedQuotation, origin: Attribution) -> CheckedQuotation:
        """Look a quotation up: the place that best fits what the text says, of those where its words stand, or nearly."""
        places = self._nearest.places(bare.claimed, origin.works, every=origin != Attribution())
        fitting = [(quote, self._fits(origin, quote), _place_difference(origin, quote)) for quote in places]
        if not fitting:
            return bare
        order = ["", "place", "part"]
        quote, fits, differs = min(fitting, key=lambda item: (not item[0].sound, not item[1], order.index(item[2])))
        exact = quote.status == "verified"
        status: CheckStatus = "verified" if exact else "inexact"
        if not fits or differs == "part":
            status = "misattributed"
        return replace(
            bare, status=status, source=quote.at(bare.start, bare.end - bare.start), place_differs=bool(differs),
            difference=() if exact else difference(bare.claimed, quote.text),
        )  # fmt: skip

    def _fits(self, origin: Attribution, quote: Quote) -> bool:
        assert quote.section is not None
        work = quote.section.work
        if origin.writer:
            name = fold(origin.writer).split()[-1]
            return name in fold(f"{work.author} {work.title}") or origin.writer in self._library.text(work)
        return origin.fits(work.id)


def _asserted(text: str, claim: Claim, cited: Citation) -> bool:
    """Whether anything says that words in italics, or after a dash, are quoted; else they count only where they are found."""
    return claim.introduced or cited.cites or _SAYS_BEHIND.match(text, claim.end) is not None


def _like_title(claim: Claim) -> bool:
    return len(words(claim.words)) <= _TITLE and claim.words[0].isupper() and claim.words[-1] not in ".!?…,;"


def _maybe_title(text: str, claim: Claim) -> bool:
    """Whether words that stand nowhere may be a title that the library does not know: in italics, or behind *la novella*."""
    before = text[max(0, claim.start - 60) : claim.start]
    said = _SAID.search(before) is not None and not re.search(r"\bscriss\w+\s*\Z", before)  # *scrisse La giara*
    return (
        _like_title(claim)
        and not said
        and not before.rstrip().endswith(":")
        and bool(not claim.strong or _WORK_WORD.search(before))
    )


def _place_difference(origin: Attribution, quote: Quote) -> PlaceDifference:
    assert quote.section is not None
    return origin.place.difference(quote.section, quote.verses)


def _masked(text: str, claims: Sequence[Claim]) -> str:
    """The text with its quotations blanked out, so that names inside them attribute nothing."""
    pieces, at = list[str](), 0
    for claim in claims:
        pieces += [text[at : claim.start], "·" * (claim.end - claim.start)]
        at = claim.end
    return "".join([*pieces, text[at:]])
