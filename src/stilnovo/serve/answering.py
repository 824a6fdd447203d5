"""One answer from question to stored message: what the page sees of it while it is written, and what is kept of it.

The generator here runs in a worker's thread. However it ends (finished, stopped by the person, broken by the model),
its last act is to store what had arrived.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, cast

from stilnovo.errors import StilnovoError
from stilnovo.library.store import Library
from stilnovo.serve.answer_events import AnswerDone, Ask, Event, Notice, Responder, TextToken
from stilnovo.serve.faults import Fault, fault_of
from stilnovo.serve.history import Conversations, settled, turns
from stilnovo.serve.metrics import Metrics

#: A growing answer is stored this often, so that even a killed service has kept most of it.
STORE_SECONDS = 2.0
PageEvent = tuple[str, dict[str, Any]]
log = logging.getLogger("stilnovo.serve")


def events_of(responder: Responder, library: Library, ask: Ask) -> Generator[Event, None, None]:
    """The responder's events as a generator that can be closed."""
    events = responder.respond(library, ask)
    with closing(cast("Generator[Event, None, None]", events)) as open_events:
        yield from open_events


def counted(
    events: Generator[Event, None, None], ask: Ask, metrics: Metrics, begun: float
) -> Generator[Event, None, None]:
    """The same events, with their times and numbers kept."""
    outcome, first = "stopped", True
    try:
        with closing(events):
            for event in events:
                if first and isinstance(event, TextToken):
                    metrics.time("stilnovo_first_token_seconds", time.monotonic() - begun)
                    first = False
                if isinstance(event, AnswerDone):
                    outcome = "failed" if event.failure else "complete"
                    metrics.count("stilnovo_tokens_total", event.prompt_tokens, kind="read")
                    metrics.count("stilnovo_tokens_total", event.completion_tokens, kind="written")
                    for cited in event.citations:
                        metrics.count("stilnovo_citations_total", status=cited["status"])
                yield event
    except GeneratorExit:
        raise
    except BaseException:
        outcome = "failed"
        raise
    finally:
        metrics.count("stilnovo_answers_total", mode=ask.mode, outcome=outcome)
        metrics.time("stilnovo_answer_seconds", time.monotonic() - begun)


class Answering:
    """Answers in stored conversations."""

    def __init__(self, responder: Responder, metrics: Metrics) -> None:
        self._responder, self._metrics = responder, metrics

    def begin(self, library: Library, number: str, message: str | None, ask: Ask) -> tuple[Ask, PageEvent]:
        """Store the question and an empty answer; returns what is asked, history included, and the first event."""
        store = Conversations(library)
        details = {
            "mode": ask.mode,
            "sampling": asdict(ask.sampling),
            "attempt": 0,
            "model": self._responder.writer_name,
        }
        question, answer = store.begin(number, message, details)
        past = [one for one in store.messages(number) if one.id not in (question.id, answer.id)]
        # Answering anew must not repeat itself: each attempt has a seed of its own.
        attempt = answer.details["attempt"]
        sampling = replace(ask.sampling, seed=ask.sampling.seed + attempt)
        ask = replace(ask, message=question.text, history=turns(past), sampling=sampling)
        heading = store.heading(number)
        start = {"question": asdict(question), "answer": asdict(answer), "conversation": asdict(heading)}
        return ask, ("start", start)

    def write(
        self, library: Library, answer: dict[str, Any], ask: Ask, begun: float
    ) -> Generator[PageEvent, None, None]:
        """Write the answer, event by event, and store it."""
        store, text, status, details = Conversations(library), "", "stopped", dict(answer["details"])
        stored_at = time.monotonic()
        events = counted(events_of(self._responder, library, ask), ask, self._metrics, begun)
        try:
            with closing(events):
                for event in events:
                    if isinstance(event, TextToken):
                        text += event.text
                        if time.monotonic() - stored_at > STORE_SECONDS:
                            _kept(store, answer["id"], text, "writing", details)
                            stored_at = time.monotonic()
                        yield "token", {"text": event.text}
                    elif isinstance(event, Notice):
                        notice = asdict(event)
                        details["notices"] = [*details.get("notices", []), notice]
                        yield "notice", notice
                    else:
                        text, status = event.text, "complete"
                        if event.failure:
                            status, details["error"] = "failed", {"code": "model_failed", "message": event.failure}
                        details |= {
                            "citations": list(event.citations), "kind": event.kind, "finish_reason": event.reason,
                            "tokens": event.completion_tokens, "seconds": round(time.monotonic() - begun, 3),
                        }  # fmt: skip
        except GeneratorExit:
            raise
        except Exception as error:
            fault = _logged(error)
            status, details["error"] = "failed", {"code": fault.code, "message": fault.message}
        finally:
            text, status, details = settled(text, status, details)
            trouble = _kept(store, answer["id"], text, status, details)
        yield "done", {"id": answer["id"], "text": text, "status": status, "details": details}
        if trouble is not None:
            yield "unsaved", {"code": trouble.code, "message": trouble.message}

    @staticmethod
    def give_up(library: Library, answer: dict[str, Any], fault: Fault) -> None:
        """The answer was never begun, for want of a turn: say so in its place."""
        details = {**answer["details"], "error": {"code": fault.code, "message": fault.message}}
        Conversations(library).write(answer["id"], *settled("", "failed", details))


def _logged(error: Exception) -> Fault:
    fault = fault_of(error)
    if not isinstance(error, (StilnovoError, Fault)):
        # A broken model is trouble of this answer alone: a name for the reader, the inside for the log.
        log.error("An answer failed.", exc_info=error)
        if fault.code == "internal":
            fault = Fault(502, "model_failed", f"The model broke off: {type(error).__name__}.")
    return fault


def _kept(store: Conversations, message: str, text: str, status: str, details: dict[str, Any]) -> Fault | None:
    """Store an answer; a database that will not take it is told, and ends no answer."""
    try:
        store.write(message, text, status, details)
    except StilnovoError as error:
        log.warning("An answer could not be stored: %s", error)
        return fault_of(error)
    return None
