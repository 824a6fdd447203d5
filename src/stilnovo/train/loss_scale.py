"""The loss scale of fp16 steps, which follows the gradients (Micikevicius et al. 2018), by the rule of torch's `GradScaler`.

fp16 loses what is under 6e-8 and overflows above 65,504, so backward runs on the loss times a scale. A step whose gradients
overflow is skipped and the scale halved; after `INTERVAL` good steps it doubles. bf16 and fp32 have fp32's range and need none.

Unusual: a number on the host, not a tensor on the card: the step reads its gradient's norm there anyway, and that says
whether anything overflowed.
"""

from __future__ import annotations

from typing import Any

from stilnovo.errors import StilnovoError

FIRST, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000
LARGEST = 2.0**127  # fp32's last power of two
HOPELESS = 50  # overflows one after another: the scale is then far below 1, and it is not what overflows


class LossScale:
    """What an fp16 step multiplies its loss by.

    Attributes:
        value: The scale of the next step; a power of two.
        skipped: Steps of the run that overflowed and changed nothing.
    """

    def __init__(self) -> None:
        self.value, self.skipped = FIRST, 0
        self._good = self._bad = 0  # steps since the scale changed, and overflows since a good step

    def update(self, *, finite: bool) -> None:
        """Note whether a step's gradients were finite.

        Raises:
            StilnovoError: when so many steps overflowed one after another that the scale is not the cause.
        """
        if finite:
            self._good, self._bad = self._good + 1, 0
            if self._good == INTERVAL:
                self.value, self._good = min(self.value * GROWTH, LARGEST), 0
            return
        self.value, self._good, self._bad = self.value * BACKOFF, 0, self._bad + 1
        self.skipped += 1
        if self._bad >= HOPELESS:
            raise StilnovoError(
                f"{self._bad} steps one after another overflowed fp16 and were skipped.",
                f"The loss scale is down to {self.value:.1e}: the losses themselves are not finite.",
                "Lower train.learning_rate, or train on a card with bf16 (Ampere and later).",
            )

    def state(self) -> dict[str, Any]:
        """State for a checkpoint, as plain data."""
        return {"value": self.value, "good": self._good, "bad": self._bad, "skipped": self.skipped}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Restore `state`; None: a run that began without a scale."""
        if state is not None:
            self.value, self._good, self._bad = state["value"], state["good"], state["bad"]
            self.skipped = state["skipped"]
