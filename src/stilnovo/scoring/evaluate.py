"""A loaded model through several tasks and a held-out text: select, look up, score, keep, collect.

What a subset could show is known before anything runs (`expectation`), so that nobody waits an hour for an answer the
items could not give. With a cache, every pass is kept as soon as it is done, and what an earlier run answered is not
asked again (`cache.py`): an interrupted evaluation is continued by the same command.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from stilnovo import dist
from stilnovo.benchmarks.task import Generation, Item, MultipleChoice, Selection, items_sha256
from stilnovo.model.llama import Llama
from stilnovo.progress import seconds_text
from stilnovo.runlog import environment
from stilnovo.scoring.answer_cache import Keeper
from stilnovo.scoring.identity import item_sha256
from stilnovo.scoring.multiple_choice import TOKEN_BUDGET, ItemScore, score
from stilnovo.scoring.perplexity import HeldOutScore
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.scoring.texts import read_texts
from stilnovo.scoring.written import write
from stilnovo.statistics.estimates import (
    ASSUMED_DISCORDANCE,
    FEWEST_CLUSTERS,
    normal_quantile,
    smallest_visible_difference,
    wilson,
)
from stilnovo.text.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]

_GRADED = ("mc2", "f1", "rouge1_precision")  # scores between right and wrong
_TIMING_SECONDS = 5.0  # after which a speed is believed


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
    keeper: Keeper | None = None,
    note: Callable[[str], None] | None = None,
    short_windows: bool = False,
) -> EvaluationResult:
    """Score every selection and the held-out texts, and collect the result.

    Under `torchrun` every process scores its share of the items with its own copy of the model, the first one the texts,
    and all of them have the whole result.

    Args:
        model: A loaded model; used as it is, adapter included.
        tokenizer: Its tokeniser.
        selections: From `stilnovo.benchmarks.task.select`.
        texts: Held-out documents, none for no bits per byte.
        text_name: What they are called in the result.
        model_name: How the model was asked for; like `quantization`, `adapter` and `settings` only recorded.
        quantization: See `model_name`.
        adapter: See `model_name`.
        settings: See `model_name`.
        token_budget: Most tokens in one forward pass.
        progress: Called with (task name, done, in all).
        keeper: Where answers are looked up and kept; nowhere by default.
        note: Called with a line about what the whole set would take, once the speed is known.
        short_windows: Whether the texts are also read in windows of 64 tokens, as the report of 2024 did.
    """
    began = time.perf_counter()
    tasks = {}
    for selection in selections:
        tasks[selection.task.name] = _run_task(model, tokenizer, selection, token_budget, progress, keeper, note)
    text: HeldOutScore | None = None
    if texts and dist.is_first():
        text = read_texts(
            model, tokenizer, texts, token_budget=token_budget, progress=progress, keeper=keeper,
            short_windows=short_windows,
        )  # fmt: skip
    text = dist.same(text)
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
        identity=asdict(keeper.identity) if keeper is not None else None,
        command=list(sys.argv),
    )


def speed_setting(model: str, quantization: str, with_adapter: bool, device: str) -> str:
    """What a speed depends on, in one line: model, quantisation, whether there is an adapter, device and machine."""
    hardware = environment()["hardware"]
    machine = ", ".join(str(hardware[key]) for key in ("processor", "cores", "gpu") if key in hardware)
    processes = f" in {dist.world_size()} processes" if dist.world_size() > 1 else ""
    return f"{model} in {quantization}{' with adapter' if with_adapter else ''}, {device}{processes}: {machine}"


def expectation(selection: Selection, items_per_second: float | None = None) -> str:
    """What this selection can and cannot show, in plain words, before the run; with a speed also the time for all."""
    n, task = len(selection.items), selection.task
    if n == selection.available:
        part = f"all {n:,} items"
    else:
        share = f"{100 * n / selection.available:.0f} %"
        how = "simply the first ones" if selection.first else f"drawn at random, seed {selection.seed}"
        part = f"{n:,} of {selection.available:,} items ({share}, {how})"
    low, high = wilson(0.5, n, normal_quantile(0.975))
    text = (
        f"{task.name} {task.version}, split {selection.split}: {part}. The score will be known to about "
        f"±{50 * (high - low):.1f} points; against another run on the same items, {_visible(n)} can be seen "
        f"(80 % power, {100 * ASSUMED_DISCORDANCE:.0f} % of answers changing"
        f"{', if each were right or wrong' if task.metric in _GRADED else ''})"
    )
    if selection.clusters is not None:
        groups = len(set(selection.clusters))
        text += f", at best: the items lie in {groups:,} group{'' if groups == 1 else 's'} that may change together"
        if groups < FEWEST_CLUSTERS:
            text += f", and fewer than {FEWEST_CLUSTERS} can show no change at all"
    if n < selection.available:
        text += f". With all {selection.available:,} items, {_visible(selection.available)}"
        if items_per_second:
            text += f"; they take {seconds_text((selection.available - n) / items_per_second)} more"
    elif items_per_second:
        text += f". It takes at most about {seconds_text(n / items_per_second)}"
    return text + "."


def _visible(n: int) -> str:
    share = smallest_visible_difference(n)
    return "no change" if share >= 1 else f"nothing under {100 * share:.0f} points"


def _run_task(
    model: Llama,
    tokenizer: Tokenizer,
    selection: Selection,
    token_budget: int,
    progress: Progress | None,
    keeper: Keeper | None,
    note: Callable[[str], None] | None,
) -> TaskResult:
    task, items = selection.task, selection.items
    began = time.perf_counter()
    hashes = [item_sha256(item) for item in items]
    scores = dist.same(_kept(selection, hashes, keeper))  # all processes must see the same ones missing
    missing = [item for item, known in zip(items, scores, strict=True) if known is None]
    place = {item.id: index for index, item in enumerate(items)}
    cached = len(items) - len(missing)
    timing = _Timing(selection, note if keeper is None or not keeper.cache.speed(keeper.setting, task.name) else None)

    def finished(new: Sequence[ItemScore]) -> None:
        if keeper is not None:
            rows = ((hashes[place[answer.id]], asdict(answer)) for answer in new)
            keeper.cache.keep(keeper.identity, task.name, _kept_version(selection), rows)

    def done(count: int, _: int) -> None:
        timing.tell(count * dist.world_size())
        if progress is not None:
            progress(task.name, min(cached + count * dist.world_size(), len(items)), len(items))

    if missing:
        mine = dist.share(missing)
        found = _answer(model, tokenizer, selection, mine, token_budget, done, finished) if mine else []
        for answer in itertools.chain.from_iterable(dist.gather(found)):
            scores[place[answer.id]] = answer
    elif progress is not None:
        progress(task.name, len(items), len(items))
    answers = tuple(answer for answer in scores if answer is not None)
    assert len(answers) == len(items), "every item is answered"
    result = TaskResult(
        name=task.name,
        version=task.version,
        source=task.source,
        licence=task.licence,
        metrics=task.metrics,
        split=selection.split,
        n=len(items),
        available=selection.available,
        seed=selection.seed,
        items_sha256=items_sha256(items),
        chance=sum(item.chance for item in items) / len(items),
        truncated=sum(answer.truncated for answer in answers),
        seconds=time.perf_counter() - began,
        items=answers,
        hashes=tuple(hashes),
        shots=selection.shots,
        first=selection.first,
        cached=cached,
    )
    if keeper is not None and result.items_per_second and result.seconds >= _TIMING_SECONDS:
        keeper.cache.keep_speed(keeper.setting, task.name, result.items_per_second)
    return result


def _answer(
    model: Llama,
    tokenizer: Tokenizer,
    selection: Selection,
    missing: Sequence[Item],
    token_budget: int,
    progress: Callable[[int, int], None],
    finished: Callable[[Sequence[ItemScore]], None],
) -> list[ItemScore]:
    """Every item that no earlier run has answered, by the way its kind asks for."""
    found: list[ItemScore] = []
    choices = [item for item in missing if isinstance(item, MultipleChoice)]
    if choices:
        found += score(model, tokenizer, choices, token_budget=token_budget, progress=progress, finished=finished)
    written = [item for item in missing if isinstance(item, Generation)]
    if written:
        grade = selection.task.grade
        assert grade is not None, "a task with written answers grades them"
        found += write(
            model, tokenizer, written, grade, seed=selection.seed, token_budget=token_budget, finished=finished,
            progress=lambda done, _: progress(len(choices) + done, len(missing)),
        )  # fmt: skip
    return found


def _kept_version(selection: Selection) -> str:
    """The task's version, and the seed where answers are drawn with it."""
    drawn = any(isinstance(item, Generation) and item.decoding.temperature > 0 for item in selection.items)
    return f"{selection.task.version}, seed {selection.seed}" if drawn else selection.task.version


class _Timing:
    """Says once, as soon as the speed is known, what the items left out would take."""

    def __init__(self, selection: Selection, note: Callable[[str], None] | None) -> None:
        self._selection, self._note, self._began = selection, note, time.perf_counter()

    def tell(self, count: int) -> None:
        left, seconds = self._selection.available - len(self._selection.items), time.perf_counter() - self._began
        if self._note is None or left == 0 or seconds < _TIMING_SECONDS:
            return
        name, all_of_it = self._selection.task.name, f"{self._selection.available:,} items"
        self._note(f"{name}: at this speed all {all_of_it} would take {seconds_text(left * seconds / count)} more.")
        self._note = None


def _kept(selection: Selection, hashes: Sequence[str], keeper: Keeper | None) -> list[ItemScore | None]:
    """What an earlier run answered, None where it did not; groups are named by the items of today."""
    if keeper is None:
        return [None] * len(hashes)
    rows = keeper.cache.find(keeper.identity, selection.task.name, _kept_version(selection), hashes)
    return [_restored(item, row) for item, row in zip(selection.items, rows, strict=True)]


def _restored(item: Item, row: dict[str, Any] | None) -> ItemScore | None:
    """A kept row as an answer to this item, None where it cannot be one."""
    if row is None:
        return None
    try:
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        answer = ItemScore(**fields)
        endings = len(item.endings) if isinstance(item, MultipleChoice) else 0
        fits = answer.id == item.id and len(answer.loglikelihoods) == endings
    except TypeError:
        return None
    return replace(answer, cluster=item.cluster, category=item.category) if fits else None
