"""Observers of a training: told of steps, checkpoints and the end, so that pages and trackers need no place in the loop.

The loop knows no page and no tracker: it is given observers and tells each what happened. What one of them raises is its
own fault: it is logged once, that observer is dropped, and the training goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from stilnovo.plan.choice import Plan
from stilnovo.recipe import Recipe
from stilnovo.runlog import RunFolder
from stilnovo.train.corpus import Corpus

log = logging.getLogger(__name__)


class ObservedRun(Protocol):
    """What an observer may ask of a training (`stilnovo.train.run.TrainingRun`)."""

    recipe: Recipe
    folder: RunFolder
    corpus: Corpus
    plan: Plan | None


class Observer:
    """Told what happens in a training; every method may be left out."""

    def begin(self, run: ObservedRun) -> None:
        """The training begins or is resumed; everything of `run` is open."""

    def step(self, row: dict[str, Any]) -> None:
        """A step has ended; `row` is its line of `metrics.jsonl`, with the evaluation's figures where one was made."""

    def checkpoint(self, step: int) -> None:
        """A checkpoint was written."""

    def end(self, run: ObservedRun, status: str) -> None:
        """The training has ended: `finished`, `stopped early`, `interrupted` or `failed`."""


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = list(observers)

    def begin(self, run: ObservedRun) -> None:
        """See `Observer.begin`."""
        self._tell(lambda observer: observer.begin(run))

    def step(self, row: dict[str, Any]) -> None:
        """See `Observer.step`."""
        self._tell(lambda observer: observer.step(row))

    def checkpoint(self, step: int) -> None:
        """See `Observer.checkpoint`."""
        self._tell(lambda observer: observer.checkpoint(step))

    def end(self, run: ObservedRun, status: str) -> None:
        """See `Observer.end`."""
        self._tell(lambda observer: observer.end(run, status))

    def _tell(self, what: Callable[[Observer], None]) -> None:
        for observer in tuple(self._observers):
            try:
                what(observer)
            except Exception as error:
                self._observers.remove(observer)
                log.warning("%s is left out from here on: %s", type(observer).__name__, error)
