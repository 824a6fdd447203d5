"""How a run samples items, documents or conversations: so many, by a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from stilnovo.errors import InputError, check_types

SEED = 42
T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """Sampling of items, documents or conversations: `limit` of them, drawn with `seed`, under `protocol`.

    A limit is a number of items, or a share of them below 1; None takes all. `protocol` is one of `protocol.PROTOCOLS`.
    """

    limit: int | float | None = None
    seed: int = SEED
    protocol: str = "stilnovo"

    def __post_init__(self) -> None:
        limit = self.limit
        check_types(int, float, type(None), limit=limit)
        if limit is not None and (not limit > 0 or (limit >= 1 and limit % 1)):  # NaN and infinity are refused too
            raise InputError("The limit must be a share below 1, or a whole number of at least 1.", f"Found: {limit}.")

    def count(self, available: int) -> int | None:
        """The limit as a number of items: a share is rounded up, as lm-evaluation-harness does; None for all."""
        limit = self.limit
        if limit is None:
            return None
        return math.ceil(limit * available) if limit < 1 else int(limit)

    def sample(self, members: Sequence[T]) -> list[T]:
        """Sample members at random, in their order, ignoring groups."""
        count = self.count(len(members))
        if count is None or count >= len(members):
            return list(members)
        return [members[index] for index in sorted(random.Random(self.seed).sample(range(len(members)), count))]
