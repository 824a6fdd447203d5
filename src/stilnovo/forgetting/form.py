"""Whether the model still answers like an assistant: a few prompts answered greedily, and the form of each answer.

What an instruction-tuned model loses first is not knowledge but manners: it no longer ends its turn, lets the template
show through, or turns in circles. Whether an answer is right is another question (the benchmarks'); here it is asked:

* ended: the model said something and closed its turn itself within the tokens it was given;
* clean: no special token besides, none spelt out, no heading of another turn ("user", "### Instruction:");
* no loop: it does not end in a period repeated three times over at least 24 tokens, and at most half of its 4-grams are
  repetitions (seq-rep-4 of Welleck et al. 2020, arXiv 1908.04319);
* language: an answer is not in English where the prompt is in Italian, nor the reverse, as far as function words tell.

An answer is `kept` when the first three hold. All are zeros and ones by prompt, so that two models are compared in pairs.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stilnovo.data.conversations import Conversation
from stilnovo.generate.generator import Completion, Generator, Sampling
from stilnovo.io import sample
from stilnovo.io.rows import read_rows
from stilnovo.model.llama import evaluating
from stilnovo.scoring.answer_cache import ModelCache, Progress, answered
from stilnovo.text.language import language
from stilnovo.text.template import TURN_SIGNS, Message
from stilnovo.text.tokenizer import Tokenizer

FORM = "form of answers"  # as named in progress and in the cache
MAX_NEW_TOKENS = 192
SEED = 42
PARTS = ("ended", "clean", "no_loop", "language", "kept")

_TOGETHER = 8  # answers written side by side; each group is kept as soon as it is done
_PERIODS, _LEAST_TOKENS = 3, 24
_MOST_REPEATED = 0.5
# A line that opens another turn: ChatML's bare role, the word with a colon, Alpaca's headings.
_HEADING = re.compile(
    r"^\s*(?:(?:user|assistant|system)\s*$|(?:user|assistant|human|utente|assistente)\s*:"
    r"|#{2,3}\s*(?:instruction|input|response|istruzione|risposta)\b)",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Prompt:
    """A conversation to be answered."""

    id: str
    messages: tuple[Message, ...]

    def sha256(self) -> str:
        """Hex sha256 of what is asked."""
        turns = [(turn.role, turn.content) for turn in self.messages]
        return hashlib.sha256(json.dumps([self.id, turns]).encode()).hexdigest()


@dataclass(frozen=True)
class AnswerForm:
    """One answer and its form; see the module."""

    id: str
    text: str
    tokens: int
    ended: bool
    clean: bool
    no_loop: bool
    language: bool

    @property
    def kept(self) -> bool:
        """Whether the text has the form of an answer."""
        return self.ended and self.clean and self.no_loop


def choose_prompts(count: int, conversations: Sequence[Conversation] = (), seed: int = SEED) -> list[Prompt]:
    """`count` prompts drawn by seed: half from the conversations (their last answers left out), half the sample's own.

    The sample's are short Italian questions; without conversations all are. There may be fewer than `count`.
    """
    draw = random.Random(seed)
    asked = [(f"chat {conversation.id}", conversation.messages[:-1]) for conversation in conversations]
    own = [(row["id"], (Message("user", row["instruction"]),)) for row in read_rows(sample.path("questions.jsonl"))]
    taken = draw.sample(asked, min(len(asked), (count + 1) // 2))
    taken += draw.sample(own, min(len(own), count - len(taken)))
    return [Prompt(name, messages) for name, messages in taken]


def write_answers(
    engine: Generator,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Progress | None = None,
    cache: ModelCache | None = None,
) -> tuple[AnswerForm, ...]:
    """The greedy answer to every prompt, and its form.

    Args:
        engine: The model that writes.
        prompts: From `choose_prompts`; each leaves room in the model's context.
        max_new_tokens: Most tokens of an answer; one that needs more has not ended.
        progress: Called with (`FORM`, answers done, in all).
        cache: Where answers are looked up and stored; nowhere by default.

    Raises:
        InputError: a prompt is longer than the model's context.
    """
    hashes, version = [prompt.sha256() for prompt in prompts], f"greedy, {max_new_tokens} tokens"
    sampling = Sampling(temperature=0, max_new_tokens=max_new_tokens)

    def groups(missing: list[int]) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
        for start in range(0, len(missing), _TOGETHER):
            group = missing[start : start + _TOGETHER]
            written = engine.complete([prompts[index].messages for index in group], [sampling] * len(group))
            yield group, [asdict(completion) for completion in written]

    with evaluating(engine.model):
        rows = answered(cache, FORM, version, hashes, lambda index: f"prompt {prompts[index].id}", groups, progress)
    completions = [Completion(**{**row, "ids": tuple(row["ids"])}) for row in rows]
    return tuple(form_of(engine.tokenizer, prompt, text) for prompt, text in zip(prompts, completions, strict=True))


def form_of(tokenizer: Tokenizer, prompt: Prompt, answer: Completion) -> AnswerForm:
    """Analyse an answer's form."""
    special = any(tokenizer.special_text(token) is not None for token in answer.ids)
    asked, said = language(prompt.messages[-1].content), language(answer.text)
    return AnswerForm(
        id=prompt.id,
        text=answer.text,
        tokens=answer.tokens,
        ended=answer.stopped and bool(answer.text.strip()),
        clean=not special and not leaks(answer.text),
        no_loop=not loops(answer.ids),
        language=not asked or not said or asked == said,
    )


def form_share(answers: Sequence[AnswerForm], part: str) -> float:
    """Share of answers for which `part`, one of `PARTS`, is true."""
    return sum(bool(getattr(answer, part)) for answer in answers) / len(answers)


def leaks(text: str) -> bool:
    """Whether template markup leaks into the text: a special token spelt out, or a line that opens another turn."""
    return any(sign in text for sign in TURN_SIGNS) or _HEADING.search(text) is not None


def loops(ids: Sequence[int]) -> bool:
    """Whether a text repeats itself endlessly; see the module."""
    count = len(ids)
    for period in range(1, count // _PERIODS + 1):
        size = max(_PERIODS * period, _LEAST_TOKENS)
        if size <= count and all(ids[place] == ids[place - period] for place in range(count - size + period, count)):
            return True
    grams = [tuple(ids[place : place + 4]) for place in range(count - 3)]
    return len(grams) >= _LEAST_TOKENS and 1 - len(set(grams)) / len(grams) > _MOST_REPEATED
