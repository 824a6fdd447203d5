"""Paired comparison of two evaluations, item by item: one verdict per task, or the reason why there is none.

Items are the same where id and content hash are. Two runs over different parts of a benchmark are compared on the items
that both asked, and it is said how many those are. The same id with another content means that the data or the prompt
changed between the runs: then nothing can be said about the task, and it is refused.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from stilnovo.benchmarks.corpus_metrics import is_corpus_metric, item_metric
from stilnovo.benchmarks.task import METRIC_NAMES, cluster_names
from stilnovo.compare.verdict import (
    Verdict,
    bits_per_byte_verdict,
    corpus_verdict,
    corrected,
    macro_verdict,
    score_verdict,
)
from stilnovo.errors import InputError
from stilnovo.progress import counted
from stilnovo.scoring.group_scores import extent
from stilnovo.scoring.packed import ItemScore
from stilnovo.scoring.perplexity import HeldOutScore, documents_text
from stilnovo.scoring.result import EvaluationResult, TaskResult, counted_by
from stilnovo.statistics.estimates import Estimate
from stilnovo.statistics.macro import macro_average

TEXT = "bits_per_byte"

_HASHES = {
    "weights_sha256": "weights, sha256",
    "adapter_sha256": "adapter, sha256",
    "code_sha256": "evaluating code, sha256",
}


@dataclass(frozen=True)
class Pairs:
    """The items of one task that both runs answered, with both answers, and how many only one run asked."""

    before: TaskResult
    after: TaskResult
    items: tuple[tuple[ItemScore, ItemScore], ...]
    only_before: int
    only_after: int

    def scores(self) -> tuple[list[float], list[float], list[str] | None]:
        """Scores of the items before and after by the first metric that single items have, and their clusters.

        These are those of the run that has them; of two different groupings the one with fewer clusters, in either order.
        """
        metric = item_metric(self.before.metrics)
        first, second = ([answers[side].values[metric] for answers in self.items] for side in (0, 1))
        clusters = [
            cluster_names((answers[side].id, answers[side].cluster) for answers in self.items) for side in (0, 1)
        ]
        return first, second, min(filter(None, clusters), key=lambda names: (len(set(names)), names), default=None)

    def verdict(self) -> Verdict:
        """The paired verdict on the task."""
        first, second, clusters = self.scores()
        metric, name = self.before.metric, METRIC_NAMES[self.before.metric]
        if not is_corpus_metric(metric):
            return score_verdict(first, second, metric=name, clusters=clusters)
        rounds = math.lcm(
            *(len(answer.counts) for answer in self.items[0])
        )  # an average is the same of rounds told twice
        sides = [
            [replace(pair[side], counts=pair[side].counts * (rounds // len(pair[side].counts))) for pair in self.items]
            for side in (0, 1)
        ]
        (measure, before), (_, after) = (counted_by(metric, side) for side in sides)
        gained, lost = (sum(map(operator.lt, *scores)) for scores in ((first, second), (second, first)))
        return corpus_verdict(measure, before, after, metric=name, clusters=clusters, changed=(gained, lost))

    @property
    def note(self) -> str:
        """Describe the items left out of the comparison; empty where both runs asked the same."""
        sides = ((self.only_before, "before"), (self.only_after, "after"))
        left = " and ".join(f"{count:,} asked only {when}" for count, when in sides if count)
        note = f"{self.before.name}: compared on the {counted(len(self.items), 'item')} that both runs asked; {left} left out."
        return note if left else ""


@dataclass(frozen=True)
class Comparison:
    """Verdicts by task (and `bits_per_byte`), the pairs they rest on, and why a task was refused.

    `differences` are what else differs between the runs: (what, before, after). `groups` are the verdicts on macro averages
    of groups of tasks, `above_chance` the differences of the same averages counted from guessing. All verdicts, groups'
    included, are corrected together.
    """

    verdicts: dict[str, Verdict]
    pairs: dict[str, Pairs] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    differences: tuple[tuple[str, str, str], ...] = ()
    groups: dict[str, Verdict] = field(default_factory=dict)
    above_chance: dict[str, Estimate] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, Verdict]:
        """The verdicts on tasks and on groups, as they are shown."""
        return self.verdicts | self.groups


def compare(before: EvaluationResult, after: EvaluationResult) -> Comparison:
    """A verdict for every task both have, and for the held-out text, corrected for their number.

    Raises:
        InputError: nothing can be compared; says why.
    """
    verdicts: dict[str, Verdict] = {}
    pairs: dict[str, Pairs] = {}
    refused: dict[str, InputError] = {}
    for name in [*(name for name in before.tasks if name in after.tasks), TEXT]:
        try:
            if name != TEXT:
                pairs[name] = pair(before.tasks[name], after.tasks[name])
                verdicts[name] = pairs[name].verdict()
            elif before.text is not None and after.text is not None:
                _check_same_texts(before.text, after.text)
                verdicts[name] = text_verdict(before.text, after.text)
        except InputError as error:
            refused[name] = error
    if refused and not verdicts:
        raise next(iter(refused.values()))
    if not verdicts:
        names = [
            ", ".join([*evaluation.tasks, *([TEXT] if evaluation.text else [])]) or "nothing"
            for evaluation in (before, after)
        ]
        raise InputError(
            "The two evaluations have nothing in common.",
            f"Before: {names[0]}; after: {names[1]}.",
            "Evaluate both with the same --tasks and --text.",
        )
    reasons = {name: f"{error.what} {error.found}" for name, error in refused.items()}
    groups, above = _groups(before, after, verdicts, reasons)
    both = corrected(verdicts | groups)
    return Comparison(
        {name: both[name] for name in verdicts}, pairs, reasons, differences(before, after),
        {name: both[name] for name in groups}, above,
    )  # fmt: skip


def _groups(
    before: EvaluationResult, after: EvaluationResult, verdicts: Mapping[str, Verdict], refused: dict[str, str]
) -> tuple[dict[str, Verdict], dict[str, Estimate]]:
    """Verdicts on the groups that either run was asked for, over those of their tasks that were compared, if two or more.

    Also the differences of the averages counted from guessing; a name that means two groups is added to `refused`.
    """
    groups: dict[str, Verdict] = {}
    above: dict[str, Estimate] = {}
    for name, members in (dict(after.groups) | dict(before.groups)).items():
        if set(members) != set(after.groups.get(name, members)):
            refused[name] = "The two evaluations mean different groups by this name."
        elif len(asked := [member for member in members if member in verdicts]) > 1:
            groups[name] = macro_verdict([verdicts[member] for member in asked], extent(len(asked), len(members)))
            parts = [verdicts[member].difference.times(1 / (1 - before.tasks[member].chance)) for member in asked]
            above[name] = macro_average(parts).estimate
    return groups, above


def text_verdict(before: HeldOutScore, after: HeldOutScore) -> Verdict:
    """The paired verdict on one text that both runs have read."""
    return bits_per_byte_verdict(before.nats, after.nats, before.sizes, before.clusters or after.clusters)


def pair(before: TaskResult, after: TaskResult) -> Pairs:
    """Match the items that both runs asked, in the order of the first.

    Raises:
        InputError: another version or number of examples, the same id with another content, or no common item.
    """
    prompts = before.prompts != after.prompts and bool(before.prompts and after.prompts)
    ways = [(task.version, task.shots, task.examples, task.metrics) for task in (before, after)]
    if prompts or ways[0] != ways[1]:
        raise InputError(
            f"The two evaluations asked {before.name} in different ways; they cannot be compared item by item.",
            f"Before: {_describe(before)}; after: {_describe(after)}.",
            "Evaluate both with the same version, --protocol, --shots, --seed and --prompts.",
        )
    first, second = (
        {item.id: (item, digest) for item, digest in zip(r.items, r.hashes, strict=True)} for r in (before, after)
    )
    common = [name for name in first if name in second]
    if changed := [name for name in common if first[name][1] != second[name][1]]:
        files = [file for file, digest in before.files.items() if after.files.get(file) != digest]
        raise InputError(
            f"The two evaluations asked different questions of {before.name} under the same names.",
            f"{len(changed):,} of {len(common):,} common items have another content, {changed[0]!r} for one.",
            f"Between the runs {' and '.join(files)} changed; evaluate both with the same data."
            if files
            else "Evaluate both with the same --data-dir and --temperature.",
        )
    if not common:
        raise InputError(
            f"The two evaluations have no item of {before.name} in common.",
            f"Before: {_describe(before)}; after: {_describe(after)}.",
            "Evaluate both with the same --split, --limit and --seed.",
        )
    items = tuple((first[name][0], second[name][0]) for name in common)
    return Pairs(before, after, items, before.n - len(common), after.n - len(common))


def differences(before: EvaluationResult, after: EvaluationResult) -> tuple[tuple[str, str, str], ...]:
    """List the settings in which the two runs differ: (what, before, after)."""
    inputs = [(result.model, result.quantization, result.adapter or "none") for result in (before, after)]
    rows = list(zip(("model", "quantization", "adapter"), *inputs, strict=True))
    templates = [json.dumps(result.settings.get("chat_template"), ensure_ascii=False) for result in (before, after)]
    rows.append(("chat template", *(text if text != "null" else "none" for text in templates)))
    rows += [
        (f"repeats of {name}", str(task.repeats), str(after.tasks[name].repeats))
        for name, task in before.tasks.items()
        if name in after.tasks
    ]
    rows += [
        (f"{name}: {file}, sha256", task.files.get(file, "none")[:12], after.tasks[name].files.get(file, "none")[:12])
        for name, task in before.tasks.items()
        if name in after.tasks
        for file in dict.fromkeys([*task.files, *after.tasks[name].files])
    ]
    identities = [result.identity or {} for result in (before, after)]
    first, second = ({**identity, **identity.get("protocol", {})} for identity in identities)
    for key, what in _HASHES.items():
        hashes = [str(identity.pop(key, None) or "none")[:12] for identity in (first, second)]
        rows += [(what, *hashes)] if before.identity and after.identity else []
    rows += [
        (key, str(first.get(key, "unknown")), str(second.get(key, "unknown")))
        for key in dict.fromkeys([*first, *second])
        if key not in ("quantization", "protocol", "chat_template")
    ]
    return tuple(row for row in rows if row[1] != row[2])


def _check_same_texts(before: HeldOutScore, after: HeldOutScore) -> None:
    if before.texts_sha256 != after.texts_sha256:
        raise InputError(
            "The two evaluations read different held-out texts; their bits per byte cannot be compared.",
            f"Before: {_documents(before)}; after: {_documents(after)}.",
            "Evaluate both with the same --text.",
        )
    if (before.window, before.stride) != (after.window, after.stride):
        raise InputError(
            "The two evaluations read the held-out text in different windows.",
            f"Before: {before.window} tokens, stride {before.stride}; after: {after.window}, {after.stride}.",
            "Evaluate both with the same version.",
        )


def _documents(text: HeldOutScore) -> str:
    units = len(set(text.clusters)) if text.clusters else len(text.sizes)
    return f"{documents_text(len(text.sizes), units)}, sha256 {text.texts_sha256[:12]}"


def _describe(task: TaskResult) -> str:
    shots = f", {task.shots} examples" if task.shots else ""
    examples = f" ({', '.join(task.examples)})" if task.examples else ""
    prompts = f", prompt{'s' * (len(task.prompts) > 1)} {', '.join(task.prompts)}" if task.prompts else ""
    return f"version {task.version}{shots}{examples}{prompts}, {task.split}, {counted(task.n, 'item')}, sha256 {task.items_sha256[:12]}"
