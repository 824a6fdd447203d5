"""Client of OpenAI-compatible servers (llama.cpp, Ollama, vLLM, LM Studio), for chats and for scores.

A chat needs only `POST …/chat/completions` with `stream: true`; what a server tells of its context is asked of it and
believed. Scores are whole replies, asked for until they come (`ServerConnection.reply`); `scoring` reads what they mean.
Unusual: tokens are counted by an upper estimate (`BYTES_A_TOKEN`), because the server's tokeniser is not ours; and an
answer that ends without the server saying so counts as broken off, however plausible it reads.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import httpx

from stilnovo.errors import InputError, StilnovoError
from stilnovo.generate.sampling import Sampling
from stilnovo.remote_address import KEY_VARIABLE, headers, named_wait, server_address, without_key
from stilnovo.text.template import Message

A = TypeVar("A")
#: UTF-8 bytes of Italian that a token holds at least, on average, in the vocabularies of today; and a message's frame.
BYTES_A_TOKEN, FRAME_TOKENS = 2.6, 8
#: Taken for the context of a server that does not say: Ollama's default.
UNTOLD_CONTEXT = 4096
#: Seconds to connect, to wait for the next piece, and to wait for what a server tells of itself.
CONNECT, SILENCE, ABOUT = 10.0, 120.0, 5.0
#: The same for a reply that comes whole, after its last token is written.
REPLY_SILENCE = 600.0
#: Characters of one line of a stream, and of an answer to a question about the server; beyond, it is no such server.
LONGEST_LINE, LONGEST_BODY = 2**20, 2**22
#: Characters of a scored answer: the log-probabilities of a whole vocabulary fit.
LONGEST_REPLY = 2**26
#: A server that says it read less than this share of the estimate has probably cut the prompt.
CUT = 0.5


#: Answers that are asked for again, with seconds of waiting that double; a server may name its own, up to the longest.
RETRIED, RETRIES, FIRST_WAIT, LONGEST_WAIT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529}), 8, 0.5, 120.0
#: Those that say nothing of what a server can.
BUSY = frozenset({429, 503, 529})


class ServerTrouble(StilnovoError):
    """A request failed in a way that may pass: the server is busy, silent, unreachable, or broke off.

    Args:
        wait: Seconds after which it wants to be asked again; None where it does not say.
        busy: Whether it would fail so whatever it was asked.
    """

    def __init__(
        self, what: str, found: str = "", next: str = "", *, wait: float | None = None, busy: bool = False
    ) -> None:
        super().__init__(what, found, next)
        self.wait, self.busy = wait, busy


class ServerConnection(AbstractContextManager["ServerConnection"]):
    """Requests to one OpenAI-compatible server, and to no other; inside `with` its connections stay open.

    Attributes:
        url: As it was given.
        locked: The error where a description of itself wanted a key.
    """

    def __init__(self, url: str) -> None:
        """Check the address; nothing is sent yet.

        Args:
            url: Such as http://127.0.0.1:8080/v1.

        Raises:
            InputError: this is not a server's address.
        """
        address = server_address(url)
        self._root = str(address).rstrip("/").removesuffix("/v1")
        self.url = url
        self._client: httpx.Client | None = None
        self._ended = threading.Event()
        self.locked: InputError | None = None
        self._reached = False  # whether somebody ever answered

    def __enter__(self) -> ServerConnection:
        self._client = _client()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def asked(self, method: str, path: str, body: object = None, silence: float = ABOUT) -> Iterator[httpx.Response]:
        """Open a streaming response of the server; network errors until it is closed become `StilnovoError`.

        Raises:
            ServerTrouble: nobody answers, the connection broke, or the server is busy.
            StilnovoError: the server refuses.
        """
        timeout = httpx.Timeout(silence, connect=CONNECT)
        try:
            with (
                nullcontext(self._client) if self._client is not None else _client() as client,
                client.stream(method, self._root + path, json=body, headers=headers(), timeout=timeout) as response,
            ):
                self._reached = True
                if not response.is_success:
                    text, status = _read(response), f"{response.status_code} {response.reason_phrase}"
                    what, why = f"The model server refused: {status}.", without_key(_reason(_loose(text) or text))
                    if response.status_code in RETRIED:
                        wait = named_wait(response.headers.get("retry-after", ""))
                        raise ServerTrouble(what, why, wait=wait, busy=response.status_code in BUSY)
                    if response.status_code in (401, 403):
                        raise InputError(what, why, f"Put its key into the environment variable {KEY_VARIABLE}.")
                    raise StilnovoError(what, why)
                yield response
        except httpx.ReadTimeout as error:
            raise ServerTrouble(
                f"The model server has sent nothing for {silence:g} s.", f"Server: {self.url}"
            ) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerTrouble(
                f"No model server answers at {self.url}.", str(error), "Start it, or give another --server.", busy=True
            ) from error
        except httpx.HTTPError as error:
            raise ServerTrouble("The connection to the model server broke.", f"{self.url}: {error}") from error

    def about(self, method: str, path: str, body: object = None) -> Any:
        """Fetch a server's description of itself from a path that it may not have; None then.

        Raises:
            ServerTrouble: nobody answers, or it is still busy after all tries.
        """

        def ask() -> Any:
            with self.asked(method, path, body) as response:
                return _loose(_read(response))

        try:
            return self._persist(ask, 0)
        except StilnovoError as error:
            if isinstance(error, ServerTrouble) and error.busy:
                raise
            self.locked = self.locked or (error if isinstance(error, InputError) else None)
            return None

    def reply(self, path: str, body: object, retries: int = RETRIES) -> dict[str, Any]:
        """Post a request until it is answered whole; returns the JSON object. May be called by several threads at once.

        What may pass is asked again, after the wait that the server names, or twice as long each time.

        Raises:
            ServerTrouble: the server is still in trouble after all tries.
            StilnovoError: it refuses.
        """

        def ask() -> dict[str, Any]:
            with self.asked("POST", path, body, REPLY_SILENCE) as response:
                text = _read(response, LONGEST_REPLY)
            if len(text) > LONGEST_REPLY:
                raise StilnovoError("The model server's reply does not end.", f"Server: {self.url}")
            if not isinstance(reply := _loose(text), dict):
                raise ServerTrouble("The model server sent something that is no answer.", without_key(text)[-80:])
            if reply.get("error"):
                raise StilnovoError("The model server refused.", without_key(_reason(reply["error"])))
            return reply

        return self._persist(ask, retries)

    def _persist(self, ask: Callable[[], A], retries: int) -> A:
        """Ask again what may pass; a busy server more often than `retries`, since it would be so whatever it is asked."""
        attempt = 0
        while True:
            try:
                return ask()
            except ServerTrouble as trouble:
                seconds = trouble.wait if trouble.wait is not None else FIRST_WAIT * 2**attempt
                most = max(retries, RETRIES) if trouble.busy and self._reached else retries
                if attempt >= most or seconds > LONGEST_WAIT or self._ended.wait(seconds):
                    tries = f" (asked {attempt + 1} times)" if attempt else ""
                    raise ServerTrouble(
                        trouble.what, trouble.found + tries, trouble.next, busy=trouble.busy
                    ) from trouble
                attempt += 1

    def told_context(self, name: str) -> int | None:
        """Context length by the server: vLLM's `max_model_len`, llama.cpp's `n_ctx`, Ollama's `num_ctx`; None if not stated."""
        for model in self.models():
            if _at(model, "id") == name and isinstance(size := _at(model, "max_model_len"), int):
                return size
        props = self.about("GET", "/props")
        size = _at(props, "default_generation_settings", "n_ctx") or _at(props, "n_ctx")
        if isinstance(size, int) and size > 0:
            return size
        parameters = _at(self.about("POST", "/api/show", {"model": name}), "parameters")
        told = re.search(r"^num_ctx +(\d+)\s*$", str(parameters), re.MULTILINE)
        return int(told[1]) if told else None

    def models(self) -> list[dict[str, Any]]:
        """What the server says of the models that it serves; empty where it does not."""
        listed = _at(self.about("GET", "/v1/models"), "data")
        return [model for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []


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
        self._server = ServerConnection(url)
        self.url, self.model, self._silence = url, model, silence
        self.warnings: list[tuple[str, int, str]] = []
        self.finish = "stop"
        told = self._server.told_context(model)
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
        with self._server.asked("POST", "/v1/chat/completions", body, self._silence) as response:
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
                raise StilnovoError("The model server broke off the answer.", without_key(_reason(event["error"])))
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


def _client() -> httpx.Client:
    return httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=None))


def _read(response: httpx.Response, longest: int = LONGEST_BODY) -> str:
    pieces, size = [], 0
    for piece in response.iter_text():
        pieces.append(piece)
        size += len(piece)
        if size > longest:
            break
    return "".join(pieces)


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
    """JSON as it is, half characters replaced, which no file can hold; None for anything else."""
    try:
        value = json.loads(text)
        halves = re.search(r"\\u[dD]", text)
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")) if halves else value
    except (ValueError, RecursionError):
        return None


def _at(value: Any, *path: str) -> Any:
    """Get the value at a path of keys in a server's JSON; None where it has another shape."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _no_answer(text: str) -> StilnovoError:
    return StilnovoError("The model server sent something that is no answer.", without_key(text)[:80])


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
        raise StilnovoError("The model server refused.", without_key(_reason(event["error"])))
    try:
        return str(event["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise _no_answer(text) from error
