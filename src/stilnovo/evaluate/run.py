"""A loaded model through several tasks and a held-out text: select, score, collect.

What a subset could show is known before anything runs (`expectation`), so that nobody waits an hour for an answer the
items could not give.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from stilnovo.evaluate.perplexity import score_texts
from stilnovo.evaluate.result import EvaluationResult, TaskResult
from stilnovo.evaluate.scoring import TOKEN_BUDGET, score
from stilnovo.evaluate.statistics import (
    ASSUMED_DISCORDANCE,
    normal_quantile,
    smallest_visible_difference,
    wilson,
)
from stilnovo.evaluate.task import Selection, items_sha256
from stilnovo.model.llama import Llama
from stilnovo.runlog import environment
from stilnovo.text.tokenizer import Tokenizer

TEXT = "held-out text"  # as named in progress

Progress = Callable[[str, int, int], None]


def evaluate(
    model: Llama,
    tokenizer: Tokenizer,
    selections: Sequence[Selection],
    *,
    texts: Sequence[str] = (),
    text_name: str | None = None,
    model_name: str,
    quantization: str = "none",
    adapter: str | None = None,
    settings: dict[str, Any] | None = None,
    token_budget: int = TOKEN_BUDGET,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Score every selection and the held-out texts, and collect the result.

    Args:
        model: A loaded model; used as it is, adapter included.
        tokenizer: Its tokeniser.
        selections: From `stilnovo.evaluate.task.select`.
        texts: Held-out documents, none for no bits per byte.
        text_name: What they are called in the result.
        model_name: How the model was asked for; like `quantization`, `adapter` and `settings` only recorded.
        quantization: See `model_name`.
        adapter: See `model_name`.
        settings: See `model_name`.
        token_budget: Most tokens in one forward pass.
        progress: Called with (task name, done, in all).
    """
    began = time.perf_counter()
    tasks = {}
    for selection in selections:
        tasks[selection.task.name] = _run_task(model, tokenizer, selection, token_budget, progress)
    text = None
    if texts:
        text = score_texts(model, tokenizer, texts, token_budget=token_budget, progress=_named(progress, TEXT))
    return EvaluationResult(
        model=model_name,
        quantization=quantization,
        adapter=adapter,
        tasks=tasks,
        text=text,
        text_name=text_name,
        seconds=time.perf_counter() - began,
        settings={**(settings or {}), "token_budget": token_budget},
        environment=environment(),
    )


def expectation(selection: Selection) -> str:
    """What this selection can and cannot show, in plain words, before the run."""
    n, task = len(selection.items), selection.task
    if n == selection.available:
        part = f"all {n:,} items"
    else:
        part = f"{n:,} of {selection.available:,} items (drawn at random, seed {selection.seed})"
    low, high = wilson(0.5, n, normal_quantile(0.975))
    visible = smallest_visible_difference(n)
    seen = (
        f"changes of fewer than {100 * visible:.0f} points will hardly be seen"
        if visible < 1
        else "no change can be seen"
    )
    text = (
        f"{task.name} {task.version}, split {selection.split}: {part}. Accuracy will be known to about "
        f"±{50 * (high - low):.1f} points; against another run on the same items, {seen} "
        f"(80 % power, {100 * ASSUMED_DISCORDANCE:.0f} % of answers changing)"
    )
    if n < selection.available:
        text += f", with all items {100 * smallest_visible_difference(selection.available):.0f} points"
    return text + "."


def _run_task(
    model: Llama, tokenizer: Tokenizer, selection: Selection, token_budget: int, progress: Progress | None
) -> TaskResult:
    task, items = selection.task, selection.items
    began = time.perf_counter()
    scores = score(model, tokenizer, items, token_budget=token_budget, progress=_named(progress, task.name))
    return TaskResult(
        name=task.name,
        version=task.version,
        source=task.source,
        licence=task.licence,
        metric=task.metric,
        split=selection.split,
        n=len(items),
        available=selection.available,
        seed=selection.seed,
        items_sha256=items_sha256(items),
        chance=sum(1 / len(item.endings) for item in items) / len(items),
        truncated=sum(item.truncated for item in scores),
        seconds=time.perf_counter() - began,
        items=tuple(scores),
    )


def _named(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)
