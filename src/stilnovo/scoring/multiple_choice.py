"""Multiple choice by log-likelihood: how probable each ending is after its context.

The numbers are those of lm-evaluation-harness (`encode.py`); what is different is the work done for them. All endings
of a question form a tree (`tree.py`) in which their context is computed once, a few-shot header is computed once for
all questions that begin with it, and many trees lie in one forward pass (`packed.py`). The output head runs only on the
rows that predict a token of an ending (`likelihood.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stilnovo.benchmarks.task import Metric, MultipleChoice
from stilnovo.model.llama import Llama
from stilnovo.scoring.packed import TOKEN_BUDGET, EndingScores, answers
from stilnovo.text.tokenizer import Tokenizer

__all__ = ["TOKEN_BUDGET", "ItemScore", "Progress", "score"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ItemScore:
    """One answered question.

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

    @property
    def correct(self) -> bool:
        """Right by the sum of log-likelihoods."""
        return self.choice == self.answer

    @property
    def correct_norm(self) -> bool:
        """Right by the log-likelihood per character."""
        return self.choice_norm == self.answer


def score(
    model: Llama,
    tokenizer: Tokenizer,
    items: Sequence[MultipleChoice],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Progress | None = None,
    finished: Callable[[Sequence[ItemScore]], None] | None = None,
) -> list[ItemScore]:
    """Score every item.

    Args:
        model: Any Llama, quantised or not, with or without adapter; dropout is off while it is scored.
        tokenizer: Its tokeniser.
        items: The questions.
        token_budget: Most tokens in one forward pass; an item with more gets a pass of its own.
        progress: Called with (items done, items in all) after every pass.
        finished: Called with the scores of every pass, so that they can be kept before the next one; the order is that
            of the passes, which take long questions first.
    """
    scores: list[ItemScore | None] = [None] * len(items)
    done = 0
    for found in answers(model, tokenizer, items, token_budget=token_budget):
        new = [_item_score(items[index], answer) for index, answer in found]
        for (index, _), one in zip(found, new, strict=True):
            scores[index] = one
        done += len(new)
        if finished is not None:
            finished(new)
        if progress is not None:
            progress(done, len(items))
    return [one for one in scores if one is not None]


def _item_score(item: MultipleChoice, answer: EndingScores) -> ItemScore:
    sums = answer.loglikelihoods
    return ItemScore(
        id=item.id,
        answer=item.answer,
        choice=item.choice(sums),
        choice_norm=item.choice_norm(sums),
        loglikelihoods=sums,
        cluster=item.cluster,
        truncated=answer.truncated,
        category=item.category,
        values=item.values(sums),
    )
