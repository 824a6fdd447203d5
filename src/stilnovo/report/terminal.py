"""The run in one terminal table: the key figures, the verdicts in words, the answer with its quotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stilnovo.report.charts import interval_text
from stilnovo.report.data import ReportData
from stilnovo.report.figures import tiles
from stilnovo.report.numbers import clean, p_value

if TYPE_CHECKING:
    from rich.table import Table


def summary_table(data: ReportData) -> Table:
    """The report as a table of three columns (what, figure, remark) for `rich.print`.

    All texts are plain `Text`: brackets in a generated text are not markup, control characters are made visible.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_line(data.title)), caption=Text(_line(data.headline)), box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=False, style="bold")
    table.add_column("Figure", overflow="fold")
    table.add_column("Remark", overflow="fold")
    for what, figure, remark in _rows(data):
        table.add_row(Text(_line(what)), Text(_line(figure)), Text(_line(remark)))
    return table


def _rows(data: ReportData) -> list[tuple[str, str, str]]:
    rows = []
    judged = {verdict.name.casefold() for verdict in data.verdicts}
    for tile in tiles(data.key) if data.key else []:
        if tile.label.casefold() in judged:
            continue  # the verdict below says the same with its uncertainty
        rows.append((tile.label, f"{tile.before} → {tile.value}" if tile.before else tile.value, tile.note))
    for verdict in data.verdicts:
        before, after = (interval_text(i, verdict.digits) for i in (verdict.before, verdict.after))
        test = f"{verdict.direction}, n = {verdict.n:,}" + ("" if verdict.p is None else f", p {_sign(verdict.p)}")
        rows.append((f"{verdict.name} ({verdict.unit})" if verdict.unit else verdict.name, f"{before} → {after}", test))
    for exchange in data.conversation:
        rows.append(("Question", exchange.question, ""))
        rows.append(("Answer", exchange.answer, exchange.kind))
        rows.extend(("Quotation", f"«{quote.text}»", f"{quote.status}: {quote.citation}") for quote in exchange.quotes)
    return rows


def _sign(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


def _line(text: str) -> str:
    return " ".join(clean(text).split(" "))
