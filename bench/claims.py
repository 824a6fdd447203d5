"""Quotations made from real books, with their truth: ways of getting one wrong, and of writing a right one otherwise.

A kind's truth is known by how it is made (`false_claims.py`, `true_claims.py`); what chance makes true (a changed word that
restores another sentence) is found by a brute-force comparison of word lists, which shares no code with the verifier.
`quotations.py` and `retrieval.py` check them.

Needs: stilnovo.
"""

from __future__ import annotations

import random

from claim_stock import Claim, Kind, Made, Place, stands, stands_whole, stock_of, times
from false_claims import FALSE, WANTED
from stilnovo.library.store import Library
from true_claims import TRUE

SEED, COUNT = 20261125, 4000
#: Sentences tried for a kind before it is left out of a turn.
TRIES = 40


def claims(library: Library, count: int = COUNT, seed: int = SEED) -> list[Claim]:
    """Quotations of every kind in turn, false and true, with their truth; the same for the same library and seed."""
    draw = random.Random(seed)
    stock = stock_of(library, draw)
    kinds: dict[str, Kind] = {**FALSE, **TRUE}
    made: list[Claim] = []
    while len(made) < count:
        before = len(made)
        for name, kind in kinds.items():
            places = stock.pool(WANTED[name]) if name in WANTED else stock.places
            for _ in range(TRIES if places else 0):
                place = draw.choice(places)
                result = kind(draw, place, stock)
                if result is not None and len(made) < count:
                    made.append(_claim(name, place, result, name in TRUE))
                    break
        if len(made) == before:
            break
    return made


def _claim(kind: str, place: Place, made: Made, true: bool) -> Claim:
    """The claim with its truth: false ones are compared with the whole section, for what chance makes true."""
    if not true:
        true = (
            stands_whole(made.claimed, place.source)
            if made.exactly
            else stands(made.claimed, place.source, exact=False)
        )
        true = times(made.claimed, place.source) > 1 if made.needs else true
    return Claim(kind, made.claimed, made.original or place.sentence, place.section, true, made.needs)
