"""How far the residuals of units are expected to lie from zero, where the items of a unit may or may not be alike.

Units of different sizes are worth fewer of one size. How many fewer depends on what a unit's items share: nothing, and the
residual grows with the root of the size, all, and it grows with the size. Taken for alike where they are not, intervals reach
too far (.975 of them held for ten groups of 1 to 20 unrelated items); so the sample is asked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def residual_scale(items: float, squares: Floats, residuals: Floats, sizes: Floats) -> Floats:
    """How far each unit's residual is expected to lie from zero, (G,), up to a factor.

    With a correlation c between the items of a unit its variance goes as (1 - c) sum(d^2) + c sum(d)^2 over the items'
    denominators d. c is by how much the squared residuals of units exceed those of their items, each corrected for its leverage
    (a large unit draws the ratio to itself), between none and what they would if all items of a unit moved together.

    Args:
        items: Sum of the items' squared residuals, see `corrected_square`.
        squares: Sums of the items' squared denominators over units, (G,).
        residuals: Sums of the items' residuals over units, (G,).
        sizes: Sums of the items' denominators over units, (G,).
    """
    together = float((sizes**2).sum()) / float(squares.sum()) - 1
    if items <= 0 or together <= 0:
        return sizes
    alike = min(1.0, max(0.0, (corrected_square(residuals, sizes) / items - 1) / together))
    scale: Floats = np.sqrt((1 - alike) * squares + alike * sizes**2)
    return scale


def corrected_square(residuals: Floats, sizes: Floats) -> float:
    """Sum of squared residuals, each larger by what its size draws the ratio to itself; both (N,) or (G,)."""
    return float((residuals**2 / np.maximum(1 - sizes / sizes.sum(), 1e-12)).sum())
