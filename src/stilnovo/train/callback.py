"""Evaluation during training: a callback measures the model every few steps and may end the training.

The training knows no benchmark: it is given an `EvaluationCallback`, calls it when an evaluation is due, writes down
the result (`guard.jsonl`), remembers the best step and obeys. What is measured, and by which rule, is the callback's own
affair (`stilnovo.forgetting.guard`).

Unusual: an evaluation leaves no trace in the training (random states, mode and gradients are as before), and everything
that a later one depends on lies in the checkpoint, so that a training that was killed repeats its evaluations as exactly as
its steps.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import torch

from stilnovo.errors import InputError
from stilnovo.model.llama import Llama, evaluating
from stilnovo.runlog import RunFolder, json_text, write_atomic

FILE = "guard.jsonl"

OnLoss = Literal["stop", "best"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepEvaluation:
    """Result of a callback's evaluation at one step.

    Attributes:
        step: Optimizer steps made.
        lost: The test says that something was lost: the training ends.
        within: Nothing is further from the base than is allowed, as measured; only such a step can be the best.
        gain: How much was learnt, higher being more; None where that is not measured (then later is better).
        text: One line for people.
        figures: Plain data for `guard.jsonl`.
        seconds: The evaluation took.
    """

    step: int
    lost: bool
    within: bool
    gain: float | None
    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class EvaluationCallback(Protocol):
    """Callback interface for evaluation during training.

    Attributes:
        every: Steps between evaluations; the last step is always evaluated.
        on_loss: `stop`: the training ends where it is; `best`: it goes back to the best step.
    """

    every: int
    on_loss: OnLoss

    def begin(self, model: Llama) -> None:
        """Evaluate the base model; called at the start of every session, when the adapter may already be trained."""

    def evaluate(self, step: int, model: Llama) -> StepEvaluation:
        """Evaluate the model after `step` steps."""

    def state(self) -> dict[str, Any]:
        """State that later evaluations depend on, for a checkpoint: tensors and plain data."""

    def restore(self, state: dict[str, Any]) -> None:
        """Restore `state`."""


def evaluation_steps(steps: int, every: int) -> list[int]:
    """List the steps after which an evaluation is due: every so many, and the last."""
    return sorted({*range(every, steps + 1, every), steps})


def check_every(every: int, steps: int) -> None:
    """Refuse an interval at which no evaluation would ever take place.

    Raises:
        InputError: the run is over before the first of them.
    """
    if every > steps:
        raise InputError(
            f"The guard's first evaluation would come after step {every}.", f"The run ends after step {steps}.",
            f"Set guard.every to at most {steps}.",
        )  # fmt: skip


class Evaluations:
    """The evaluations of one run: schedule, results, best step; empty without a callback.

    Attributes:
        history: All results so far.
        best: The step to go back to; 0, the base itself, until an evaluation found nothing lost.
    """

    def __init__(self, callback: EvaluationCallback | None, run: RunFolder, steps: int) -> None:
        self.callback, self.run, self.planned, self.best = callback, run, steps, 0
        self.history: list[StepEvaluation] = []
        self.due: set[int] = set()
        if callback is not None:
            check_every(callback.every, steps)
            self.due = set(evaluation_steps(steps, callback.every))

    @property
    def ended(self) -> StepEvaluation | None:
        """The evaluation that stopped the training, if any."""
        return self.history[-1] if self.history and self.history[-1].lost else None

    @property
    def returns_to_best(self) -> bool:
        """Whether a stopped training returns to its best step."""
        return self.callback is not None and self.callback.on_loss == "best"

    def begin(self, model: Llama) -> None:
        """See `EvaluationCallback.begin`."""
        if self.callback is not None:
            with undisturbed(model):
                self.callback.begin(model)
            self._write()

    def evaluate(self, step: int, model: Llama) -> bool:
        """Evaluate if that is due at this step and not done yet; returns whether it evaluated."""
        if self.callback is None or step not in self.due or (self.history and self.history[-1].step >= step):
            return False
        with undisturbed(model):
            result = self.callback.evaluate(step, model)
        best = next((earlier.gain for earlier in self.history if earlier.step == self.best), None)
        self.history.append(result)
        if not result.lost and result.within and (result.gain is None or best is None or result.gain > best):
            self.best = step
        self._write()
        log.info("Step %d: %s", step, result.text)
        return True

    def _write(self) -> None:
        rows = (json_text(asdict(result)) + "\n" for result in self.history)
        write_atomic(self.run.path / FILE, "".join(rows))

    def state(self) -> dict[str, Any] | None:
        """State for a checkpoint."""
        if self.callback is None:
            return None
        history = json.dumps([asdict(result) for result in self.history])
        return {"best": self.best, "history": history, "watch": self.callback.state()}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Restore `state`; evaluations after the checkpoint will be repeated."""
        if self.callback is not None and state is not None:
            self.best = state["best"]
            self.history = [StepEvaluation(**row) for row in json.loads(state["history"])]
            self.callback.restore(state["watch"])

    def summary(self, step: int, taken: int) -> dict[str, Any] | None:
        """Summary for `train.json`: whether, when and why training stopped early, and which step's adapter was saved.

        Args:
            step: Steps made.
            taken: The step whose adapter was saved.
        """
        if self.callback is None:
            return None
        ended = self.ended
        return {
            "ended": ended is not None, "step": step, "planned_steps": self.planned, "adapter_step": taken, "best_step": self.best,
            "on_loss": self.callback.on_loss, "why": ended.text if ended else "nothing was lost",
            "evaluations": len(self.history), "seconds": math.fsum(result.seconds for result in self.history),
        }  # fmt: skip


@contextmanager
def undisturbed(model: Llama) -> Iterator[None]:
    """Context manager that restores random states and the model's mode."""
    cards = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(cards), torch.no_grad(), evaluating(model):
        yield
