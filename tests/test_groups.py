"""Groups of benchmarks: which tasks they mean, their macro average with its interval, and two runs compared by it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer

from stilnovo.benchmarks.groups import GROUPS, expanded
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.benchmarks.protocol import STILNOVO
from stilnovo.benchmarks.restrictions import licence_limits
from stilnovo.benchmarks.task import Draw, MissingData, Selection, select
from stilnovo.benchmarks.tasks import SAMPLES, TASKS, Wanted, find_tasks
from stilnovo.compare.paired import compare
from stilnovo.errors import InputError
from stilnovo.report.comparison import comparison_figures, comparison_page
from stilnovo.report.evaluation import evaluation_page, evaluation_text, group_text
from stilnovo.report.result_tables import evaluation_tables
from stilnovo.scoring.evaluate import expectation
from stilnovo.scoring.group_scores import chosen_notes, group_scores, macro_score, visible_average
from stilnovo.scoring.result import EvaluationResult, load_result
from stilnovo.statistics.estimates import Estimate, holm, mean, paired_difference
from stilnovo.statistics.macro import MacroAverage, chance_corrected, macro_average, score_average
from stilnovo.statistics.power import expected_reach
from test_evaluate_reference import ARC_IT, INCLUDE
from test_evaluate_run import app, call, run

__all__ = ["app"]  # the fixture

BOTH = f"mine={'+'.join(SAMPLES)}"


def chosen(names: list[str], *here: str) -> tuple[Wanted, list[str]]:
    """What names mean, and which of their tasks were asked, where there are data of these only."""
    wanted, asked = Wanted.of(names), []
    for task in wanted.tasks:
        if task.name in here:
            asked.append(task.name)
        else:
            wanted.absent(
                task,
                MissingData(f"The data of benchmark {task.name} are missing.", "Not found.", "Give --data-dir DIR."),
            )
    return wanted, asked


def test_a_group_names_tasks_once_and_in_one_form() -> None:
    """Two translations of the same questions in one average would count them twice."""
    same = (
        {"mmlu_it", "global_mmlu_full_it", "global_mmlu_it"},
        {"invalsi", "invalsi_report", "invalsi_report_written"},
    )
    for members in GROUPS.values():
        assert set(members) <= set(TASKS) and len(set(members)) == len(members) > 1
        assert all(len(one & set(members)) <= 1 for one in same)
    parts = ("knowledge", "understanding", "language")
    assert set(GROUPS["italian"]) > {name for part in parts for name in GROUPS[part]}
    assert sum(len(GROUPS[part]) for part in parts) + 2 == len(GROUPS["italian"]), "each in one part"
    assert not set(GROUPS) & set(TASKS)


def test_the_page_of_benchmarks_is_whole() -> None:
    """Every Italian benchmark has a row, and every group the tasks that it has."""
    page = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name, members in GROUPS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        named = [part.strip(" `") for part in row.split("|")[2].split(":")[-1].split(",")]
        assert named == list(members) or name == "italian"
    assert not [name for name in TASKS if name.endswith(("_it", "_ita")) and f"`{name}`" not in page]


def test_names_of_groups_mean_their_tasks() -> None:
    listed, groups = expanded(["arc_it", " knowledge", "mine = squad_it + arc_it", ""])
    assert listed == ["arc_it", *[name for name in GROUPS["knowledge"] if name != "arc_it"], "squad_it"]
    assert groups == {"knowledge": GROUPS["knowledge"], "mine": ("squad_it", "arc_it")}
    assert [task.name for task in find_tasks(["understanding"])] == list(GROUPS["understanding"])
    for typed, message in (
        (["mine=arc_it"], "at least two tasks"),
        (["mine=arc_it+arc_it"], "at least two tasks"),
        (["=arc_it+squad_it"], "no name"),
        (["knowledge=arc_it+squad_it"], "is a shipped group"),
        (["a=arc_it+squad_it", "a=arc_it+exams_it"], "Two groups are named a"),
    ):
        with pytest.raises(InputError, match=message):
            expanded(typed)
    with pytest.raises(InputError, match="Did you mean knowledge"):
        find_tasks(["knowlege"])
    with pytest.raises(InputError, match="There is no task 'arc_itt'"):
        find_tasks(["mine=arc_itt+squad_it"])


def test_tasks_without_data_are_named_not_dropped() -> None:
    wanted, asked = chosen(["knowledge", "squad_it"], "arc_it", "exams_it", "squad_it")
    assert asked == ["exams_it", "arc_it", "squad_it"]
    (note,) = wanted.notes
    assert "2 of its 6 tasks" in note and "italic, include_it, global_mmlu_full_it, evalita_at" in note
    with pytest.raises(MissingData, match=r"No data of group knowledge[^$]*--data-dir"):
        chosen(["knowledge", "squad_it"], "squad_it")
    with pytest.raises(MissingData, match="benchmark italic"):
        chosen(["knowledge", "italic"], "arc_it")
    with pytest.raises(InputError, match="arc_it is a task"):
        Wanted.of(["arc_it=exams_it+squad_it"])
    whole, asked = chosen(["mine=arc_it+squad_it"], "arc_it", "squad_it")
    assert not whole.notes and whole.groups == {"mine": ("arc_it", "squad_it")} and len(asked) == 2
    assert Wanted.of([]).tasks == ()


def test_a_group_is_selected_as_its_tasks_are(tmp_path: Path) -> None:
    """From a data folder that holds a part of it; what its average can show is said before."""
    for name, rows in (("include_it", INCLUDE), ("arc_it", ARC_IT)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    wanted = Wanted.of(["knowledge"])
    selections = Prompting().selections(wanted.tasks, STILNOVO, Draw(), tmp_path, absent=wanted.absent)
    assert [selection.task.name for selection in selections] == ["include_it", "arc_it"]
    assert set(wanted.missing) == {"italic", "global_mmlu_full_it", "exams_it", "evalita_at"}
    incomplete, licence, shown = chosen_notes(wanted, selections)
    assert "incomplete, 2 of its 6" in incomplete and "arc_it (if these rows are its own)" in licence
    assert shown.startswith("knowledge: of the macro average of 2 of 6 tasks, nothing under")
    with pytest.raises(MissingData):
        Prompting().selections(wanted.tasks, STILNOVO, Draw(), tmp_path)


def test_a_users_own_file_in_a_group(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"d": "Chi?", "o": ["io", "tu"], "r": 0}), encoding="utf-8")
    path = tmp_path / "a=b.yaml"
    path.write_text("name: quiz\nfile: q.jsonl\nquestion: d\nchoices: o\nanswer: r\n", encoding="utf-8")
    assert [task.name for task in find_tasks([str(path)])] == ["quiz"], "no group, though its name has a sign of one"
    wanted = Wanted.of([f"mine={path}+sample_questions"])
    assert wanted.groups == {"mine": ("quiz", "sample_questions")}
    assert [task.name for task in wanted.tasks] == ["quiz", "sample_questions"]


def test_forbidding_licences_are_said(tmp_path: Path) -> None:
    questions = select(TASKS["sample_questions"])
    assert licence_limits([questions]) == ""
    names = ("arc_it", "mmlu_it", "exams_it", "belebele_it")
    known = [replace(questions, task=TASKS[name]) for name in names]
    assert licence_limits(known) == "LICENCE: arc_it, mmlu_it: CC BY-NC 4.0 (no commercial use)."
    theirs = replace(questions, task=replace(TASKS["arc_it"], licence="not known"), known=False)
    assert "arc_it (if these rows are its own): CC BY-NC 4.0" in licence_limits([theirs])
    mine = replace(questions, task=replace(TASKS["arc_it"], name="mine", licence="CC-BY-NC-ND"))
    assert licence_limits([mine]).endswith("CC-BY-NC-ND (no commercial use and no adapted copies may be passed on).")
    some = replace(questions, task=replace(TASKS["arc_it"], name="mine", licence="theirs, some not commercial"))
    assert "no commercial use" in licence_limits([some])


def test_every_task_weighs_the_same() -> None:
    rng = np.random.default_rng(3)
    parts = [mean((rng.random(n) < p).astype(float)) for n, p in ((10, 0.3), (1000, 0.7), (57, 0.5))]
    average = macro_average(parts, 0.0)
    errors = [part.standard_error for part in parts]
    assert average.estimate.value == pytest.approx(sum(part.value for part in parts) / 3)
    assert average.estimate.standard_error == pytest.approx(math.sqrt(sum(error**2 for error in errors)) / 3)
    degrees = sum(error**2 for error in errors) ** 2 / sum(
        error**4 / (part.n - 1) for error, part in zip(errors, parts, strict=True)
    )
    assert average.degrees == pytest.approx(degrees)
    assert (average.estimate.n, average.estimate.clusters, average.tasks) == (1067, 1067, 3)
    again = macro_average(parts[::-1], 0.0).estimate
    assert again.high == pytest.approx(average.estimate.high)
    wider = macro_average(parts, 3.0).estimate
    assert wider.high - wider.low >= average.estimate.high - average.estimate.low
    joined = score_average(parts)
    assert joined.value == average.estimate.value
    for end in ("low", "high"):
        apart = math.sqrt(sum((getattr(part, end) - part.value) ** 2 for part in parts)) / 3
        assert abs(getattr(joined, end) - joined.value) == pytest.approx(apart)
    with pytest.raises(ValueError, match="no tasks"):
        macro_average([])


def test_welchs_test_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for value, degrees in ((0.5, 3), (2.0, 7), (2.5, 30), (4.0, 12), (5.0, 400), (0.01, 9)):
        p = MacroAverage(Estimate(value, value - 1, value + 1, 1.0, 9, 9), degrees, 2).p
        assert p == pytest.approx(2 * stats.t.sf(value, degrees), rel=0.02)


def test_interval_and_test_of_an_average_agree() -> None:
    rng = np.random.default_rng(5)
    outcomes = set()
    for _ in range(200):
        parts = [paired_difference(rng.random(n) < 0.5, rng.random(n) < 0.5 + rng.random() / 2) for n in (12, 20, 40)]
        average = macro_average(parts)
        excludes = not average.estimate.low <= 0 <= average.estimate.high
        assert excludes == (average.p < 0.05)
        outcomes.add(excludes)
    assert outcomes == {True, False}


def test_a_task_without_spread_still_has_an_error() -> None:
    """All right on ten items is not certainty; nor is no change at all."""
    right = mean([1.0] * 10)
    average = score_average([right, right])
    assert average.low < 0.95 and macro_average([right], 0.0).estimate.low == 1.0
    same = paired_difference([1.0, 0.0] * 10, [1.0, 0.0] * 10)
    unchanged = macro_average([same, same])
    assert unchanged.estimate.low < 0 < unchanged.estimate.high and unchanged.p == 1.0
    few, one_subject = mean([0.2, 0.3, 0.9], shares=False), mean([1.0, 0.0, 1.0], ["anatomy"] * 3)
    assert not few.has_interval and (one_subject.low, one_subject.high) == (0.0, 1.0)
    for part in (few, one_subject):
        nothing = macro_average([right, part])
        assert not nothing.estimate.has_interval and nothing.p == 1.0 and nothing.smallest_visible == math.inf
        assert not macro_score([right, part]).has_interval


def test_scores_counted_from_guessing() -> None:
    part = mean([1.0] * 40 + [0.0] * 60)
    above = chance_corrected(part, 0.25)
    assert above.value == pytest.approx(0.2) and above.low == pytest.approx((part.low - 0.25) / 0.75)
    assert above.high == pytest.approx((part.high - 0.25) / 0.75)
    assert chance_corrected(part, 0.0) == part


@pytest.mark.parametrize(
    "parts",
    [
        ((20, 0.95), (60, 0.5), (150, 0.75)),
        ((30, 0.97), (30, 0.97)),
        ((24, 0.95),) * 2,
        ((8, 0.5),) * 2,
        ((8, 0.9),) * 3,
        ((25, 0.3),) * 6,
    ],
)
def test_coverage_of_the_macro_average(parts: tuple[tuple[int, float], ...]) -> None:
    rng, draws, held = np.random.default_rng(1), 600, 0
    truth = sum(p for _, p in parts) / len(parts)
    for _ in range(draws):
        average = score_average([mean((rng.random(n) < p).astype(float)) for n, p in parts])
        held += average.low <= truth <= average.high
    assert held / draws > 0.93 - 2.5 * math.sqrt(0.93 * 0.07 / draws)


def visible(*tasks: tuple[int, list[str] | None]) -> float:
    return visible_average([(n, clusters, None) for n, clusters in tasks])


def test_what_an_average_can_show() -> None:
    assert visible(*[(100, None)] * 4) < visible((100, None)) < visible((20, None))
    groups = [str(number % 6) for number in range(60)]
    assert visible((100, None), (60, groups)) == 1.0, "six groups have no interval"
    assert visible((100, None), (60, [str(number % 12) for number in range(60)])) < 0.2
    known = visible_average([(100, None, 0.1), (100, None, 0.1)])
    assert known == pytest.approx(2.8 * 0.1 / math.sqrt(2), rel=0.01), (
        "a metric of all items together has its own error"
    )


def test_what_is_said_to_be_visible_is_seen_four_times_of_five() -> None:
    sizes, draws, seen, rng = (30, 60, 200), 400, 0, np.random.default_rng(7)
    shift = visible(*[(n, None) for n in sizes])
    for _ in range(draws):
        drawn = [rng.random(n) for n in sizes]
        parts = [paired_difference(part > 0.9 + shift / 2, part < 0.1 + shift / 2) for part in drawn]
        average = macro_average(parts)
        seen += average.estimate.low > 0 and average.p < 0.05
    assert abs(seen / draws - 0.8) < 0.07


def test_a_runs_groups_are_kept_shown_and_for_machines(tmp_path: Path) -> None:
    result = replace(run(texts=[]), groups={"mine": (*SAMPLES, "absent_it"), "one": (SAMPLES[0], "absent_it")})
    assert load_result(result.save(tmp_path)) == result
    mine, one = group_scores(result.groups, result.tasks)
    scores = [task.score().value for task in result.tasks.values()]
    assert mine.average is not None and mine.corrected is not None
    assert mine.average.value == pytest.approx(sum(scores) / 2)
    assert 0 <= mine.average.low <= mine.average.value <= mine.average.high <= 1
    assert mine.missing == ["absent_it"] and mine.extent == "2 of 3 tasks"
    assert one.average is None and "no macro average" in group_text(one)
    figures = result.summary()["task_groups"]["mine"]
    assert figures["macro_average"] == mine.average.value and figures["missing"] == ["absent_it"]
    assert figures["macro_average_interval"] == [mine.average.low, mine.average.high]
    assert figures["macro_average_above_chance"] == pytest.approx(mine.corrected.value)
    page = evaluation_page(result)
    assert "macro average of 2 of 3 tasks" in page and "Without absent_it" in page
    rows = [row for row in evaluation_tables(result)[0].rows if row[0] == "mine"]
    assert [row[5] for row in rows] == ["macro average of 2 of 3 tasks", "macro average of 2 of 3 tasks, above chance"]
    assert rows[0][8] == mine.average.times(100) and rows[1][8] == mine.corrected.times(100)
    assert "task_groups" not in run(texts=[]).summary()


def test_an_average_without_an_interval_is_shown_as_one() -> None:
    result = run(texts=[])
    items = tuple(replace(item, cluster="all") for item in result.tasks[SAMPLES[0]].items)
    tasks = {**result.tasks, SAMPLES[0]: replace(result.tasks[SAMPLES[0]], items=items)}
    found = replace(result, tasks=tasks, groups={"mine": SAMPLES})
    (mine,) = found.group_scores
    assert "(no interval)" in group_text(mine) and "visible none" in group_text(mine)
    assert found.summary()["task_groups"]["mine"]["macro_average_interval"] == [None, None]
    assert "macro average of 2 tasks" in evaluation_page(found) and "inf" not in "".join(evaluation_text_of(found))
    assert compare(found, found).groups["mine"].outcome == "inconclusive"


def evaluation_text_of(result: EvaluationResult) -> list[str]:
    return [line for line in evaluation_text(result) if isinstance(line, str)]


def test_two_runs_are_compared_by_their_averages() -> None:
    """Over the tasks that both have; corrected together with the tasks' own verdicts."""
    groups = {"mine": (*SAMPLES, "absent_it")}
    before, after = (replace(run(seed, limit=30), groups=groups) for seed in (0, 1))
    found = compare(before, after)
    verdict = found.groups["mine"]
    own = [found.verdicts[name] for name in SAMPLES]
    assert verdict.difference.value == pytest.approx(sum(one.difference.value for one in own) / 2)
    assert verdict.before.value == pytest.approx(sum(one.before.value for one in own) / 2)
    assert verdict.metric == "macro average of 2 of 3 tasks" and verdict.test == "Welch"
    assert [one.p_corrected for one in found.all.values()] == holm([one.p for one in found.all.values()])
    assert list(found.all) == [*SAMPLES, "bits_per_byte", "mine"]
    figures = comparison_figures(found)
    assert set(figures["tasks"]) == set(found.verdicts) and set(figures["task_groups"]) == {"mine"}
    chances = [before.tasks[name].chance for name in SAMPLES]
    above = sum(one.difference.value / (1 - chance) for one, chance in zip(own, chances, strict=True)) / 2
    assert figures["task_groups"]["mine"]["difference_above_chance"] == pytest.approx(above)
    assert "macro average of 2 of 3 tasks" in comparison_page(before, after, found, lambda task: {})
    assert compare(before, before).groups["mine"].outcome == "inconclusive"
    other = compare(before, replace(after, groups={"mine": SAMPLES}))
    assert not other.groups and "different groups" in other.refused["mine"]
    assert comparison_figures(other)["task_groups"] == {}
    one_task = compare(before, replace(run(1, limit=30, names=SAMPLES[:1]), groups=groups))
    assert not one_task.groups and SAMPLES[0] in one_task.verdicts


def test_the_command_knows_groups(app: typer.Typer, tmp_path: Path) -> None:
    shown, noted, found = call(app, "evaluate", "--model", "0", "--tasks", BOTH, "--limit", "12")
    assert set(found["tasks"]) == set(SAMPLES)
    scores = [task[task["metric"]] for task in found["tasks"].values()]
    assert found["task_groups"]["mine"]["macro_average"] == pytest.approx(sum(scores) / 2)
    assert "mine: macro average of 2 tasks" in " ".join(shown.split())
    assert "of the macro average of 2 tasks" in noted
    shown, _, found = call(app, "evaluate", "--tasks", "list")
    assert "knowledge" in shown and found["italic"]["groups"] == ["knowledge", "italian"] and found["italic"]["untried"]
    assert "italic *" in shown and not found["arc_it"]["untried"]


def test_the_expected_precision_knows_groups() -> None:
    """Twelve items in six passages are known less well than twelve items."""
    alone = expected_reach(12)
    grouped = expected_reach(12, [str(number // 2) for number in range(12)])
    assert alone[0] == alone[1] < grouped[0] < grouped[1]
    assert expected_reach(12, ["one"] * 12) == (0.5, 0.5)
    rng = np.random.default_rng(2)
    for sizes in ([2] * 6, [3, 9, 1, 20, 4, 5, 8, 11], rng.integers(1, 20, size=30).tolist()):
        names = np.repeat(np.arange(len(sizes)), sizes)
        for together, expected in zip((False, True), expected_reach(len(names), names.tolist()), strict=True):
            drawn = []
            for _ in range(60):
                right = (rng.random(len(sizes)) < 0.5)[names] if together else rng.random(len(names)) < 0.5
                found = mean(right.astype(float), names.tolist(), shares=True)
                drawn.append((found.high - found.low) / 2)
            assert np.median(drawn) == pytest.approx(expected, rel=0.15)
    items = tuple(
        replace(item, cluster=f"p{number // 2}")
        for number, item in enumerate(select(TASKS["sample_questions"]).items[:12])
    )
    said = expectation(Selection(TASKS["sample_questions"], "test", items, 12, 42))
    assert "alike" not in expectation(select(TASKS["sample_questions"], draw=Draw(12)))
    assert "±40.6 points, ±50.0 if the items of a group are answered alike; against another run" in said


def test_pieces_are_called_alike_before_and_after() -> None:
    result = run(names=())
    assert result.text is not None
    pieces = replace(result, text=replace(result.text, groups=("uno", "uno", *"abcdef")))
    assert "8 pieces of 7 documents" in compare(pieces, pieces).verdicts["bits_per_byte"].sentence
    assert compare(pieces, pieces).verdicts["bits_per_byte"].sample == "8 pieces of 7 documents"
    assert "pieces of 7 documents</span>" in comparison_page(pieces, pieces, compare(pieces, pieces), lambda task: {})
    assert "8 documents)" in compare(result, result).verdicts["bits_per_byte"].sentence
