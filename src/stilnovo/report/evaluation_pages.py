"""Evaluations as the report's plain data: one run's scores, and the items on which two runs differ.

A result holds no question's text. The page of a comparison is made where the data lie: the task reads them again, and
a question is shown only if its content hash is the one that was asked.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stilnovo import report
from stilnovo.benchmarks.task import METRIC_NAMES, Item, Metric, MultipleChoice, cluster_names, item_sha256
from stilnovo.compare.paired import TEXT, Comparison, Pairs
from stilnovo.compare.verdict import Verdict
from stilnovo.report.differences import Change, ComparisonData, DifferingItem, DifferingTask, Ending
from stilnovo.report.scores import Categories, HeldOut, Score, ScoreData, ScoreRow
from stilnovo.runlog import environment
from stilnovo.scoring.multiple_choice import ItemScore
from stilnovo.scoring.perplexity import SHORT_WINDOW
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.statistics.estimates import ASSUMED_DISCORDANCE, Estimate, mean, smallest_visible_difference

MOST_ITEMS = 1000  # of one task on the page; a browser scrolls through them without effort
RIGHT = 0.5  # from which score on an item counts as right, where scores lie between 0 and 1

Find = Callable[[TaskResult], Mapping[str, Item]]

_METHOD = (
    "Every question is scored by the log-likelihood of its answers, sums in fp64 over a log-softmax in fp32; normalised "
    "accuracy divides by the answer's length in characters. Written answers are graded as their task says.",
    "Intervals are at 95 %: Wilson's for rights and wrongs, Student's t for other scores, over whole groups where items "
    "share a passage or a subject (effective sample size, clustered standard error).",
)
_PAIRED_METHOD = (
    "Both models answered the same items, so the verdicts are paired: McNemar's exact test and Tango's interval for "
    "rights and wrongs; where items share a passage or a subject, or scores lie between 0 and 1, a sign-flip test and a "
    "bootstrap that draw whole groups. p-values are corrected for the number of comparisons by Holm's method, and a "
    "verdict needs both test and interval.",
)


def score_page(result: EvaluationResult) -> ScoreData:
    """What the page of one evaluation shows."""
    return ScoreData(
        title=f"{result.model}, evaluated",
        headline=_headline(result),
        scores=tuple(_score(task) for task in result.tasks.values()),
        categories=tuple(
            Categories(
                name,
                METRIC_NAMES[task.metric],
                tuple((category, found.n, _percent(found)) for category, found in categories.items()),
            )
            for name, task in result.tasks.items()
            if (categories := task.by_category())
        ),
        held_out=_held_out(result),
        facts=tuple(_facts(result)),
        limits=tuple(line for task in result.tasks.values() for line in _limits(task)),
        method=_METHOD if result.tasks else (),
        **_imprint(result.environment, result.command),
    )


def comparison_page(
    before: EvaluationResult, after: EvaluationResult, comparison: Comparison, find: Find, command: Sequence[str] = ()
) -> ComparisonData:
    """What the page of two evaluations shows; `find` gives a task's items by id, none where its data are not at hand."""
    return ComparisonData(
        title=f"{_name(before)} → {_name(after)}",
        headline=_decided(comparison.verdicts),
        verdicts=tuple(
            _verdict(verdict, name, comparison.pairs[name]) if name != TEXT else _text_verdict(verdict, before, after)
            for name, verdict in comparison.verdicts.items()
        ),
        runs=comparison.differences,
        refused=tuple(comparison.refused.items()),
        tasks=tuple(_differing(pairs, find(pairs.before)) for pairs in comparison.pairs.values()),
        limits=tuple(pairs.note for pairs in comparison.pairs.values() if pairs.note),
        method=_PAIRED_METHOD,
        **_imprint(environment(), command),
    )


def _imprint(made: Mapping[str, Any], command: Sequence[str]) -> dict[str, Any]:
    return {
        "created": made.get("date", ""),
        "command": _typed(command),
        "commit": made.get("commit", ""),
        "hardware": ", ".join(f"{key}: {value}" for key, value in made.get("hardware", {}).items()),
        "versions": made.get("versions", {}),
    }


def _decided(verdicts: Mapping[str, Verdict]) -> str:
    words = (("better", "Better"), ("worse", "Worse"), ("undecided", "No difference seen"))
    by_word = [(label, [n for n, verdict in verdicts.items() if verdict.outcome == word]) for word, label in words]
    return " ".join(f"{label}: {', '.join(names)}." for label, names in by_word if names)


def _typed(command: Sequence[str]) -> str:
    return shlex.join(["stilnovo", *command[1:]])


def _name(result: EvaluationResult) -> str:
    adapter = f" with {result.adapter}" if result.adapter else ""
    return f"{result.model}{'' if result.quantization == 'none' else ' in ' + result.quantization}{adapter}"


def _percent(estimate: Estimate) -> report.Interval:
    return report.Interval(100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def _headline(result: EvaluationResult) -> str:
    parts = []
    for name, task in result.tasks.items():
        found = task.score()
        guess = f", guessing {100 * task.chance:.0f} %" if task.chance else ""
        parts.append(f"{name} {100 * found.value:.1f} % ({100 * found.low:.1f}–{100 * found.high:.1f}{guess})")
    if result.text is not None:
        bits = result.text.bits_per_byte()
        parts.append(f"{bits.value:.3f} bits per byte ({bits.low:.3f}–{bits.high:.3f})")
    if len(parts) > 4:
        return f"{len(result.tasks)} tasks, {sum(task.n for task in result.tasks.values()):,} items."
    return "; ".join(parts) + "."


def _score(task: TaskResult) -> Score:
    how = "the first ones" if task.first else f"drawn with seed {task.seed}"
    part = f"all, {task.split}" if task.n == task.available else f"of {task.available:,}, {task.split}, {how}"
    if task.shots:
        part += f", {task.shots} examples"
    notes = []
    if task.cached:
        notes.append(f"{task.cached:,} answers were kept from an earlier run of the same model.")
    if task.truncated:
        notes.append(f"{task.truncated:,} items were longer than the model can read and were cut on the left.")
    return Score(
        task=task.name,
        version=task.version,
        part=part,
        n=task.n,
        measures=tuple(
            ScoreRow(METRIC_NAMES[metric], _percent(task.score(metric)), metric == task.metric)
            for metric in task.metrics
        ),
        chance=100 * task.chance,
        visible=100 * smallest_visible_difference(task.n),
        speed=f"{task.items_per_second:.2f}" if task.items_per_second else "kept",
        licence=task.licence,
        items_sha256=task.items_sha256,
        note=" ".join(notes),
    )


def _limits(task: TaskResult) -> list[str]:
    visible = 100 * smallest_visible_difference(task.n)
    lines = [
        f"{task.name}: against another run on the same {task.n:,} items, nothing under {visible:.0f} points can be seen "
        f"(80 % power, {100 * ASSUMED_DISCORDANCE:.0f} % of answers changing)."
    ]
    if task.clusters is not None:
        lines[0] += f" Its items lie in {len(set(task.clusters)):,} groups; where these change together, less is seen."
    if task.first:
        lines.append(f"{task.name}: the first items of a benchmark are no sample of it; no interval covers that.")
    low = task.score().low
    if task.chance and low <= task.chance:
        lines.append(f"{task.name}: nothing shows that it is better than guessing.")
    return lines


def _held_out(result: EvaluationResult) -> HeldOut | None:
    if result.text is None:
        return None
    text, bits = result.text, result.text.bits_per_byte()
    interval = report.Interval(bits.value, bits.low, bits.high)
    note = ""
    if (short := text.perplexity_of_short_windows()) is not None:
        note = (
            f"In windows of {SHORT_WINDOW} tokens, as the report of 2024 read it: perplexity {short.value:.2f} "
            f"{short.between(2)}. It cannot be compared between tokenisers."
        )
    return HeldOut(result.text_name or "", len(text.sizes), sum(text.sizes), sum(text.tokens), interval, note)


def _facts(result: EvaluationResult) -> list[tuple[str, str]]:
    facts = [("command", _typed(result.command))] if result.command else []
    facts += [("model", result.model), ("adapter", result.adapter or "none"), ("quantisation", result.quantization)]
    for key, value in (result.identity or {}).items():
        if value and key != "quantization":
            facts.append((key.replace("_", " "), json.dumps(value) if isinstance(value, dict) else str(value)))
    facts += [
        (key.replace("_", " "), json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value))
        for key, value in result.settings.items()
        if value not in (None, [], "") and key not in (result.identity or {})
    ]
    for name, task in result.tasks.items():
        facts.append((f"{name} items sha256", task.items_sha256))
        facts += [(f"{name}: the user's own file {file}, sha256", digest) for file, digest in task.files.items()]
    if result.text is not None:
        facts.append(("held-out text sha256", result.text.texts_sha256))
    return facts


def _verdict(verdict: Verdict, name: str, pairs: Pairs) -> report.VerdictRow:
    metric, clusters = pairs.before.metric, cluster_names([first for first, _ in pairs.items])
    before = mean([first.values[metric] for first, _ in pairs.items], clusters, shares=True)
    after = mean([second.values[metric] for _, second in pairs.items], clusters, shares=True)
    return _reported(
        verdict, name, _percent(before), _percent(after), scale=100.0, unit="%", digits=1,
        chance=100 * pairs.before.chance or None, note=f"{verdict.gained:,} items gained, {verdict.lost:,} lost.",
    )  # fmt: skip


def _text_verdict(verdict: Verdict, before: EvaluationResult, after: EvaluationResult) -> report.VerdictRow:
    assert before.text is not None and after.text is not None
    first, second = (
        report.Interval(bits.value, bits.low, bits.high)
        for bits in (before.text.bits_per_byte(), after.text.bits_per_byte())
    )
    return _reported(verdict, "Held-out text", first, second, scale=1.0, unit="bits per byte", digits=3)


def _reported(
    verdict: Verdict,
    name: str,
    before: report.Interval,
    after: report.Interval,
    *,
    scale: float,
    unit: str,
    digits: int,
    chance: float | None = None,
    note: str = "",
) -> report.VerdictRow:
    low, high = verdict.interval
    return report.VerdictRow(
        name=name, sentence=verdict.sentence, before=before, after=after, unit=unit, n=verdict.n,
        p=verdict.p if verdict.p_corrected is None else verdict.p_corrected,
        direction=verdict.outcome, digits=digits, chance=chance, note=note, lower_is_better=verdict.lower_is_better,
        difference=report.Interval(scale * verdict.difference, scale * low, scale * high),
    )  # fmt: skip


def _differing(pairs: Pairs, texts: Mapping[str, Item]) -> DifferingTask:
    metric = pairs.before.metric
    changed = [
        (first, second, change)
        for first, second in pairs.items
        if (change := _change(first, second, metric)) is not None
    ]
    kinds = [change for _, _, change in changed]
    step = max(1.0, len(changed) / MOST_ITEMS)
    shown = [changed[int(index * step)] for index in range(min(len(changed), MOST_ITEMS))]
    hashes = dict(zip((item.id for item in pairs.before.items), pairs.before.hashes, strict=True))
    found = {
        first.id: texts[first.id]
        for first, _, _ in shown
        if first.id in texts and item_sha256(texts[first.id]) == hashes[first.id]
    }
    notes = [f"Licence of the questions: {pairs.before.licence}. Source: {pairs.before.source}."]
    if len(found) < len(shown):
        notes.append(
            f"The text of {len(shown) - len(found):,} questions is not shown: their data are not here, or are not those "
            "that were asked (--data-dir says where they lie)."
        )
    return DifferingTask(
        name=pairs.before.name,
        n=len(pairs.items),
        items=tuple(_item(first, second, change, metric, found.get(first.id)) for first, second, change in shown),
        licence=pairs.before.licence,
        notes=tuple(notes),
        gained=kinds.count("gained"),
        lost=kinds.count("lost"),
        other=kinds.count("other"),
    )


def _change(before: ItemScore, after: ItemScore, metric: Metric) -> Change | None:
    was, became = before.values[metric] >= RIGHT, after.values[metric] >= RIGHT
    if was != became:
        return "gained" if became else "lost"
    same = (_pick(before, metric), before.text) == (_pick(after, metric), after.text)
    return None if same else "other"


def _pick(answer: ItemScore, metric: Metric) -> int:
    return answer.choice_norm if metric == "acc_norm" else answer.choice


def _item(before: ItemScore, after: ItemScore, change: Change, metric: Metric, item: Item | None) -> DifferingItem:
    question = item.context.removeprefix(item.header).strip() if item is not None else ""
    endings: tuple[Ending, ...] = ()
    if before.loglikelihoods:
        texts = _ending_texts(item) if isinstance(item, MultipleChoice) else [""] * len(before.loglikelihoods)
        labels = item.labels if isinstance(item, MultipleChoice) else ()
        endings = tuple(
            Ending(
                text or f"answer {index + 1}",
                labels[index] == 1 if labels and metric == "mc2" else index == before.answer,
                before.loglikelihoods[index],
                after.loglikelihoods[index],
                index == _pick(before, metric),
                index == _pick(after, metric),
                *(_per_character(item, index, before, after) if metric == "acc_norm" else ()),
            )
            for index, text in enumerate(texts)
        )
    return DifferingItem(
        id=before.id,
        change=change,
        question=question,
        category=before.category,
        endings=endings,
        references=item.references if item is not None and not isinstance(item, MultipleChoice) else (),
        before=before.text,
        after=after.text,
    )


def _per_character(
    item: Item | None, index: int, before: ItemScore, after: ItemScore
) -> tuple[float | None, float | None]:
    if not isinstance(item, MultipleChoice):
        return None, None
    length = len(item.endings[index].removeprefix(" "))
    return before.loglikelihoods[index] / length, after.loglikelihoods[index] / length


def _ending_texts(item: MultipleChoice) -> list[str]:
    """What tells the choices apart: the ending, after what its own context adds to the shared one."""
    return [(context.removeprefix(item.context) + ending).strip() for context, ending in item.pairs]
