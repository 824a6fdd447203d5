"""The key figures as labelled text, one list for the page's tiles and the terminal's rows."""

from __future__ import annotations

from dataclasses import dataclass

from stilnovo.report.numbers import byte_size, decimal, duration, percent
from stilnovo.report.values import Direction, KeyFigures


@dataclass(frozen=True)
class FigureTile:
    """A label and its figure; `before` is the figure it replaced, `exact` the unrounded number for whoever wants it."""

    label: str
    value: str
    before: str = ""
    note: str = ""
    exact: str = ""


def tiles(key: KeyFigures) -> list[FigureTile]:
    """The figures that were measured, in reading order."""
    found = [FigureTile("Model", key.model)]
    if key.trainable_parameters is not None:
        note = ""
        if key.total_parameters:
            share = percent(key.trainable_parameters / key.total_parameters, 2)
            note = f"{share} of {key.total_parameters:,}"
        found.append(FigureTile("Trainable parameters", f"{key.trainable_parameters:,}", note=note))
    elif key.total_parameters is not None:
        found.append(FigureTile("Parameters", f"{key.total_parameters:,}"))
    found += _pair(
        "Bits per byte", key.bits_per_byte_before, key.bits_per_byte_after, key.bits_per_byte_verdict, share=False
    )
    found += _pair("Accuracy", key.accuracy_before, key.accuracy_after, key.accuracy_verdict, share=True)
    if key.tokens_per_second is not None:
        digits = 0 if key.tokens_per_second >= 100 else 1
        found.append(FigureTile("Training speed", decimal(key.tokens_per_second, digits), note="tokens per second"))
    if key.peak_memory_bytes is not None:
        found.append(
            FigureTile("Peak memory", byte_size(key.peak_memory_bytes), exact=f"{key.peak_memory_bytes:,} bytes")
        )
    if key.seconds is not None:
        found.append(FigureTile("Whole run", duration(key.seconds), exact=f"{key.seconds:,.1f} seconds"))
    return found


def _pair(
    label: str, before: float | None, after: float | None, verdict: Direction | None, *, share: bool
) -> list[FigureTile]:
    shown = percent if share else decimal
    note = "higher is better" if share else "lower is better"
    if verdict:
        note = f"{verdict} ({note})"
    if after is None:
        return [] if before is None else [FigureTile(label, shown(before), note=f"before training; {note}")]
    return [FigureTile(label, shown(after), before="" if before is None else shown(before), note=note)]
