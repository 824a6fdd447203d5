"""Values into GGUF's simple types: floats, and blocks of 32 with one scale (Q8_0, Q5_0), or a scale and a minimum (Q5_1).

A file's rows get Q5_0 and Q5_1 where they do not hold the 256 values of a K-quant's block (`gguf_types`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from stilnovo.export.block_search import Groups, half, inverse

BLOCK = 32
_SCALE_SHIFTS = [-3.2 + 0.4 * step for step in range(13)]
_PAIR_SHIFTS = [-3.2 + 0.4 * step for step in range(15)]


def float_bytes(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Round rows (R, C) to a floating type: bytes (R, n)."""
    return rows.to(dtype).contiguous().view(torch.uint8)


def q8_0(rows: Tensor, _importance: Tensor | None = None) -> Tensor:
    """Round rows (R, C) to Q8_0: bytes (R, n). A block is a scale in fp16 and 32 signed bytes."""
    blocks = rows.reshape(-1, BLOCK)
    scale = half(blocks.abs().amax(dim=1, keepdim=True) / 127)
    codes = (blocks * inverse(scale)).round_().clamp_(-127, 127).to(torch.int8)
    return _bytes(rows, scale.to(torch.float16).view(torch.uint8), codes.view(torch.uint8))


def q5_0(rows: Tensor, importance: Tensor | None = None) -> Tensor:
    """Round rows (R, C) to Q5_0: bytes (R, n). A block is a scale in fp16, 32 fifth bits and 32 nibbles."""
    groups = Groups(rows, BLOCK, -16, 15, importance)
    scale = groups.best_scales(_SCALE_SHIFTS, 2, half)
    groups.encode(scale)
    fifth, nibbles = _five_bits((groups.codes + 16).to(torch.uint8).t())
    return _bytes(rows, scale.to(torch.float16)[:, None].view(torch.uint8), fifth, nibbles)


def q5_1(rows: Tensor, importance: Tensor | None = None) -> Tensor:
    """Round rows (R, C) to Q5_1: bytes (R, n). A block is a scale and its least value in fp16, 32 fifth bits and 32 nibbles."""
    groups = Groups(rows, BLOCK, 0, 31, importance)
    scale, minimum = groups.best_pairs(_PAIR_SHIFTS, 2, half, signed=True)
    groups.encode(scale, minimum)
    fifth, nibbles = _five_bits(groups.codes.to(torch.uint8).t())
    head = torch.stack([scale, -minimum], dim=1).to(torch.float16).view(torch.uint8)
    return _bytes(rows, head, fifth, nibbles)


def _five_bits(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (blocks, 32) of five bits as fifth bits (blocks, 4) and nibbles (blocks, 16)."""
    places = 1 << torch.arange(8, dtype=torch.uint8)
    fifth = ((codes >> 4).view(-1, 4, 8) * places).sum(2, dtype=torch.uint8)
    low = codes & 15
    return fifth, low[:, :16] | low[:, 16:] << 4


def _bytes(rows: Tensor, *parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=1).view(len(rows), -1)
