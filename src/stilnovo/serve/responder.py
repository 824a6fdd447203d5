"""Answers from the conversation room, as the service's events.

The service keeps no conversation in memory: each question brings its history, so that any worker can answer any
client and a restart loses nothing. Follow-up questions lean on the questions before them exactly as in the terminal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from stilnovo.chat import events as chat_events
from stilnovo.chat.conversation import SYSTEM, ChatSession
from stilnovo.chat.quotes import Quote
from stilnovo.chat.writing import AnswerWriter
from stilnovo.library.store import Library
from stilnovo.serve.answer_events import MODES, AnswerDone, Ask, Event, Mode, Notice, SamplingSettings
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

    def __init__(self, writer: AnswerWriter) -> None:
        self._writer, self.context_tokens = writer, writer.context_tokens
        self.prompt_tokens = self.completion_tokens = 0
        self.cut = False

    @property
    def warnings(self) -> Sequence[str]:
        """What the reader must know of the writer."""
        return tuple(getattr(self._writer, "warnings", ()))

    def count(self, messages: Sequence[Message]) -> int:
        """As the writer counts."""
        return self._writer.count(messages)

    def stream(self, messages: Sequence[Message], sampling: Any) -> Generator[str, None, None]:
        """As the writer streams. Tokens are its pieces, or its text counted again where a piece held several."""
        pieces = self._writer.stream(messages, sampling)
        count, text = 0, ""
        self.prompt_tokens += self.count(messages)
        try:
            for piece in pieces:
                count, text = count + 1, text + piece
                yield piece
        finally:
            if isinstance(pieces, Generator):
                pieces.close()
            written = max(count, self.count([Message("user", text)]) - self.count([Message("user", "")]))
            self.completion_tokens += written
            told = getattr(self._writer, "finish", None)
            self.cut = self.cut or (written >= sampling.max_new_tokens if told is None else told == "length")


def _sampling(settings: SamplingSettings) -> Any:
    from stilnovo.generate.sampling import Sampling  # with torch: only where a model writes

    return Sampling(settings.temperature, settings.top_p, settings.max_tokens, settings.seed, settings.stop)


class LibraryResponder:
    """The library by itself, or with a model that writes."""

    def __init__(self, writer: AnswerWriter | None = None, writer_name: str = "", system: str = "") -> None:
        self._writer, self.writer_name, self._system = writer, writer_name, system or SYSTEM

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Library only; with a writer, everything."""
        return ("library",) if self._writer is None else MODES

    def respond(self, library: Library, ask: Ask) -> Iterator[Event]:
        """See `Responder`."""
        counting = Counting(self._writer) if self._writer is not None else None
        within = None if ask.mode == "chat" else library
        talk = ChatSession(counting, ask.system or self._system, library=within, history=ask.history)
        failure = ""
        reply = talk.reply(ask.message, ask.mode, _sampling(ask.sampling) if counting else None)
        with contextlib.closing(reply):
            for event in reply:
                if isinstance(event, chat_events.Done):
                    yield _done(event, ask, counting, failure)
                elif isinstance(event, Notice):
                    failure = event.text if event.code == "writer_failed" else failure
                    yield event
                elif not isinstance(event, chat_events.Citations):
                    yield event


def _done(event: chat_events.Done, ask: Ask, counting: Counting | None, failure: str) -> AnswerDone:
    citations = tuple(citation(quote) for quote in event.quotes)
    if event.kind == "extractive" or counting is None:
        read = word_count(ask.message) + sum(word_count(a) + word_count(b) for a, b in ask.history)
        return AnswerDone(
            event.text, citations, prompt_tokens=read, completion_tokens=word_count(event.text), failure=failure
        )
    read, written = counting.prompt_tokens, counting.completion_tokens
    return AnswerDone(event.text, citations, "written", "length" if counting.cut else "stop", read, written, failure)
