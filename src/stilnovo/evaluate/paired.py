"""Two evaluations of the same items, before and after: one verdict a task, or a refusal that says what differs."""

from __future__ import annotations

from stilnovo.errors import InputError
from stilnovo.evaluate.perplexity import HeldOutScore
from stilnovo.evaluate.result import EvaluationResult, TaskResult
from stilnovo.evaluate.task import METRIC_NAMES
from stilnovo.evaluate.verdict import Verdict, bits_per_byte_verdict, score_verdict

TEXT = "bits_per_byte"


def verdicts(before: EvaluationResult, after: EvaluationResult) -> dict[str, Verdict]:
    """A verdict for every task both have, and for the held-out text under the name `bits_per_byte`.

    Raises:
        InputError: they have no task in common, or a common task was asked with other items or another version.
    """
    found: dict[str, Verdict] = {}
    for name, first in before.tasks.items():
        second = after.tasks.get(name)
        if second is not None:
            _same_items(first, second)
            found[name] = score_verdict(
                first.right(first.metric),
                second.right(first.metric),
                metric=METRIC_NAMES[first.metric],
                clusters=first.clusters,
            )
    if before.text is not None and after.text is not None:
        _same_texts(before.text, after.text)
        found[TEXT] = bits_per_byte_verdict(before.text.nats, after.text.nats, before.text.sizes)
    if not found:
        raise InputError(
            "The two evaluations have nothing in common.",
            f"Before: {_contents(before)}; after: {_contents(after)}.",
            "Evaluate both with the same --tasks and --text.",
        )
    return found


def _same_items(before: TaskResult, after: TaskResult) -> None:
    if before.version != after.version or before.items_sha256 != after.items_sha256:
        raise InputError(
            f"The two evaluations asked different questions of {before.name}; they cannot be compared item by item.",
            f"Before: {_describe(before)}; after: {_describe(after)}.",
            "Evaluate both with the same --data-dir, --split and --limit.",
        )


def _same_texts(before: HeldOutScore, after: HeldOutScore) -> None:
    if before.texts_sha256 != after.texts_sha256:
        raise InputError(
            "The two evaluations read different held-out texts; their bits per byte cannot be compared.",
            f"Before: {len(before.sizes)} documents, sha256 {before.texts_sha256[:12]}; "
            f"after: {len(after.sizes)}, {after.texts_sha256[:12]}.",
            "Evaluate both with the same --text.",
        )
    if (before.window, before.stride) != (after.window, after.stride):
        raise InputError(
            "The two evaluations read the held-out text in different windows.",
            f"Before: {before.window} tokens, stride {before.stride}; after: {after.window}, {after.stride}.",
            "Evaluate both with the same version.",
        )


def _describe(task: TaskResult) -> str:
    return f"version {task.version}, {task.split}, {task.n} items, sha256 {task.items_sha256[:12]}"


def _contents(result: EvaluationResult) -> str:
    names = [*result.tasks, *([TEXT] if result.text is not None else [])]
    return ", ".join(names) or "nothing"
