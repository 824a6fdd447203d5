"""The figures of the 2024 report beside those of a run, in the layout of its tables 3 to 5.

Everything published is data here and is marked as published where it is printed; what the report does not give is an
em dash. Sources: *LLaMAntino 3 8B: Further Fine-Tuning on Italian Language Using Consumer Hardware* (2024), and for the
row of full precision the leaderboard figures that it compares with (mii-llm). The counts behind the four decimals were
solved from them: 123 of 234 and 98 of 234 (ARC-IT), 1,246 of 1,839 and 953 of 1,839 (HellaSwag-IT).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stilnovo.scoring.perplexity import HeldOutScore
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.statistics.estimates import Estimate

NOTHING = "—"


@dataclass(frozen=True)
class Line:
    """One model of a table: its name and a figure a column, None where none is given."""

    model: str
    figures: tuple[str | None, ...]
    published: bool = True


@dataclass(frozen=True)
class Table:
    """One table: what it shows, its columns, and its lines."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    remark: str = ""


BENCHMARKS = (
    Line("LLaMAntino-3-ANITA-8B, bfloat16, all items", (".5714", ".7093")),
    Line("LLaMAntino-3-ANITA-8B, 4-bit, first 20 %", (".5256", ".6775")),
    Line("the same after one epoch of Wikipedia (LoRA)", (".4188", ".5182")),
)
PERPLEXITIES = (
    Line("LLaMAntino-3-ANITA-8B", ("18.76",)),
    Line("Llama-3-8B", ("15.92",)),
    Line("LLaMAntino-3-ANITA-8B after one epoch (LoRA)", ("11.39",)),
)
INVALSI = (
    Line("Llama-3-8B", ("0.7 %",)),
    Line("LLaMAntino-3-ANITA-8B", (None,)),
    Line("after one epoch (LoRA)", (None,)),
)


def tables(result: EvaluationResult, name: str) -> list[Table]:
    """The report's tables, each with a line for this run where it has something to say, else with dashes.

    Args:
        result: Of this run.
        name: Of its model, as the line is to be called.
    """
    tasks = result.tasks
    return [
        Table(
            "Perplexity on Italian Wikipedia, windows of 64 tokens",
            ("perplexity",),
            (*PERPLEXITIES, Line(name, (_perplexity(result.text),), published=False)),
            "Published: 183 articles of the training split, NF4. Lower is better; only equal tokenisers compare.",
        ),
        Table(
            "Benchmarks, 0-shot, acc_norm",
            ("ARC-IT", "HellaSwag-IT"),
            (
                *BENCHMARKS,
                Line(name, tuple(_share(tasks, task) for task in ("arc_it", "hellaswag_it")), published=False),
            ),
            "Published: FP4, no opening token, the first 234 and 1,839 items; ARC-IT in bfloat16 with version 1.0.",
        ),
        Table(
            "INVALSI, 76 questions, 0-shot, ROUGE-1 precision of four written tokens",
            ("0-shot",),
            (*INVALSI, Line(name, (_rouge(tasks.get("invalsi_report_written")),), published=False)),
            "It measures whether a bare letter is written; `invalsi_report` measures whether it is the right one.",
        ),
    ]


def text(shown: Sequence[Table]) -> str:
    """The tables as plain text; published figures end in a `p`."""
    return (
        "\n\n".join(_table(table) for table in shown) + "\n\np: published in 2024, not measured here. —: not given.\n"
    )


def _table(table: Table) -> str:
    rows = [("", *table.columns)]
    for line in table.lines:
        figures = [
            NOTHING if figure is None else f"{figure}{' p' if line.published else ''}" for figure in line.figures
        ]
        rows.append((line.model, *figures))
    first = max(len(row[0]) for row in rows)
    widths = [max(len(row[column]) for row in rows) for column in range(1, len(rows[0]))]
    body = [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))])
        for row in rows
    ]
    return "\n".join([table.title, *body, *([table.remark] if table.remark else [])])


def _share(tasks: Mapping[str, TaskResult], name: str) -> str | None:
    task = tasks.get(name)
    return None if task is None else f"{_decimals(task.score('acc_norm'), 4)}, {task.n:,} items"


def _rouge(task: TaskResult | None) -> str | None:
    if task is None:
        return None
    found = task.score("rouge1_precision")
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f}–{100 * found.high:.1f})"


def _perplexity(score: HeldOutScore | None) -> str | None:
    found = None if score is None else score.perplexity_of_short_windows()
    return None if found is None else f"{found.value:.2f} ({found.low:.2f}–{found.high:.2f})"


def _decimals(found: Estimate, digits: int) -> str:
    """As the report prints shares, without the zero: .5256 (.4631–.5873)."""

    def short(value: float) -> str:
        return f"{value:.{digits}f}".replace("0.", ".", 1)

    return f"{short(found.value)} ({short(found.low)}–{short(found.high)})"
