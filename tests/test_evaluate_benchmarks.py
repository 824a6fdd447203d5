"""The benchmarks as they lie, in other layouts, and broken; what written answers are worth."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from conftest import REAL_DATA
from stilnovo.benchmarks import grading
from stilnovo.benchmarks.dataset_files import Dataset, build
from stilnovo.benchmarks.task import Draw, Generation, MissingData, MultipleChoice, Request, select
from stilnovo.benchmarks.tasks import OLDER, TASKS, find_tasks, invalsi, invalsi_report, squad_it, winogrande
from stilnovo.benchmarks.tasks import italic as italic_task
from stilnovo.errors import InputError
from stilnovo.io.rows import read_rows
from test_evaluate_reference import (
    ARC,
    BELEBELE,
    GLOBAL_MMLU,
    HELLASWAG,
    INCLUDE,
    ITALIC,
    MMLU,
    MMLU_IT,
    TRUTHFUL,
    XCOPA,
)
from twin_files import FILES

COUNTS = {
    ("mmlu_it", "validation"): 1444,
    ("truthfulqa_it", "validation"): 783,
    ("exams_it", "test"): 636,
    ("exams_it", "validation"): 156,
    ("exams_it", "train"): 464,
    ("invalsi", "test"): 618,
    ("invalsi_report", "test"): 76,
    ("invalsi_report_written", "test"): 76,
    ("squad_it", "test"): 3881,
    ("hellaswag", "validation"): 10042,
    ("winogrande", "validation"): 1267,
    ("gsm8k", "test"): 1319,
}
HUB_ROWS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "hellaswag_it": ("it/val", HELLASWAG),
    "hellaswag": ("default/validation", HELLASWAG),
    "xcopa_it": ("it/test", XCOPA),
    "arc_challenge": ("ARC-Challenge/test", ARC),
    "truthfulqa": ("multiple_choice/validation", TRUTHFUL),
    "mmlu": ("all/test", MMLU),
    "mmlu_it": ("it/test", MMLU_IT),
    "italic": ("default/train", ITALIC),
    "include_it": ("Italian/test", INCLUDE),
    "global_mmlu_full_it": ("it/test", GLOBAL_MMLU),
    "global_mmlu_it": ("it/test", GLOBAL_MMLU),
    "belebele_it": ("ita_Latn/test", BELEBELE),
    "winogrande": (
        "winogrande_xl/validation",
        [{"sentence": "Anna thanked Maria because _ helped.", "option1": "Anna", "option2": "Maria", "answer": "2"}],
    ),
    "gsm8k": ("main/test", [{"question": "How many are 2 and 2?", "answer": "2 + 2 = 4\n#### 4"}]),
    "exams_it": (
        "multilingual/test",
        [
            {
                "id": language, "answerKey": "B", "info": {"subject": "Biology", "language": language},
                "question": {"stem": "Che cosa?", "choices": {"text": ["questo", "quello"], "label": ["A", "B"]}},
            }
            for language in ("Italian", "Polish")
        ],
    ),
    "squad_it": (
        "default/test",
        [{"id": "d1", "context": "Il Po nasce dal Monviso.", "question": "Da dove?", "answers": {"text": ["dal Monviso"]}}],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "split"), COUNTS)
def test_the_files_as_they_lie(name: str, split: str, tmp_path: Path) -> None:
    """The real files; where those are not, rows of our own in their form."""
    folder, count = REAL_DATA / "benchmarks", COUNTS[name, split]
    if not folder.is_dir():
        folder, (files, count) = tmp_path, FILES[name]
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            rows = map(json.dumps, content)
            text = (
                content
                if file.endswith(".txt")
                else "\n".join(rows)
                if file.endswith(".jsonl")
                else json.dumps(content)
            )
            (folder / file).write_text(str(text), encoding="utf-8")
    selection = select(TASKS[name], folder, split)
    assert len(selection.items) == count
    assert all(item.context.startswith(item.header) for item in selection.items)
    written = [item for item in selection.items if isinstance(item, Generation)]
    assert bool(written) == (TASKS[name].grade is not None)
    assert not written or all(item.references for item in written)


@pytest.mark.parametrize(("name", "clusters"), [("mmlu_it", 57), ("squad_it", 24), ("invalsi_report", 6)])
def test_items_that_share_something_are_clusters(name: str, clusters: int, shared_data: Path) -> None:
    selection = select(TASKS[name], shared_data / "benchmarks")
    assert len(set(selection.clusters or ())) == clusters


def test_invalsi_is_whole(shared_data: Path) -> None:
    items = select(TASKS["invalsi"], shared_data / "benchmarks").items
    written = [item for item in items if isinstance(item, Generation)]
    assert (len(written), len(items) - len(written)) == (35, 583)
    assert Counter(len(item.endings) for item in items if isinstance(item, MultipleChoice)) == {
        4: 371,
        2: 169,
        3: 33,
        5: 10,
    }
    years = Counter(item.category for item in select(TASKS["invalsi_report"], shared_data / "benchmarks").items)
    assert years == {"2007-2008": 11, "2008-2009": 40, "2009-2010": 25}


def test_hellaswag_knows_its_two_sources(shared_data: Path) -> None:
    """The first third is ActivityNet only, which is why its first items are no sample; a drawn subset has both."""
    items = select(TASKS["hellaswag"], shared_data / "benchmarks").items
    assert {item.category for item in items[:3243]} == {"ActivityNet"}
    assert {item.category for item in items[3243:]} == {"WikiHow"}
    drawn = Counter(
        item.category for item in select(TASKS["hellaswag"], shared_data / "benchmarks", draw=Draw(0.1)).items
    )
    assert sum(drawn.values()) == 1005
    assert abs(drawn["ActivityNet"] / 1005 - 3243 / 10042) < 0.04


def test_older_arc_has_a_fifth_choice(shared_data: Path) -> None:
    (task,) = find_tasks(["arc_it@1.0"])
    old, new = (select(one, shared_data / "benchmarks").items for one in (task, TASKS["arc_it"]))
    for before, after in zip(old, new, strict=True):
        assert isinstance(before, MultipleChoice) and isinstance(after, MultipleChoice)
        assert len(before.endings) == 5
        assert [ending for ending in before.endings if ending.strip()] == list(after.endings)
        assert before.endings[before.answer] == after.endings[after.answer]
    assert OLDER["arc_it@1.0"].version == "1.0"


@pytest.mark.parametrize("layout", ["hub conversion", "one parquet", "jsonl"])
@pytest.mark.parametrize("name", HUB_ROWS)
def test_mirrors_of_the_hub_in_any_layout_are_the_same(name: str, layout: str, tmp_path: Path) -> None:
    place, rows = HUB_ROWS[name]
    folder, split = tmp_path / TASKS[name].name, TASKS[name].splits[0]
    if layout == "jsonl":
        folder.mkdir()
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        path = folder / (
            f"{place}/0000.parquet" if layout == "hub conversion" else f"data/{split}-00000-of-00001.parquet"
        )
        path.parent.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    shots = 0 if TASKS[name].shots else None
    items = select(TASKS[name], tmp_path, shots=shots).items
    assert len(items) == (1 if name == "exams_it" else len(rows)), "only the Italian rows of EXAMS"


def test_download_is_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def snapshot(repository: str, **settings: Any) -> str:
        asked.append((repository, settings["repo_type"], settings["allow_patterns"]))
        target = tmp_path / "hub" / "it" / "val"
        target.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(HELLASWAG), target / "0000.parquet")
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(InputError, match=r"alexandrainst/m_hellaswag.*--download"):
        select(TASKS["hellaswag_it"], tmp_path)
    assert not asked
    assert len(select(TASKS["hellaswag_it"], tmp_path, download=True).items) == len(HELLASWAG)
    assert asked == [("alexandrainst/m_hellaswag", "dataset", ["it/val/*.parquet"])]


def test_an_unreachable_hub_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(InputError, match=r"could not be fetched.\nOSError: no route to host\n.*--data-dir"):
        select(TASKS["xcopa_it"], download=True)


@pytest.mark.parametrize("name", TASKS)
def test_missing_data_say_where_they_are(name: str, tmp_path: Path) -> None:
    if name.startswith("sample_"):
        assert select(TASKS[name], tmp_path).items
        return
    with pytest.raises(MissingData, match=r"--data-dir") as caught:
        select(TASKS[name], tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_another_split_is_taken_only_where_none_was_named(shared_data: Path) -> None:
    """The test set of MMLU-it is not among the shared files."""
    selection = select(TASKS["mmlu_it"], shared_data / "benchmarks")
    assert selection.split == "validation"
    assert select(TASKS["arc_it"], shared_data / "benchmarks").split == "test"
    with pytest.raises(MissingData, match="split test"):
        select(TASKS["mmlu_it"], shared_data / "benchmarks", "test")


def test_shots_are_a_shared_header(shared_data: Path) -> None:
    folder = shared_data / "benchmarks"
    five, none = (select(TASKS["mmlu_it"], folder, shots=shots).items for shots in (None, 0))
    (header,) = {item.header for item in five}
    first = read_rows(folder / "mmlu_it/it_dev.json")[:5]
    assert header.count("\n\n") >= 5
    assert all(row["instruction"].strip() in header for row in first)
    assert [item.context.removeprefix(header) for item in five] == [item.context for item in none]
    with pytest.raises(InputError, match="cannot be asked with 3 examples"):
        select(TASKS["invalsi"], folder, shots=3)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("mmlu_it", [{**MMLU_IT[0], "answer": "E"}], "answer 'E' is none of its options A, B, C, D"),
        ("mmlu_it", [{**MMLU_IT[0], "answer": ""}], "answer '' is none"),
        ("mmlu_it", [{**MMLU_IT[0], "option_b": None}], "option is empty"),
        ("mmlu_it", [MMLU_IT[0], MMLU_IT[0]], "same id"),
        ("italic", [{**ITALIC[0], "answer": "C"}], "answer 'C' is none of its options A, B"),
        ("italic", [{**ITALIC[0], "options": [{"B": "x"}, {"A": "y"}]}], "the options are BA"),
        ("italic", [{**ITALIC[0], "options": ["x", "y"]}], "Row 1"),
        ("italic", [{**ITALIC[0], "options": ["x", "y"]}], "another form than the benchmark's"),
        ("italic", [{**ITALIC[0], "options": [{letter: letter} for letter in "ABCDEF"]}], "letters from A on, E at most"),
        ("italic", [{**ITALIC[0], "options": [{"A": 1815}, {"B": "x"}]}], "or no text"),
        ("include_it", [{**INCLUDE[0], "answer": 1.9}], "1.9 should be a whole number"),
        ("include_it", [{**INCLUDE[0], "answer": True}], "True should be a whole number"),
        ("mmlu", [{**MMLU[0], "answer": 0.5}], "0.5 should be a whole number"),
        ("xcopa_it", [{**XCOPA[0], "label": 0.5}], "0.5 should be a whole number"),
        ("hellaswag_it", [{**HELLASWAG[0], "label": "1.5"}], "'1.5' should be a whole number"),
        ("italic", [{**ITALIC[0], "options": [{"A": "x"}, {"B": " "}]}], "an option is empty"),
        ("include_it", [{**INCLUDE[0], "answer": 4}], "answer 4 of 4"),
        ("include_it", [{**INCLUDE[0], "domain": None}], "domain"),
        ("global_mmlu_full_it", [GLOBAL_MMLU[0], GLOBAL_MMLU[0]], "same id"),
        ("belebele_it", [{**BELEBELE[0], "correct_answer_num": "5"}], "answer '5' is none"),
        ("belebele_it", [{**BELEBELE[0], "flores_passage": ""}], "flores_passage"),
        ("xcopa_it", [{**XCOPA[0], "label": 2}], "answer 2 of 2 endings"),
        ("xcopa_it", [{**XCOPA[0], "question": "why"}], "neither cause nor effect"),
        ("xcopa_it", [{key: value for key, value in XCOPA[0].items() if key != "premise"}], "'premise' is missing"),
        ("arc_challenge", [{**ARC[0], "answerKey": "D"}], "answer 'D' is none"),
        ("hellaswag_it", [{**HELLASWAG[0], "label": ""}], "Row 1"),
        ("hellaswag_it", [HELLASWAG[0], {**HELLASWAG[1], "endings": None}], "Row 2"),
        ("truthfulqa", [{**TRUTHFUL[0], "mc1_targets": {"choices": ["a"], "labels": [1, 0]}}], "labels do not fit"),
        ("truthfulqa", [{**TRUTHFUL[0], "mc2_targets": {"choices": ["a"], "labels": [1]}}], "true and false"),
        ("mmlu", [{**MMLU[0], "subject": None}], "subject"),
        ("gsm8k", [{"question": "What?", "answer": "four"}], "no '#### number'"),
        ("squad_it", [{"id": "d1", "context": "x", "question": "y", "answers": {"text": []}}], "an answer"),
    ],
)  # fmt: skip
def test_broken_rows_are_bad_input(name: str, rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    folder, split = tmp_path / name, TASKS[name].splits[0]
    folder.mkdir()
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        select(TASKS[name], tmp_path, split, shots=0 if TASKS[name].shots else None)


def test_knowledge_benchmarks_in_their_other_forms(tmp_path: Path) -> None:
    """Parquet gives every option of ITALIC all letters; INCLUDE had a list of choices; what items share is a cluster."""
    for name, rows in {
        "italic": [
            {**row, "options": [dict.fromkeys("ABCDE") | option for option in row["options"]]} for row in ITALIC
        ],
        "include_it": [
            {**{key: row[key] for key in row if "option" not in key}, "choices": list("abcd")} for row in INCLUDE
        ],
        "belebele_it": [{**row, "correct_answer_num": int(str(row["correct_answer_num"]))} for row in BELEBELE],
        "global_mmlu_it": GLOBAL_MMLU,
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    chosen = {
        path.name: select(TASKS[path.name], tmp_path, shots=0 if path.name == "italic" else None)
        for path in tmp_path.iterdir()
    }
    italic = chosen["italic"].items
    assert [len(item.endings) for item in italic if isinstance(item, MultipleChoice)] == [2, 2, 3, 2, 2, 3, 2]
    assert "\nA. a\nB. b\nC. c\n D. d\nAnswer:" in chosen["include_it"].items[0].context
    assert {item.category for item in chosen["include_it"].items} == {"Arts & Humanities"}
    (mapping,) = build(
        [{**ITALIC[0], "options": {"A": "x", "B": "y"}}], "", lambda row, place: italic_task.make_item(row, place)
    )
    assert "A) x\nB) y\n" in mapping.context
    passages = chosen["belebele_it"]
    assert len(set(passages.clusters or ())) == 3 and len({item.header for item in passages.items}) == 3
    assert set(chosen["global_mmlu_it"].clusters or ()) == {"anatomy"}
    assert Counter(item.category for item in chosen["global_mmlu_it"].items) == {
        "culturally agnostic": 3, "culturally sensitive": 2, "not judged": 2,
    }  # fmt: skip


def test_other_broken_files_are_bad_input(tmp_path: Path) -> None:
    for folder, file, text, message in (
        ("squad_it", "SQuAD_it-test.json", '{"data": [{}]}', "form of SQuAD"),
        ("squad_it", "SQuAD_it-test.json", "{", "line 1: invalid JSON"),
        ("hellaswag_en", "hellaswag_val_full.txt", "a: b\n0\nc\n", "six lines"),
        ("winogrande_en", "test.json", '[{"instruction": "Choose!", "answer": "option1"}]', "does not hold a sentence"),
        ("invalsi_2008_2010", "invalsi_ita_2007_2008.json", '[{"contesto": "x", "domande": []}]', "Row 1"),
        ("xcopa_it", "test.parquet", "no parquet", "damaged or not whole"),
    ):
        name = {"hellaswag_en": "hellaswag", "winogrande_en": "winogrande", "invalsi_2008_2010": "invalsi_report"}.get(
            folder, folder
        )
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            select(TASKS[name], tmp_path)


def test_bare_nan_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": NaN, "b": -Infinity, "c": "a\u2028b"}\n', encoding="utf-8")
    assert read_rows(tmp_path / "x.jsonl") == [{"a": None, "b": None, "c": "a\u2028b"}]


def test_own_file_comes_before_other_layouts(tmp_path: Path) -> None:
    data = Dataset("d", files={"test": ("own.jsonl",)})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "test.jsonl").write_text('{"from": "split"}', encoding="utf-8")
    assert data.rows(Request("test", tmp_path))[0] == [{"from": "split"}]
    (tmp_path / "d" / "own.jsonl").write_text('{"from": "own"}', encoding="utf-8")
    assert data.rows(Request("test", tmp_path))[0] == [{"from": "own"}]


def test_unknown_tasks_name_the_nearest() -> None:
    for typed, meant in (
        ("helaswag_it", "hellaswag_it"),
        ("invalsi_written", "invalsi_report_written"),
        ("truthful", "truthfulqa"),
    ):
        with pytest.raises(InputError, match=meant):
            find_tasks([typed])


def test_winogrande_has_two_contexts_and_one_ending() -> None:
    asked = "x given sentence: A thanked B as _ left.\n\nOption1: A Option2: B Answer format: option1/option2"
    row = winogrande.plain({"instruction": asked, "answer": "option2"})
    item = winogrande.make_item(row, "validation/0")
    assert item.pairs == [("A thanked B as A", " left."), ("A thanked B as B", " left.")]
    assert (item.answer, item.context) == (1, "A thanked B as ")


def written(*references: str) -> Generation:
    return Generation("x", "p", references, squad_it.DECODING)


def test_f1_is_precision_and_recall_of_words() -> None:
    for mine, theirs in (("a b c d", "b c e"), ("x", "x"), ("x y x", "x x"), ("u", "v"), ("", ""), ("", "v")):
        left, right = [word + "z" for word in mine.split()], [word + "z" for word in theirs.split()]
        shared = sum(min(left.count(word), right.count(word)) for word in set(left))
        precision, recall = (shared / len(side) if side else 0.0 for side in (left, right))
        expected = 2 * precision * recall / (precision + recall) if shared else float(not left and not right)
        assert grading.f1(" ".join(left), " ".join(right)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("L'acqua.", "acqua"), ("  il Po!", "Po"), ("un’altra «via»", "altra via"), ("dell'ossigeno", "ossigeno"), ("The Po", "po")],
)  # fmt: skip
def test_articles_case_and_punctuation_do_not_count(answer: str, reference: str) -> None:
    assert grading.grade(answer, written("altro", reference)) == {"f1": 1.0, "exact_match": 1.0}


def test_rouge_is_the_reference_implementations() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge_score is not installed")
    rouge = scorer.RougeScorer(["rouge1"])
    for answer in (" B", "B. La", "b) è B", "", "La risposta", "A B", "B B"):
        mine = invalsi_report.grade(answer, written("B."))
        assert mine["rouge1_precision"] == pytest.approx(rouge.score("B.", answer)["rouge1"].precision)
    assert invalsi_report.grade("La B.", written("B."))["exact_match"] == 1
    assert invalsi_report.grade("La C o B", written("B."))["exact_match"] == 0


@pytest.mark.parametrize(
    ("answer", "references", "right"),
    [
        (" Torino.", ("Torino",), 1), ("È Torino, credo", ("Torino",), 1), ("Milano", ("Torino",), 0),
        ("la Foresta e la selva", ("Foresta Tropicale\nSelva", "Foresta\nSelva"), 1), ("la foresta", ("Foresta\nSelva",), 0),
        ("stare in ozio", ("ozio del gufo",), 0), ("Perché la guerra non è gioco", ("La guerra non è un gioco",), 1),
    ],
)  # fmt: skip
def test_open_questions_of_invalsi(answer: str, references: tuple[str, ...], right: int) -> None:
    assert invalsi.grade(answer, written(*references))["acc"] == right
