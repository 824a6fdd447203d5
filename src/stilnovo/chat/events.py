"""What happens while an answer is made, as a stream of events: whoever shows it, terminal or page, needs nothing else.

The order is: any number of `Notice` and `TextToken`, one `Citations`, one `Done`. Unusual: the tokens are already checked.
A quotation is held back until it is closed and looked up, so that the joined tokens are `Done.text`, letter by letter,
and nothing false has ever been on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stilnovo.chat.quotes import Quote
from stilnovo.library.records import Passage

#: `library`: passages only; `library_plus`: what the model knows follows, told apart; `chat`: the model alone.
Mode = Literal["library", "library_plus", "chat"]
MODES: tuple[Mode, ...] = get_args(Mode)
#: How an answer was made: sentences found, words of a model over passages, a model alone.
Kind = Literal["extractive", "written"]
#: How an answer ended: complete, cut where the model's tokens ran out (as far as a writer's `finish` tells), stopped by the
#: person, or broken off by the model.
Finish = Literal["stop", "length", "cancelled", "failed"]
Code = Literal[
    "history",  # the oldest turns gave way
    "passages",  # passages gave way
    "section",  # a chapter was read in part
    "search",  # the question was made self-contained
    "context",  # a server reads less than it is sent, or does not say
    "no_model",  # a mode that needs a model, without one
    "unverified",  # quotations that stand nowhere
    "writer_failed",  # the model broke off
]


@dataclass(frozen=True)
class TextToken:
    """A piece of the answer, checked."""

    text: str


@dataclass(frozen=True)
class Notice:
    """Something the reader must know; `text` is a sentence in Italian, `count` what it counts, if anything."""

    code: Code
    text: str
    count: int = 0


@dataclass(frozen=True)
class Citations:
    """The quotations in the answer, in order, each as the source has it."""

    quotes: tuple[Quote, ...]


@dataclass(frozen=True)
class Done:
    """The end. `text` is the whole answer; `searched` what the library was asked, empty when it was not.

    Only answers that ended by *stop* or *length* are kept in the history. `sure`: see `choose.Chooser.sure`.
    """

    text: str
    kind: Kind
    mode: Mode
    quotes: tuple[Quote, ...] = ()
    passages: tuple[Passage, ...] = ()
    searched: str = ""
    sure: bool = False
    finish: Finish = "stop"


Event = TextToken | Notice | Citations | Done
