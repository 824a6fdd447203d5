"""The seam between the service and whoever answers: a question in, a stream of events out.

Tokens and notices are the conversation room's own (`stilnovo.chat.events`); the end is told in plain data.

Unusual: the settings of sampling are kept apart from the engine's own class, because that one needs torch, and a
library that answers by itself starts without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from stilnovo.chat.events import MODES, Kind, Mode, Notice, TextToken
from stilnovo.library.store import Library

__all__ = [
    "MODEL_OF",
    "MODES",
    "AnswerDone",
    "Ask",
    "Event",
    "Mode",
    "Notice",
    "Responder",
    "SamplingSettings",
    "TextToken",
]

#: The modes as models that an OpenAI client can name.
MODEL_OF: dict[Mode, str] = {
    "library": "stilnovo-library",
    "library_plus": "stilnovo-library-plus",
    "chat": "stilnovo-chat",
}


@dataclass(frozen=True)
class SamplingSettings:
    """How a model chooses its words; the report's settings are the defaults (§6.1.2). No seed: 42."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 256
    seed: int = 42
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A message, with what was said before it as (person, answer) pairs, oldest first."""

    message: str
    history: tuple[tuple[str, str], ...] = ()
    mode: Mode = "library"
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    system: str = ""


@dataclass(frozen=True)
class AnswerDone:
    """The end. The tokens before it, joined, are its text.

    `kind` is *extractive* (sentences found) or *written* (by a model); `citations` are JSON-ready, see `responder`.
    `failure` is what a model that broke off said last; empty when the answer is complete.
    """

    text: str
    citations: tuple[dict[str, Any], ...] = ()
    kind: Kind = "extractive"
    reason: Literal["stop", "length"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: str = ""


Event = TextToken | Notice | AnswerDone


class Responder(Protocol):
    """Whoever answers. Called in a worker's thread; closing the iterator must end the writing."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes on offer."""
        ...

    @property
    def writer_name(self) -> str:
        """The model that writes; empty when the library answers by itself."""
        ...

    def respond(self, library: Library, ask: Ask) -> Iterator[Event]:
        """Answer: any number of `TextToken` and `Notice`, then one `AnswerDone`."""
        ...
