"""From a selection to what is asked, and from the answers to a task's result.

Whoever asks (a model here, a server) makes a list of `Asking`s out of a selection, answers them in any order, and hands the
answers back (`task_result`); rounds of several prompts become one result (`joined`), in which an item's value is its mean over
them. Intervals are over items, as always: prompts and repeats are inside an item and make it more exact, not more.

Unusual: what is asked again is only what can come out differently, written answers that are drawn. The first repeat is what a
run without repeats gives, to the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from stilnovo.benchmarks.corpus_metrics import chance_of
from stilnovo.benchmarks.items import Generation, Item, item_sha256, joined_sha256
from stilnovo.benchmarks.task import Selection, TaskFacts
from stilnovo.errors import InputError
from stilnovo.scoring.packed import ModelAnswer, item_score
from stilnovo.scoring.result import TaskResult
from stilnovo.scoring.rounds import Round, averaged


@dataclass(frozen=True)
class Asking:
    """An item that is asked: the `number` of the item in its selection, and the repeat, from 0.

    Repeats have an id of their own, from which a drawn answer's random numbers are made.
    """

    number: int
    item: Item
    repeat: int = 0


def is_drawn(item: Item) -> bool:
    """Whether its answer is written with random numbers."""
    return isinstance(item, Generation) and item.decoding.temperature > 0


def askings(selection: Selection) -> list[Asking]:
    """List what is asked of a selection, repeat by repeat."""
    return [
        Asking(number, replace(item, id=f"{item.id}/repeat {repeat}") if repeat else item, repeat)
        for repeat in range(selection.repeats)
        for number, item in enumerate(selection.items)
        if not repeat or is_drawn(item)
    ]


def task_result(
    selection: Selection, asked: Sequence[Asking], given: Sequence[ModelAnswer], seconds: float, cached: int = 0
) -> TaskResult:
    """Grade the answers to `askings` and put them together.

    Args:
        selection: What was asked.
        asked: From `askings`.
        given: The answer to each.
        seconds: That it took.
        cached: How many of them an earlier run had answered.
    """
    task, items = selection.task, selection.items
    hashes = tuple(map(item_sha256, items))
    rounds = []
    for repeat in range(selection.repeats):
        own = [(ask, answer) for ask, answer in zip(asked, given, strict=True) if ask.repeat == repeat]
        scores = tuple(item_score(items[ask.number], answer, task) for ask, answer in own)
        rounds.append(Round(selection.prompt, repeat, scores, tuple(hashes[ask.number] for ask, _ in own)))
    return TaskResult(
        **{key.name: getattr(task, key.name) for key in fields(TaskFacts)},
        split=selection.split,
        available=selection.available,
        seed=selection.seed,
        chance=chance_of(task.metric, items),
        seconds=seconds,
        items=averaged(rounds),
        hashes=hashes,
        shots=selection.shots,
        first=selection.first,
        cached=cached,
        files={Path(path).name: digest for path, digest in task.files.items()} or dict(selection.files),
        known=selection.known,
        instead_of=selection.instead_of,
        prompts=(selection.prompt,) if selection.prompt else (),
        examples=selection.examples,
        repeats=selection.repeats,
        rounds=tuple(rounds) if len(rounds) > 1 else (),
    )


def joined(results: Sequence[TaskResult]) -> TaskResult:
    """Put the results of one task with several prompts together; of one, it is that.

    Raises:
        InputError: they have not asked the same items.
    """
    first, *others = results
    if not others:
        return first
    if any([item.id for item in other.items] != [item.id for item in first.items] for other in others):
        raise InputError(f"The prompts of task {first.name} do not ask the same items.", next="Give every item an id.")
    rounds = tuple(part for result in results for part in result.all_rounds)
    return replace(
        first,
        items=averaged(rounds),
        hashes=tuple(map(joined_sha256, zip(*(result.hashes for result in results), strict=True))),
        chance=sum(result.chance for result in results) / len(results),
        seconds=sum(result.seconds for result in results),
        cached=sum(result.cached for result in results),
        prompts=tuple(name for result in results for name in result.prompts),
        rounds=rounds,
    )
