"""A writer behind an OpenAI-compatible server: llama.cpp, Ollama, vLLM, LM Studio.

Only `POST …/chat/completions` with `stream: true` is needed; what a server tells of its context is asked of it and
believed. Unusual: tokens are counted by an upper estimate (`BYTES_A_TOKEN`), because the server's tokeniser is not ours;
and an answer that ends without the server saying so counts as broken off, however plausible it reads.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import ssl
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stilnovo.errors import InputError, StilnovoError
from stilnovo.text.template import Message

if TYPE_CHECKING:
    from stilnovo.generate.sampling import Sampling

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
    """A model on a server; a `Writer`.

    Attributes:
        context_tokens: What is sent at most, the answer included.
        warnings: What the reader must know of this server, in Italian.
    """

    def __init__(self, url: str, model: str, context: int | None = None, silence: float = SILENCE) -> None:
        """Ask the server what it has; nothing is sent to any other.

        Args:
            url: Such as http://127.0.0.1:8080/v1.
            model: The model's name there.
            context: Tokens to send at most, the answer included; None for what the server says.
            silence: Seconds without a piece after which it counts as dead.

        Raises:
            InputError: the address is none.
            StilnovoError: nobody answers there.
        """
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.username:
            raise InputError(f"{url} is no server's address.", "Wanted: http://HOST:PORT/v1", "Give it with --server.")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, port
        root = parts.path.rstrip("/")
        self._base = root if root.endswith("/v1") else f"{root}/v1"
        self.url, self.model, self._silence = url, model, silence
        self.warnings: list[str] = []
        self.finish = "stop"
        told = self._told_context()
        self.context_tokens = context or told or UNTOLD_CONTEXT
        if told and context and context > told:
            self.warnings.append(
                f"Il server legge {told} token, meno dei {context} chiesti: gli se ne mandano al massimo {told}."
            )
            self.context_tokens = told
        elif not told and not context:
            self.warnings.append(
                f"Il server non dice quanto legge: gli si mandano al massimo {UNTOLD_CONTEXT} token (--server-context)."
            )

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens that a conversation takes, at most, by its bytes."""
        size = sum(len(message.content.encode("utf-8", "replace")) for message in messages)
        return math.ceil(size / BYTES_A_TOKEN) + FRAME_TOKENS * (len(messages) + 1)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[str, None, None]:
        """The answer in pieces.

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
        with closing(self._connection(self._silence)) as connection:
            response = self._asked(connection, "POST", f"{self._base}/chat/completions", body)
            if "json" in (response.getheader("Content-Type") or ""):
                yield _whole(self._read(response))
                return
            yield from self._pieces(response, self.count(messages))

    def _pieces(self, response: http.client.HTTPResponse, sent: int) -> Iterator[str]:
        ended = False
        for line in self._lines(response):
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                return
            event = _parsed(data)
            if "error" in event:
                raise StilnovoError("The model server broke off the answer.", _reason(event["error"]))
            usage = event.get("usage")
            if isinstance(usage, Mapping):
                self._compare(usage.get("prompt_tokens"), sent)
            for choice in event.get("choices") or ():
                if not isinstance(choice, Mapping):
                    raise StilnovoError("The model server sent something that is no answer.", data[:80])
                if text := (choice.get("delta") or {}).get("content"):
                    yield str(text)
                if choice.get("finish_reason"):
                    ended, self.finish = True, str(choice["finish_reason"])
        if not ended:
            raise StilnovoError(
                "The model server closed the connection in the middle of the answer.",
                f"Server: {self.url}",
                "Look at the server's own messages, then ask again.",
            )

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[str]:
        while True:
            try:
                line = response.readline(LONGEST_LINE)
            except TimeoutError as error:
                raise StilnovoError(
                    f"The model server has sent nothing for {self._silence:g} s.", f"Server: {self.url}"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                raise StilnovoError("The connection to the model server broke.", str(error)) from error
            if not line:
                return
            if len(line) >= LONGEST_LINE:
                raise StilnovoError("The model server sent a line without end.", f"Server: {self.url}")
            yield line.decode("utf-8", "replace").rstrip("\r\n")

    def _compare(self, read: Any, sent: int) -> None:
        """A server that read far less than it was sent has cut the prompt without a word."""
        text = "Il server ha letto solo una parte di ciò che gli è stato mandato: il suo contesto è troppo piccolo."
        if isinstance(read, int) and read < CUT * sent and sent > UNTOLD_CONTEXT // 2 and text not in self.warnings:
            self.warnings.append(text)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)

    def _asked(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        silence, connection.timeout = connection.timeout, CONNECT
        try:
            connection.connect()
            connection.sock.settimeout(silence)
            connection.request(method, path, json.dumps(body).encode() if body is not None else None, headers)
            response = connection.getresponse()
        except TimeoutError as error:
            raise StilnovoError("The model server does not answer.", f"Server: {self.url}") from error
        except (OSError, http.client.HTTPException) as error:
            raise StilnovoError(
                f"No model server answers at {self.url}.", str(error), "Start it, or give another --server."
            ) from error
        if response.status >= 400 or response.status in range(300, 400):
            text = self._read(response)
            raise StilnovoError(
                f"The model server refused: {response.status} {response.reason}.", _reason(_loose(text) or text)
            )
        return response

    def _read(self, response: http.client.HTTPResponse) -> str:
        try:
            return response.read(LONGEST_BODY).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise StilnovoError("The connection to the model server broke.", str(error)) from error

    def _about(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What a server tells of itself at a path that it may not have; None then."""
        with closing(self._connection(ABOUT)) as connection:
            try:
                return _loose(self._read(self._asked(connection, method, path, body)))
            except StilnovoError as error:
                if error.what.startswith("No model server"):
                    raise
                return None

    def _told_context(self) -> int | None:
        """Tokens of context: vLLM's `max_model_len`, llama.cpp's `n_ctx`, Ollama's `num_ctx`; None when untold."""
        models = self._about("GET", f"{self._base}/models")
        listed = models.get("data") if isinstance(models, dict) else None
        for model in listed if isinstance(listed, list) else ():
            if (
                isinstance(model, dict)
                and model.get("id") == self.model
                and isinstance(model.get("max_model_len"), int)
            ):
                return int(model["max_model_len"])
        root = self._base.removesuffix("/v1")
        props = self._about("GET", f"{root}/props")
        if isinstance(props, dict):
            settings = props.get("default_generation_settings")
            size = settings.get("n_ctx") if isinstance(settings, dict) else props.get("n_ctx")
            if isinstance(size, int) and size > 0:
                return size
        shown = self._about("POST", f"{root}/api/show", {"model": self.model})
        parameters = shown.get("parameters") if isinstance(shown, dict) else None
        for line in parameters.splitlines() if isinstance(parameters, str) else ():
            name, _, value = line.partition(" ")
            if name == "num_ctx" and value.strip().isdigit():
                return int(value)
        return None


def _loose(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _parsed(data: str) -> dict[str, Any]:
    event = _loose(data)
    if not isinstance(event, dict):
        raise StilnovoError("The model server sent something that is no answer.", data[:80])
    return event


def _reason(error: Any) -> str:
    """One line of what a server says went wrong."""
    inner = error.get("error", error) if isinstance(error, dict) else error
    text = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(text).split())[:200]


def _whole(text: str) -> str:
    """The answer of a server that does not stream."""
    event = _parsed(text)
    if "error" in event:
        raise StilnovoError("The model server refused.", _reason(event["error"]))
    try:
        return str(event["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError) as error:
        raise StilnovoError("The model server sent something that is no answer.", text[:80]) from error
