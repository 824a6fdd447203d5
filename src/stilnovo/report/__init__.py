"""The report of a run: plain data in, one self-contained HTML page (or one terminal table) out.

Nothing here computes a result. Who measured hands over `ReportData`; this package only sets it in type, so that it can
be tested without a model and reused by every command. No network, no script needed to read the page, no torch.
"""

from __future__ import annotations

from stilnovo.report.page import render
from stilnovo.report.values import (
    Direction,
    Exchange,
    Interval,
    KeyFigures,
    LossPoint,
    MemoryItem,
    Pair,
    QuantisationRow,
    QuoteRow,
    QuoteStatus,
    ReportData,
    VerdictRow,
)

__all__ = [
    "Direction",
    "Exchange",
    "Interval",
    "KeyFigures",
    "LossPoint",
    "MemoryItem",
    "Pair",
    "QuantisationRow",
    "QuoteRow",
    "QuoteStatus",
    "ReportData",
    "VerdictRow",
    "render",
]
