"""Block and buffer sizes that the training step and its ledger share."""

from __future__ import annotations

ELEMENTWISE_BYTES = 32 * 2**20  # an elementwise step takes rows of this size in fp32: its temporaries stay small
FUSED_BYTES = 32 * 2**20  # projections of one input are made dense together up to this size
DENSE_PART = 2**22  # weights made dense at once under int8 and int4
BLOCK = 64  # weights that share an absolute maximum (nf4, fp4) or a scale and zero point (int8, int4)
NESTED_BLOCK = 256  # block maxima that share a scale under double quantisation
ALIGN = 256  # bytes: what a card's loads and bitsandbytes' kernels expect of the start of a tensor


def sub_tile(columns: int) -> int:
    """Rows that an elementwise step over rows of `columns` values takes at once."""
    return max(1, ELEMENTWISE_BYTES // (4 * columns))


def size_class(size: int) -> int:
    """Bytes of the host buffer for `size`: classes a sixteenth apart, since batches differ a little and should share."""
    step = max(ALIGN, 1 << max(0, size.bit_length() - 5))
    return -(-size // step) * step
