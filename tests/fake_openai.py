"""An OpenAI-compatible server in this process, over a small true language model: its abilities and its faults can be chosen.

The model is a table of log-probabilities that depend on the last three tokens, so that what one endpoint tells can be checked
against another, and against `FakeModel.logs`.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = (
    " A",
    " B",
    " C",
    " D",
    "Ris",
    "posta",
    "Risposta:",
    " la",
    " otto",
    "città",
    " è",
    ":A",
    "<eot>",
    "<bos>",
    "</think>",
)
BOS, EOT = WORDS.index("<bos>"), WORDS.index("<eot>")


@dataclass
class FakeModel:
    """Greedy longest-match tokens over `WORDS` and single characters; `salt` makes another model, `letters` a liking for them."""

    salt: int = 0
    vocabulary: tuple[str, ...] = (*WORDS, *(chr(code) for code in range(32, 127)), "\n", *"àèéìòù")
    letters: float = 6.0
    opens: bool = False

    def __post_init__(self) -> None:
        self.ids = {word: place for place, word in enumerate(self.vocabulary)}
        ordered = sorted((word for word in self.vocabulary if not word.startswith("<")), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)))
        self.table = lru_cache(None)(self._table)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        if special and text in self.ids:
            return [self.ids[text]]
        return [self.ids[word] for word in self._pattern.findall(text)]

    def prompt(self, prompt: str | Sequence[int]) -> list[int]:
        """A prompt as the server reads it: its own opening token before a text, ids as they are."""
        return ([BOS] * self.opens + self.encode(prompt)) if isinstance(prompt, str) else list(prompt)

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(self.vocabulary[token] for token in tokens)

    def _table(self, last: tuple[int, ...]) -> list[float]:
        rng = random.Random(zlib.crc32(repr((self.salt, last)).encode()))
        logits = [
            rng.gauss(0, 2) + (self.letters if word in (" A", " B", " C", " D", "A", "B", "C", "D") else 0)
            for word in self.vocabulary
        ]
        for never in (BOS, EOT, WORDS.index("</think>")):
            logits[never] -= 30
        total = math.log(sum(map(math.exp, logits)))
        return [logit - total for logit in logits]

    def logs(self, tokens: Sequence[int]) -> list[float]:
        """Log-probability of each token but the first."""
        return [self.table(tuple(tokens[max(0, at - 3) : at]))[tokens[at]] for at in range(1, len(tokens))]

    def next(self, tokens: Sequence[int]) -> list[float]:
        return self.table(tuple(tokens[-3:]))

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        own = list(tokens)
        for _ in range(count):
            table = self.next(own)
            own.append(table.index(max(table)))
        return own[len(tokens) :]


@dataclass
class FakeServer:
    """What is served: a `model`, what it `can`, what it answers instead (`fault`), and all that was `asked`.

    `can` holds some of: echo, prompt_logprobs, step, tokenize, top, completions, chat, new (the chat form of log-probabilities).
    """

    model: FakeModel = field(default_factory=FakeModel)
    can: frozenset[str] = frozenset({"completions", "chat"})
    names: tuple[str, ...] = ("piccolo",)
    fault: Callable[[Any, str, dict[str, Any]], bool] = lambda handler, path, body: False
    top: int = 20
    context: int | None = None
    said: Callable[[str, str], dict[str, Any]] = lambda prompt, text: {"content": text}
    spoil: Callable[[list[Any]], list[Any]] = lambda logs: logs
    asked: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)

    def __enter__(self) -> FakeServer:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # a reply is sent at once, not in two parts of which the second waits

            def log_message(self, *_: Any) -> None: ...

            def say(self, status: int, body: Any, **headers: str) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                found = fake.about(self.path)
                self.say(200 if found is not None else 404, found if found is not None else {"error": "not here"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.asked.append((self.path, body, self.headers.get("Authorization") or ""))
                if not fake.fault(self, self.path, body):
                    found = fake.answer(self.path, body)
                    self.say(
                        200 if found is not None else 404,
                        found if found is not None else {"error": {"message": "no such path"}},
                    )

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def about(self, path: str) -> Any:
        if path == "/v1/models":
            extra = {"max_model_len": self.context} if self.context and "step" not in self.can else {}
            return {"data": [{"id": name, "owned_by": "nobody", **extra} for name in self.names]}
        if path == "/props" and "step" in self.can:
            return {
                "default_generation_settings": {"n_ctx": self.context or 4096},
                "model_path": "x.gguf",
                "model_ftype": "all F32",
                "total_slots": 2,
            }
        return None

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        model = self.model
        if path == "/tokenize" and "tokenize" in self.can:
            opened = [BOS] if model.opens and body["add_special"] else []
            # the fake's end of text has the name that real vocabularies use
            text = {"<|endoftext|>": "<eot>"}.get(body["content"], body["content"])
            return {"tokens": opened + model.encode(text, special=body["parse_special"])}
        if path == "/completion" and "step" in self.can:
            return self.step(body)
        if path == "/apply-template" and "step" in self.can:
            return {
                "prompt": "\n".join(f"{turn['role']}: {turn['content']}" for turn in body["messages"]) + "\nassistant:"
            }
        if path == "/v1/completions" and "completions" in self.can:
            return self.completion(body)
        if path == "/v1/chat/completions" and "chat" in self.can:
            tokens = model.encode(body["messages"][-1]["content"] + "\n")
            written = model.greedy(tokens, body["max_tokens"])
            message = {"role": "assistant", **self.said(body["messages"][-1]["content"], model.text(written))}
            choice = {"message": message, "finish_reason": "length"}
            if body.get("logprobs") and "chat_top" in self.can:
                choice["logprobs"] = {"content": [{"token": "x", "logprob": -1.0, "top_logprobs": [
                    {"token": token, "logprob": log} for token, log in self.likeliest(tokens, body["top_logprobs"]).items()
                ]}]}  # fmt: skip
            return {"model": body["model"], "choices": [choice]}
        return None

    def likeliest(self, tokens: list[int], count: int) -> dict[str, float]:
        listed = sorted(zip(self.model.next(tokens), self.model.vocabulary, strict=True), reverse=True)
        return {word: log for log, word in listed[: min(count, self.top)]}

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        model, tokens = self.model, self.model.prompt(body["prompt"])
        written = model.greedy(tokens, body["max_tokens"])
        for_echo = tokens if body.get("echo") and "echo" in self.can else []
        choice: dict[str, Any] = {
            "index": 0,
            "text": model.text(for_echo) + model.text(written),
            "finish_reason": "length",
        }
        if body.get("logprobs") and ("top" in self.can or for_echo):
            shown = [*for_echo, *written]
            logs = model.logs([*tokens, *written])[len(tokens) - 1 - len(for_echo[1:]) :]
            listed = self.spoil([None, *logs] if for_echo else logs)
            whole = [*tokens, *written]
            tops = [self.likeliest(whole[:at], body["logprobs"]) for at in range(len(whole) - len(shown), len(whole))]
            tops[: bool(for_echo)] = [{}] * bool(for_echo)  # nothing stands before the first
            if "new" in self.can:
                choice["logprobs"] = {"content": [
                    {"token": word, "logprob": log, "top_logprobs": [{"token": t, "logprob": v} for t, v in top.items()]}
                    for word, log, top in zip(map(model.vocabulary.__getitem__, shown), listed, tops, strict=False)
                ]}  # fmt: skip
            else:
                choice["logprobs"] = {
                    "tokens": [model.vocabulary[token] for token in shown], "token_logprobs": listed,
                    "top_logprobs": [top or None for top in tops],
                }  # fmt: skip
        if body.get("prompt_logprobs") and "prompt_logprobs" in self.can:
            logs = self.spoil([None, *model.logs(tokens)])
            choice["prompt_logprobs"] = [
                None if at == 0 else {str(token): {"logprob": log}} for at, (token, log) in enumerate(zip(tokens, logs, strict=True))
            ]  # fmt: skip
        return {
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": len(tokens) + 20 * ("templated" in self.can), "completion_tokens": len(written)},
        }

    def step(self, body: dict[str, Any]) -> dict[str, Any]:
        table = self.model.next(body["prompt"])
        forced = body["logit_bias"][0][0]
        order = sorted(range(len(table)), key=lambda token: -table[token])[: body["n_probs"]]
        if "half" in self.can and forced == self.model.ids["è"]:  # as half a character: nothing is told beside it
            return {"content": ""}
        told = [{"id": token, "logprob": table[token]} for token in order]
        return {
            "content": "x",
            "completion_probabilities": [{"id": forced, "logprob": table[forced], "top_logprobs": told}],
        }
