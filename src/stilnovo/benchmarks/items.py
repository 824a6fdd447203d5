"""Items of a benchmark: multiple-choice questions and questions answered in writing, and what stands before them.

An item is what a model is asked, whatever form the prompt takes: plain text (`context`), or the turns of a chat template, for
which `FewShot` says what of the context is description, example or question. What makes results comparable are the items' hashes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Metric = Literal[
    "acc", "acc_norm", "mc1", "mc2", "exact_match", "exact_match_flexible", "number_match", "f1", "rouge1_precision",
    "first_capital", "mcc", "macro_f1", "f1_positive", "polarity_f1", "entity_f1", "substitution_f1", "found", "rouge1",
    "prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc",
]  # fmt: skip
METRIC_NAMES: dict[Metric, str] = {
    "acc": "accuracy",
    "acc_norm": "normalised accuracy",
    "mc1": "accuracy with one true answer (mc1)",
    "mc2": "probability of the true answers (mc2)",
    "exact_match": "exact match",
    "exact_match_flexible": "exact match, last number",
    "number_match": "the number given, by value",
    "f1": "F1 over words",
    "rouge1_precision": "ROUGE-1 precision",
    "first_capital": "first capital of the answer",
    "mcc": "Matthews correlation (MCC)",
    "macro_f1": "F1, mean over the classes",
    "f1_positive": "F1 of the positive class",
    "polarity_f1": "F1, mean over both polarities",
    "entity_f1": "F1, mean over the kinds of entity",
    "substitution_f1": "F1 over the annotators' votes",
    "found": "share of what was to be found",
    "rouge1": "ROUGE-1, F1",
    "prompt_level_strict_acc": "requests followed in all",
    "inst_level_strict_acc": "instructions followed",
    "prompt_level_loose_acc": "requests followed in all, loosely",
    "inst_level_loose_acc": "instructions followed, loosely",
}


def _check(rules: Mapping[str, bool]) -> None:
    """Refuse a question by the first broken rule; each rule is a condition with the error to show where it fails."""
    if broken := [fault for fault, holds in rules.items() if not holds]:
        raise ValueError(broken[0])


@dataclass(frozen=True)
class FewShot:
    """What stands before a question, as lm-evaluation-harness divides it: a description, then examples with their answers.

    Attributes:
        description: Of the task; under a chat template it is the system's turn.
        examples: (question, right answer) of each.
        delimiter: Between a question and its answer, also the item's own; a chat template takes its place.
        between: After each example.
    """

    description: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    delimiter: str = " "
    between: str = "\n\n"

    @property
    def text(self) -> str:
        """All of it as plain text, with which a context begins."""
        shown = (f"{question}{self.delimiter}{answer}{self.between}" for question, answer in self.examples)
        return self.description + "".join(shown)


NO_EXAMPLES = FewShot()


@dataclass(frozen=True)
class MultipleChoice:
    """A multiple-choice question.

    Attributes:
        id: Unique in its task.
        context: What every ending follows; of `contexts`, the beginning that they share.
        endings: Appended as they are, a leading space included.
        answer: Index of the right one.
        cluster: What the item shares with others (a passage, a subject); empty for an item on its own.
        category: The group that a breakdown of the score puts it in; empty for none.
        header: The beginning of `context` that many items share, a few-shot header; empty for none.
        contexts: One a choice, where the choices differ before the ending (Winogrande); empty otherwise.
        rivals: Indices that compete for `choice`; empty when all do.
        labels: For several true answers, one an ending: 1 true, 0 false, -1 not asked; empty otherwise.
        lengths: Characters of each ending for `acc_norm`; by default all but one leading space.
        few_shot: What the context begins with, by its parts.
    """

    id: str
    context: str
    endings: tuple[str, ...]
    answer: int
    cluster: str = ""
    category: str = ""
    header: str = ""
    contexts: tuple[str, ...] = ()
    rivals: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    few_shot: FewShot = NO_EXAMPLES

    def __post_init__(self) -> None:
        count = len(self.endings)
        choices_follow = all(context.startswith(self.context) for context in self.contexts)
        _check({
            f"answer {self.answer} of {count} endings": count >= 2 and 0 <= self.answer < count,
            "an ending is empty": all(ending.removeprefix(" ") for ending in self.endings),
            "the context does not begin with its header": self.context.startswith(self.header),
            "the context does not begin with its examples": self.context.startswith(self.few_shot.text),
            "a choice's context does not begin with the context": choices_follow,
            "contexts and labels need one entry an ending": {len(self.contexts), len(self.labels)} <= {0, count},
            "the answer is not among the endings that compete": not self.rivals or self.answer in self.rivals,
        })  # fmt: skip

    @property
    def question(self) -> str:
        """The context without examples and description."""
        return self.context.removeprefix(self.few_shot.text)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(context, ending) of every choice, as they are scored."""
        return list(zip(self.contexts or (self.context,) * len(self.endings), self.endings, strict=True))

    @property
    def competing(self) -> Sequence[int]:
        """Indices of the endings among which the answer is chosen."""
        return self.rivals or range(len(self.endings))

    @property
    def repeats_an_option(self) -> bool:
        """Whether the answer repeats an option before it: of equals the first is chosen, as in the reference, so it is never right."""
        pairs = self.pairs
        return not self.labels and pairs[self.answer] in [
            pairs[index] for index in self.competing if index < self.answer
        ]

    @property
    def chance(self) -> float:
        """Score of random guessing; with several true answers that of mc2, their share."""
        asked = [label for label in self.labels if label >= 0]
        return sum(asked) / len(asked) if asked else 1 / len(self.competing)

    def values(self, loglikelihoods: Sequence[float]) -> dict[Metric, float]:
        """Compute the item's metrics from its endings' log-likelihoods in nats.

        acc: the most probable ending is right; acc_norm: the most probable per character, without the leading space;
        the first of equals in both. mc1 is acc where there are labels too; mc2 is the share of the probability of all
        labelled endings that the true ones have (TruthfulQA, Lin et al. 2022).
        """
        right = float(self.choice(loglikelihoods) == self.answer)
        if not self.labels:
            return {"acc": right, "acc_norm": float(self.choice_norm(loglikelihoods) == self.answer)}
        asked = [(value, label) for value, label in zip(loglikelihoods, self.labels, strict=True) if label >= 0]
        peak = max(value for value, _ in asked)
        masses = [(math.exp(value - peak), label) for value, label in asked]
        true = sum(mass for mass, label in masses if label)
        return {"mc1": right, "mc2": true / sum(mass for mass, _ in masses)}

    def choice(self, loglikelihoods: Sequence[float]) -> int:
        """Index of the most probable ending among those that compete."""
        return max(self.competing, key=lambda index: loglikelihoods[index])

    def choice_norm(self, loglikelihoods: Sequence[float]) -> int:
        """Index of the ending most probable per character."""
        lengths = self.lengths or [len(ending.removeprefix(" ")) for ending in self.endings]
        return max(self.competing, key=lambda index: loglikelihoods[index] / lengths[index])

    def identity(self) -> list[Any]:
        """The values that identify this question, for the hash."""
        extras = (self.contexts, self.rivals, self.labels)
        own = [self.id, self.context, list(self.endings), self.answer]
        return [*own, *map(list, extras)] if any(extras) else own


@dataclass(frozen=True)
class Decoding:
    """Generation settings: at most `max_tokens`, cut before any of `stop`; temperature 0 is greedy."""

    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Generation:
    """A question answered by generated text.

    `references` are right answers; `context` is the prompt, `header` its beginning that many items share; `cluster`,
    `category` and `few_shot` as in `MultipleChoice`.
    """

    chance = 0.0  # the score of random guessing

    id: str
    context: str
    references: tuple[str, ...]
    decoding: Decoding
    cluster: str = ""
    category: str = ""
    header: str = ""
    few_shot: FewShot = NO_EXAMPLES

    def __post_init__(self) -> None:
        _check({
            "a question needs a prompt and an answer": bool(self.context and self.references),
            "the context does not begin with its header": self.context.startswith(self.header),
            "the context does not begin with its examples": self.context.startswith(self.few_shot.text),
        })  # fmt: skip

    @property
    def question(self) -> str:
        """The context without examples and description."""
        return self.context.removeprefix(self.few_shot.text)

    def identity(self) -> list[Any]:
        """The values that identify this question, for the hash."""
        how = self.decoding
        return [
            self.id, self.context, list(self.references), how.max_tokens, list(how.stop), how.temperature, how.top_p,
        ]  # fmt: skip


Item = MultipleChoice | Generation


def cluster_names(members: Iterable[tuple[str, str]]) -> list[str] | None:
    """Cluster name of each (id, cluster), its own for one without; None if none has a cluster."""
    listed = list(members)
    return [cluster or f"\0{name}" for name, cluster in listed] if any(cluster for _, cluster in listed) else None


def item_sha256(item: Item) -> str:
    """Hash a question: all that its answer depends on, group names left out."""
    return hashlib.sha256(json.dumps(item.identity(), separators=(",", ":")).encode()).hexdigest()


def items_sha256(items: Iterable[Item]) -> str:
    """Hash several questions, in order."""
    return joined_sha256(map(item_sha256, items))


def joined_sha256(hashes: Iterable[str]) -> str:
    """Hash a sequence of hashes."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
