"""What comes of trying one part of a step on a device, and how what it computes is compared.

Unusual: the reference is plain arithmetic in double precision on the CPU, whatever the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stilnovo.model.load import compute_dtype

Figures = dict[str, float]


class Wrong(Exception):
    """A part computes something else than it should."""


class NotHere(Exception):
    """This device has no such thing."""


@dataclass(frozen=True)
class Trial:
    """What came of trying one part.

    Attributes:
        name: The part's.
        outcome: `works`, `wrong` (other numbers), `fails` (an error) or `not here`.
        note: The reason, where it does not work.
        figures: What was measured, by name: relative errors, bytes a second.
        seconds: How long it took.
    """

    name: str
    outcome: str
    note: str = ""
    figures: Figures = field(default_factory=dict)
    seconds: float = 0.0


def half_type(device: torch.device) -> torch.dtype:
    """The 16-bit type in which this device trains: bf16, on a card that has none fp16."""
    return compute_dtype(device) if device.type == "cuda" else torch.bfloat16


def relative(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖, in double precision; infinite where a number is none."""
    wide = found.detach().double().cpu(), expected.detach().double().cpu()
    error = float((wide[0] - wide[1]).norm() / wide[1].norm())
    return error if error == error else float("inf")


def near(limit: float, **pairs: tuple[Tensor, Tensor]) -> Figures:
    """Relative errors of found against expected values, by name.

    Raises:
        Wrong: where one is above the limit.
    """
    errors = {name: relative(*pair) for name, pair in pairs.items()}
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= limit:
        raise Wrong(f"{worst}: relative error {errors[worst]:.3g}, at most {limit:.3g} is right")
    return errors


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers in fp32 on the CPU."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
