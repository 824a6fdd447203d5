"""The element-wise parts of a step of writing, with as few calls as possible: torch's, or on a card our kernels where they are wanted.

Shape letters: T tokens, H query heads, K key/value heads, D head size, C hidden size, F feed-forward size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stilnovo.model import kernels
from stilnovo.model.kernels import operators


class TorchStep:
    """By torch's own operations."""

    def angles(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Tables (T, 1, …) for `turn_`, from cos and sin (T, 1, D/2)."""
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def turn_(self, heads: Tensor, angles: tuple[Tensor, Tensor]) -> None:
        """Rotary embedding of (T, heads, D), in place."""
        # Dimension i turns with i + D/2: the halves change places, one of them with its sign changed (in the table).
        cos, sin = angles
        torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin, out=heads)

    def normed(self, x: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Add to the stream x (T, C), in place, and RMSNorm of it."""
        if added is not None:
            x.add_(added)
        return F.rms_norm(x, (x.shape[-1],), weight, eps)

    def gated(self, gate_up: Tensor) -> Tensor:
        """SiLU(gate) · up (T, F) of both side by side (T, 2F)."""
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)


class KernelStep(TorchStep):
    """By one launch each."""

    def angles(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """See `TorchStep.angles`."""
        return cos, sin

    def turn_(self, heads: Tensor, angles: tuple[Tensor, Tensor]) -> None:
        """See `TorchStep.turn_`."""
        operators.rotate(heads, *angles, False, heads)

    def normed(self, x: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """See `TorchStep.normed`."""
        out = torch.empty_like(x)
        if added is None:
            operators.rms_norm(x, weight, eps, out)
        else:
            operators.add_rms_norm(x, added, weight, eps, out)
        return out

    def gated(self, gate_up: Tensor) -> Tensor:
        """See `TorchStep.gated`."""
        gate, up = gate_up.chunk(2, -1)
        out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
        operators.swiglu(gate, up, out)
        return out


def step_functions(device: torch.device) -> TorchStep:
    """The fastest there."""
    return KernelStep() if device.type != "cpu" and kernels.wanted(device) else TorchStep()
