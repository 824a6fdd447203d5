"""A model behind an OpenAI-compatible server, asked for tokens, texts and log-probabilities.

Where the server has `/tokenize` (llama.cpp, vLLM), prompts are sent as token ids, made as for a model of our own: opening token,
cut between context and ending, windows. Where it has not, prompts are text, and where a context ends is found by asking
for its tokens alone. Every reply must come from the model that answered first.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from stilnovo.errors import InputError, StilnovoError, did_you_mean
from stilnovo.remote import RETRIES, UNTOLD_CONTEXT, ServerConnection, ServerTrouble
from stilnovo.scoring.server_reply import echoed, odd_reply, prompt_logprobs, step_logprobs
from stilnovo.text.template import DOCUMENT_ENDS, Message, RenderedChat

#: Tries again while probing: what a server cannot, many answer by a failure.
PROBE_RETRIES = 2
COMPLETIONS, CHAT, STEP = "/v1/completions", "/v1/chat/completions", "/completion"
TOKENIZE, TEMPLATE = "/tokenize", "/apply-template"
#: The likeliest next tokens that llama.cpp is asked for, then the whole of any vocabulary.
SOME_TOKENS, ALL_TOKENS = 256, 10**7


class ServerTokenizer:
    """The server's tokeniser, with the interface that encoding a question needs."""

    def __init__(self, server: ServerConnection, name: str) -> None:
        """Find out what opens and ends a document.

        Raises:
            StilnovoError: the server has no tokeniser to ask.
        """
        self._server, self._name, self._retries = server, name, PROBE_RETRIES
        self.encode = lru_cache(1024)(self._encode)
        plain, opened = self._tokens("a"), self._tokens("a", opened=True)
        self.opening = opened[: opened.index(plain[0])] if plain and plain[0] in opened else []
        ends = (self._tokens(text, special=True) for text in DOCUMENT_ENDS)
        self.end_of_text = next((tokens[0] for tokens in ends if len(tokens) == 1), None)
        self._retries = RETRIES

    @property
    def end_of_text_id(self) -> int:
        """The token that stands before a text where the model has no opening token.

        Raises:
            InputError: the server knows none.
        """
        if self.end_of_text is None:
            raise InputError(
                "The served model has neither an opening token nor an end-of-text token that is known here."
            )
        return self.end_of_text

    @property
    def can_open(self) -> bool:
        """Whether it is known what stands before a text."""
        return bool(self.opening) or self.end_of_text is not None

    def encode_rendered(self, rendered: RenderedChat, more: str = "") -> list[int]:
        """Encode what the server's chat template wrote, and a text after it; as the server does, control tokens are recognised in both."""
        tokens = self._tokens(rendered.text + more, special=True)
        return tokens if tokens[:1] == self.opening else self.opening + tokens

    def _encode(self, text: str) -> list[int]:
        return self._tokens(text) if text else []

    def _tokens(self, text: str, *, opened: bool = False, special: bool = False) -> list[int]:
        body = {
            "model": self._name, "content": text, "prompt": text, "add_special": opened, "add_special_tokens": opened,
            "parse_special": special,
        }  # fmt: skip
        tokens = (reply := self._server.reply(TOKENIZE, body, self._retries)).get("tokens")
        if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
            raise odd_reply("it holds no tokens", reply)
        return tokens


class ServedModel:
    """A model on a server, by its name there.

    Attributes:
        name: As the server lists it.
        facts: What the server says of it; of its program, too.
        slots: Prompts that llama.cpp keeps apart at once; more requests than that lose what they share. None where it is not told.
        context: Tokens of prompt and answer together.
        tokenizer: The server's; None where it has none to ask.
        answers_as: The name in its replies, by path.
        retries: Tries again after a failure that may pass.
        system_fingerprint: What the first reply says of the server's set-up.
        token_limit: What the chat endpoint calls the most tokens of an answer.
    """

    def __init__(self, server: ServerConnection, name: str | None = None, context: int | None = None) -> None:
        """Find the model.

        Args:
            server: An open connection.
            name: Its name there; None for the only one that is served.
            context: Tokens of prompt and answer, where the server does not say.

        Raises:
            InputError: no name is given and the server does not serve just one model, or it has none of that name.
        """
        listed = server.models()
        if not listed and name is None and server.locked is not None:
            raise server.locked
        self.server, self.name = server, chosen_name(listed, name, server.url)
        self.facts, self.slots = _facts(server, next((entry for entry in listed if entry.get("id") == self.name), {}))
        told = server.told_context(self.name)
        self.context_known = bool(told or context)
        self.context = min(context or told or UNTOLD_CONTEXT, told or context or UNTOLD_CONTEXT)
        self.answers_as: dict[str, str] = {}
        self.system_fingerprint, self.retries = "", RETRIES
        self.token_limit = "max_tokens"
        self._lock = threading.Lock()
        self.tokens_of_text = lru_cache(4096)(self._tokens_of_text)
        self.tokenizer: ServerTokenizer | None
        try:
            self.tokenizer = ServerTokenizer(server, self.name)
        except StilnovoError as error:
            raise_if_busy(error)
            self.tokenizer = None

    def complete(self, prompt: str | Sequence[int], most: int, **settings: Any) -> dict[str, Any]:
        """Let the model go on with a text or tokens, greedily unless `settings` say otherwise; the whole reply."""
        return self._asked(COMPLETIONS, {"prompt": prompt, "max_tokens": most, **settings})

    def converse(self, turns: Sequence[Message], most: int, **settings: Any) -> dict[str, Any]:
        """Let the model answer a conversation under the server's own chat template; the whole reply."""
        return self._asked(CHAT, {"messages": _plain(turns), self.token_limit: most, **settings})

    def rendered(self, turns: Sequence[Message]) -> RenderedChat:
        """What llama.cpp's chat template writes of a conversation that asks for an answer."""
        prompt = (reply := self.server.reply(TEMPLATE, {"messages": _plain(turns)})).get("prompt")
        if not isinstance(prompt, str):
            raise odd_reply("it holds no prompt", reply)
        return RenderedChat(prompt)

    def prompt_logs(self, prompt: str | Sequence[int], way: str) -> list[float]:
        """Log-probabilities of a prompt's tokens in nats; the first one's is 0. `way` is `echo` or `prompt_logprobs`.

        Raises:
            StilnovoError: the server does not tell them.
        """
        ids = None if isinstance(prompt, str) else list(prompt)
        if way == "echo":
            reply = self.complete(ids or prompt, 1, echo=True, logprobs=1)
            logs = echoed(reply, None if ids is None else len(ids), prompt if isinstance(prompt, str) else "")
        else:
            reply = self.complete(ids or prompt, 1, prompt_logprobs=1)
            logs = prompt_logprobs(reply, ids or [])
        if logs is None:
            raise odd_reply("it tells no log-probabilities of the prompt", reply)
        return logs

    def ending_logs(self, spans: Sequence[tuple[Sequence[int], int]], way: str) -> list[list[float]]:
        """Log-probabilities of each sequence's tokens from an index on; beginnings that sequences share are asked for once."""
        if way != "step":
            return [self.prompt_logs(tokens, way)[first:] for tokens, first in spans]
        places = [[(tuple(tokens[:at]), tokens[at]) for at in range(first, len(tokens))] for tokens, first in spans]
        wanted: dict[tuple[int, ...], list[int]] = {}
        for before, token in (place for span in places for place in span):
            wanted.setdefault(before, []).append(token)
        logs = {before: self.next_logs(before, tokens) for before, tokens in wanted.items()}
        return [[logs[before][token] for before, token in span] for span in places]

    def next_logs(self, tokens: Sequence[int], wanted: Iterable[int]) -> dict[int, float]:
        """Log-probabilities of some next tokens after these, from llama.cpp.

        It tells only those of a token that it writes, so each is written: a bias on its logit does not change what is told.
        Half a character is not written; then it is looked for among the likeliest beside a letter, at last in the whole vocabulary.
        """
        found: dict[int, float] = {}
        wanted = list(dict.fromkeys(wanted))
        letter = self._letter
        first = 1 if len(wanted) == 1 else SOME_TOKENS
        for token in wanted:
            for forced, count in ((token, first), (letter, SOME_TOKENS), (letter, ALL_TOKENS)):
                if token not in found:
                    found |= self._step(tokens, forced, count)
            if token not in found:
                raise StilnovoError(
                    f"The model server does not tell the probability of token {token}.", f"Server: {self.server.url}"
                )
        return {token: found[token] for token in wanted}

    def vocabulary_logs(self, tokens: Sequence[int]) -> dict[int, float]:
        """Log-probabilities of all next tokens, from llama.cpp."""
        return self._step(tokens, self._letter, ALL_TOKENS)

    @property
    def _letter(self) -> int:
        assert self.tokenizer is not None, "llama.cpp has a tokeniser"
        return self.tokenizer.encode("a")[-1]

    def _step(self, tokens: Sequence[int], forced: int, count: int) -> dict[int, float]:
        body = {
            "prompt": list(tokens), "n_predict": 1, "n_probs": count, "temperature": 0.0, "cache_prompt": True,
            "logit_bias": [[forced, 1000.0]],
        }  # fmt: skip
        return step_logprobs(self.server.reply(STEP, body, self.retries))

    def _tokens_of_text(self, text: str) -> int:
        """Number of tokens of a text, an opening one included, by its echo."""
        return len(self.prompt_logs(text, "echo"))

    def _asked(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.server.reply(path, {"model": self.name, "temperature": 0.0, **body}, self.retries)
        self.system_fingerprint = self.system_fingerprint or str(reply.get("system_fingerprint") or "")
        name = reply.get("model")
        if isinstance(name, str) and name:
            with self._lock:
                first = self.answers_as.setdefault(path, name)
            if name != first:
                raise StilnovoError(
                    "The server now answers with another model.", f"First {first}, now {name}.", "Run it again."
                )
        return reply


def raise_if_busy(error: StilnovoError) -> None:
    """Raise the error again where it says nothing of what a server can: it was busy, or gone."""
    if isinstance(error, ServerTrouble) and error.busy:
        raise error


def chosen_name(listed: Sequence[dict[str, Any]], name: str | None, url: str) -> str:
    """The model's name among those that a server lists.

    Raises:
        InputError: it is not among them, or none is given and there is not just one.
    """
    names = list(dict.fromkeys(str(entry["id"]) for entry in listed if entry.get("id")))
    aliases = [
        (other, entry) for entry in listed if isinstance(entry.get("aliases"), list) for other in entry["aliases"]
    ]
    known = {str(other): str(entry["id"]) for other, entry in aliases if entry.get("id")}
    known |= {own.removesuffix(":latest"): own for own in names} | {own: own for own in names}
    if name is None:
        if len(names) == 1:
            return names[0]
        found = f"It lists {len(names)}: {', '.join(names[:10])}." if names else "It lists none."
        raise InputError(f"Which model of {url} is to be evaluated?", found, "Add --model NAME.")
    if names and name not in known:
        near = did_you_mean(name, known, f"It lists: {', '.join(names[:10])}.")
        raise InputError(
            f"The server has no model '{name}'.", near, "Change --model, or leave it out where one is served."
        )
    return known.get(name, name)


def _plain(turns: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _facts(server: ServerConnection, entry: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    """What a server says of a model, of that which tells two apart, its program first as far as it is known; and its slots."""
    props = server.about("GET", "/props")
    props = props if isinstance(props, dict) else {}
    version = server.about("GET", "/api/version")
    program = (
        "llama.cpp" if "default_generation_settings" in props else "vLLM" if entry.get("owned_by") == "vllm" else ""
    )
    program = "Ollama" if not program and isinstance(version, dict) and "version" in version else program
    meta = entry.get("meta")
    own = {key: props[key] for key in ("model_path", "model_ftype", "build_info") if key in props}
    own |= (
        {"chat_template": hashlib.sha256(props["chat_template"].encode()).hexdigest()[:12]}
        if isinstance(props.get("chat_template"), str)
        else {}
    )
    own |= {key: meta[key] for key in ("n_params", "size", "n_vocab") if isinstance(meta, dict) and key in meta}
    own |= {key: entry[key] for key in ("root", "parent", "max_model_len") if entry.get(key)}
    slots = props.get("total_slots")
    return {"program": program, **own}, slots if isinstance(slots, int) and slots > 0 else None
