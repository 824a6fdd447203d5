"""Rounds of a task: all its items asked once, with one prompt. Several prompts and repeats are several rounds of the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stilnovo.scoring.packed import ItemScore


@dataclass(frozen=True)
class Round:
    """A task's items asked once, with one prompt: `repeat` counts from 0, and from 1 on holds only what was asked again."""

    prompt: str
    repeat: int
    items: tuple[ItemScore, ...]
    hashes: tuple[str, ...]


def one_repeat(rounds: Sequence[Round], repeat: int) -> tuple[Round, ...]:
    """One repeat of every prompt, with the first answer of what was not asked again."""
    firsts = [part for part in rounds if part.repeat == 0]
    again = {part.prompt: {score.id: score for score in part.items} for part in rounds if part.repeat == repeat}
    return tuple(
        replace(part, items=tuple(again[part.prompt].get(score.id, score) for score in part.items)) for part in firsts
    )


def averaged(rounds: Sequence[Round]) -> tuple[ItemScore, ...]:
    """The items of the first round, each with its values' means: over the repeats of every prompt, then over the prompts."""
    by_prompt: dict[str, dict[str, list[ItemScore]]] = {}
    for part in rounds:
        for score in part.items:
            by_prompt.setdefault(part.prompt, {}).setdefault(score.id, []).append(score)
    return tuple(_mean(score, [answers[score.id] for answers in by_prompt.values()]) for score in rounds[0].items)


def _mean(score: ItemScore, answers: Sequence[Sequence[ItemScore]]) -> ItemScore:
    """One item's score from its answers, one list a prompt."""
    if len(answers) == len(answers[0]) == 1:
        return score
    values = {
        metric: sum(sum(one.values[metric] for one in repeats) / len(repeats) for repeats in answers) / len(answers)
        for metric in score.values
    }
    every = [one for repeats in answers for one in repeats]
    counts = tuple(row for one in every for row in one.counts)
    remark = next((one.remark for one in every if one.remark), "")
    cut = any(one.truncated for one in every)
    return replace(score, values=values, truncated=cut, counts=counts, remark=remark)
