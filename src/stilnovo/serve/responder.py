"""Answers from the conversation room, as the service asks for them.

The service keeps no conversation in memory: each question brings its history, so that any worker can answer any
client and a restart loses nothing. Follow-up questions lean on the questions before them exactly as in the terminal.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace

from stilnovo.chat.conversation import SYSTEM, ChatSession
from stilnovo.chat.events import MODES, Answer, Event, Mode, Turn
from stilnovo.chat.writing import AnswerWriter
from stilnovo.generate.sampling import Sampling
from stilnovo.library.store import Library

#: The modes as models that an OpenAI client can name.
MODEL_OF: dict[Mode, str] = {
    "library": "stilnovo-library",
    "library_plus": "stilnovo-library-plus",
    "chat": "stilnovo-chat",
}


@dataclass(frozen=True)
class Ask:
    """A message, with the turns before it, oldest first."""

    message: str
    history: tuple[Turn, ...] = ()
    mode: Mode = "library"
    sampling: Sampling = field(default_factory=Sampling)
    system: str = ""


class LibraryResponder:
    """The library by itself, or with a model that writes; `writer_name` is empty when there is none."""

    def __init__(self, writer: AnswerWriter | None = None, writer_name: str = "", system: str = "") -> None:
        self._writer, self.writer_name, self._system = writer, writer_name, system or SYSTEM

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Library only; with a writer, everything."""
        return ("library",) if self._writer is None else MODES

    def respond(self, library: Library, ask: Ask) -> Generator[Event, None, None]:
        """Answer, in a worker's thread; closing the generator ends the writing."""
        within = None if ask.mode == "chat" else library
        talk = ChatSession(self._writer, ask.system or self._system, library=within, history=ask.history)
        with closing(talk.reply(ask.message, ask.mode, ask.sampling)) as events:
            for event in events:
                if isinstance(event, Answer) and event.kind == "extractive":
                    # Words stand for tokens where no model reads.
                    read = [ask.message, *(text for turn in ask.history for text in turn[:2])]
                    event = replace(
                        event,
                        prompt_tokens=len(" ".join(read).split()),
                        completion_tokens=len(event.text.split()),
                    )
                yield event
