"""What the library answers by itself: a text, its verified quotations, and the passages or records behind it.

Everything quoted is a span of the stored text and is verified all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.chat.quotes import Quote, verify
from stilnovo.library.records import Chapter, Passage, Work
from stilnovo.library.store import Library


@dataclass(frozen=True)
class Extract:
    """An answer in the library's own words: its text, its quotations, the passages behind it, best first or, for a chapter, in order.

    Passages without a quotation are what was read in vain: a model may see more in them than the rules do.

    Attributes:
        sure: Whether the first quotation answers the question, by its `confidence`; where there are quotations and it does not,
            they are the passages nearest to the question.
        section: The chapter told as a whole.
        asks_back: The question fits several works, sections or authors.
        records: The works whose records (author, title, year, sections) the answer is from.
        final: The answer is complete as it is: no model is asked.
        confidence: The probability that the first quotation answers; None where no sentence was chosen.
    """

    text: str
    quotes: tuple[Quote, ...] = ()
    passages: tuple[Passage, ...] = ()
    sure: bool = False
    section: Chapter | None = None
    asks_back: bool = False
    records: tuple[Work, ...] = ()
    final: bool = False
    confidence: float | None = None

    @property
    def whole(self) -> bool:
        """Whether the passages are those of a whole section or work, in its order."""
        return self.section is not None or bool(self.records)


def quoted(opening: str, spans: Sequence[tuple[Chapter, str]], library: Library) -> tuple[str, tuple[Quote, ...]]:
    """The opening and the verified quotations, a line each; an ellipsis shows where a sentence was entered midway.

    Args:
        opening: What stands before them.
        spans: Words of a section, as they are stored.
        library: Where they stand.
    """
    text, quotes = opening, list[Quote]()
    for section, words in spans:
        quote = verify(words, section, library.text(section.work))
        assert quote.status == "verified", f"a stored sentence is not in its section: {words!r}"
        printed = quote.printed("… " if quote.shown[:1].islower() else "")
        text += "\n" if quotes else ""
        quotes.append(quote.at(len(text), len(printed)))
        text += printed
    return text, tuple(quotes)
