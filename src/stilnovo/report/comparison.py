"""Two evaluations compared: verdicts with their charts, tables and figures, and every item on which the models differ.

A result holds no question's text. The page is made where the data lie: the task reads them again, and a question is
shown only if its content hash is the one that was asked. Filters work by style sheet alone, so that the page needs no
script to be browsed; the script adds a search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from rich.table import Table

from stilnovo.benchmarks.corpus_metrics import item_metric
from stilnovo.benchmarks.task import Item, Metric, MultipleChoice
from stilnovo.compare.paired import TEXT, Comparison, Pairs
from stilnovo.compare.verdict import Outcome, Verdict
from stilnovo.report.charts import IntervalRow, interval_plot
from stilnovo.report.page import Section, both_widths, compose, text_table
from stilnovo.report.plot import interval_text, numbers_of
from stilnovo.report.result_tables import verdict_table
from stilnovo.runlog import environment
from stilnovo.scoring.packed import ItemScore
from stilnovo.scoring.questions import FindQuestions, same_questions
from stilnovo.scoring.result import EvaluationResult, units_of

MOST_ITEMS = 1000  # of one task on the page; a browser scrolls through them without effort
RIGHT = 0.5  # from which score on an item counts as right, where scores lie between 0 and 1

Change = Literal["gained", "lost", "other"]

VERDICTS_NOTE = (
    "Hollow dot and dashed line: before. Filled dot: after. Bars are 95 % intervals. The verdict rests on the paired "
    "difference, item by item, not on whether the bars overlap."
)


def comparison_page(
    before: EvaluationResult,
    after: EvaluationResult,
    comparison: Comparison,
    find: FindQuestions,
    command: Sequence[str] = (),
) -> str:
    """Render the page of two evaluations; `find` gives a task's items by id, none where its data are missing."""
    verdicts = {"Held-out text" if name == TEXT else name: verdict for name, verdict in comparison.all.items()}
    sections: list[Section] = [
        ("differences", "The difference", "After minus before on the same items, with its 95 % interval. An interval that "
         "contains the dashed zero is inconclusive.", bool(verdicts)),
        ("verdicts", "Improved or regressed", VERDICTS_NOTE, bool(verdicts)),
        ("runs", "The two runs", "Settings in which they differ.", bool(comparison.differences)),
        ("refused", "Not compared", "", bool(comparison.refused)),
        ("items", "Where they differ", "Gained: wrong before, right after. Lost: the reverse. Other: another answer, as "
         "right or as wrong as before. Figures are log-likelihoods in nats, and per character where that decides; the "
         "filled one was chosen, the right answer has a tick.", bool(comparison.pairs)),
    ]  # fmt: skip
    title, made = f"{run_name(before)} → {run_name(after)}", environment()
    return compose(
        title, _headline(verdicts), made, command, sections,
        prose="comparison", tables=[verdict_table(verdicts, f"{title}, with 95 % intervals", made)],
        comparison=comparison, difference_plots=_difference_plots(verdicts),
        tasks=[differing(pairs, find(pairs.before)) for pairs in comparison.pairs.values()],
        **verdict_values(verdicts, {name: pairs.before.chance for name, pairs in comparison.pairs.items()}),
    )  # fmt: skip


def comparison_text(before: EvaluationResult, after: EvaluationResult, comparison: Comparison) -> Iterator[str | Table]:
    """Render a comparison for the terminal."""
    yield f"before: {run_name(before)}\nafter:  {run_name(after)}\n"
    yield from (f"{name}: {verdict.sentence}" for name, verdict in comparison.all.items())
    yield from (pairs.note for pairs in comparison.pairs.values() if pairs.note)
    yield from (f"{name}: not compared. {reason}" for name, reason in comparison.refused.items())
    rows = []
    for name, verdict in comparison.all.items():
        scale, digits = verdict.scale, 4 if verdict.lower_is_better else 1
        change = verdict.difference.times(scale)
        rows.append(
            (
                name, f"{change.n:,}", f"{change.clusters:,}", f"{scale * verdict.before.value:.{digits}f}",
                f"{scale * verdict.after.value:.{digits}f}", f"{change.value:+.{digits}f}",
                f"{change.low:+.{digits}f} to {change.high:+.{digits}f}" if change.has_interval else "none",
                "–" if verdict.gained is None else f"{verdict.gained:,}, {verdict.lost:,}", f"{verdict.decisive_p:.3f}",
                f"{scale * verdict.smallest_visible:.{digits}f}" if verdict.can_decide else "none", verdict.outcome,
            )
        )  # fmt: skip
    yield text_table(
        "shares in %, differences in points; 95 % intervals over the independent units; p corrected for the number of "
        "comparisons (Holm); visible: the smallest difference with 80 % power",
        (
            "task",
            "n",
            "units",
            "before",
            "after",
            "difference",
            "interval",
            "gained, lost",
            "corrected p",
            "visible",
            "verdict",
        ),
        rows,
        left=("verdict",),
    )


def comparison_figures(comparison: Comparison) -> dict[str, Any]:
    """Collect the figures of a comparison for `--json`."""
    figures = {
        name: {
            "n": verdict.difference.n, "metric": verdict.metric, "before": verdict.before.value,
            "after": verdict.after.value, "difference": verdict.difference.value,
            "interval": [verdict.difference.low, verdict.difference.high], "p_value": verdict.p,
            "mid_p": verdict.mid_p, "p_corrected": verdict.p_corrected, "correction": "Holm", "comparisons": verdict.comparisons,
            "test": verdict.test, "clusters": verdict.difference.clusters, **units_of(verdict.difference), "gained": verdict.gained,
            "lost": verdict.lost, "outcome": verdict.outcome, "verdict": verdict.sentence,
            "smallest_visible_difference": verdict.smallest_visible,
        }
        for name, verdict in comparison.all.items()
    }  # fmt: skip
    for name, pairs in comparison.pairs.items():
        figures[name] |= {"only_before": pairs.only_before, "only_after": pairs.only_after}
    for name, above in comparison.above_chance.items():
        figures[name] |= {"difference_above_chance": above.value, "above_chance_interval": [above.low, above.high]}
    tasks, groups = ({name: figures[name] for name in part} for part in (comparison.verdicts, comparison.groups))
    differences = [list(row) for row in comparison.differences]
    return {"tasks": tasks, "task_groups": groups, "refused": comparison.refused, "differences": differences}


def run_name(result: EvaluationResult) -> str:
    """Name a run by model, quantization and adapter."""
    scheme = "" if result.quantization == "none" else f" in {result.quantization}"
    return f"{result.model}{scheme}" + (f" with {result.adapter}" if result.adapter else "")


def verdict_values(verdicts: Mapping[str, Verdict], chances: Mapping[str, float]) -> dict[str, Any]:
    """Values for the section `verdicts`: one plot per verdict, those of the same unit on the same axis."""
    ends = {name: [v.before.times(v.scale), v.after.times(v.scale)] for name, v in verdicts.items()}
    chance = {name: 100 * chances[name] for name in verdicts if chances.get(name)}
    plots = {}
    for index, (name, verdict) in enumerate(verdicts.items()):
        alike = [other for other, v in verdicts.items() if v.unit == verdict.unit]
        shared = [end for other in alike for end in ends[other]]
        rows = [
            IntervalRow(when, end, when == "after", chance.get(name))
            for when, end in zip(("before", "after"), ends[name], strict=True)
        ]
        plots[name] = both_widths(
            interval_plot, rows, verdict.unit, verdict.digits, key=f"verdict-{index}", title=f"{name}: before and after",
            guide=ends[name][0].value, cover=[*numbers_of(shared), *(chance[n] for n in alike if n in chance)],
            room=max(len(interval_text(end, verdict.digits)) for end in shared),
            caption=f"{verdict.unit}, {'lower' if verdict.lower_is_better else 'higher'} is better",
        )  # fmt: skip
    return {"verdicts": verdicts, "plots": plots}


def _difference_plots(verdicts: Mapping[str, Verdict]) -> list[list[str | None]]:
    """Plot differences, one plot per unit: points and bits per byte share no axis."""
    plots: list[list[str | None]] = []
    for unit, digits in dict.fromkeys((verdict.unit, verdict.digits) for verdict in verdicts.values()):
        name, side = ("points", "right") if unit == "%" else (unit, "left")
        rows = [IntervalRow(task, v.difference.times(v.scale)) for task, v in verdicts.items() if v.unit == unit]
        plots.append(
            both_widths(
                interval_plot, rows, name, digits, key=f"difference-{len(plots)}", title=f"Difference in {name}", guide=0.0,
                caption=f"{name}; better to the {side}",
            )
        )  # fmt: skip
    return plots


def _headline(verdicts: Mapping[str, Verdict]) -> str:
    names = {
        outcome: [name for name, verdict in verdicts.items() if verdict.outcome == outcome]
        for outcome in get_args(Outcome)
    }
    return " ".join(f"{outcome.capitalize()}: {', '.join(tasks)}." for outcome, tasks in names.items() if tasks)


def differing(pairs: Pairs, texts: Mapping[str, Item]) -> dict[str, Any]:
    """Collect the items that the two models answered differently, limited to what the page can hold; counts are of all.

    `gained` became right, `lost` wrong; `other` is another answer that is as wrong or as right as before.
    """
    task = pairs.before
    metric = item_metric(task.metrics)
    changed = [(*both, change) for both in pairs.items if (change := _change(*both, metric)) is not None]
    step = max(1.0, len(changed) / MOST_ITEMS)
    shown = [changed[int(index * step)] for index in range(min(len(changed), MOST_ITEMS))]
    known = same_questions(task, texts)
    asked = {answer.id: known[answer.id] for answer, *_ in shown if answer.id in known}
    return {
        "task": task, "unknown": len(shown) - len(asked), "n": len(pairs.items), "counts": Counter(change for *_, change in changed),
        "all": len(changed),
        "shown": [
            {"change": change, "before": first, "after": second, **_content(first, second, metric, asked.get(first.id))}
            for first, second, change in shown
        ],
    }  # fmt: skip


def _change(before: ItemScore, after: ItemScore, metric: Metric) -> Change | None:
    was, became = before.values[metric] >= RIGHT, after.values[metric] >= RIGHT
    if was != became:
        return "gained" if became else "lost"
    same = (_pick(before, metric), before.text) == (_pick(after, metric), after.text)
    return None if same else "other"


def _pick(answer: ItemScore, metric: Metric) -> int:
    return answer.choice_norm if metric == "acc_norm" else answer.choice


def _content(before: ItemScore, after: ItemScore, metric: Metric, item: Item | None) -> dict[str, Any]:
    """Collect question, references and possible answers, with each model's values, of an item whose text is known.

    A row of `endings` is text, whether it is right, and for each model the log-likelihood in nats, the same per character
    where that decides, and whether it was chosen.
    """
    question = "" if item is None else item.context.removeprefix(item.header).strip()
    if not isinstance(item, MultipleChoice):
        texts, right, lengths = [f"answer {n + 1}" for n in range(len(before.loglikelihoods))], {before.answer}, []
    else:
        texts = [(context.removeprefix(item.context) + ending).strip() for context, ending in item.pairs]
        truths = {index for index, label in enumerate(item.labels) if label == 1}
        right = truths if truths and metric == "mc2" else {before.answer}
        lengths = [len(ending.removeprefix(" ")) for ending in item.endings] if metric == "acc_norm" else []
    chosen = [(answer.loglikelihoods, _pick(answer, metric)) for answer in (before, after)]
    endings = [
        (
            text, index in right,
            [(nats[index], nats[index] / lengths[index] if lengths else None, index == pick) for nats, pick in chosen],
        )
        for index, text in enumerate(texts)
    ]  # fmt: skip
    references = () if item is None or isinstance(item, MultipleChoice) else item.references
    return {"question": question, "endings": endings, "references": references}
