"""Answers from the conversation room, as the service's events.

The service keeps no conversation in memory: each question brings its history, so that any worker can answer any
client and a restart loses nothing. Follow-up questions lean on the questions before them exactly as in the terminal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Literal

from stilnovo.chat.conversation import SYSTEM, Conversation, Turn, self_contained
from stilnovo.chat.quotes import Quote
from stilnovo.chat.writing import Writer
from stilnovo.library.store import Library
from stilnovo.serve.events import Ask, Done, Dropped, Event, Mode, SamplingSettings, Token
from stilnovo.text.template import Message


def citation(quote: Quote) -> dict[str, Any]:
    """A quotation for JSON, with what finds its place again: the text's sha256 and the span in it."""
    section = quote.section
    return {
        **quote.as_dict(),
        "shown": quote.shown,
        "claimed": quote.claimed,
        "sha256": section.work.sha256 if section else "",
    }


def word_count(text: str) -> int:
    """What stands for tokens where no model reads."""
    return len(text.split())


class Counting:
    """A writer seen through: what it read, and how much it wrote."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self.context_tokens = writer, writer.context_tokens
        self.prompt_tokens, self.pieces, self.text, self.limit = 0, 0, "", 0

    def count(self, messages: Sequence[Message]) -> int:
        """As the writer counts."""
        return self._writer.count(messages)

    def stream(self, messages: Sequence[Message], sampling: Any) -> Generator[str, None, None]:
        """As the writer streams, counting."""
        self.prompt_tokens, self.limit = self.count(messages), sampling.max_new_tokens
        pieces = self._writer.stream(messages, sampling)
        try:
            for piece in pieces:
                self.pieces, self.text = self.pieces + 1, self.text + piece
                yield piece
        finally:
            if isinstance(pieces, Generator):
                pieces.close()

    @property
    def completion_tokens(self) -> int:
        """Tokens written: the pieces, or the text counted again where a piece held several."""
        empty = self.count([Message("user", "")])
        return max(self.pieces, self.count([Message("user", self.text)]) - empty)


def _sampling(settings: SamplingSettings) -> Any:
    from stilnovo.generate.sampling import Sampling  # with torch: only where a model writes

    return Sampling(settings.temperature, settings.top_p, settings.max_tokens, settings.seed, settings.stop)


class LibraryResponder:
    """The library by itself, or with a model that writes."""

    def __init__(self, writer: Writer | None = None, writer_name: str = "", system: str = SYSTEM) -> None:
        self._writer, self.writer_name, self._system = writer, writer_name, system

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Library only; with a writer, everything."""
        return ("library",) if self._writer is None else ("library", "library_plus", "chat")

    def respond(self, library: Library, ask: Ask) -> Iterator[Event]:
        """See `Responder`."""
        counting = Counting(self._writer) if self._writer is not None else None
        talk = Conversation(counting, ask.system or self._system, library=None if ask.mode == "chat" else library)
        asked = None
        for user, said in ask.history:
            asked = self_contained(user, asked)
            talk.turns.append(Turn(user, said))
        talk._asked = asked
        reply = talk.say(ask.message, _sampling(ask.sampling) if counting else None)
        if reply.dropped:
            yield Dropped(reply.dropped)
        with contextlib.closing(reply):
            for piece in reply:
                yield Token(piece)
        assert reply.turn is not None
        text, citations = reply.turn.assistant, tuple(citation(quote) for quote in reply.turn.quotes)
        if counting is None or not counting.pieces:
            read = word_count(ask.message) + sum(word_count(a) + word_count(b) for a, b in ask.history)
            yield Done(text, citations, prompt_tokens=read, completion_tokens=word_count(text))
            return
        written = counting.completion_tokens
        reason: Literal["stop", "length"] = "length" if written >= counting.limit else "stop"
        yield Done(text, citations, "written", reason, counting.prompt_tokens, written)
