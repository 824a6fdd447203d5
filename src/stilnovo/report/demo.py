"""The demo: its page, its table for the terminal, and its figures, all made from one `DemoResult`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from stilnovo.chat.events import Answer
from stilnovo.compare.variants import SchemeCost, SideBySide
from stilnovo.compare.verdict import BITS, Verdict
from stilnovo.generate.generator import Sampling
from stilnovo.plan.ledger import MemoryItem
from stilnovo.recipe import Recipe
from stilnovo.report.charts import IntervalRow, interval_plot, loss_values
from stilnovo.report.comparison import VERDICTS_NOTE, verdict_values
from stilnovo.report.numbers import byte_size, decimal, duration, p_value, per_second, percent
from stilnovo.report.page import Section, both_widths, compose, text_table
from stilnovo.report.plot import interval_text
from stilnovo.report.result_tables import verdict_table
from stilnovo.scoring.result import EvaluationResult
from stilnovo.train.outcome import TrainResult

NAMES = {
    "bits_per_byte": "Held-out Italian",
    "sample_questions": "Questions",
    "sample_completions": "Sentence completion",
}
_SMALL = 10**9  # parameters below which a model is said to be a beginner


@dataclass
class DemoResult:
    """Everything the demo measured; stages that were not run leave their fields empty."""

    recipe: Recipe
    folder: Path
    trainable: int = 0
    total: int = 0
    optimizer: str = ""
    before: EvaluationResult | None = None
    after: EvaluationResult | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    train: TrainResult | None = None
    memory: list[MemoryItem] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    quantisation: list[SchemeCost] = field(default_factory=list)
    texts: list[SideBySide] = field(default_factory=list)
    sampling: Sampling | None = None
    answers: list[Answer] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(self.stages.values())

    @property
    def headline(self) -> str:
        """The verdict on held-out text, the demo's main one."""
        verdict = self.verdicts.get("bits_per_byte")
        return verdict.sentence if verdict else "Nothing was measured."

    @property
    def title(self) -> str:
        """The page's title."""
        return f"stilnovo demo: {self.recipe.model.name}"


def demo_figures(result: DemoResult, page: str) -> dict[str, Any]:
    """Collect the figures of a demo for `--json`; all were measured in this run."""
    assert result.train is not None
    verdict, questions = result.verdicts["bits_per_byte"], result.verdicts["sample_questions"]
    answer = result.answers[0]
    quote = next(iter(answer.quotes), None)
    return {
        "model": result.recipe.model.name, "quantization": result.recipe.model.quantization,
        "trainable_parameters": result.trainable, "total_parameters": result.total,
        "bits_per_byte_before": verdict.before.value, "bits_per_byte_after": verdict.after.value,
        "accuracy_before": questions.before.value, "accuracy_after": questions.after.value,
        "verdict": f"{verdict.sentence} {questions.sentence}",
        "verdicts": {name: v.outcome for name, v in result.verdicts.items()},
        "tokens_per_second": result.train.tokens_per_second, "peak_memory_bytes": result.train.peak_memory_bytes,
        "question": answer.question, "answer": answer.text, "answer_kind": answer.kind,
        "quote": quote.text if quote else None, "quote_source": quote.citation if quote else None,
        "quote_verified": quote is not None and quote.status == "verified",
        "adapter": str(result.folder / "adapter"), "report": page, "seconds": result.seconds, "stages": result.stages,
    }  # fmt: skip


def demo_page(result: DemoResult) -> str:
    """Render the page of a demo."""
    sections: list[Section] = [
        ("glance", "At a glance", "", result.total > 0),
        ("verdicts", "Improved or regressed", VERDICTS_NOTE, bool(result.verdicts)),
        ("loss", "The loss", "Training loss, step by step.", bool(result.metrics)),
        ("memory", "Memory, line by line", "Outlined bars: predicted. Filled bars: measured.", bool(result.memory)),
        ("quantisation", "What quantization costs", "The same text and weights, stored in fewer bits. Hollow dot and "
         "dashed line: the reference.", bool(result.quantisation)),
        ("texts", "Side by side", "The same prompt, settings and seed for both.", bool(result.texts)),
        ("conversation", "Asked of the library", "Verified: found word for word in the work it names. Repaired: corrected "
         "from that work. Unverified: not found there, not to be trusted.", bool(result.answers)),
    ]  # fmt: skip
    costs, tasks = result.quantisation, result.before.tasks if result.before else {}
    schemes = [IntervalRow(cost.scheme, cost.bits_per_byte, filled=index > 0) for index, cost in enumerate(costs)]
    named = _named(result.verdicts)
    return compose(
        result.title, result.headline, result.manifest, result.manifest.get("command", []), sections,
        tables=[verdict_table(named, result.title, result.manifest)] if named else [],
        prose="demo", names=NAMES, small=_SMALL, recipe=result.recipe.to_yaml() if result.total else "",
        result=result, tiles=tiles(result),
        peak_memory=result.train.peak_memory_bytes if result.train else None,
        memory_most=max((max(line.size, line.measured or 0) for line in result.memory), default=0),
        quantisation_plot=both_widths(
            interval_plot, schemes, BITS, 3, key="quantisation", title="Bits per byte by scheme",
            guide=costs[0].bits_per_byte.value if costs else None,
            caption=f"{BITS}, lower is better",
        ),
        **loss_values(result.metrics),
        **verdict_values(named, {NAMES.get(name, name): task.chance for name, task in tasks.items()}),
    )  # fmt: skip


def demo_text(result: DemoResult) -> Table:
    """Render a demo for the terminal; generated text is plain, its brackets are not markup."""
    # of what has a verdict, the rows below give the figures with their uncertainty
    rows = [(label, figure, note) for label, figure, note, before, _ in tiles(result) if not before]
    for name, verdict in _named(result.verdicts).items():
        ends = [interval_text(end.times(verdict.scale), verdict.digits) for end in (verdict.before, verdict.after)]
        p = p_value(verdict.decisive_p)
        remark = f"{verdict.outcome}\nn = {verdict.difference.n:,}, p {p if p.startswith('<') else f'= {p}'}"
        rows.append((f"{name} ({verdict.unit})", " →\n".join(ends), remark))
    for answer in result.answers:
        quotes = [("Quotation", f"«{quote.shown}»", f"{quote.status}: {quote.citation}") for quote in answer.quotes]
        rows += [("Question", answer.question, ""), ("Answer", answer.text, answer.kind), *quotes]
    return text_table(f"{result.title}\n{result.headline}", ("", "Figure", "Remark"), rows, left=("Figure", "Remark"))


def tiles(result: DemoResult) -> list[tuple[str, str, str, str, str]]:
    """Collect the key figures that were measured: label, figure, note, the figure it replaced, the unrounded figure."""
    share = f"{percent(result.trainable / result.total, 2)} of {result.total:,}" if result.total else ""
    model = result.recipe.model
    shown = [
        ("Model", f"{model.name} · {model.quantization}", "", "", ""),
        ("Trainable parameters", f"{result.trainable:,}", share, "", ""),
    ]
    for name, label in (("bits_per_byte", "Bits per byte"), ("sample_questions", "Accuracy")):
        if verdict := result.verdicts.get(name):
            note = f"{verdict.outcome} ({'lower' if verdict.lower_is_better else 'higher'} is better)"
            before, after = (
                decimal(verdict.scale * end.value, verdict.digits, "" if verdict.lower_is_better else "%")
                for end in (verdict.before, verdict.after)
            )
            shown.append((label, after, note, before, ""))
    if result.train is not None:
        speed, peak = result.train.tokens_per_second, result.train.peak_memory_bytes
        shown += [
            ("Training speed", per_second(speed), "tokens per second", "", ""),
            ("Peak memory", byte_size(peak), "", "", f"{peak:,} bytes"),
        ]
    return [*shown, ("Whole run", duration(result.seconds), "", "", f"{result.seconds:,.1f} seconds")]


def _named(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    return {NAMES.get(name, name): verdict for name, verdict in verdicts.items()}
