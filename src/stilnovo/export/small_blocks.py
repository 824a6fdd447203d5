"""Values into GGUF's simple types: floats, and blocks of 32 with a scale (Q8_0)."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 32


def float_bytes(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Round rows (R, C) to a floating type: bytes (R, n)."""
    return rows.to(dtype).contiguous().view(torch.uint8)


def q8_0(rows: Tensor) -> Tensor:
    """Round rows (R, C) to Q8_0: bytes (R, n). A block is a scale in fp16 and 32 signed bytes."""
    blocks = rows.reshape(-1, BLOCK)
    scale = (blocks.abs().amax(dim=1, keepdim=True) / 127).to(torch.float16)
    known = scale.float()
    codes = torch.where(known > 0, blocks / known, 0).round_().clamp_(-127, 127).to(torch.int8)
    return torch.cat([scale.view(torch.uint8), codes.view(torch.uint8)], dim=1).view(len(rows), -1)
