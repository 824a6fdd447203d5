"""`ReportData` to one HTML page that needs nothing but itself.

Every text passes through Jinja's autoescaping; only the drawings of `charts` (escaped where they are built), the style
sheet and the page's own script enter as markup. The page also forbids itself, by a content security policy, any request
and any script but its own, so that a generated text could do nothing even if escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stilnovo.report import charts, numbers
from stilnovo.report.figures import tiles
from stilnovo.report.values import Imprint, Interval, LossPoint, MemoryItem, QuantisationRow, ReportData, VerdictRow

_TEMPLATES = Path(__file__).with_name("templates")
_WIDE, _NARROW = 736, 350
_ALIKE = ("'’‘ʼ", '"“”„«»')


@dataclass(frozen=True)
class PageSection:
    """A chapter of a page: its template is `sections/<id>.html`; `note` says under the heading how to read it."""

    id: str
    title: str
    note: str
    present: bool


@dataclass(frozen=True)
class Drawn:
    """One chart at both widths; both None where there is nothing to draw."""

    wide: str | None
    narrow: str | None


def render(data: ReportData) -> str:
    """The whole page as HTML text; write it as UTF-8.

    Empty sections are left out, together with their entry in the table of contents.
    """
    return compose(
        data,
        _sections(data),
        tiles=tiles(data.key) if data.key else [],
        plots=verdict_plots(data.verdicts),
        loss_chart=Drawn(*(charts.loss_chart(data.loss, width=w, key=f"loss-{w}") for w in (_WIDE, _NARROW))),
        loss_rows=_some(data.loss, 24),
        loss_span=charts.smoothing_span(sum(numbers.drawable(point.loss) for point in data.loss)),
        loss_unusable=sum(not numbers.drawable(point.loss) for point in data.loss),
        loss_held_out=any(numbers.drawable(point.held_out) for point in data.loss),
        memory_rows=_with_bars(data),
        memory_sum=data.memory_total or _memory_sum(data.memory),
        quantisation_plot=_quantisation_plot(data.quantisation),
    )


def compose(data: Imprint, sections: Sequence[PageSection], **values: object) -> str:
    """A page of the sections that are present; `values` are what their templates name beside `data`."""
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        _environment()
        .get_template("page.html")
        .render(
            data=data,
            sections=[section for section in sections if section.present],
            script=script,
            script_hash=f"sha256-{digest}",
            **values,
        )
    )
    return numbers.clean(page)


def split_quote(passage: str, quote: str) -> tuple[str, str, str] | None:
    """The passage before, within and after the quotation's first occurrence.

    Spaces and line breaks count as equal, and so do the straight and the curved forms of apostrophes and quotation
    marks: they differ between editions of the same words.

    Returns:
        None if the quotation is empty or does not stand in the passage.
    """
    words = ["".join(_letter(character) for character in word) for word in quote.split()]
    found = re.search(r"\s+".join(words), passage) if words else None
    return (passage[: found.start()], found.group(), passage[found.end() :]) if found else None


def _letter(character: str) -> str:
    alike = next((group for group in _ALIKE if character in group), "")
    return f"[{alike}]" if alike else re.escape(character)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": numbers.decimal,
        "signed": numbers.signed,
        "byte_size": numbers.byte_size,
        "p_value": numbers.p_value,
        "rate": numbers.rate,
        "off_by": _off_by,
        "span": _span,
    }
    environment.globals["split_quote"] = split_quote
    return environment


def _sections(data: ReportData) -> list[PageSection]:
    return [
        PageSection("glance", "At a glance", "", data.key is not None),
        PageSection(
            "verdicts",
            "Better or worse",
            "Hollow dot and dashed line: before. Filled dot: after. Bars are 95 % intervals. The verdict rests on the "
            "paired difference, item by item, not on whether the bars overlap.",
            bool(data.verdicts),
        ),
        PageSection("loss", "The loss", "What the model got wrong, step by step, while it trained.", bool(data.loss)),
        PageSection(
            "memory",
            "Memory, line by line",
            "Outlined bars: said before the run. Filled bars: measured during it.",
            bool(data.memory),
        ),
        PageSection(
            "quantisation",
            "What quantisation costs",
            "The same text, the same weights, stored in fewer bits. Hollow dot and dashed line: the reference.",
            bool(data.quantisation),
        ),
        PageSection(
            "texts",
            "Side by side",
            "The same prompt, settings and seed for both.",
            bool(data.pairs),
        ),
        PageSection(
            "conversation",
            "Asked of the library",
            "Verified: it stands word for word in the work it names. Repaired: put right from that work. Unverified: "
            "not found there, not to be trusted.",
            bool(data.conversation),
        ),
        PageSection("limits", "What this does not show", "", bool(data.limits)),
        PageSection("method", "How it was measured", "", bool(data.method)),
        PageSection("settings", "Settings", "The recipe this run was made from.", bool(data.recipe)),
        PageSection("colophon", "Colophon", "", True),
    ]


def verdict_plots(verdicts: Sequence[VerdictRow]) -> list[Drawn]:
    """One plot a verdict; verdicts of the same unit share their axis, so that lengths can be compared by eye."""
    shared: dict[str, tuple[float, ...]] = {}
    room: dict[str, int] = {}
    for verdict in verdicts:
        covered = charts.numbers_of([verdict.before, verdict.after])
        covered += (verdict.chance,) if numbers.drawable(verdict.chance) else ()
        shared[verdict.unit] = shared.get(verdict.unit, ()) + covered
        texts = [charts.interval_text(i, verdict.digits) for i in (verdict.before, verdict.after)]
        room[verdict.unit] = max(room.get(verdict.unit, 0), *map(len, texts))
    plots = []
    for index, verdict in enumerate(verdicts):
        caption = verdict.unit
        if verdict.lower_is_better is not None:
            caption += ", lower is better" if verdict.lower_is_better else ", higher is better"
        axis = charts.IntervalAxis(
            unit=verdict.unit,
            digits=verdict.digits,
            cover=shared[verdict.unit] if verdict.unit else (),
            room=room[verdict.unit] if verdict.unit else 0,
            guide=verdict.before.value,
            chance=verdict.chance,
            caption=caption.removeprefix(", "),
        )
        rows = [charts.IntervalRow("before", verdict.before, filled=False), charts.IntervalRow("after", verdict.after)]
        plots.append(both_widths(rows, axis, f"verdict-{index}", f"{verdict.name}: before and after"))
    return plots


def _quantisation_plot(rows: Sequence[QuantisationRow]) -> Drawn:
    guide = rows[0].bits_per_byte.value if rows else None
    axis = charts.IntervalAxis("bits per byte", 3, guide=guide, caption="bits per byte, lower is better")
    drawn = [charts.IntervalRow(row.scheme, row.bits_per_byte, filled=i > 0) for i, row in enumerate(rows)]
    return both_widths(drawn, axis, "quantisation", "Bits per byte by scheme") if drawn else Drawn(None, None)


def both_widths(rows: Sequence[charts.IntervalRow], axis: charts.IntervalAxis, key: str, title: str) -> Drawn:
    """The same intervals for a wide screen and for a narrow one."""
    return Drawn(*(charts.interval_plot(rows, axis, width=w, key=f"{key}-{w}", title=title) for w in (_WIDE, _NARROW)))


def _with_bars(data: ReportData) -> list[tuple[MemoryItem, str]]:
    largest = max((max(item.predicted, item.measured or 0) for item in data.memory), default=0)
    return [
        (item, charts.bars(item.predicted, item.measured, largest, key=f"memory-{index}", title=item.item))
        for index, item in enumerate(data.memory)
    ]


def _memory_sum(items: Sequence[MemoryItem]) -> MemoryItem:
    """Column sums; the measured one only where every line was measured."""
    measured = [item.measured for item in items if item.measured is not None]
    return MemoryItem("Total", sum(i.predicted for i in items), sum(measured) if len(measured) == len(items) else None)


def _some(points: Sequence[LossPoint], most: int) -> list[LossPoint]:
    """Evenly spaced points, at most `most`, with the first, the last and every one that has a held-out loss."""
    if len(points) <= most:
        return list(points)
    chosen = {round(i * (len(points) - 1) / (most - 1)) for i in range(most)}
    chosen |= {i for i, point in enumerate(points) if numbers.finite(point.held_out)}
    return [points[i] for i in sorted(chosen)]


def _off_by(item: MemoryItem) -> str:
    """Measured against predicted, in percent of the prediction."""
    if item.measured is None or item.predicted == 0:
        return numbers.MISSING
    return numbers.signed(100 * (item.measured / item.predicted - 1), 1, "%")


def _span(interval: Interval, digits: int) -> str:
    """The ends of an interval in brackets, or nothing."""
    if not all(map(numbers.finite, (interval.value, interval.low, interval.high))):
        return ""
    return f"[{numbers.decimal(interval.low, digits)}, {numbers.decimal(interval.high, digits)}]"
