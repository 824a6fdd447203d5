"""Held-out loss and sample generations while a training goes on, and early stopping on that loss.

At each evaluation the same few packs of held-out rows are read, and the same prompts answered. Unusual: what is read is
chosen so that all evaluations of a run together take about 2 % of its time, and an evaluation leaves no trace in the
training: where steps repeat (a processor, `train.deterministic`) their losses are to the last bit those of a run without it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from stilnovo.data.packing import PackedCorpus, PackIndex
from stilnovo.errors import InputError
from stilnovo.model.llama import Llama
from stilnovo.recipe_sections import TrainSection
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train.callback import evaluation_steps, undisturbed
from stilnovo.train.corpus import Corpus
from stilnovo.train.objectives.base import Objective
from stilnovo.train.passes import BatchLoss, Passes, figures_of
from stilnovo.train.steps import planned_steps, step_tokens

log = logging.getLogger(__name__)

#: Makes the samples with the model as it is: a list of `{"prompt": …, "answer": …}`.
MakeSamples = Callable[[Llama], list[dict[str, str]]]

OVERHEAD = 0.02  # of a run's time, for all its evaluations together
FORWARDS = (
    2  # a step costs at least twice its forward pass: the frozen weights need no gradient, what flows through them does
)
FEWEST, MOST = 5, 50  # evaluations in a run
WORTH_READING, ENOUGH = (
    4096,
    65_536,
)  # tokens at an evaluation: more evaluations only from the one on, no more than the other


def is_evaluation(name: str) -> bool:
    """Whether a name in a row of `metrics.jsonl` belongs to an evaluation, not to the step itself."""
    return name in ("samples", "evaluation_seconds") or name.startswith(("held_out_", "base_held_out_"))


@dataclass(frozen=True)
class EvaluationSchedule:
    """When a run is evaluated, and on how many held-out tokens at most.

    Attributes:
        every: Steps between evaluations; the last step is always one. 0: none.
    """

    every: int
    tokens: int
    steps: int

    @property
    def due(self) -> list[int]:
        """The steps after which an evaluation is made."""
        return evaluation_steps(self.steps, self.every) if self.every else []


def schedule_of(steps: int, tokens_per_step: float, pack_tokens: int, settings: TrainSection) -> EvaluationSchedule:
    """Choose interval and size of the evaluations, where the recipe leaves them open, by what they cost.

    Args:
        steps: Of the run.
        tokens_per_step: Tokens of a full step, on average.
        pack_tokens: Tokens of a pack; an evaluation reads one at least.
        settings: The recipe's `train` section.
    """
    budget, every = OVERHEAD * FORWARDS * steps * tokens_per_step, settings.evaluate_every
    if every is None:
        wanted = min(max(int(budget / max(WORTH_READING, pack_tokens)) - 1, FEWEST), MOST)
        every = -(-steps // wanted)
    count = len(evaluation_steps(steps, every)) + 1 if every else 1  # the base is evaluated too
    return EvaluationSchedule(every, settings.evaluation_tokens or min(int(budget / count), ENOUGH), steps)


def schedule_for(packed: PackedCorpus, settings: TrainSection) -> EvaluationSchedule:
    """The schedule of a training on a packed corpus."""
    tokens_per_step = step_tokens(packed, len(packed.packs), settings)
    return schedule_of(planned_steps(packed, settings), tokens_per_step, packed.pack_tokens, settings)


def held_out_slice(
    objective: Objective, corpus: Corpus, tokenizer: Tokenizer, schedule: EvaluationSchedule, longest: int
) -> PackedCorpus | None:
    """Pack the held-out rows that every evaluation reads: whole packs, at least one; None where there are none.

    Rows and packs are drawn by the recipe's seed. Only about as many rows are tokenised as are needed; `longest` is how
    many tokens the model reads at once.
    """
    rows, seed = corpus.held_out, objective.recipe.train.seed
    if not rows or not schedule.due:
        return None
    documents = max(1, len(corpus.packed.documents))
    needed = (
        math.ceil(1.5 * max(schedule.tokens, corpus.packed.pack_tokens) / max(1.0, corpus.packed.tokens / documents))
        + 1
    )
    order = np.random.default_rng(seed).permutation(len(rows))[:needed]
    packed = objective.pack_held_out([rows[at] for at in order.tolist()], tokenizer, longest)
    if not len(packed.packs):
        return None
    count = max(1, int(schedule.tokens * len(packed.packs) / max(1, packed.tokens)))
    chosen = np.random.default_rng(seed).permutation(len(packed.packs))[:count]
    pieces = [packed.packs.pieces([pack]) for pack in sorted(chosen.tolist())]
    document, start, length = (
        np.array(column) for column in zip(*(piece for pack in pieces for piece in pack), strict=True)
    )
    offsets = np.concatenate([[0], np.cumsum([len(pack) for pack in pieces])]).astype(np.int64)
    index = PackIndex(document.astype(np.int32), start.astype(np.int64), length.astype(np.int32), offsets)
    return PackedCorpus(packed.documents, index, packed.pack_tokens)


class HeldOutEvaluation:
    """The evaluations of one run: their schedule, the base's loss, the losses so far, and early stopping on them.

    Args:
        due: The steps after which an evaluation is made.
        packed: The held-out packs; None: only samples are made.
        patience: Evaluations without a new lowest loss after which the training ends; None: it does not end early, and
            the last step's adapter is the run's.
        make_samples: Makes the samples; None: there are none.

    Attributes:
        history: Step and held-out loss of each evaluation.
    """

    def __init__(
        self, due: Collection[int] = (), packed: PackedCorpus | None = None, patience: int | None = None,
        make_samples: MakeSamples | None = None,
    ) -> None:  # fmt: skip
        self.packed, self.patience, self.make_samples = packed, patience, make_samples
        self.due = set(due) if packed is not None or make_samples is not None else set[int]()
        self.base: float | None = None
        self.history: list[tuple[int, float]] = []

    @property
    def best(self) -> int | None:
        """The step with the lowest loss, the first of equals; None where there is no early stopping, or nothing yet."""
        finite = [(loss, step) for step, loss in self.history if math.isfinite(loss)]
        return min(finite)[1] if finite and self.patience is not None else None

    @property
    def ended(self) -> bool:
        """Whether the loss has not fallen for as many evaluations as the recipe allows."""
        if self.patience is None:
            return False
        since = [step for step, _ in self.history if self.best is None or step > self.best]
        return len(since) >= self.patience

    def begin(self, passes: Passes, loss: BatchLoss, settings: TrainSection) -> None:
        """Evaluate the base, with the adapter disabled, unless a checkpoint knew its loss."""
        if self.packed is None or not self.due or self.base is not None:
            return
        with undisturbed(passes.model), passes.base():
            self.base = figures_of(passes, loss, self.packed, settings)["loss"]

    def evaluate(self, step: int, passes: Passes, loss: BatchLoss, settings: TrainSection) -> dict[str, Any]:
        """The evaluation's figures for that step's row of metrics; empty where none is due."""
        if step not in self.due:
            return {}
        began, figures = time.perf_counter(), dict[str, Any]()
        with undisturbed(passes.model):
            if self.packed is not None:
                measured = figures_of(passes, loss, self.packed, settings)
                figures = {f"held_out_{name}": value for name, value in measured.items() if name != "n"}
                self.history.append((step, measured["loss"]))
                if self.base is not None:
                    figures["base_held_out_loss"] = self.base
                log.info("Step %d: held-out loss %s", step, self._text(measured["loss"]))
            figures["evaluation_seconds"] = time.perf_counter() - began
            if self.make_samples is not None:
                figures["samples"] = self.make_samples(passes.model)
                for sample in figures["samples"]:
                    log.info("  %s → %s", _line(sample["prompt"]), _line(sample["answer"]))
        return figures

    def _text(self, loss: float) -> str:
        parts = [f"{loss:.4f}", *([] if self.base is None else [f"the base's {self.base:.4f}"])]
        if self.patience is not None:
            lowest = min(value for _, value in self.history)
            parts.append("the lowest so far" if loss == lowest else f"the lowest was {lowest:.4f} at step {self.best}")
        return ", ".join(parts)

    def state(self) -> dict[str, Any]:
        """State for a checkpoint, as plain data."""
        return {"base": self.base, "history": [list(pair) for pair in self.history]}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Restore `state`; None: the run began without evaluations."""
        if state is not None:
            self.base, self.history = state["base"], [(step, loss) for step, loss in state["history"]]

    def summary(self, taken: int) -> dict[str, Any] | None:
        """For `train.json`: whether the training ended early, and whose step's adapter is the run's; None without patience."""
        if self.patience is None:
            return None
        return {"ended": self.ended, "patience": self.patience, "best_step": self.best, "adapter_step": taken}


def _line(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) <= 120 else short[:119] + "…"


def check_patience(settings: TrainSection, packed: PackedCorpus | None) -> None:
    """Refuse early stopping where no held-out row tells when.

    Raises:
        InputError: the recipe asks for it.
    """
    if settings.patience is not None and packed is None:
        raise InputError(
            "train.patience stops by the held-out loss, and no row is held out.", "The data leave none to hold out.",
            "Give more rows, or leave train.patience out.",
        )  # fmt: skip
