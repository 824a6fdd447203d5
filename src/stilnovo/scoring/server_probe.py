"""What a server can: asked once, with small known texts, and checked before anything is scored.

Log-probabilities of a prompt are believed only if they hold together: what follows a text does not change those of the
text; and the likeliest next token, once it stands in the prompt, has the log-probability that it had as an answer. A list
that is shifted by one, cut, rounded to nothing or taken after sampling fails this. llama.cpp's next tokens must sum to 1.

The same answers are the model's fingerprint. A server's name for a model says little: another one can be put behind it, so
what was answered earlier is used only while facts, greedy texts and log-probabilities are the same. Log-probabilities may
differ a little (`alike`), because a card's arithmetic depends on what it computes at the same time; a smaller change of a
model is not noticed. For the same reason a card may write one greedy text or another: at the end of a run half of them suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stilnovo.errors import InputError, StilnovoError
from stilnovo.remote import RETRIES
from stilnovo.scoring.server_model import PROBE_RETRIES, ServedModel, raise_if_busy
from stilnovo.scoring.server_reply import first_token, served_text
from stilnovo.text.template import Message

TEXT = (
    "Nel mezzo del cammin di nostra vita mi ritrovai per una selva oscura. Uno, due, tre, quattro, cinque, sei, sette,"
)
MORE = (" otto, nove, dieci.", " nove, dieci, otto.")
#: What a model goes on with, or answers, in so many tokens.
PROMPTS, PROMPT_TOKENS = (TEXT, "La capitale d'Italia è", "The capital of France is"), 8
QUESTION = [Message("user", "Rispondi con una parola sola: qual è la capitale d'Italia?")]
#: Tokens among which the letters of an answer are looked for; OpenAI's chats tell 20, its completions 5.
LIKELIEST = (20, 5)
#: Nats by which log-probabilities may differ between two calls of one model: on average, and a single one.
SAME_LOGS, ONE_LOG = 0.05, 0.5
#: Tokens as which one letter may be read: an opening token, a space, itself, and some to spare.
ONE_LETTER = 4
#: Tokens that a thinking model is given before its answer.
THINKING_TOKENS = 4096


@dataclass(frozen=True)
class Abilities:
    """What a server can.

    Attributes:
        plain: It goes on with a text as it is.
        chat: It answers under its own chat template.
        prompt: How it tells the log-probabilities of a prompt: `echo`, `prompt_logprobs`, `step`, or empty for not at all.
        likeliest: How many of the likeliest first tokens of a continuation it tells.
        chat_likeliest: The same of a chat's answer.
        renders: It says what its chat template writes, so that prompts under it can be read too.
        thinks: Its chat answers begin with thinking.
        why_not: Reasons, by what it cannot.
    """

    plain: bool
    chat: bool
    prompt: str
    likeliest: int
    chat_likeliest: int
    renders: bool
    thinks: bool
    why_not: Mapping[str, str]


def probe(model: ServedModel) -> tuple[Abilities, dict[str, Any]]:
    """Ask what the server can, and for the model's fingerprint.

    Raises:
        InputError: the server wants a key.
        StilnovoError: the model neither goes on with a text nor answers a chat.
    """
    model.retries = PROBE_RETRIES
    why: dict[str, str] = {}
    locked: list[StilnovoError] = []
    marks: dict[str, Any] = {}

    def tried(what: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except StilnovoError as error:
            raise_if_busy(error)
            locked.extend([error] * isinstance(error, InputError))
            why.setdefault(what, " ".join(f"{error.what} {error.found}".split()))
            return None

    texts = (
        None
        if (added := _added(model))
        else tried("plain", lambda: [_text(model.complete(text, PROMPT_TOKENS)) for text in PROMPTS])
    )
    if added:
        why["plain"] = added
    if texts is None:
        why["prompt"] = f"it does not go on with a plain prompt: {why['plain']}"
    likeliest, tops = (0, {}) if texts is None else _likeliest(lambda count: model.complete(TEXT, 1, logprobs=count))
    prompt = _prompt_way(model, tops, why, marks) if texts is not None else ""
    chat = tried("chat", lambda: _chat(model))
    thinks = chat is not None and chat.thinks
    # only llama.cpp is asked for it: elsewhere the path does not exist
    known = chat is not None and model.facts["program"] == "llama.cpp"
    renders = known and tried("template", lambda: model.rendered(QUESTION)) is not None
    counted: tuple[int, dict[str, float]] = (0, {})
    if chat is not None:
        counted = _likeliest(lambda count: model.converse(QUESTION, 1, logprobs=True, top_logprobs=count))
    if texts is None and chat is None:
        if locked:
            raise locked[0]
        raise StilnovoError(
            "The served model cannot be asked.",
            f"{why.get('plain')}; {why.get('chat')}.",
            "Look at the server's own messages.",
        )
    model.retries = RETRIES
    marks |= {
        "facts": model.facts, "answers_as": dict(model.answers_as), "texts": texts, "chat": None if chat is None else chat.text,
        "system_fingerprint": model.system_fingerprint, "likeliest": list((tops or counted[1]).values())[:5],
    }  # fmt: skip
    return Abilities(texts is not None, chat is not None, prompt, likeliest, counted[0], renders, thinks, why), marks


def same_model(before: Mapping[str, Any], now: Mapping[str, Any], *, one_run: bool = False) -> bool:
    """Whether two fingerprints are those of one model; in `one_run` its replicas may differ in texts and name of their set-up."""
    keys = ("facts", "answers_as", *(() if one_run else ("system_fingerprint",)))
    if any(before.get(key) != now.get(key) for key in keys):
        return False
    texts = [[*(marks.get("texts") or ()), marks.get("chat")] for marks in (before, now)]
    same = sum(a == b for a, b in zip(*texts, strict=False))
    if len(texts[0]) != len(texts[1]) or same < (len(texts[0]) / 2 if one_run else len(texts[0])):
        return False
    return all(alike(before.get(key) or [], now.get(key) or []) for key in ("likeliest", "prompt"))


def alike(before: Sequence[float], now: Sequence[float]) -> bool:
    """Whether two lists of log-probabilities are the same but for rounding."""
    apart = [abs(a - b) for a, b in zip(before, now, strict=False)]
    return len(before) == len(now) and (not apart or (sum(apart) / len(apart) <= SAME_LOGS and max(apart) <= ONE_LOG))


def _added(model: ServedModel) -> str:
    """What a server puts around a plain prompt; empty where it goes on with it as it is, or cannot."""
    if model.facts["program"] == "Ollama":
        return "Ollama puts its chat template around every prompt"
    try:
        usage = model.complete("a", 1).get("usage")
    except StilnovoError as error:
        raise_if_busy(error)
        return ""
    read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    most = ONE_LETTER + (len(model.tokenizer.opening) if model.tokenizer is not None else 0)
    if isinstance(read, int) and read > most:
        return f"it reads a prompt of one letter as {read} tokens, so that it puts a template around every prompt"
    return ""


def _text(reply: dict[str, Any]) -> str:
    return served_text(reply).text


def _chat(model: ServedModel) -> Any:
    try:
        return served_text(model.converse(QUESTION, PROMPT_TOKENS))
    except StilnovoError as error:
        if "max_completion_tokens" not in str(error):
            raise
        model.token_limit = "max_completion_tokens"  # as OpenAI's newer models call it
        return served_text(model.converse(QUESTION, PROMPT_TOKENS))


def _likeliest(ask: Callable[[int], dict[str, Any]]) -> tuple[int, dict[str, float]]:
    """How many of the likeliest first tokens a server tells, and those; 0 where they are no probabilities before sampling."""
    for count in LIKELIEST:
        try:
            tops = first_token(ask(count))
        except StilnovoError as error:
            raise_if_busy(error)
            continue
        total = sum(map(math.exp, tops.values()))
        if len(tops) > 1 and total < 1.01 and len(set(tops.values())) > 1:
            return count, tops
    return 0, {}


def _prompt_way(model: ServedModel, tops: dict[str, float], why: dict[str, str], marks: dict[str, Any]) -> str:
    """The way in which the server tells the log-probabilities of a prompt, checked; empty where there is none."""
    reasons = []
    for way in ("echo", "prompt_logprobs", "step"):
        if way != "echo" and model.tokenizer is None:
            reasons.append(f"{way}: it has no /tokenize")
            continue
        if way == "step" and model.facts["program"] != "llama.cpp":
            continue
        try:
            fault, logs = _checked_step(model) if way == "step" else _checked(model, way, tops)
        except StilnovoError as error:
            raise_if_busy(error)
            fault, logs = " ".join(f"{error.what} {error.found}".split()), []
        if not fault:
            marks["prompt"] = logs
            return way
        reasons.append(f"{way}: {fault}")
    why["prompt"] = "; ".join(reasons)
    return ""


def _checked(model: ServedModel, way: str, tops: dict[str, float]) -> tuple[str, list[float]]:
    """What is wrong with a server's log-probabilities of a prompt, and those of the probe text; empty where nothing is."""

    def logs(text: str) -> list[float]:
        ids = model.tokenizer.opening + model.tokenizer.encode(text) if model.tokenizer is not None else None
        return model.prompt_logs(text if ids is None else ids, way)

    own, longer, other = logs(TEXT), *(logs(TEXT + more) for more in MORE)
    shared = len(own) - 1  # the last token may merge with what follows; it does so alike in both
    if not all(map(math.isfinite, own)) or len(set(own[1:])) < 2:
        return "its log-probabilities are no measurements", []
    kept = alike(own[:shared], longer[:shared]) and alike(longer[: len(own)], other[: len(own)])
    if min(len(longer), len(other)) <= len(own) or not kept:
        return "what follows a text changes the log-probabilities of the text", []
    for token, log in list(tops.items())[:1]:
        following = logs(TEXT + token)
        if token.strip() and len(following) == len(own) + 1 and not abs(following[-1] - log) <= ONE_LOG / 2:
            return "a token has another log-probability in a prompt than in an answer", []
    return "", own


def _checked_step(model: ServedModel) -> tuple[str, list[float]]:
    assert model.tokenizer is not None
    ids = model.tokenizer.opening + model.tokenizer.encode(TEXT)
    whole = model.vocabulary_logs(ids)
    total = sum(map(math.exp, whole.values()))
    if not abs(total - 1) < 0.01:
        return f"the probabilities of all next tokens sum to {total:.3g}", []
    likely = sorted(whole, key=lambda token: -whole[token])[:5]
    forced = model.next_logs(ids, likely[-1:])
    if abs(forced[likely[-1]] - whole[likely[-1]]) > SAME_LOGS:
        return "a bias changes the log-probability that it tells", []
    return "", [whole[token] for token in likely]
