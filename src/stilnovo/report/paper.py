"""A table as a paper wants it: CSV with every digit, LaTeX and Markdown as shown, each with what its columns mean.

A cell is text, a number or an estimate; an estimate is three columns in CSV (value, low, high) and a value with its interval
elsewhere. Decimals of a column are the same in all rows, so that right-aligned numbers stand under each other.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from stilnovo.report.numbers import clean, finite
from stilnovo.statistics.estimates import Estimate

PaperCell = str | float | int | Estimate | None
FORMATS = {"csv": ".csv", "latex": ".tex", "markdown": ".md"}
_LEVEL = "95 %"
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\n]")
_PLAIN_LATEX = re.compile("[\\x00-\u024f\u2018-\u201e\u2020-\u2022\u2026\u20ac]*")  # what pdfLaTeX sets as it comes
_INTERVAL = r" & \multicolumn{2}{l}{95 \% interval}"
# What would reverse or hide text for a reader of the source: directions, joiners, marks of order.
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "−": "$-$", "–": "--", "→": r"$\to$", "±": r"$\pm$", "≤": r"$\le$", "≥": r"$\ge$", "α": r"$\alpha$", "√": r"$\surd$",
    "\u202f": r"\,", "\u00a0": "~", '"': "''", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # an argument of the `\\` or rule before it, where a cell begins so
}  # fmt: skip


@dataclass(frozen=True)
class PaperColumn:
    """A column: its name, its unit, decimals of what is shown (None: as it is), and what it means where that is not plain.

    `interval`: its cells are estimates; `is_p`: they are p-values; `by_row`: every row has decimals of its own.
    """

    name: str
    unit: str = ""
    digits: int | None = None
    meaning: str = ""
    interval: bool = False
    is_p: bool = False
    by_row: bool = False

    @property
    def heading(self) -> str:
        """Name with unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def is_number(self) -> bool:
        """Whether its cells are numbers."""
        return self.digits is not None or self.interval or self.is_p or self.by_row


@dataclass(frozen=True)
class PaperTable:
    """A table by the section of its page; `about` says n, commit and date, `digits` the decimals of each row, where they differ."""

    key: str
    caption: str
    columns: tuple[PaperColumn, ...]
    rows: tuple[tuple[PaperCell, ...], ...]
    about: str = ""
    digits: tuple[int, ...] = ()

    def _cells(self) -> Iterator[list[tuple[PaperColumn, PaperCell]]]:
        """Rows as (column, cell), each column with the row's decimals."""
        for index, row in enumerate(self.rows):
            own = [replace(column, digits=self.digits[index]) if column.by_row else column for column in self.columns]
            yield list(zip(own, row, strict=True))

    def texts(self) -> dict[str, str]:
        """The table in every format, by the format's name."""
        return {"csv": self.csv(), "latex": self.filled().latex(), "markdown": self.filled().markdown()}

    def csv(self) -> str:
        """Comma-separated values with every digit, by RFC 4180; what is not known is empty."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([name for column in self.columns for name in _csv_headings(column)])
        for row in self.rows:
            writer.writerow(
                [value for column, cell in zip(self.columns, row, strict=True) for value in _csv_values(column, cell)]
            )
        return file.getvalue()

    def filled(self) -> PaperTable:
        """The same without columns that say nothing in any row."""
        kept = [at for at in range(len(self.columns)) if any(row[at] not in ("", None) for row in self.rows)]
        rows = tuple(tuple(row[at] for at in kept) for row in self.rows)
        return replace(self, columns=tuple(self.columns[at] for at in kept), rows=rows)

    def markdown(self) -> str:
        """A table of GitHub's Markdown, its caption above."""
        headings = [
            _markdown(column.heading + (f" [{_LEVEL} interval]" if column.interval else "")) for column in self.columns
        ]
        sides = ["---:" if column.is_number else "---" for column in self.columns]
        body = [[_markdown(_shown(*cell)) for cell in row] for row in self._cells()]
        lines = ["| " + " | ".join(line) + " |" for line in (headings, sides, *body)]
        notes = "".join(f"\n\n{_markdown(note)}" for note in self.notes())
        return "\n".join([f"**{_markdown(self.caption)}**", "", *lines]) + notes + "\n"

    def latex(self) -> str:
        """A `table` for the package booktabs; an interval's ends stand in two columns, so that they are aligned."""
        layout = "".join(
            ("rr@{, }l" if column.interval else "r" if column.is_number else "l") for column in self.columns
        )
        head = [_latex(column.heading) + (_INTERVAL if column.interval else "") for column in self.columns]
        rows = [" & ".join(_latex_cell(*cell) for cell in row) + r" \\" for row in self._cells()]
        notes = [rf"\par\smallskip\footnotesize {_latex(note)}" for note in self.notes()]
        text = "\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{_latex(self.caption)}}}",
            rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', self.key)}}}", rf"\begin{{tabular}}{{{layout}}}", r"\toprule",
            " & ".join(head) + r" \\", r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}",
        ]) + "\n"  # fmt: skip
        needs = r"\usepackage{booktabs}" + r" \usepackage[T1]{fontenc}" * (not text.isascii())
        beyond = "" if _PLAIN_LATEX.fullmatch(text) else "; for LuaLaTeX or XeLaTeX, and a font that has its characters"
        return f"% {needs}{beyond}\n{text}"

    def notes(self) -> Iterator[str]:
        """What the columns mean, and where the figures come from."""
        if meanings := [f"{column.name}: {column.meaning}" for column in self.columns if column.meaning]:
            yield f"{'; '.join(meanings)}."
        if self.about:
            yield self.about


def file_suffix(form: str) -> str:
    """The suffix of a format's files."""
    return FORMATS[form]


def _csv_headings(column: PaperColumn) -> list[str]:
    names = [column.name, f"{column.name} low", f"{column.name} high"] if column.interval else [column.name]
    return [f"{name} ({column.unit})" if column.unit else name for name in names]


def _csv_values(column: PaperColumn, cell: PaperCell) -> list[str]:
    if column.interval:
        parts = (cell.value, cell.low, cell.high) if isinstance(cell, Estimate) else (cell, None, None)
        return [_exact(part) for part in parts]
    return [_exact(cell)]


def _exact(cell: PaperCell) -> str:
    if isinstance(cell, str):
        text = clean(cell)
        return f"'{text}" if _FORMULA.match(text) else text  # a spreadsheet would take it for a formula
    if isinstance(cell, bool | int):
        return str(int(cell))
    return repr(float(cell)) if isinstance(cell, float) and finite(cell) else ""


def _number(column: PaperColumn, value: float | int | None) -> str:
    """A number as it is shown, in plain characters; empty where there is none."""
    if value is None or not finite(value):
        return ""
    if column.is_p:
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    if column.digits is None:
        return str(value)
    return f"{round(value, column.digits) + 0.0:.{column.digits}f}"


def _ends(column: PaperColumn, cell: PaperCell) -> tuple[str, str]:
    if not isinstance(cell, Estimate) or not cell.has_interval:
        return "", ""
    return _number(column, cell.low), _number(column, cell.high)


def _shown(column: PaperColumn, cell: PaperCell) -> str:
    if isinstance(cell, str):
        return cell
    value = _number(column, cell.value if isinstance(cell, Estimate) else cell) or "–"
    low, high = _ends(column, cell)
    return (f"{value} [{low}, {high}]" if low else value).replace("-", "−")


def _latex_cell(column: PaperColumn, cell: PaperCell) -> str:
    if isinstance(cell, str):
        return _latex(cell)
    text = _number(column, cell.value if isinstance(cell, Estimate) else cell)
    value = f"${text}$" if text else "--"
    if not column.interval:
        return value
    low, high = _ends(column, cell)
    return f"{value} & $[{low}$ & ${high}]$" if low else f"{value} & & "


def _latex(text: str) -> str:
    plain = unicodedata.normalize("NFC", _UNSEEN.sub("", " ".join(clean(text).split()))).replace("\ufffd", "?")
    text = "".join(_LATEX.get(sign, sign) for sign in re.sub("([-,])(?=\\1)", "\\1\0", plain))
    return text.replace("\0", "{}")  # two hyphens of a name would become a dash


def _markdown(text: str) -> str:
    plain = _UNSEEN.sub("", " ".join(clean(text).split()))
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", plain) if plain not in ("---", "---:") else plain


def about(environment: dict[str, object], n: Sequence[tuple[str, int]] = ()) -> str:
    """Where figures come from, for a caption: numbers of items, commit, day."""
    counts = [f"{what}: {count:,}" for what, count in n]
    made = [f"commit {environment['commit']}"] if environment.get("commit") else []
    day = str(environment.get("date") or "")[:10]
    return "; ".join([*counts, ", ".join(["made by stilnovo", *made, *([day] if day else [])])]) + "."
