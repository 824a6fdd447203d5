"""Client of OpenAI-compatible servers: llama.cpp, Ollama, vLLM, LM Studio.

Only `POST …/chat/completions` with `stream: true` is needed; what a server tells of its context is asked of it and
believed. Unusual: tokens are counted by an upper estimate (`BYTES_A_TOKEN`), because the server's tokeniser is not ours;
and an answer that ends without the server saying so counts as broken off, however plausible it reads.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from stilnovo.errors import InputError, StilnovoError
from stilnovo.generate.sampling import Sampling
from stilnovo.text.template import Message

#: UTF-8 bytes of Italian that a token holds at least, on average, in the vocabularies of today; and a message's frame.
BYTES_A_TOKEN, FRAME_TOKENS = 2.6, 8
#: Taken for the context of a server that does not say: Ollama's default.
UNTOLD_CONTEXT = 4096
#: Seconds to connect, to wait for the next piece, and to wait for what a server tells of itself.
CONNECT, SILENCE, ABOUT = 10.0, 120.0, 5.0
#: Characters of one line of a stream, and of an answer to a question about the server; beyond, it is no such server.
LONGEST_LINE, LONGEST_BODY = 2**20, 2**22
#: The environment variable with the key of a server that asks for one.
KEY_VARIABLE = "STILNOVO_SERVER_KEY"
#: A server that says it read less than this share of the estimate has probably cut the prompt.
CUT = 0.5


class ServerWriter:
    """A model on an OpenAI-compatible server; an `AnswerWriter`.

    Attributes:
        context_tokens: What is sent at most, the answer included.
        warnings: What the reader must know of this server: code, count and detail of a notice (`stilnovo.chat.events`).
    """

    def __init__(self, url: str, model: str, context: int | None = None, silence: float = SILENCE) -> None:
        """Connect, and ask the server for its context length; nothing is sent to any other.

        Args:
            url: Such as http://127.0.0.1:8080/v1.
            model: The model's name there.
            context: Tokens to send at most, the answer included; None for what the server says.
            silence: Seconds without a piece after which it counts as dead.

        Raises:
            InputError: this is not a server's address.
            StilnovoError: nobody answers there.
        """
        try:
            address = httpx.URL(url if "//" in url else f"http://{url}")
        except httpx.InvalidURL:
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host or address.query or address.userinfo:
            raise InputError(f"{url} is no server's address.", "Wanted: http://HOST:PORT/v1", "Give it with --server.")
        self._root = str(address).rstrip("/").removesuffix("/v1")
        self.url, self.model, self._silence = url, model, silence
        self.warnings: list[tuple[str, int, str]] = []
        self.finish = "stop"
        told = self._told_context()
        wanted = context or told or UNTOLD_CONTEXT
        self.context_tokens = min(wanted, told or wanted)
        if told and context and context > told:
            self.warnings.append(("context_limited", told, str(context)))
        elif not told and not context:
            self.warnings.append(("context_unknown", UNTOLD_CONTEXT, ""))

    def count(self, messages: Sequence[Message]) -> int:
        """Upper bound of a conversation's tokens, by its bytes."""
        size = sum(len(message.content.encode("utf-8", "replace")) for message in messages)
        return math.ceil(size / BYTES_A_TOKEN) + FRAME_TOKENS * (len(messages) + 1)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str, None, None]:
        """Stream the answer in pieces.

        Raises:
            StilnovoError: nobody answers, the server refuses, sends what is no stream, or breaks off.
        """
        body = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": sampling.seed,
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
        }
        self.finish = "stop"
        with self._asked("POST", "/v1/chat/completions", body, self._silence) as response:
            if "json" in response.headers.get("content-type", ""):
                yield _whole(_read(response))
            else:
                yield from self._pieces(response, self.count(messages))

    def _pieces(self, response: httpx.Response, sent: int) -> Iterator[str]:
        ended = False
        for line in _lines(response):
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                return
            event = _parsed(data)
            if "error" in event:
                raise StilnovoError("The model server broke off the answer.", _reason(event["error"]))
            read, warning = _at(event, "usage", "prompt_tokens"), ("context_cut", 0, "")
            # A server that read far less than it was sent has cut the prompt without a word.
            cut = isinstance(read, int) and read < CUT * sent and sent > UNTOLD_CONTEXT // 2
            if cut and warning not in self.warnings:
                self.warnings.append(warning)
            for choice in event.get("choices") or ():
                if not isinstance(choice, dict):
                    raise _no_answer(data)
                if text := _at(choice, "delta", "content"):
                    yield str(text)
                if choice.get("finish_reason"):
                    ended, self.finish = True, str(choice["finish_reason"])
        if not ended:
            raise StilnovoError(
                "The model server closed the connection in the middle of the answer.",
                f"Server: {self.url}",
                "Look at the server's own messages, then ask again.",
            )

    @contextmanager
    def _asked(self, method: str, path: str, body: object = None, silence: float = ABOUT) -> Iterator[httpx.Response]:
        """Open a streaming response of the server; network errors until it is closed become `StilnovoError`."""
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Accept": "text/event-stream, application/json"} | (
            {"Authorization": f"Bearer {key}"} if key else {}
        )
        timeout = httpx.Timeout(silence, connect=CONNECT)
        try:
            with (
                httpx.Client(trust_env=False, timeout=timeout, headers=headers) as client,
                client.stream(method, self._root + path, json=body) as response,
            ):
                if not response.is_success:
                    text, status = _read(response), f"{response.status_code} {response.reason_phrase}"
                    raise StilnovoError(f"The model server refused: {status}.", _reason(_loose(text) or text))
                yield response
        except httpx.ReadTimeout as error:
            raise StilnovoError(
                f"The model server has sent nothing for {silence:g} s.", f"Server: {self.url}"
            ) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise StilnovoError(
                f"No model server answers at {self.url}.", str(error), "Start it, or give another --server."
            ) from error
        except httpx.HTTPError as error:
            raise StilnovoError("The connection to the model server broke.", f"{self.url}: {error}") from error

    def _about(self, method: str, path: str, body: object = None) -> Any:
        """Fetch a server's description of itself from a path that it may not have; None then."""
        try:
            with self._asked(method, path, body) as response:
                return _loose(_read(response))
        except StilnovoError as error:
            if error.what.startswith("No model server"):
                raise
            return None

    def _told_context(self) -> int | None:
        """Context length by the server: vLLM's `max_model_len`, llama.cpp's `n_ctx`, Ollama's `num_ctx`; None if not stated."""
        listed = _at(self._about("GET", "/v1/models"), "data")
        for model in listed if isinstance(listed, list) else ():
            if _at(model, "id") == self.model and isinstance(size := _at(model, "max_model_len"), int):
                return size
        props = self._about("GET", "/props")
        size = _at(props, "default_generation_settings", "n_ctx") or _at(props, "n_ctx")
        if isinstance(size, int) and size > 0:
            return size
        parameters = _at(self._about("POST", "/api/show", {"model": self.model}), "parameters")
        told = re.search(r"^num_ctx +(\d+)\s*$", str(parameters), re.MULTILINE)
        return int(told[1]) if told else None


def _read(response: httpx.Response) -> str:
    text = ""
    for piece in response.iter_text():
        text += piece
        if len(text) > LONGEST_BODY:
            break
    return text


def _lines(response: httpx.Response) -> Iterator[str]:
    """Iterate over the lines of a stream; the last one may lack its line end."""
    pending = ""
    for piece in response.iter_text():
        *lines, pending = (pending + piece).split("\n")
        if len(pending) > LONGEST_LINE:
            raise StilnovoError("The model server sent a line without end.", f"Server: {response.url}")
        yield from lines
    yield pending


def _loose(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _at(value: Any, *path: str) -> Any:
    """Get the value at a path of keys in a server's JSON; None where it has another shape."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _no_answer(text: str) -> StilnovoError:
    return StilnovoError("The model server sent something that is no answer.", text[:80])


def _parsed(data: str) -> dict[str, Any]:
    if not isinstance(event := _loose(data), dict):
        raise _no_answer(data)
    return event


def _reason(error: Any) -> str:
    """Extract a server's error message as one line."""
    text = _at(error, "error", "message") or _at(error, "error") or _at(error, "message") or error
    return " ".join(str(text).split())[:200]


def _whole(text: str) -> str:
    """Read the answer of a server that does not stream."""
    event = _parsed(text)
    if "error" in event:
        raise StilnovoError("The model server refused.", _reason(event["error"]))
    try:
        return str(event["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise _no_answer(text) from error
