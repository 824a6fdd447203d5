"""The run in one terminal table: the key figures, the verdicts in words, the answer with its quotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stilnovo.report.charts import interval_text
from stilnovo.report.figures import tiles
from stilnovo.report.numbers import clean, finite, p_value
from stilnovo.report.values import ReportData

if TYPE_CHECKING:
    from rich.table import Table


def summary_table(data: ReportData) -> Table:
    """The report as a table of three columns (what, figure, remark) for `rich.print`.

    All texts are plain `Text`: brackets in a generated text are not markup, control characters are made visible.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(clean(data.title)), caption=Text(clean(data.headline)), box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=False, style="bold")
    table.add_column("Figure", overflow="fold")
    table.add_column("Remark", overflow="fold")
    for what, figure, remark in _rows(data):
        table.add_row(Text(clean(what)), Text(clean(figure)), Text(clean(remark)))
    return table


def _rows(data: ReportData) -> list[tuple[str, str, str]]:
    rows = []
    for tile in tiles(data.key) if data.key else []:
        if tile.before and data.verdicts:
            continue  # the verdicts below say the same with its uncertainty
        rows.append((tile.label, f"{tile.before} → {tile.value}" if tile.before else tile.value, tile.note))
    for verdict in data.verdicts:
        before, after = (interval_text(i, verdict.digits) for i in (verdict.before, verdict.after))
        name = verdict.name
        if verdict.unit.casefold() not in ("", name.casefold()):
            name += f" ({verdict.unit})"
        rows.append((name, f"{before} →\n{after}", f"{verdict.direction}\nn = {verdict.n:,}{_test(verdict.p)}"))
    for exchange in data.conversation:
        rows.append(("Question", exchange.question, ""))
        rows.append(("Answer", exchange.answer, exchange.kind))
        rows.extend(("Quotation", f"«{quote.text}»", f"{quote.status}: {quote.citation}") for quote in exchange.quotes)
    return rows


def _test(p: float | None) -> str:
    if not finite(p):
        return ""
    shown = p_value(p)
    return f", p {shown}" if shown.startswith("<") else f", p = {shown}"
