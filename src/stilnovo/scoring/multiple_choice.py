"""Multiple choice by log-likelihood: how probable each ending is after its context.

The numbers are those of lm-evaluation-harness (`encode.py`); what is different is the work done for them. All endings
of a question form a tree (`tree.py`) in which their context is computed once, a few-shot header is computed once for
all questions that begin with it, and many trees lie in one forward pass (`packed.py`). The output head runs only on the
rows that predict a token of an ending (`likelihood.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stilnovo.benchmarks.task import Generation, Item, Metric, MultipleChoice, Task
from stilnovo.model.llama import Llama
from stilnovo.scoring.packed import TOKEN_BUDGET, ModelAnswer, answers
from stilnovo.text.tokenizer import Tokenizer

__all__ = ["TOKEN_BUDGET", "ItemScore", "ModelAnswer", "item_score", "score"]


@dataclass(frozen=True)
class ItemScore:
    """Score of one item.

    `loglikelihoods` in nats, one an ending; `choice` is their argmax, `choice_norm` the argmax per character, the first
    of equals in both; all -1 or empty for a written answer, which is `text`. `values` are the item's metrics;
    `truncated` says that the context was cut on the left to fit the model.
    """

    id: str
    answer: int
    choice: int
    choice_norm: int
    loglikelihoods: tuple[float, ...]
    cluster: str = ""
    truncated: bool = False
    category: str = ""
    values: dict[Metric, float] = field(default_factory=dict)
    text: str = ""


def item_score(item: Item, answer: ModelAnswer, task: Task | None = None) -> ItemScore:
    """Score an item from the model's answer; `task` grades written answers."""
    sums = answer.loglikelihoods
    if isinstance(item, Generation):
        assert task is not None and task.grade is not None, "a task with written answers grades them"
        values, picks = dict(task.grade(answer.text, item)), (-1, -1, -1)
    else:
        values, picks = item.values(sums), (item.answer, item.choice(sums), item.choice_norm(sums))
    return ItemScore(
        item.id, *picks, sums, item.cluster, answer.truncated, item.category, values, answer.text
    )  # fmt: skip


def score(
    model: Llama,
    tokenizer: Tokenizer,
    items: Sequence[MultipleChoice],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Callable[[int, int], None] | None = None,
) -> list[ItemScore]:
    """Score every item.

    Args:
        model: Any Llama, quantised or not, with or without adapter; dropout is off while it is scored.
        tokenizer: Its tokeniser.
        items: The questions.
        token_budget: Most tokens in one forward pass; an item with more gets a pass of its own.
        progress: Called with (items done, items in all) after every pass.
    """
    scores: dict[int, ItemScore] = {}
    for batch in answers(model, tokenizer, items, token_budget=token_budget):
        scores |= {index: item_score(items[index], answer) for index, answer in batch}
        if progress is not None:
            progress(len(scores), len(items))
    return [scores[index] for index in range(len(items))]
