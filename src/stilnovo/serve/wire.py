"""OpenAI's chat completions format: request validation and response objects.

Reference: https://platform.openai.com/docs/api-reference/chat. Where a request names no temperature, top_p or number of
tokens, the report's settings hold; where it names no seed, one is drawn. What is not offered is refused by name rather
than ignored: several choices, tools, log probabilities.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from stilnovo.chat.events import Answer, Event, Mode, Notice, Turn, record_of
from stilnovo.generate.sampling import Sampling, stop_at
from stilnovo.serve.answering import MODEL_OF, Ask
from stilnovo.serve.faults import Fault

MODE_OF: dict[str, Mode] = {model: mode for mode, model in MODEL_OF.items()}
MESSAGES_AT_MOST = 1000
_REFUSED = ("tools", "functions", "logprobs", "top_logprobs", "logit_bias", "audio")


class WireMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]] | None = None

    def words(self) -> str:
        """The message's text; of its parts only text is read."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        if others := [part.get("type") for part in self.content if part.get("type") != "text"]:
            raise Fault(400, "unsupported", f"Only text is read; a part has the type {others[0]!r}.", "messages")
        return "\n".join(str(part.get("text", "")) for part in self.content)


class SamplingFields(BaseModel):
    """Sampling settings of a request; missing ones take the report's defaults."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1, le=100_000)
    seed: int | None = Field(default=None, ge=0, lt=2**63)

    def sampling(self, **more: Any) -> Sampling:
        """Convert to `Sampling`, with the settings in `more` overriding."""
        named = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_tokens,
            "seed": self.seed,
        }
        return Sampling(**{key: value for key, value in {**named, **more}.items() if value is not None})


class ChatRequest(SamplingFields):
    """A chat completion request; fields that are not listed are ignored."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[WireMessage] = Field(min_length=1, max_length=MESSAGES_AT_MOST)
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=100_000)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        tuple[str, ...], BeforeValidator(lambda stop: (stop,) if isinstance(stop, str) else stop or ())
    ] = ()
    n: int | None = 1

    def checked(self, modes: tuple[Mode, ...]) -> None:
        """Refuse unsupported values.

        Raises:
            Fault: 404 for the model, 400 for a field.
        """
        if MODE_OF.get(self.model) not in modes:
            offered = ", ".join(MODEL_OF[mode] for mode in modes)
            raise Fault(
                404, "model_not_found", f"The model {self.model[:80]!r} does not exist. Offered: {offered}.", "model"
            )
        if self.n not in (None, 1):
            raise Fault(400, "unsupported", "Only n=1 is supported.", "n")
        if refused := [name for name in _REFUSED if (self.model_extra or {}).get(name)]:
            raise Fault(400, "unsupported", f"{refused[0]} is not supported.", refused[0])
        if len(self.stop) > 16 or any(not stop or len(stop) > 200 for stop in self.stop):
            raise Fault(400, "invalid_value", "stop: at most 16 texts of 1 to 200 characters.", "stop")

    def ask(self) -> Ask:
        """Convert the request: system prompt, complete turns, and the last message."""
        system = "\n\n".join(m.words() for m in self.messages if m.role in ("system", "developer"))
        turns: list[Turn] = []
        waiting = ""
        for message in (m for m in self.messages if m.role in ("user", "assistant")):
            if message.role == "user":
                waiting = f"{waiting}\n\n{message.words()}" if waiting else message.words()
            else:
                turns += [Turn(waiting, message.words())] if waiting else []
                waiting = ""
        if not waiting.strip():
            raise Fault(400, "invalid_value", "The last message must be the user's, and hold text.", "messages")
        seed = secrets.randbelow(2**31) if self.seed is None else self.seed % 2**63
        most = self.max_completion_tokens or self.max_tokens
        return Ask(
            waiting,
            tuple(turns),
            MODE_OF[self.model],
            self.sampling(max_new_tokens=most, seed=seed, stop=self.stop),
            system,
        )


class Cut:
    """Truncates streamed text at a stop string; a possible beginning of one is held back."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops, self._text, self._shown, self.ended = stops, "", 0, False

    def feed(self, text: str, final: bool = False) -> str:
        """Add text; returns what may be sent now: with `final`, also what was held back and is no stop string."""
        self._text += text
        end, self.ended = stop_at(self._text, self._stops, final)
        piece, self._shown = self._text[self._shown : end], max(self._shown, end)
        return piece


class Answered:
    """Builds the response objects of one answer."""

    def __init__(self, model: str, stops: tuple[str, ...] = (), usage: bool = False) -> None:
        self._cut, self._usage = Cut(stops), usage
        self._facts = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def chunk(self, delta: dict[str, str], reason: str | None = None, **more: Any) -> dict[str, Any]:
        """Build one chunk of a stream."""
        return {
            **self._facts, "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}], **more,
        }  # fmt: skip

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """Convert an event to chunks; notices have none.

        Raises:
            Fault: the model failed.
        """
        if isinstance(event, Notice):
            return
        done = isinstance(event, Answer)
        if text := self._cut.feed("" if done else event.text, final=done):
            yield self.chunk({"content": text})
        if isinstance(event, Answer):
            yield self.chunk({}, **self._end(event))
            if self._usage:
                yield {**self.chunk({}), "choices": [], "usage": _usage(event)}

    def completion(self, done: Answer) -> dict[str, Any]:
        """Build the whole completion.

        Raises:
            Fault: the model failed.
        """
        text, end = self._cut.feed(done.text, final=True), self._end(done)
        choice = {
            "index": 0, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None,
            "finish_reason": end.pop("reason"),
        }  # fmt: skip
        return {**self._facts, "object": "chat.completion", "choices": [choice], "usage": _usage(done), **end}

    def _end(self, done: Answer) -> dict[str, Any]:
        """Build the finish reason; the extension `stilnovo` holds the quotations."""
        if done.failure:
            raise Fault(502, "model_failed", done.failure)
        return {
            "reason": "length" if done.finish == "length" and not self._cut.ended else "stop",
            "stilnovo": {
                "kind": done.kind,
                "nearest": done.nearest,
                "citations": [quote.as_dict() for quote in done.quotes],
                "records": [record_of(work) for work in done.records],
            },
        }


def _usage(done: Answer) -> dict[str, int]:
    read, written = done.prompt_tokens, done.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
