"""Generate written answers; the task grades the text later.

The prompt is plain text after the opening token where the model has one, or rendered by its chat template, whose end of turn ends an
answer. Several answers are written side by side, each as if it were alone: whatever the batch, greedy answers are the same up to
rounding, and drawn ones take their random numbers from the seed and the item's own name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from stilnovo.benchmarks.task import SEED, Decoding, Generation, Selection
from stilnovo.errors import InputError, NonFiniteScore
from stilnovo.generate.generator import Generator, Sampling
from stilnovo.model.llama import Llama, evaluating
from stilnovo.scoring.encode import Context, PromptTokenizer, filled
from stilnovo.scoring.packed import TOKEN_BUDGET, ModelAnswer
from stilnovo.scoring.thinking import UNFINISHED, opens_thinking, without_thinking
from stilnovo.text.template import RenderedChat
from stilnovo.text.tokenizer import Tokenizer

Prompted = tuple[
    Generation, list[int], bool, bool
]  # its prompt's tokens, whether they were cut, and end inside a thinking
_BATCH = 2  # prompts and answers written at once hold this many times the token budget
_MOST_TOGETHER = 16


def plain_prompt(item: Generation) -> Context:
    """The prompt as plain text."""
    return item.context


def write(
    model: Llama,
    tokenizer: Tokenizer,
    items: Sequence[Generation],
    *,
    seed: int = SEED,
    token_budget: int = TOKEN_BUDGET,
    prompt: Callable[[Generation], Context] = plain_prompt,
) -> Iterator[list[tuple[int, ModelAnswer]]]:
    """Generate an answer to every item; yields (index, answer) lists after every batch, in order.

    Args:
        model: Any Llama, quantised or not, with or without adapter; dropout is off while it writes.
        tokenizer: Its tokeniser.
        items: The questions.
        seed: For answers that are drawn.
        token_budget: Half the most tokens held in the cache at once; a longer prompt is written to alone.
        prompt: From an item to what stands before its answer.

    Raises:
        InputError: an answer is allowed to be as long as the whole context of the model.
        NonFiniteScore: the model's logits are no finite numbers.
    """
    engine = Generator(model, tokenizer, products="fp32")  # scores are the same on every processor
    contexts = map(prompt, items)
    prompted = (
        (item, *encode_prompt(tokenizer, item, engine.context_tokens, context), _opens(context))
        for item, context in zip(items, contexts, strict=True)
    )
    done = 0
    with evaluating(model):
        for batch in filled(prompted, partial(_fits, _BATCH * token_budget)):
            prompts = [tokens for _, tokens, _, _ in batch]
            samplings = [sampling_of(item, seed) for item, _, _, _ in batch]
            try:
                completions = engine.continue_tokens(prompts, samplings)
            except NonFiniteScore as error:
                beside = f" or one of the {len(batch) - 1} written beside it" if len(batch) > 1 else ""
                raise NonFiniteScore(f"the answer to item {batch[0][0].id}{beside}") from error
            answers = [
                _answer(completion.text, cut, opened)
                for (_, _, cut, opened), completion in zip(batch, completions, strict=True)
            ]
            yield list(enumerate(answers, done))
            done += len(batch)


def _opens(context: Context) -> bool:
    return isinstance(context, RenderedChat) and opens_thinking(context.text)


def _answer(written: str, cut: bool, opened: bool) -> ModelAnswer:
    """An answer without the model's thinking, which may have taken all of it."""
    text, finished = without_thinking(written, opened=opened)
    return ModelAnswer((), cut, text, remark=UNFINISHED if finished is False else "")


def encode_prompt(
    tokenizer: PromptTokenizer, item: Generation, max_positions: int, context: Context | None = None
) -> tuple[list[int], bool]:
    """Tokenise the prompt, truncated on the left to leave room for the answer; also whether it was.

    The opening token stays at the front, where lm-evaluation-harness would cut it off with the rest.
    """
    if isinstance(context, RenderedChat):
        tokens = tokenizer.encode_rendered(context)[len(tokenizer.opening) :]
    else:
        tokens = tokenizer.encode(item.context if context is None else context)
    room = _room(tokenizer, item.decoding, max_positions)
    return tokenizer.opening + tokens[-room:], len(tokens) > room


def check_context(selection: Selection, tokenizer: PromptTokenizer, max_positions: int) -> None:
    """Check that the answers of a task fit into a model's context.

    Raises:
        InputError: with both numbers.
    """
    for decoding in {item.decoding for item in selection.items if isinstance(item, Generation)}:
        _room(tokenizer, decoding, max_positions)


def _room(tokenizer: PromptTokenizer, decoding: Decoding, max_positions: int) -> int:
    """Tokens of a prompt that the model can read before an answer."""
    room = max_positions - decoding.max_tokens - len(tokenizer.opening)
    if room < 1:
        raise InputError(
            "The answers are longer than the model's context.",
            f"{decoding.max_tokens} tokens; the model reads {max_positions}.",
            "Leave this task out, or use a model with a longer context.",
        )
    return room


def _fits(tokens_held: int, batch: Sequence[Prompted], entry: Prompted) -> bool:
    """Whether a batch can take one more; the KV cache is as wide as the longest of a batch."""
    longest = max(len(tokens) + item.decoding.max_tokens for item, tokens, _, _ in (*batch, entry))
    return len(batch) < _MOST_TOGETHER and longest * (len(batch) + 1) <= tokens_held


def sampling_of(item: Generation, seed: int) -> Sampling:
    """How an item's answer is drawn: its random numbers come from the seed and its own name."""
    own = int.from_bytes(hashlib.sha256(f"{seed}/{item.id}".encode()).digest()[:4], "big")
    how = item.decoding
    return Sampling(how.temperature, how.top_p, how.max_tokens, own, how.stop)
