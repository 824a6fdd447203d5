"""Somebody who looks at the model every few steps of its training and may say that something was lost.

The training knows no benchmark: it is given a `Watch`, asks it when a look is due, writes down what it said
(`guard.jsonl`), remembers the best step and obeys. What is measured, and by which rule, is the watch's own affair
(`stilnovo.forgetting.guard`).

Unusual: a look leaves no trace in the training (random states, mode and gradients are as before), and everything that
a later look depends on lies in the checkpoint, so that a training that was killed repeats its looks to the last bit.
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
from stilnovo.model.llama import Llama
from stilnovo.runlog import RunFolder, write_atomic

FILE = "guard.jsonl"

OnLoss = Literal["stop", "best"]


@dataclass(frozen=True)
class Look:
    """What a watch saw at one step.

    Attributes:
        step: Optimizer steps made.
        lost: Its test says that something was lost: the training ends.
        within: Nothing is further from the base than is allowed, as measured; only such a step can be the best.
        gain: How much was learnt, higher being more; None where that is not measured (then later is better).
        text: One line for people.
        figures: Plain data for `guard.jsonl`.
        seconds: The look took.
    """

    step: int
    lost: bool
    within: bool
    gain: float | None
    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Watch(Protocol):
    """Who looks."""

    @property
    def every(self) -> int:
        """Steps between looks; the last step is always looked at."""
        ...

    @property
    def on_loss(self) -> OnLoss:
        """`stop`: the training ends where it is; `best`: it goes back to the best step."""
        ...

    def begin(self, model: Llama) -> None:
        """Measure the base; called before the first step of every sitting, the adapter may have learnt already."""
        ...

    def look(self, step: int, model: Llama) -> Look:
        """Measure the model after `step` steps."""
        ...

    def state(self) -> dict[str, Any]:
        """What later looks depend on: tensors and plain data."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Put `state` back."""
        ...


def looks(steps: int, every: int) -> list[int]:
    """The steps after which a look is due: every so many, and the last."""
    return sorted({*range(every, steps + 1, every), steps})


def check_every(every: int, steps: int) -> None:
    """Refuse looks that would never come.

    Raises:
        InputError: the run is over before the first of them.
    """
    if every > steps:
        raise InputError(
            f"The guard would first look after step {every}.", f"The run has {steps} steps.",
            f"Set guard.every to at most {steps}.",
        )  # fmt: skip


class Watching:
    """A watch at work in one run folder: when it looks, what it said, which step was the best.

    Attributes:
        history: All looks so far.
        best: The step to go back to; 0, the base itself, until a look found nothing lost.
    """

    def __init__(self, watch: Watch, run: RunFolder, steps: int) -> None:
        check_every(watch.every, steps)
        self.watch, self.run, self.planned = watch, run, steps
        self.due = frozenset(looks(steps, watch.every))
        self.history: list[Look] = []
        self.best = 0

    @property
    def ended(self) -> Look | None:
        """The look that ended the training, if any did."""
        return self.history[-1] if self.history and self.history[-1].lost else None

    def begin(self, model: Llama) -> None:
        """See `Watch.begin`."""
        with undisturbed(model):
            self.watch.begin(model)
        self._write()

    def look(self, step: int, model: Llama) -> bool:
        """Look if a look is due at this step and was not made yet; whether it was made."""
        if step not in self.due or (self.history and self.history[-1].step >= step):
            return False
        with undisturbed(model):
            found = self.watch.look(step, model)
        best = self._best()
        self.history.append(found)
        if not found.lost and found.within and (found.gain is None or best is None or found.gain > best):
            self.best = step
        self._write()
        logging.getLogger(__name__).info("Step %d: %s", step, found.text)
        return True

    def _best(self) -> float | None:
        return next((look.gain for look in self.history if look.step == self.best), None)

    def _write(self) -> None:
        rows = (json.dumps(asdict(look), ensure_ascii=False) + "\n" for look in self.history)
        write_atomic(self.run.path / FILE, "".join(rows))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "best": self.best, "history": json.dumps([asdict(look) for look in self.history]),
            "watch": self.watch.state(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Put it back; looks that were made after the checkpoint will be made again."""
        self.best = state["best"]
        self.history = [Look(**row) for row in json.loads(state["history"])]
        self.watch.restore(state["watch"])

    def summary(self) -> dict[str, Any]:
        """For `train.json` of a training that is over: whether, when and why it was ended early, and whose adapter was kept."""
        ended = self.ended
        last = ended.step if ended else self.planned
        back = ended is not None and self.watch.on_loss == "best"
        return {
            "ended": ended is not None, "step": last, "planned_steps": self.planned,
            "adapter_step": self.best if back else last, "best_step": self.best,
            "on_loss": self.watch.on_loss, "why": ended.text if ended else "nothing was lost",
            "looks": len(self.history), "seconds": math.fsum(look.seconds for look in self.history),
        }  # fmt: skip


@contextmanager
def undisturbed(model: Llama) -> Iterator[None]:
    """Random states and the model's mode are afterwards as they were."""
    on_card = model.device.type == "cuda"
    random, training = torch.get_rng_state(), model.training
    card = torch.cuda.get_rng_state(model.device) if on_card else None
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        torch.set_rng_state(random)
        if card is not None:
            torch.cuda.set_rng_state(card, model.device)
