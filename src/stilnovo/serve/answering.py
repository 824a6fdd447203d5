"""Generate answers for the service, and store them in conversations.

The service keeps no conversation in memory: each question brings its history, so that any worker can answer any
client and a restart loses nothing. Follow-up questions lean on the questions before them exactly as in the terminal.

The generators here run in a worker's thread. However `Answering.write` ends (finished, stopped by the person, broken by
the model), its last act is to store what had arrived.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace

from stilnovo.chat.conversation import SYSTEM, ChatSession
from stilnovo.chat.events import MODES, Answer, Event, Mode, Notice, TextToken, Turn, record_of
from stilnovo.chat.writing import AnswerWriter
from stilnovo.errors import StilnovoError
from stilnovo.generate.sampling import Sampling
from stilnovo.library.store import Library
from stilnovo.serve.faults import Fault, fault_of
from stilnovo.serve.history import Conversations, Stored, settled, turns
from stilnovo.serve.metrics import Metrics

#: A growing answer is stored this often, so that even a killed service has kept most of it.
STORE_SECONDS = 2.0
log = logging.getLogger("stilnovo.serve")


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
        self.writer, self.writer_name, self.system = writer, writer_name, system or SYSTEM

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Available answer modes: library only; with a writer, all."""
        return ("library",) if self.writer is None else MODES


class Answering:
    """Generates answers with metrics; answers in conversations are stored while they stream."""

    def __init__(self, responder: LibraryResponder, metrics: Metrics) -> None:
        self.responder, self._metrics = responder, metrics

    def events(self, library: Library, ask: Ask, begun: float) -> Generator[Event, None, None]:
        """Iterate over an answer's events in a worker's thread, with metrics; closing the generator stops the generation."""
        metrics, responder, outcome, first = self._metrics, self.responder, "stopped", True
        try:
            within = None if ask.mode == "chat" else library
            talk = ChatSession(responder.writer, ask.system or responder.system, library=within, history=ask.history)
            with closing(talk.reply(ask.message, ask.mode, ask.sampling)) as events:
                for event in events:
                    if first and isinstance(event, TextToken):
                        metrics.time("stilnovo_first_token_seconds", time.monotonic() - begun)
                        first = False
                    if isinstance(event, Answer):
                        if event.kind != "written":
                            # Words stand for tokens where no model reads.
                            read = " ".join([ask.message, *(text for turn in ask.history for text in turn[:2])])
                            event = replace(
                                event, prompt_tokens=len(read.split()), completion_tokens=len(event.text.split())
                            )
                        outcome = "failed" if event.failure else "complete"
                        metrics.count("stilnovo_tokens_total", event.prompt_tokens, kind="read")
                        metrics.count("stilnovo_tokens_total", event.completion_tokens, kind="written")
                        for quote in event.quotes:
                            metrics.count("stilnovo_citations_total", status=quote.status)
                    yield event
        except Exception:
            outcome = "failed"
            raise
        finally:
            metrics.count("stilnovo_answers_total", mode=ask.mode, outcome=outcome)
            metrics.time("stilnovo_answer_seconds", time.monotonic() - begun)

    def begin(
        self, library: Library, conversation_id: str, message: str | None, ask: Ask
    ) -> tuple[Ask, Stored, Stored]:
        """Store the question and an empty answer; returns the request with its history, and the two messages."""
        details = {
            "mode": ask.mode, "sampling": {**asdict(ask.sampling), "max_tokens": ask.sampling.max_new_tokens},
            "attempt": 0, "model": self.responder.writer_name,
        }  # fmt: skip
        past, question, answer = Conversations(library).begin(conversation_id, message, details)
        # A new attempt must not repeat the one before: each has a seed of its own.
        sampling = replace(ask.sampling, seed=ask.sampling.seed + answer.details["attempt"])
        return replace(ask, message=question.text, history=turns(past, library), sampling=sampling), question, answer

    def write(
        self, library: Library, answer: Stored, ask: Ask, begun: float
    ) -> Generator[TextToken | Notice | Stored | Fault, None, None]:
        """Generate the answer and store it: yields tokens and notices, the stored message, and a fault if storing failed."""
        store, details = Conversations(library), dict(answer.details)
        text, status, stored_at = "", "stopped", time.monotonic()
        try:
            with closing(self.events(library, ask, begun)) as events:
                for event in events:
                    if isinstance(event, Answer):
                        text, status = event.text, "failed" if event.failure else "complete"
                        if event.failure:
                            details["error"] = Fault(502, "model_failed", event.failure).error
                        details |= {
                            "citations": [quote.as_dict() for quote in event.quotes], "kind": event.kind, "nearest": event.nearest,
                            "records": [record_of(work) for work in event.records],
                            "finish_reason": "length" if event.finish == "length" else "stop", "searched": event.searched,
                            "tokens": event.completion_tokens, "seconds": round(time.monotonic() - begun, 3),
                        }  # fmt: skip
                        continue
                    if isinstance(event, Notice):
                        details["notices"] = [*details.get("notices", []), event.as_dict()]
                    else:
                        text += event.text
                        if time.monotonic() - stored_at > STORE_SECONDS:
                            _store(store, replace(answer, text=text, details=details))
                            stored_at = time.monotonic()
                    yield event
        except Exception as error:
            fault = fault_of(error)
            if not isinstance(error, (StilnovoError, Fault)):
                # A broken model is trouble of this answer alone: a name for the reader, the inside for the log.
                log.error("An answer failed.", exc_info=error)
            if fault.code == "internal":
                fault = Fault(502, "model_failed", f"The model failed: {type(error).__name__}.")
            status, details["error"] = "failed", fault.error
        finally:
            final = settled(replace(answer, text=text, status=status, details=details))
            trouble = _store(store, final)
        yield final
        if trouble is not None:
            yield trouble

    @staticmethod
    def give_up(library: Library, answer: Stored, fault: Fault) -> None:
        """Mark an answer as failed that never got its turn."""
        failed = replace(answer, text="", status="failed", details={**answer.details, "error": fault.error})
        Conversations(library).write(settled(failed))


def _store(store: Conversations, answer: Stored) -> Fault | None:
    """Store an answer; a database error is logged and returned, and does not stop the answer."""
    try:
        store.write(answer)
        return None
    except StilnovoError as error:
        log.warning("An answer could not be stored: %s", error)
        return fault_of(error)
