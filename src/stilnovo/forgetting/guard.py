"""The guard of a training: a callback that evaluates a protected slice every few steps, paired with the base.

Protected are the benchmarks, pooled, and each text by itself. The rule: a training has regressed when the paired
one-sided bound (`sequential.py`) of one of them lies beyond the recipe's tolerance. α is shared equally among them
(Bonferroni; they are different items) and, for each, among the planned evaluations. So of all trainings that lose nothing
beyond the tolerance, at most the share α is ended, however often they are evaluated.

Unusual: benchmarks are judged by the *soft score* (`soft_scores`), the probability of the right ending among its rivals
at a small temperature, and not by right and wrong. Only items that change sides say something in right and wrong; the
soft score hears the others too. It loses about nine points where accuracy loses ten, never more, with half the noise, so
that a quarter of the items does the same (`bench/guard.py`; at a larger temperature the noise shrinks further, but so
does the loss). Accuracy is written down beside it.

Shape letters: N items, U units (items, or groups of items that share a passage), D documents.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stilnovo.benchmarks.corpus_metrics import item_metric
from stilnovo.benchmarks.task import Draw, MultipleChoice, Selection
from stilnovo.data.conversations import Conversation
from stilnovo.errors import InputError, NonFiniteScore
from stilnovo.forgetting.slice import GAIN, Answers, Slice, SliceDocument, check_answers, measure, read_slice
from stilnovo.hub import find_model
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.plan.model_shape import config_of
from stilnovo.progress import counted, seconds_text
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import GuardSection
from stilnovo.runlog import json_text, sha256_file, write_atomic
from stilnovo.scoring.identity import FileHash, code_sha256, model_sha256
from stilnovo.scoring.packed import TOKEN_BUDGET
from stilnovo.scoring.perplexity import documents_text
from stilnovo.statistics.estimates import FEWEST_UNITS, Floats, cluster_sums
from stilnovo.statistics.sequential import bound, visible_loss
from stilnovo.text.tokenizer import Tokenizer, open_tokenizer
from stilnovo.train.callback import StepEvaluation, check_every, evaluation_steps
from stilnovo.train.corpus import Corpus
from stilnovo.train.steps import planned_steps

BENCHMARKS = "benchmarks"
# What a model that learns changes, item by item: standard deviations measured with SmolLM2 (bench/guard.py).
SCORE_DEVIATION = 20.0  # points of the soft score, between items
TEXT_DEVIATION = 2.0  # percent of bits per byte, between documents
SOFTNESS = 0.25  # temperature of the soft score, in the base's typical margin
FEWEST_SEEN = 30  # items or documents; with fewer the evaluation is allowed, and its weakness said
FEWEST_TOKENS = 256  # of a forward pass, however few the training step takes


@dataclass(frozen=True)
class Protected:
    """One protected benchmark or text, and its current regression from the base.

    Attributes:
        name: `benchmarks`, or a text's.
        unit: `points` or `percent`.
        change: Model minus base, positive being better, in `unit`.
        at_most: The true change is at most this, at all evaluations and of all that is protected, with probability 1 − α.
        allowed: How much may be lost.
        units: Independent units behind it.
        alpha: The α above.
    """

    name: str
    unit: str
    change: float
    at_most: float
    allowed: float
    units: int
    alpha: float

    @property
    def lost(self) -> bool:
        """Whether the regression is significantly larger than allowed."""
        return self.at_most < -self.allowed

    @property
    def text(self) -> str:
        """One line for the user."""
        sign = "%" if self.unit == "percent" else "points"
        change = f"{self.name} {self.change:+.2f} {sign}".replace("-", "−")
        if not self.lost:
            return change
        return (
            f"{change}, lower {100 * (1 - self.alpha):g} % bound of the regression: {-self.at_most:.2f} {sign} "
            f"(tolerance {self.allowed:g} {sign})"
        )


class Guard:
    """An `EvaluationCallback` (`stilnovo.train.callback`) with the rule above.

    Args:
        what: The slice.
        section: The recipe's `guard`; `every` is given.
        tokenizer: The model's.
        steps: Steps of the run, from which the number of evaluations follows.
        folder: Where the base's answers are stored.
        identity: Names the base: answers of another one are not taken.
        token_budget: Most tokens in one forward pass.
    """

    def __init__(
        self, what: Slice, section: GuardSection, tokenizer: Tokenizer, *, steps: int, folder: Path, identity: str = "",
        token_budget: int = 2048,
    ) -> None:  # fmt: skip
        assert section.every is not None
        self.what, self.section, self.tokenizer, self.folder = what, section, tokenizer, folder
        self.token_budget, self.identity, self.every = token_budget, identity, section.every
        self.on_loss, self.planned = section.on_loss, len(evaluation_steps(steps, self.every))
        self.base: Answers | None = None
        self._rooms: dict[str, list[Floats]] = {
            name: [] for name in [BENCHMARKS] * bool(what.selections) + [*what.texts]
        }

    def begin(self, model: Llama) -> None:
        """Load the base's answers from the run folder, or evaluate it with the adapter disabled."""
        key, path = f"answers by benchmark {self.what.sha256()} {self.identity}", self.folder / "base.json"
        with suppress(OSError, ValueError, KeyError, TypeError):  # an earlier session's, of this base and slice
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["key"] == key:
                self.base = Answers(**stored["answers"])
                return
        began = time.perf_counter()
        with lora.disabled(model):
            self.base = measure(model, self.tokenizer, self.what, token_budget=self.token_budget)
        write_atomic(path, json_text({"key": key, "answers": asdict(self.base)}))
        took = time.perf_counter() - began
        logging.getLogger(__name__).info(
            "Guard: the base was evaluated in %s; %d evaluations take about %s.",
            seconds_text(took), self.planned, seconds_text(self.planned * took),
        )  # fmt: skip

    def evaluate(self, step: int, model: Llama) -> StepEvaluation:
        """See `EvaluationCallback.evaluate`."""
        assert self.base is not None, "the base was asked first"
        began = time.perf_counter()
        try:
            now = measure(model, self.tokenizer, self.what, token_budget=self.token_budget)
        except NonFiniteScore as error:
            return StepEvaluation(step, True, False, None, f"regressed: {error.what}")
        protected = self.judge(now)
        gain = percent_gained(self.base, now, GAIN) if self.what.gain else None
        lost = [part.text for part in protected if part.lost]
        learnt = "" if gain is None else f"gain {gain:+.2f} %; ".replace("-", "−")
        text = f"regressed: {'; '.join(lost)}" if lost else learnt + ", ".join(part.text for part in protected)
        figures = {
            "protected": [asdict(part) | {"lost": part.lost} for part in protected], "gain_percent": gain,
            "accuracy": {
                selection.task.name: [_accuracy(selection, values) for values in both]
                for selection, *both in zip(self.what.selections, self.base.loglikelihoods, now.loglikelihoods, strict=True)
            },
            "bits_per_byte": {
                name: [math.fsum(answers.nats[name]) / (sum(sizes) * math.log(2)) for answers in (self.base, now)]
                for name, sizes in self.base.sizes.items()
            },
        }  # fmt: skip
        return StepEvaluation(
            step, bool(lost), all(part.change >= -part.allowed for part in protected), gain, text, figures,
            seconds=time.perf_counter() - began,
        )  # fmt: skip

    def judge(self, now: Answers) -> list[Protected]:
        """Apply the stopping rule to the answers of one more evaluation."""
        assert self.base is not None
        alpha, protected = self.section.alpha, []
        for name, rooms in self._rooms.items():
            if name == BENCHMARKS:
                allowed, unit = self.section.tolerance_points, "points"
                left, strata = score_rooms(self.what.selections, self.base, now, allowed)
            else:
                allowed, unit = self.section.tolerance_percent, "percent"
                left = cluster_sums(
                    text_rooms(self.base.nats[name], now.nats[name], allowed), self.what.groups.get(name)
                )
                left, strata = left * (len(left) / len(now.nats[name])), None
            rooms.append(left)
            result = bound(rooms, self.planned, alpha / len(self._rooms), strata)
            protected.append(
                Protected(name, unit, result.room - allowed, result.most - allowed, allowed, len(left), alpha)
            )
        return protected

    def state(self) -> dict[str, Any]:
        """See `EvaluationCallback.state`: the rooms of all evaluations, K tensors (U,) a name."""
        return {name: [torch.from_numpy(row) for row in rows] for name, rows in self._rooms.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `EvaluationCallback.restore`."""
        self._rooms = {name: [row.numpy() for row in state[name]] for name in self._rooms}

    def rule(self) -> list[str]:
        """Describe before the run what is evaluated, when, what stops the training, and the smallest visible loss."""
        section, what = self.section, self.what
        lines = [
            f"Guard: an evaluation every {self.every} steps and after the last, {self.planned} in all, of "
            f"{counted(len(what.items), 'item')} and {counted(sum(map(len, what.documents.values())), 'document')}, paired with the base "
            f"model. False alarms: at most {100 * section.alpha:g} % over all evaluations and {len(self._rooms)} protected. "
            f"On a regression: {'stop there' if section.on_loss == 'stop' else 'back to the best step'}."
        ]
        for name in self._rooms:
            if name == BENCHMARKS:
                allowed, unit, deviation = section.tolerance_points, "points of the soft score", SCORE_DEVIATION
                units = sum(
                    len(set(selection.clusters or range(len(selection.items)))) for selection in what.selections
                )
            else:
                allowed, unit, deviation = section.tolerance_percent, "% of bits per byte", TEXT_DEVIATION
                units = what.units(name)
            seen = visible_loss(deviation, units, self.planned, section.alpha / len(self._rooms), allowed)
            few = "" if units >= FEWEST_SEEN else f"; only {units} independent units"
            lines.append(
                f"  {name}: tolerance {allowed:g} {unit}; a loss of about {seen:.1f} is detected (80 % power){few}."
            )
        return lines


def guard_callback(
    recipe: Recipe, folder: Path, file_hash: FileHash = sha256_file
) -> Callable[[Llama, Tokenizer, Corpus], Guard]:
    """Draw the slice that a recipe names; returns a factory that makes the guard once model and corpus are open.

    `folder` is the run's; `file_hash` may remember the hashes of big files.

    Raises:
        InputError: everything about the recipe's guard that can be known to be wrong before a model is read.
    """
    section = recipe.guard
    if section.every is not None and recipe.train.steps is not None:
        check_every(section.every, recipe.train.steps)
    data_dir = Path(section.data_dir) if section.data_dir else None
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"There is no folder {data_dir}.", next="Set guard.data_dir to the folder of the benchmarks.")
    if learnt := {*recipe.data.paths, *recipe.data.rehearsal} & set(section.texts):
        raise InputError(
            f"{sorted(learnt)[0]} is training data and protected text at once.", "Training data cannot show what is forgotten.",
            "Give guard.texts other files of its kind.",
        )  # fmt: skip
    seed = recipe.train.seed
    what = read_slice(section.tasks, section.items, section.texts, section.documents, data_dir, seed)
    for name, documents in what.texts.items():
        if (units := what.units(name)) < FEWEST_UNITS:
            found = documents_text(len(documents), units)
            raise InputError(
                f"{name} has {found}.", f"A test needs at least {FEWEST_UNITS} independent documents.",
                "Give guard.texts more of them.",
            )  # fmt: skip
    check_answers(what, open_tokenizer(recipe.model.name), config_of(recipe.model.name).max_positions)

    def make(model: Llama, tokenizer: Tokenizer, corpus: Corpus) -> Guard:
        conversations = [row for row in corpus.held_out if isinstance(row, Conversation)]
        gain: Sequence[SliceDocument] = conversations or corpus.held_out_texts
        budget = min(TOKEN_BUDGET, max(FEWEST_TOKENS, recipe.data.pack_tokens * recipe.train.batch_packs))
        identity = [
            model_sha256(find_model(recipe.model.name), file_hash), recipe.model.quantization, str(model.dtype),
            model.device.type, code_sha256(),
        ]  # fmt: skip
        return Guard(
            replace(what, gain=tuple(Draw(section.documents, seed).sample(gain))), section, tokenizer,
            steps=planned_steps(corpus.packed, recipe.train),
            folder=folder / "guard", token_budget=budget, identity=" ".join(identity),
        )  # fmt: skip

    return make


def soft_scores(selection: Selection, base: Sequence[Sequence[float]], now: Sequence[Sequence[float]]) -> Floats:
    """The probability of each item's right ending among its rivals, under the base and now, (2, N).

    softmax(l / τ) with l the log-likelihoods, per character where the task's own metric is (`acc_norm`), and τ a quarter
    of the root mean square, over the items, of the base's margin between the right ending and its best rival. So τ is the
    same for both and fits any benchmark: at τ → 0 it would be accuracy.
    """
    items = [item for item in selection.items if isinstance(item, MultipleChoice)]
    both = [
        [_logits(i, v, item_metric(selection.task.metrics)) for i, v in zip(items, values, strict=True)]
        for values in (base, now)
    ]
    tau = temperature(both[0])
    return np.array([[soft_score(row, tau) for row in rows] for rows in both])


def temperature(logits: Sequence[Floats]) -> float:
    """Fit the temperature τ to the base's logits, an item a row, the right ending first."""
    margins = [row[0] - row[1:].max() for row in logits]
    return SOFTNESS * math.sqrt(float(np.mean(np.square(margins)))) or 1.0


def soft_score(logits: Floats, tau: float) -> Floats:
    """Softmax probability of the first of E endings, (…, E) → (…)."""
    with np.errstate(over="ignore"):  # a hopeless ending has probability zero
        return np.asarray(1 / np.exp((logits - logits[..., :1]) / tau).sum(axis=-1))


def _logits(item: MultipleChoice, values: Sequence[float], metric: str) -> Floats:
    """(rivals,) of an item, the right ending first."""
    order = [item.answer, *(index for index in item.competing if index != item.answer)]
    lengths = [len(item.endings[index].removeprefix(" ")) if metric == "acc_norm" else 1 for index in order]
    logits: Floats = np.array([values[index] for index in order]) / np.array(lengths)
    return logits


def score_rooms(
    selections: Sequence[Selection], base: Answers, now: Answers, allowed: float
) -> tuple[Floats, list[int]]:
    """Remaining allowance in points per unit, (U,), averaging to that of all items; also each unit's benchmark."""
    scores = [soft_scores(*part) for part in zip(selections, base.loglikelihoods, now.loglikelihoods, strict=True)]
    sums = [
        cluster_sums(100 * (after - before) + allowed, selection.clusters)
        for selection, (before, after) in zip(selections, scores, strict=True)
    ]
    strata = [benchmark for benchmark, units in enumerate(sums) for _ in units]
    return np.concatenate(sums) * (len(strata) / sum(map(len, base.loglikelihoods))), strata


def _accuracy(selection: Selection, values: Sequence[Sequence[float]]) -> float:
    items = [item for item in selection.items if isinstance(item, MultipleChoice)]
    metric = item_metric(selection.task.metrics)
    return float(np.mean([i.values(v)[metric] for i, v in zip(items, values, strict=True)]))


def text_rooms(base: Sequence[float], now: Sequence[float], allowed: float) -> Floats:
    """Remaining allowance in percent of the base's bits, (D,): each document weighs by its bits."""
    before, after = np.asarray(base), np.asarray(now)
    rooms: Floats = 100 * ((1 + allowed / 100) * before - after) / before.mean()
    return rooms


def percent_gained(base: Answers, now: Answers, name: str) -> float:
    """The percentage by which a text's bits per byte have fallen."""
    return 100 * (1 - math.fsum(now.nats[name]) / math.fsum(base.nats[name]))
