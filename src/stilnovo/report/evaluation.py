"""One evaluation: its page and its tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.table import Table

from stilnovo.benchmarks.task import METRIC_NAMES
from stilnovo.progress import counted
from stilnovo.report.answers import browsed, question_terms
from stilnovo.report.charts import IntervalRow, interval_plot
from stilnovo.report.page import both_widths, command_text, compose, text_table
from stilnovo.report.report2024 import published_tables
from stilnovo.report.result_tables import evaluation_tables
from stilnovo.scoring.group_scores import GroupScore
from stilnovo.scoring.perplexity import SHORT_WINDOW, documents_text
from stilnovo.scoring.questions import FindQuestions
from stilnovo.scoring.result import EvaluationResult
from stilnovo.scoring.served import remark_lines, server_lines
from stilnovo.statistics.estimates import FEWEST_UNITS, Estimate
from stilnovo.statistics.power import ASSUMED_DISCORDANCE
from stilnovo.statistics.spread import combined_performance, spread_of

TERMS = (
    "Guessing: the score of answers at random. Smallest visible: the smallest difference that a paired test with another "
    f"run on the same items would show (80 % power, {100 * ASSUMED_DISCORDANCE:.0f} % of answers changing; items of a group "
    f"at best, changing independently). Units: items, or groups of them that share a passage or a subject; {FEWEST_UNITS} "
    "groups are the fewest that can show a difference."
)
UNFOLDED = 12  # categories of a task that are shown without being asked for


def evaluation_page(result: EvaluationResult, find: FindQuestions | None = None) -> str:
    """Render the page of one evaluation: scores with intervals, categories, every item, limits, how to reproduce it.

    `find` gives a task's questions by id; without it the page shows no texts of questions.
    """
    tasks = list(result.tasks.values())
    items = browsed(result, find)
    categories = {task.name: scores for task in tasks if (scores := task.by_category())}
    return compose(
        f"{result.model}, evaluated", _headline(result), result.environment, result.command,
        [
            ("scores", "Scores", "Dots are scores, bars their 95 % intervals, dotted marks what guessing scores. Two runs "
             "are told apart by comparing them item by item, not by whether their bars overlap.", bool(tasks)),
            ("held_out", "Held-out text", "Lower is better.", result.text is not None),
            ("server", "How the server was asked", "Numbers made in another way are another measurement.", "server" in result.settings),
            ("categories", "By category", "The intervals of small categories are wide; a category that looks best by "
             "chance always exists.", bool(categories)),
            ("answers", "Every item", "Question, right answer and the model's own. Probabilities are shares among an item's options; the "
             "filled one was chosen (normalised accuracy chooses by the probability of a character), the right one has a tick.",
             bool(tasks)),
        ],
        tables=evaluation_tables(result), scripts=("browser.js",), browsed=items, question_terms=question_terms(items["told"]),
        prose="evaluation", server=_served(result), discordance=ASSUMED_DISCORDANCE, terms=TERMS, facts=_facts(result),
        result=result, tasks=tasks, groups=result.group_scores, counts=_counts, asked=asked_lines(result),
        metric_names=METRIC_NAMES, documents=documents_text, fewest=FEWEST_UNITS, short=short_perplexity(result), categories=categories,
        unfolded=UNFOLDED,
        plot=both_widths(
            interval_plot, _score_rows(result),
            "%", 1, caption="%, higher is better", key="scores", title="Scores with their 95 % intervals",
        ),
        category_plots=[
            both_widths(
                interval_plot, [IntervalRow(f"{part} ({score.n:,})", score.times(100)) for part, score in scores.items()],
                "%", 1, caption=f"{METRIC_NAMES[result.tasks[name].metric]}, %", key=f"category-{index}",
                title=f"{name} by category",
            )
            for index, (name, scores) in enumerate(categories.items())
        ],
    )  # fmt: skip


def evaluation_text(result: EvaluationResult, published_beside: str | None = None) -> Iterator[str | Table]:
    """Render an evaluation for the terminal; `published_beside` names the model in the tables of the 2024 report."""
    tasks = list(result.tasks.values())
    if tasks:
        yield text_table(
            f"95 % intervals; a verdict is about the first score of a task. {TERMS}",
            ("task", "items", "units", "score", "guessing", "smallest visible", "items/s"),
            [
                row
                for task in tasks
                for row in (
                    (
                        task.label, f"{task.n:,}", f"{task.score().clusters:,}",
                        "\n".join(f"{m} {_share(task.score(m))}" for m in task.metrics),
                        f"{100 * task.chance:.1f} %" if task.chance else "–",
                        visible_text(task.smallest_visible),
                        f"{task.items_per_second:.2f}" if task.items_per_second else "cached",
                    ),
                    *(
                        (f"  prompt {name}", f"{part.n:,}", f"{part.score().clusters:,}",
                         "\n".join(f"{m} {_share(part.score(m))}" for m in task.metrics), "", "", "")
                        for name, part in task.by_prompt().items()
                    ),
                )
            ],
        )  # fmt: skip
    yield from asked_lines(result)
    yield from map(group_text, result.group_scores)
    yield from _counts(sum(task.cached for task in tasks), sum(task.truncated for task in tasks))
    yield from _served(result)
    if result.text is not None:
        bits = result.text.bits_per_byte()
        yield (
            f"{result.text_name}: {bits.value:.4f} bits per byte {bits.between(4)}, "
            f"{documents_text(bits.n, bits.clusters)}, {sum(result.text.sizes):,} bytes, {sum(result.text.tokens):,} tokens"
        )
    if short := short_perplexity(result):
        yield f"{result.text_name}: {short}"
    if published_beside is not None:
        yield published_tables(result, published_beside)


def asked_lines(result: EvaluationResult) -> list[str]:
    """Describe how the tasks were asked where that is not plain: chat template, prompts and repeats with their spread, examples."""
    lines = []
    if chat := result.settings.get("chat_template"):
        system = f'system prompt "{chat["system"]}"' if chat["system"] else "no system prompt of ours"
        examples = (
            f", few-shot examples {chat['examples']}" if any(task.shots for task in result.tasks.values()) else ""
        )
        dated = f", which writes the date, {chat['date']}" if "date" in chat else ""
        lines.append(
            f"Asked through the model's chat template ({chat['template']}, sha256 {chat['sha256'][:12]}){dated}, {system}{examples}"
        )
    for task in result.tasks.values():
        parts = (("prompt", list(task.by_prompt().values())), ("repeat", task.by_repeat()))
        for noun, scores in ((noun, [part.score().value for part in parts]) for noun, parts in parts if parts):
            spread = spread_of(scores)
            lines.append(
                f"{task.label}: the score is the mean over {counted(len(scores), noun)}; with each, {100 * spread.lowest:.1f} to "
                f"{100 * spread.highest:.1f} %, standard deviation {100 * spread.standard_deviation:.1f} points"
                + f", combined performance score {100 * combined_performance(scores):.1f} %"
                * (noun == "prompt")
            )
        if again := task.right_again():
            shares = (
                f"{100 * again['right_in_all']:.1f} % of the items in all, {100 * again['right_in_any']:.1f} % in any"
            )
            lines.append(f"{task.label}: right in the repeats: {shares}")
        if task.examples:
            lines.append(f"{task.label}: examples, drawn with seed {task.seed}: {', '.join(task.examples)}")
    return lines


def group_text(group: GroupScore) -> str:
    """One line on a group of tasks: its macro average with its interval, and what is missing."""
    missing = f" Without {', '.join(group.missing)}, which have no scores." if group.missing else ""
    if group.average is None or group.corrected is None:
        return f"{group.name}: no macro average, only {group.tasks[0].label} was asked.{missing}"
    return (
        f"{group.name}: macro average of {group.extent} {_share(group.average)}, guessing {100 * group.chance:.1f} %; above chance "
        f"{_share(group.corrected)}; smallest visible {visible_text(group.smallest_visible)}.{missing}"
    )


def _score_rows(result: EvaluationResult) -> list[IntervalRow]:
    """Scores of tasks, and below them the macro averages of groups, in %."""
    scores = [(task.label, task.score(), task.chance) for task in result.tasks.values()]
    scores += [
        (f"{group.name}, macro average", group.average, group.chance) for group in result.group_scores if group.average
    ]
    return [IntervalRow(name, score.times(100), chance=100 * chance or None) for name, score, chance in scores]


def _served(result: EvaluationResult) -> list[str]:
    """Describe how a server was asked, if one was, and the answers of which something must be said."""
    about = result.settings.get("server")
    return [*(server_lines(about) if about else []), *remark_lines(result.tasks.values())]


def visible_text(share: float) -> str:
    """Format the smallest visible difference."""
    return f"{100 * share:.1f} points" if share < 1 else "none"


def short_perplexity(result: EvaluationResult) -> str:
    """Describe the perplexity that the 2024 report measured; empty where it was not measured."""
    short = None if result.text is None else result.text.perplexity_of_short_windows()
    if short is None:
        return ""
    return (
        f"perplexity {short.value:.2f} {short.between(2)} in windows of {SHORT_WINDOW} tokens, as in the 2024 report; it "
        "cannot be compared between tokenisers."
    )


def _share(estimate: Estimate, remark: str = "") -> str:
    value, low, high = (f"{100 * end:.1f}".replace("-", "−") for end in (estimate.value, estimate.low, estimate.high))
    if not estimate.has_interval:
        return f"{value} % (no interval{remark})"
    return f"{value} % ({low}–{high}{remark})"


def _headline(result: EvaluationResult) -> str:
    parts = [
        f"{task.label} {_share(task.score(), f', guessing {100 * task.chance:.0f} %' if task.chance else '')}"
        for task in result.tasks.values()
    ]
    if result.text is not None:
        bits = result.text.bits_per_byte()
        parts.append(f"{bits.value:.3f} bits per byte {bits.between(3)}")
    if len(parts) > 4:
        items = sum(task.n for task in result.tasks.values())
        parts = [f"{counted(len(result.tasks), 'task')}, {counted(items, 'item')}"]
    averages = [
        f"{group.name} {_share(group.average)}, macro average of {group.extent}"
        for group in result.group_scores
        if group.average
    ]
    return "; ".join([*averages, *parts]) + "."


def _counts(cached: int, truncated: int) -> list[str]:
    """Describe cached and truncated answers; no sentences where there are none."""
    again = (
        f"{counted(cached, 'answer')} {'was' if cached == 1 else 'were'} taken from the cache of an earlier run of the same model "
        "(--no-cache asks anew)."
    )
    short = f"{counted(truncated, 'item')} {'was' if truncated == 1 else 'were'} longer than the model's context and truncated on the left."
    return [again] * bool(cached) + [short] * bool(truncated)


def _facts(result: EvaluationResult) -> list[tuple[str, str]]:
    identity = result.identity or {}
    facts = [("command", command_text(result.command))] if result.command else []
    facts += [("model", result.model), ("adapter", result.adapter or "none"), ("quantization", result.quantization)]
    given = {key: value for key, value in identity.items() if value and key != "quantization"}
    given |= {
        key: value for key, value in result.settings.items() if key not in identity and value not in (None, [], "")
    }
    facts += [
        (key.replace("_", " "), json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value))
        for key, value in given.items()
    ]
    facts += [
        (what, digest)
        for name, task in result.tasks.items()
        for what, digest in (
            (f"{name} items sha256", task.items_sha256),
            *((f"{name}: {file}, sha256", digest) for file, digest in task.files.items()),
        )
    ]
    return facts if result.text is None else [*facts, ("held-out text sha256", result.text.texts_sha256)]
