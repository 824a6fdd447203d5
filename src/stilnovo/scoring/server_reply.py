"""Read the replies of OpenAI-compatible servers: answers, the likeliest first tokens, log-probabilities of a prompt.

Log-probabilities come in three forms: the old one of completions (lists beside one another), that of chats (a list of
tokens, each with its rivals), and vLLM's `prompt_logprobs`. Whatever has another shape is refused; nothing is guessed.
Unusual: what a thinking model writes before its answer is no part of it, whether the server separates it or leaves it in
`<think>` blocks. OpenAI writes -9999 for a probability that it does not tell: that is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stilnovo.errors import StilnovoError
from stilnovo.remote import BYTES_A_TOKEN, CUT, UNTOLD_CONTEXT
from stilnovo.remote_address import without_key
from stilnovo.scoring.thinking import without_thinking

#: What servers write in place of a log-probability that they do not tell lies at or under this.
UNTOLD = -9999.0
#: A log-probability above this is none; rounding may put a certain token a little above 0.
CERTAIN = 0.01

#: Reasons for which an answer ended that is none: the server failed, or gave it up.
BROKEN_OFF = ("error", "abort", "aborted", "cancelled", "canceled")


@dataclass(frozen=True)
class ServedText:
    """An answer: its `text` without thinking, why it `finish`ed, whether the model `thinks`, and whether it was cut while it did."""

    text: str
    finish: str
    thinks: bool
    unfinished: bool


def odd_reply(why: str, reply: Any) -> StilnovoError:
    """The error for a reply that cannot be read."""
    return StilnovoError(
        f"The model server's reply cannot be used: {why}.",
        without_key(" ".join(str(reply).split()))[:120],
        "Is it OpenAI-compatible?",
    )


def served_text(reply: Mapping[str, Any]) -> ServedText:
    """Read a whole answer, of a completion or of a chat.

    Raises:
        StilnovoError: the reply holds none.
    """
    choice = _choice(reply)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    raw = message.get("content") if message else choice.get("text")
    beside = next((str(message[key]) for key in ("reasoning_content", "reasoning", "thinking") if message.get(key)), "")
    if not isinstance(raw, str):
        if raw is not None or not (message or beside):
            raise odd_reply("it holds no text", reply)
        raw = ""
    text, finished = without_thinking(raw)
    # Some servers only count what was thought, and say nothing of it.
    counted = _at(_at(reply.get("usage"), "completion_tokens_details"), "reasoning_tokens")
    thought = bool(beside) or (isinstance(counted, int) and counted > 0)
    return ServedText(
        text,
        str(choice.get("finish_reason") or ""),
        thought or finished is not None,
        finished is False or (thought and not text.strip()),
    )


def first_token(reply: Mapping[str, Any]) -> dict[str, float]:
    """The likeliest first tokens of an answer with their log-probabilities in nats, likeliest first; empty where none are told."""
    told = _choice(reply).get("logprobs")
    if not isinstance(told, dict):
        return {}
    if isinstance(content := told.get("content"), list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        listed = [
            (entry.get("token"), entry.get("logprob"))
            for entry in first.get("top_logprobs") or ()
            if isinstance(entry, dict)
        ]
    else:
        tops = told.get("top_logprobs")
        first = tops[0] if isinstance(tops, list) and tops and isinstance(tops[0], dict) else {}
        listed = list(first.items())
    found: dict[str, float] = {}
    for token, log in listed:
        if isinstance(token, str) and log is not None and (value := _log(log, reply)) > UNTOLD:
            found.setdefault(token.replace("\u2581", " ").replace("\u0120", " "), value)  # marks of a space
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def echoed(reply: Mapping[str, Any], tokens: int | None, prompt: str = "") -> list[float] | None:
    """Log-probabilities of a prompt's tokens from a completion that echoes it and goes on with one token.

    Args:
        reply: As it came.
        tokens: How many the prompt has; None where the server alone knows.
        prompt: Where it was sent as text: a server that cuts it says nothing but echoes less.

    Returns:
        One a token; the first, which follows nothing, is 0. None where the server did not echo.

    Raises:
        StilnovoError: a log-probability is missing or is none.
    """
    choice = _choice(reply)
    told = choice.get("logprobs")
    if not isinstance(told, dict) or prompt not in str(choice.get("text")):
        return None
    if isinstance(content := told.get("content"), list):
        logs = [entry.get("logprob") if isinstance(entry, dict) else None for entry in content]
    else:
        logs = list(told.get("token_logprobs") or ())
    usage = reply.get("usage")
    asked = tokens if tokens is not None else usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if not isinstance(asked, int):
        asked = len(logs) - 1
    if asked < 1 or len(logs) not in (asked, asked + 1) or (tokens is None and len(logs) < 2):
        return None
    return [0.0, *(_log(log, reply) for log in logs[1:asked])]


def prompt_logprobs(reply: Mapping[str, Any], tokens: Sequence[int]) -> list[float] | None:
    """The same from vLLM's `prompt_logprobs`: one mapping a token, from token ids to what is known of them.

    Raises:
        StilnovoError: a log-probability is missing or is none.
    """
    listed = _choice(reply).get("prompt_logprobs") or reply.get("prompt_logprobs")
    if not isinstance(listed, list) or len(listed) != len(tokens):
        return None
    own = [
        entry.get(str(token)) if isinstance(entry, dict) else None for token, entry in zip(tokens, listed, strict=True)
    ]
    return [0.0, *(_log(entry.get("logprob") if isinstance(entry, dict) else None, reply) for entry in own[1:])]


def step_logprobs(reply: Mapping[str, Any]) -> dict[int, float]:
    """Log-probabilities of next tokens by id, from llama.cpp's own `/completion`; empty where it tells none."""
    steps = reply.get("completion_probabilities")
    step = steps[0] if isinstance(steps, list) and steps and isinstance(steps[0], dict) else {}
    entries = [*(step.get("top_logprobs") or ()), step]
    return {
        entry["id"]: _log(entry["logprob"], reply) for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("id"), int) and "logprob" in entry
    }  # fmt: skip


def was_shortened(reply: Mapping[str, Any], prompt: str) -> bool:
    """Whether a server read far fewer tokens than a long prompt has at least, so that it has probably cut it in silence."""
    read, least = _at(reply.get("usage"), "prompt_tokens"), CUT * len(prompt.encode("utf-8", "replace")) / BYTES_A_TOKEN
    return isinstance(read, int) and read < least and least > CUT * UNTOLD_CONTEXT / 2


def _at(value: Any, key: str) -> Any:
    """A mapping's value; None where it is none."""
    return value.get(key) if isinstance(value, dict) else None


def _choice(reply: Mapping[str, Any]) -> dict[str, Any]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise odd_reply("it holds no choices", reply)
    choice: dict[str, Any] = choices[0]
    if choice.get("error") or choice.get("finish_reason") in BROKEN_OFF:
        raise odd_reply("its answer was broken off", choice.get("error") or reply)
    return choice


def _log(value: Any, reply: Mapping[str, Any]) -> float:
    """A log-probability as it is, NaN and infinity too: they are refused by the item's name."""
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float) or value > CERTAIN:
        raise odd_reply(f"{value!r} is no log-probability", reply)
    return float(value) if isinstance(value, float) or value > -(10**9) else -math.inf
