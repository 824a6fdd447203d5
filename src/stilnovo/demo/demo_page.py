"""The demo's results as the report's plain data and as the final JSON line."""

from __future__ import annotations

from typing import Any

from stilnovo import report
from stilnovo.chat.answer import Answer
from stilnovo.chat.quotes import Quote
from stilnovo.compare.verdict import Verdict
from stilnovo.demo.job import DemoResult
from stilnovo.statistics.estimates import Estimate

NAMES = {
    "bits_per_byte": "Held-out Italian",
    "sample_questions": "Questions",
    "sample_completions": "Sentence completion",
}


def summary(result: DemoResult, page: str) -> dict[str, Any]:
    """The final JSON object; every figure was measured in this run."""
    assert result.train is not None
    verdict = result.verdicts["bits_per_byte"]
    questions = result.verdicts["sample_questions"]
    answer = result.answers[0]
    quote = answer.quotes[0] if answer.quotes else None
    return {
        "model": result.recipe.model.name,
        "quantization": result.recipe.model.quantization,
        "trainable_parameters": result.trainable,
        "total_parameters": result.total,
        "bits_per_byte_before": verdict.before,
        "bits_per_byte_after": verdict.after,
        "accuracy_before": questions.before,
        "accuracy_after": questions.after,
        "verdict": f"{verdict.sentence} {questions.sentence}",
        "verdicts": {name: v.outcome for name, v in result.verdicts.items()},
        "tokens_per_second": result.train.tokens_per_second,
        "peak_memory_bytes": result.train.peak_memory_bytes,
        "question": answer.question,
        "answer": answer.text,
        "answer_kind": answer.kind,
        "quote": quote.text if quote else None,
        "quote_source": quote.citation if quote else None,
        "quote_verified": quote is not None and quote.status == "verified",
        "adapter": str(result.folder / "adapter"),
        "report": page,
        "seconds": result.seconds,
        "stages": result.stages,
    }


def report_data(result: DemoResult) -> report.ReportData:
    """Everything the page shows."""
    assert result.train is not None
    manifest, figures = result.manifest, summary(result, "")
    hardware = ", ".join(f"{key}: {value}" for key, value in manifest["hardware"].items())
    bits = result.verdicts["bits_per_byte"]
    return report.ReportData(
        title=f"stilnovo demo: {result.recipe.model.name}",
        headline=bits.sentence,
        created=manifest["date"],
        command=" ".join(["stilnovo", *manifest["command"][1:]]),
        commit=manifest["commit"],
        hardware=hardware,
        versions=manifest["versions"],
        key=report.KeyFigures(
            model=f"{result.recipe.model.name} · {result.recipe.model.quantization}",
            trainable_parameters=result.trainable,
            total_parameters=result.total,
            bits_per_byte_before=bits.before,
            bits_per_byte_after=bits.after,
            accuracy_before=figures["accuracy_before"],
            accuracy_after=figures["accuracy_after"],
            bits_per_byte_verdict=bits.outcome,
            accuracy_verdict=result.verdicts["sample_questions"].outcome,
            tokens_per_second=result.train.tokens_per_second,
            peak_memory_bytes=result.train.peak_memory_bytes,
            seconds=result.seconds,
        ),
        verdicts=tuple(_verdict(result, name, verdict) for name, verdict in result.verdicts.items()),
        loss=tuple(
            report.LossPoint(row["step"], row["tokens"], row["loss"], row["learning_rate"]) for row in result.metrics
        ),
        memory=tuple(report.MemoryItem(line.item, line.predicted, line.measured, line.note) for line in result.memory),
        memory_total=report.MemoryItem(
            "the lines that were weighed",
            sum(line.predicted for line in result.memory if line.measured is not None),
            sum(line.measured for line in result.memory if line.measured is not None),
            "The whole process, with Python and its libraries, peaked at "
            f"{result.train.peak_memory_bytes / 2**30:.2f} GiB.",
        ),
        quantisation=tuple(
            report.QuantisationRow(cost.scheme, cost.bits_per_weight, _interval(cost.bits_per_byte), cost.bytes)
            for cost in result.quantisation
        ),
        pairs=tuple(
            report.Pair(
                text.prompt, text.kind,
                f"temperature {result.sampling.temperature}, top-p {result.sampling.top_p}, seed {text.seed}, at most "
                f"{result.sampling.max_new_tokens} tokens",
                text.base.text, text.tuned.text,
            )
            for text in result.texts
        ),
        conversation=tuple(_exchange(answer) for answer in result.answers),
        recipe=result.recipe.to_yaml(),
        method=_method(result),
        limits=_limits(result),
    )  # fmt: skip


def _interval(estimate: Estimate, scale: float = 1.0) -> report.Interval:
    return report.Interval(scale * estimate.value, scale * estimate.low, scale * estimate.high)


def _verdict(result: DemoResult, name: str, verdict: Verdict) -> report.VerdictRow:
    assert result.before is not None and result.after is not None
    if name == "bits_per_byte":
        assert result.before.text is not None and result.after.text is not None
        before, after = result.before.text.bits_per_byte(), result.after.text.bits_per_byte()
        scale, unit, digits, chance = 1.0, "bits per byte", 3, None
    else:
        first, second = result.before.tasks[name], result.after.tasks[name]
        before, after = first.score(), second.score()
        scale, unit, digits, chance = 100.0, "%", 1, 100 * first.chance
    low, high = verdict.interval
    return report.VerdictRow(
        name=NAMES.get(name, name), sentence=verdict.sentence, before=_interval(before, scale), after=_interval(after, scale),
        unit=unit, n=verdict.n, p=verdict.p, direction=verdict.outcome, digits=digits, chance=chance,
        difference=report.Interval(scale * verdict.difference, scale * low, scale * high),
        lower_is_better=name == "bits_per_byte",
    )  # fmt: skip


def _exchange(answer: Answer) -> report.Exchange:
    quotes = tuple(report.QuoteRow(q.text, q.status, q.citation, _passage(answer, q)) for q in answer.quotes)
    return report.Exchange(answer.question, answer.text, answer.kind, quotes)


def _passage(answer: Answer, quote: Quote) -> str:
    return next((p.text for p in answer.passages if quote.text in p.text), "")


def _method(result: DemoResult) -> tuple[str, ...]:
    recipe = result.recipe
    assert result.before is not None and result.train is not None
    text = result.before.text
    return (
        f"The base is frozen and kept in {recipe.model.quantization}; a LoRA adapter of rank {recipe.lora.r} learns on "
        f"{', '.join(recipe.lora.projections)} with 8-bit AdamW, {result.train.steps} steps, {result.train.tokens:,} tokens. "
        "A starts random and B at zero, so that 'before' is exactly the base model.",
        f"Held-out text: {len(text.sizes) if text else 0} documents drawn by seed and never trained on; bits per byte count "
        "every token once. Questions are judged by the log-likelihood of each answer, divided by its length in characters.",
        "Before and after answer the same items, so the verdicts are paired: McNemar's exact test for right and wrong "
        "answers, sign-flip test and bootstrap over documents for bits per byte, corrected for their number by Holm's method.",
        "Texts side by side share prompt, seed and settings. Quotations are looked up in the stored source, character by "
        "character, after the answer is made.",
    )


def _limits(result: DemoResult) -> tuple[str, ...]:
    small = result.total < 10**9
    beginner = (
        f"A model of {result.total / 1e6:.0f} million parameters after a few minutes is a beginner: it learns the tone of "
        "an encyclopaedia, not facts, and its texts are often wrong or broken. What changed is what the verdicts say.",
    )
    return (beginner if small else ()) + (
        "The sample is small: 60 questions cannot show changes of a few points, as each verdict states.",
        "Held-out and training texts come from the same hand; on other Italian the gain is smaller.",
        "The answer from the library is extractive: a sentence of the source, chosen and verified, not written by the model.",
    )
