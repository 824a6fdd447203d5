"""The boundary at which a number becomes a score: what is not finite is refused there, by the name of what it was for.

One NaN in an adapter makes every log-likelihood NaN. Each comparison with NaN is false, so that the first option would win
every item, and the share of items whose first option is right would stand on a page as a score, with an interval. So no
value that holds scores can be made of such numbers (`ItemScore`, `HeldOutScore`), none is kept in the answer cache, and
none is read out of it or out of a result file.

An infinite log-likelihood of a single ending is refused too. A softmax over finite logits gives every token some
probability: minus infinity can only come of an overflow, after which the other endings are no measurement either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from stilnovo.errors import NonFiniteScore


def check_finite(where: str, value: Any) -> None:
    """Refuse a value, or JSON values inside one another, of which a number is not finite.

    Raises:
        NonFiniteScore: naming `where`.
    """
    for number in numbers_in(value):
        if not math.isfinite(number):
            raise NonFiniteScore(where, number)


def numbers_in(value: Any) -> Iterator[float]:
    """The floats among JSON values inside one another."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from numbers_in(entry)
    elif isinstance(value, dict):
        yield from numbers_in(list(value.values()))
