"""Sizes on which the step and its ledger must agree."""

from __future__ import annotations

ELEMENTWISE_BYTES = 32 * 2**20  # an elementwise step takes rows of this size in fp32: its temporaries stay small
FUSED_BYTES = 32 * 2**20  # projections of one input are made dense together up to this size
DENSE_PART = 2**22  # weights made dense at once under int8 and int4


def sub_tile(columns: int) -> int:
    """Rows that an elementwise step over rows of `columns` values takes at once."""
    return max(1, ELEMENTWISE_BYTES // (4 * columns))
