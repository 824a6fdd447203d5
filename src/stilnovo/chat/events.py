"""Events of a streamed answer: checked pieces of text, notices, and finally the answer.

The order is: any number of `TextToken` and `Notice`, then one `Answer`. Terminal, page and OpenAI's API show the same events.
Unusual: the tokens are already checked. A quotation is held back until it is closed and looked up, so that the joined tokens
are `Answer.text`, letter by letter, and nothing false has ever been on the screen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, get_args

from stilnovo.chat.quotes import Quote
from stilnovo.library.records import Passage, Work

#: `library`: passages only; `library_plus`: what the model knows follows, told apart; `chat`: the model alone.
Mode = Literal["library", "library_plus", "chat"]
MODES: tuple[Mode, ...] = get_args(Mode)
#: How an answer was made: sentences found; a model's words; from the library's records (authors, titles, years, sections), or that
#: something is not in them.
Kind = Literal["extractive", "written", "records"]
#: How an answer ended: complete, cut at the largest number of tokens, stopped by the person, or broken off by the model.
Finish = Literal["stop", "length", "cancelled", "failed"]
Code = Literal[
    "history", "passages", "section", "search", "context_limited", "context_unknown", "context_cut", "no_model",
    "unverified", "writer_failed",
]  # fmt: skip
#: Each notice as a sentence for the terminal; a page may put code, count and detail into its own words.
_SENTENCES: dict[Code, str] = {
    "history": "Il contesto del modello è pieno. Scambi più vecchi che non legge più: {count}.",
    "passages": "Brani trovati che il modello non legge, per mancanza di spazio: {count}.",
    "section": "Il capitolo è più lungo di quanto il modello legga. Brani rimasti fuori: {count}.",
    "search": "Cerco: {detail}",
    "context_limited": "Il server legge {count} token, meno dei {detail} chiesti: gli se ne mandano al massimo {count}.",
    "context_unknown": ("Il server non dice quanto legge: gli si mandano al massimo {count} token (--server-context)."),
    "context_cut": "Il server ha letto solo una parte di ciò che gli è stato mandato: il suo contesto è troppo piccolo.",
    "no_model": "Nessun modello è collegato: risponde la sola biblioteca.",
    "unverified": "Citazioni che non stanno nei testi letti, e sono segnate: {count}.",
    "writer_failed": "Il modello si è interrotto: {detail}",
}


@dataclass(frozen=True)
class TextToken:
    """A piece of the answer, checked."""

    text: str


@dataclass(frozen=True)
class Notice:
    """A message about the answer: a code, a count if it has one, and a detail for its text."""

    code: Code
    count: int = 0
    detail: str = ""

    @property
    def text(self) -> str:
        """The notice as a sentence in Italian."""
        return _SENTENCES[self.code].format(count=self.count, detail=self.detail)

    def as_dict(self) -> dict[str, object]:
        """The notice as a JSON object."""
        return {**asdict(self), "text": self.text}


@dataclass(frozen=True)
class Answer:
    """A finished answer: its text, how it was made, its quotations, those that the library
    itself added first, and the passages it rests on, best first.

    Only answers that ended by *stop* or *length* enter the history. That a quotation is *verified* says that it stands in
    the source, not that it answers.

    Attributes:
        searched: What the library was asked; empty when it was not.
        sure: Whether the first sentence found answers, by its confidence; else it is one of the passages nearest to the question.
        failure: The error message of a model that failed.
        prompt_tokens: Tokens that the model read.
        completion_tokens: Tokens that the model wrote.
        records: The works whose records the answer is from.
        confidence: The probability that the first quotation answers; None where no sentence was chosen.
    """

    question: str
    text: str
    kind: Kind
    mode: Mode
    quotes: tuple[Quote, ...] = ()
    passages: tuple[Passage, ...] = ()
    notices: tuple[Notice, ...] = ()
    searched: str = ""
    sure: bool = False
    finish: Finish = "stop"
    failure: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    records: tuple[Work, ...] = ()
    confidence: float | None = None

    @property
    def nearest(self) -> bool:
        """Whether the quotations are only the passages nearest to the question: they stand in the source, and may not answer."""
        return self.kind == "extractive" and self.found and not self.sure and self.confidence is not None

    @property
    def found(self) -> bool:
        """Whether the library had something to say."""
        return bool(self.records) or any(quote.sound for quote in self.quotes)

    @property
    def complete(self) -> bool:
        """Whether the answer ended by itself or at the token limit (not cancelled, not failed)."""
        return self.finish in ("stop", "length")

    def as_dict(self) -> dict[str, object]:
        """The answer as a JSON object."""
        first = next((quote for quote in self.quotes if quote.sound), None) or next(iter(self.quotes), None)
        return {
            "question": self.question,
            "answer": self.text,
            "mode": self.kind,
            "sources": self.mode,
            "found": self.found,
            "sure": self.sure,
            "nearest": self.nearest,
            "confidence": self.confidence,
            "complete": self.complete,
            "quote": first.text if first else None,
            "quote_verified": first is not None and first.status == "verified",
            "citation": first.citation if first else None,
            "citations": [quote.as_dict() for quote in self.quotes],
            "records": [record_of(work) for work in self.records],
            "notices": [notice.as_dict() for notice in self.notices],
        }


def record_of(work: Work) -> dict[str, object]:
    """A work's record as a JSON object."""
    return {"title": work.title, "author": work.author, "year": work.year, "sha256": work.sha256}


Event = TextToken | Notice | Answer


class Turn(NamedTuple):
    """A message and its answer, with the answer's quotations, the search query used, and the work quoted last.

    Where `searched` is None, only the two texts are known.
    """

    user: str
    assistant: str
    quotes: tuple[Quote, ...] = ()
    searched: str | None = None
    work: Work | None = None
