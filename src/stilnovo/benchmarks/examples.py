"""Few-shot examples for tasks that have no rule of their own: drawn once a task, by seed, from a split that is not evaluated.

All items get the same examples, so that the header is read once. lm-evaluation-harness draws others for every item from one
random stream, which depends on the items' order and number: its figures with such a sampler can be approached, not equalled.
Where it has a fixed rule (the first rows, those of a subject), the task's own loader follows that (`Task.shots_rule`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from stilnovo.benchmarks.items import FewShot, Generation, Item, MultipleChoice
from stilnovo.errors import InputError

T = TypeVar("T", bound=Item)
SPLITS = ("train", "dev", "validation")  # that may give examples, in the order in which they are looked for


def shown(item: Item) -> tuple[str, str]:
    """The question and the right answer of an item, as an example before another; without what stands before it."""
    if isinstance(item, Generation):
        return item.question, item.references[0]
    context, ending = item.pairs[item.answer]
    return context.removeprefix(item.few_shot.text), ending.removeprefix(item.few_shot.delimiter)


def few_shot(items: Sequence[Item], description: str = "") -> FewShot:
    """What stands before a question: a description, and items with their right answers."""
    delimiter = items[0].few_shot.delimiter if items else " "
    return FewShot(description, tuple(map(shown, items)), delimiter)


def behind(item: T, examples: Sequence[Item]) -> T:
    """The same item with examples before it, after its own description."""
    own, before = item.few_shot.text, replace(item.few_shot, examples=tuple(map(shown, examples)))

    def moved(text: str) -> str:
        return before.text + text.removeprefix(own)

    changed: dict[str, Any] = {"context": moved(item.context), "header": moved(item.header), "few_shot": before}
    if isinstance(item, MultipleChoice) and item.contexts:
        changed["contexts"] = tuple(map(moved, item.contexts))
    return replace(item, **changed)


def first_others(pool: Sequence[Item], item: Item, count: int) -> list[Item]:
    """The first questions of a pool but the item itself: the harness's rule where the evaluated split gives the examples.

    Raises:
        InputError: there are fewer than `count`.
    """
    own = _content(item)
    others = list(islice((other for other in pool if _content(other) != own), count))
    if len(others) < count:
        raise InputError(f"There are only {len(others)} examples for {count} shots.", next="Lower --shots.")
    return others


def draw_examples(pool: Sequence[Item], asked: Sequence[Item], count: int, seed: int, task: str) -> list[Item]:
    """Draw examples by seed from `pool`, never a question that is itself asked.

    Raises:
        InputError: there are fewer than `count`.
    """
    questions = {_content(item) for item in asked}
    others = [item for item in pool if _content(item) not in questions]
    if len(others) < count:
        raise InputError(
            f"There are only {len(others)} examples for {count} shots of task {task}.",
            f"{len(pool):,} rows, {len(pool) - len(others):,} of them among the questions themselves.",
            "Lower --shots.",
        )
    return random.Random(seed).sample(others, count)


def _content(item: Item) -> tuple[str, ...]:
    return (item.context, *(item.references if isinstance(item, Generation) else item.endings))
