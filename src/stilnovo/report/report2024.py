"""Compare with the 2024 report: its figures beside those of a run, in the layout of its tables 3 to 5.

Everything published is data here and is marked as published where it is printed; what the report does not give is an
em dash. Sources: *LLaMAntino 3 8B: Further Fine-Tuning on Italian Language Using Consumer Hardware* (2024), and for the
row of full precision the leaderboard figures that it compares with (mii-llm). The counts behind the four decimals were
solved from them: 123 of 234 and 98 of 234 (ARC-IT), 1,246 of 1,839 and 953 of 1,839 (HellaSwag-IT).
"""

from __future__ import annotations

from collections.abc import Sequence

from stilnovo.progress import counted
from stilnovo.scoring.result import EvaluationResult
from stilnovo.statistics.estimates import Estimate

NOTHING = "—"
Figures = tuple[str | None, ...]

# Model → its published figures, a column each.
BENCHMARKS: dict[str, Figures] = {
    "LLaMAntino-3-ANITA-8B, bfloat16, all items": (".5714", ".7093"),
    "LLaMAntino-3-ANITA-8B, 4-bit, first 20 %": (".5256", ".6775"),
    "the same after one epoch of Wikipedia (LoRA)": (".4188", ".5182"),
}
PERPLEXITIES: dict[str, Figures] = {
    "LLaMAntino-3-ANITA-8B": ("18.76",),
    "Llama-3-8B": ("15.92",),
    "LLaMAntino-3-ANITA-8B after one epoch (LoRA)": ("11.39",),
}
INVALSI: dict[str, Figures] = {
    "Llama-3-8B": ("0.7 %",),
    "LLaMAntino-3-ANITA-8B": (None,),
    "after one epoch (LoRA)": (None,),
}
# Title, columns, published figures, remark.
TABLES = (
    (
        "Perplexity on Italian Wikipedia, windows of 64 tokens", ("perplexity",), PERPLEXITIES,
        "Published: 183 articles of the training split, NF4. Lower is better; only equal tokenisers compare.",
    ),
    (
        "Benchmarks, 0-shot, acc_norm", ("ARC-IT", "HellaSwag-IT"), BENCHMARKS,
        "Published: FP4, no opening token, the first 234 and 1,839 items; ARC-IT in bfloat16 with version 1.0.",
    ),
    (
        "INVALSI, 76 questions, 0-shot, ROUGE-1 precision of four written tokens", ("0-shot",), INVALSI,
        "It measures whether a bare letter is written; `invalsi_report` measures whether it is the right one.",
    ),
)  # fmt: skip


def published_tables(result: EvaluationResult, name: str) -> str:
    """Format the report's tables as plain text, each with a line for this run, called `name`; published figures end in `p`."""
    short = None if result.text is None else result.text.perplexity_of_short_windows()
    tasks = [result.tasks.get(task) for task in ("arc_it", "hellaswag_it")]
    rouge = result.tasks.get("invalsi_report_written")
    own: tuple[Figures, ...] = (
        (_range(short, 2) if short else None,),
        tuple(
            f"{_range(task.score('acc_norm'), 4, short=True)}, {counted(task.n, 'item')}" if task else None
            for task in tasks
        ),
        (_range(rouge.score("rouge1_precision").times(100), 1, " %") if rouge else None,),
    )
    tables = [
        _table(title, columns, published, name, mine, remark)
        for (title, columns, published, remark), mine in zip(TABLES, own, strict=True)
    ]
    return "\n\n".join(tables) + "\n\np: published in 2024, not measured here. —: not given.\n"


def _table(
    title: str, columns: Sequence[str], published: dict[str, Figures], name: str, own: Figures, remark: str
) -> str:
    rows = [
        ("", *columns),
        *((model, *(NOTHING if f is None else f"{f} p" for f in figures)) for model, figures in published.items()),
        (name, *(figure or NOTHING for figure in own)),
    ]
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    body = [
        "  ".join([model.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for model, *cells in rows
    ]
    return "\n".join([title, *body, remark])


def _range(estimate: Estimate, digits: int, unit: str = "", *, short: bool = False) -> str:
    """Format a value with its interval; `short` drops the leading zero as the report does: .5256 (.4631–.5873)."""
    text = f"{estimate.value:.{digits}f}{unit} ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})"
    return text.replace("0.", ".") if short else text
