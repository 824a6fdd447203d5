"""Tasks as data: rows into questions, subsets that are samples, and files that are not what they should be."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stilnovo.benchmarks.task import Draw, MultipleChoice, cluster_names, items_sha256, select, subset
from stilnovo.benchmarks.tasks import SAMPLES, TASKS, arc_it, find_tasks
from stilnovo.errors import InputError

ROW: dict[str, Any] = {
    "id": "x/1", "instruction": "Quale di questi corpi emette luce propria? ", "option_a": "la Luna", "option_b": "il Sole",
    "option_c": "Marte", "option_d": None, "answer": "B",
}  # fmt: skip


def write(folder: Path, rows: object, name: str = "it_test.json") -> Path:
    (folder / "arc_it").mkdir(exist_ok=True)
    text = rows if isinstance(rows, str) else json.dumps(rows)
    (folder / "arc_it" / name).write_text(text, encoding="utf-8")
    return folder


def test_arc_row() -> None:
    item = arc_it.make_item(ROW, "")
    assert item.context == "Question: Quale di questi corpi emette luce propria?\nAnswer:"
    assert item.endings == (" la Luna", " il Sole", " Marte")
    assert item.answer == 1


def test_arc_cleans_as_the_reference_does() -> None:
    item = arc_it.make_item(
        {**ROW, "instruction": "Quanto  pesa [in kg] l'acqua?", "option_a": "", "option_b": "un  chilo"}, ""
    )
    assert item.context == "Question: Quanto pesa l'acqua?\nAnswer:"
    assert item.endings == (" un chilo", " Marte")
    assert item.answer == 0


@pytest.mark.parametrize(("split", "n", "five"), [("test", 1169, 3), ("validation", 297, 1), ("train", 1118, 1)])
def test_arc_it_is_whole(shared_data: Path, split: str, n: int, five: int) -> None:
    selection = select(TASKS["arc_it"], shared_data / "benchmarks", split)
    assert (len(selection.items), selection.available) == (n, n)
    assert Counter(len(item.endings) for item in selection.items)[5] == five
    assert selection.clusters is None


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_balanced_and_need_nothing(name: str) -> None:
    items = select(TASKS[name]).items
    assert set(Counter(item.answer for item in items).values()) == {len(items) // 4}
    assert all(len(item.endings) == 4 and item.endings[0].startswith(" ") for item in items)
    assert len(items) == {"sample_questions": 60, "sample_completions": 40}[name]


def test_every_task_says_where_it_comes_from() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        assert all((task.version, task.source, task.licence, task.splits))


def make(count: int, clusters: int = 0) -> list[MultipleChoice]:
    return [MultipleChoice(str(i), "c", ("a", "b"), 0, f"c{i % clusters}" if clusters else "") for i in range(count)]


def test_a_subset_is_random_seeded_and_in_order() -> None:
    items = make(200)
    chosen = subset(items, 50)
    assert len(chosen) == 50
    assert chosen == subset(items, 50)
    assert chosen != subset(items, 50, seed=1)
    assert [int(item.id) for item in chosen] == sorted(int(item.id) for item in chosen)
    assert 80 < sum(int(item.id) for item in chosen) / 50 < 120, "not the first fifty"
    assert subset(items, 500) == items
    assert subset(items, None) == items


def test_a_subset_gives_every_cluster_its_share() -> None:
    counts = Counter(item.cluster for item in subset(make(200, clusters=8), 40))
    assert all(4 <= counts[f"c{index}"] <= 6 for index in range(8))


def test_every_item_is_equally_likely_to_be_drawn() -> None:
    """A lonely item as much as one of a large cluster."""
    items = [*make(30, clusters=1), *(replace(item, id=f"alone {item.id}") for item in make(10))]
    drawn = Counter(item.id for seed in range(2000) for item in subset(items, 10, seed))
    assert all(2000 * 0.19 < drawn[item.id] < 2000 * 0.31 for item in items)


def test_hash_knows_every_part_of_a_question() -> None:
    item = make(1)[0]
    variants = [
        item, replace(item, id="other"), replace(item, context="d"), replace(item, endings=("a", "c")),
        replace(item, endings=("a", "b", "c")), replace(item, answer=1),
    ]  # fmt: skip
    assert len({items_sha256([variant]) for variant in variants}) == len(variants)
    assert items_sha256([item]) == items_sha256((item,))


def test_cluster_names() -> None:
    assert cluster_names((item.id, item.cluster) for item in make(3)) is None
    mixed = [*make(2, clusters=1), replace(make(1)[0], id="alone")]
    assert len(set(cluster_names((item.id, item.cluster) for item in mixed) or [])) == 2


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(InputError, match="arc_it"):
        find_tasks(["arc_ita"])
    with pytest.raises(InputError, match="No task"):
        find_tasks([" "])
    assert [task.name for task in find_tasks(["sample_questions", "arc_it ", "sample_questions"])] == [
        "sample_questions",
        "arc_it",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{broken", "invalid JSON"),
        ("[]", "is empty"),
        ('{"a": 1}', "'id' is missing"),
        ("[1, 2]", "not an object"),
        ([ROW, ROW], "same id"),
        ([{**ROW, "answer": "D"}], "answer 'D' is none of its options A, B, C"),
        ([{**ROW, "answer": "Z"}], "Row 1 .* answer 'Z'"),
        ([ROW, {"id": "x/2", "answer": "A", "option_a": "x", "option_b": "y"}], "Row 2 .* 'instruction' is missing"),
        ([{**ROW, "option_b": 7}], "Row 1"),
        ([{**ROW, "instruction": None}], "Row 1"),
        ([{**ROW, "option_a": None, "option_c": None}], "Row 1"),
    ],
)
def test_bad_files_are_bad_input(tmp_path: Path, rows: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select(TASKS["arc_it"], write(tmp_path, rows))


def test_wrong_encodings_are_bad_input(tmp_path: Path) -> None:
    write(tmp_path, [ROW])
    (tmp_path / "arc_it" / "it_test.json").write_bytes("è".encode("latin-1"))
    with pytest.raises(InputError, match="invalid UTF-8"):
        select(TASKS["arc_it"], tmp_path)


def test_missing_data_split_and_limit_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data-dir"):
        select(TASKS["arc_it"])
    with pytest.raises(InputError, match=r"it_test\.json"):
        select(TASKS["arc_it"], tmp_path)
    write(tmp_path, [ROW])
    with pytest.raises(InputError, match="no split 'dev'"):
        select(TASKS["arc_it"], tmp_path, "dev")
    with pytest.raises(InputError, match="at least 1"):
        select(TASKS["arc_it"], tmp_path, draw=Draw(0))
    assert len(select(TASKS["arc_it"], tmp_path, draw=Draw(10)).items) == 1


def test_a_question_without_an_answer_cannot_be_made() -> None:
    for endings, answer in (((" a",), 0), ((" a", " b"), 2), ((" a", " "), 0)):
        with pytest.raises(ValueError, match=r"answer|empty"):
            MultipleChoice("x", "c", endings, answer)
