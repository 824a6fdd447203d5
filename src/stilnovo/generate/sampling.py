"""Sampling settings: one value from the API and the command line down to the sampler, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stilnovo.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. Temperature 0 is greedy; the report's settings are the defaults (§6.1.2)."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 256
    seed: int = 42
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:  # NaN is refused too
            raise InputError(
                "These sampling settings cannot be used.",
                f"temperature {self.temperature}, top_p {self.top_p}, max_new_tokens {self.max_new_tokens}",
                "Temperature ≥ 0, 0 < top_p ≤ 1, at least one new token.",
            )
        if "" in self.stop:
            raise InputError("A stop string is empty.", "Every text contains it.", "Leave it out.")


def stop_at(text: str, stops: Sequence[str], final: bool) -> tuple[int, bool]:
    """Find a stop string in a growing text: how many characters may be shown, and whether it has ended.

    Unless the text is final, what may become a stop string waits.
    """
    places = [text.index(stop) for stop in stops if stop in text]
    held = [size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])]
    waiting = 0 if final else max(held, default=0)
    return (min(places), True) if places else (len(text) - waiting, False)
