"""The tables that a paper takes from the pages: scores, categories, held-out text, verdicts, settings of a sweep, a training's course."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stilnovo.benchmarks.task import METRIC_NAMES
from stilnovo.compare.verdict import Verdict
from stilnovo.report.paper import PaperCell, PaperColumn, PaperTable, about
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.statistics.estimates import Estimate

_N = PaperColumn("n", digits=0, meaning="items, documents or pieces")
_UNITS = PaperColumn(
    "units",
    digits=0,
    meaning="independent units that the interval rests on: items, or groups that share a passage or a subject",
)
_VERDICT = PaperColumn("verdict", meaning="improved or regressed where test and interval agree at 5 %")


def evaluation_tables(result: EvaluationResult) -> list[PaperTable]:
    """Scores, categories and held-out text of an evaluation; only those that it has."""
    tasks = list(result.tasks.values())
    said = about(result.environment, [("items", sum(task.n for task in tasks))] if tasks else [])
    name = f"{result.model}{f' with {result.adapter}' if result.adapter else ''}, {result.quantization}"
    score = PaperColumn("score", "%", 1, interval=True)
    tables, columns = list[PaperTable](), tuple[PaperColumn, ...]()
    if tasks:
        columns = (
            PaperColumn("task"), PaperColumn("prompt"), PaperColumn("version"), PaperColumn("split"), PaperColumn("examples", digits=0),
            PaperColumn("metric"), _N, _UNITS, score, PaperColumn("guessing", "%", 1, "the score of answers at random"),
            PaperColumn("smallest visible", "points", 1, "difference to another run on the same items that can be seen, 80 % power"),
        )  # fmt: skip
        rows = (*(row for task in tasks for row in _score_rows(task)), *_group_rows(result))
        tables.append(PaperTable("scores", f"Scores of {name}, with 95 % intervals", columns, rows, said))
    if categories := [(task, part, value) for task in tasks for part, value in task.by_category().items()]:
        columns = (PaperColumn("task"), PaperColumn("category"), PaperColumn("metric"), _N, _UNITS, score)
        parts = tuple(
            (task.label, part, METRIC_NAMES[task.metric], value.n, value.clusters, value.times(100))
            for task, part, value in categories
        )
        tables.append(
            PaperTable("categories", f"Scores of {name} by category, with 95 % intervals", columns, parts, said)
        )
    if result.text is not None:
        bits = result.text.bits_per_byte()
        columns = (
            PaperColumn("text"), _N, _UNITS, PaperColumn("bytes", digits=0), PaperColumn("tokens", digits=0),
            PaperColumn("bits per byte", "", 4, "lower is better", interval=True),
        )  # fmt: skip
        row = (result.text_name or "", bits.n, bits.clusters, sum(result.text.sizes), sum(result.text.tokens), bits)
        tables.append(
            PaperTable(
                "held_out",
                f"Held-out text under {name}, with its 95 % interval",
                columns,
                (row,),
                about(result.environment),
            )
        )
    return tables


def _score_rows(task: TaskResult) -> Iterator[tuple[PaperCell, ...]]:
    parts = task.by_prompt()
    for prompt, part in (("all, mean" if parts else "", task), *parts.items()):
        for metric in task.metrics:
            estimate = part.score(metric)
            first = prompt in ("", "all, mean") and metric == task.metric
            visible = 100 * task.smallest_visible if first and task.smallest_visible < 1 else None
            yield (
                task.label, prompt, task.version, task.split, task.shots, METRIC_NAMES[metric], estimate.n, estimate.clusters,
                estimate.times(100), 100 * task.chance if first and task.chance else None, visible,
            )  # fmt: skip


def _group_rows(result: EvaluationResult) -> Iterator[tuple[PaperCell, ...]]:
    for group in result.group_scores:
        if group.average is not None:
            what, counts = f"macro average of {group.extent}", (group.average.n, group.average.clusters)
            visible = 100 * group.smallest_visible if group.smallest_visible < 1 else None
            yield group.name, "", "", "", None, what, *counts, group.average.times(100), 100 * group.chance, visible
            if group.corrected is not None:
                yield (
                    group.name,
                    "",
                    "",
                    "",
                    None,
                    f"{what}, above chance",
                    *counts,
                    group.corrected.times(100),
                    None,
                    None,
                )


def verdict_table(verdicts: Mapping[str, Verdict], caption: str, environment: Mapping[str, Any]) -> PaperTable:
    """The verdicts of a comparison; values of one table have different units, so each row says its own."""
    comparisons = max((verdict.comparisons for verdict in verdicts.values()), default=1)
    columns = (
        PaperColumn("measure"), PaperColumn("unit"), _N, _UNITS, PaperColumn("before", interval=True, by_row=True),
        PaperColumn("after", interval=True, by_row=True),
        PaperColumn("difference", meaning="after minus before, paired", interval=True, by_row=True),
        PaperColumn("gained", digits=0, meaning="items that score more"),
        PaperColumn("lost", digits=0, meaning="items that score less"), PaperColumn("test"),
        PaperColumn("p", meaning="of the test alone, two-sided", is_p=True),
        PaperColumn("mid-p", meaning="McNemar's mid-p, beside the exact one, which decides", is_p=True),
        PaperColumn("p corrected", meaning=f"Holm's correction over the {comparisons} comparisons of this table", is_p=True),
        PaperColumn("smallest visible", meaning="difference that these units show with 80 % power", by_row=True), _VERDICT,
    )  # fmt: skip
    rows = tuple(
        (
            name, verdict.unit, verdict.difference.n, verdict.difference.clusters, verdict.before.times(verdict.scale),
            verdict.after.times(verdict.scale), verdict.difference.times(verdict.scale), verdict.gained, verdict.lost, verdict.test,
            verdict.p, verdict.mid_p, verdict.p_corrected, verdict.scale * verdict.smallest_visible if verdict.can_decide else None,
            verdict.outcome,
        )
        for name, verdict in verdicts.items()
    )  # fmt: skip
    return PaperTable(
        "verdicts",
        caption,
        columns,
        rows,
        about(dict(environment)),
        tuple(verdict.digits for verdict in verdicts.values()),
    )


def settings_table(
    measures: Sequence[tuple[str, str, str, Sequence[tuple[Any, Verdict]]]], base: str, environment: Mapping[str, Any]
) -> PaperTable:
    """Every measure of every setting of a sweep, against the base: (measure, unit, note, verdicts by setting)."""
    columns = (
        PaperColumn("measure"), PaperColumn("unit"), PaperColumn("adapter"), PaperColumn("scale"), _N, _UNITS,
        PaperColumn("base", by_row=True), PaperColumn("value", interval=True, by_row=True),
        PaperColumn("difference", meaning="value minus base, paired", interval=True, by_row=True),
        PaperColumn("p", meaning="two-sided, not corrected for the number of settings", is_p=True), _VERDICT,
    )  # fmt: skip
    rows = tuple(
        (
            name, verdict.unit, point.name, str(point.scaling), verdict.difference.n, verdict.difference.clusters,
            verdict.scale * verdict.before.value, verdict.after.times(verdict.scale), verdict.difference.times(verdict.scale),
            verdict.p, verdict.outcome,
        )
        for name, _, _, verdicts in measures
        for point, verdict in verdicts
    )  # fmt: skip
    digits = tuple(verdict.digits for *_, verdicts in measures for _, verdict in verdicts)
    return PaperTable(
        "measures", f"{base} under every scale of the adapters", columns, rows, about(dict(environment)), digits
    )


def course_tables(
    steps: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    title: str,
    environment: Mapping[str, Any],
) -> list[PaperTable]:
    """A training's loss by step, and its held-out loss by evaluation."""
    per = "nats per loss token, or per pair with dpo"
    said = about(dict(environment))
    course = _rows(
        "loss", f"Training loss of {title}", steps, said,
        (("step", PaperColumn("step", digits=0)), ("tokens", PaperColumn("tokens", digits=0, meaning="loss tokens so far")),
         ("loss", PaperColumn("loss", "", 4, per)), ("learning_rate", PaperColumn("learning rate", "", 8)),
         ("gradient_norm", PaperColumn("gradient norm", "", 4, "before clipping"))),
    )  # fmt: skip
    held_out = _rows(
        "evaluations", f"Held-out loss of {title}", evaluations, said,
        (("step", PaperColumn("step", digits=0)), ("held_out_loss", PaperColumn("held-out loss", "", 4, per)),
         ("base_held_out_loss", PaperColumn("the base's", "", 4)), ("loss", PaperColumn("training loss", "", 4))),
    )  # fmt: skip
    return [table for table in (course, held_out) if table.rows]


def _rows(
    key: str, caption: str, rows: Sequence[Mapping[str, Any]], said: str, columns: Sequence[tuple[str, PaperColumn]]
) -> PaperTable:
    cells = tuple(tuple(_cell(row.get(name)) for name, _ in columns) for row in rows)
    return PaperTable(key, caption, tuple(column for _, column in columns), cells, said)


def _cell(value: object) -> PaperCell:
    return value if isinstance(value, str | int | float | Estimate) else None
