"""A benchmark from a user's own file: two kinds of YAML and Python, from good files and from bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from stilnovo.benchmarks.task import Decoding, Draw, MultipleChoice, select
from stilnovo.benchmarks.task_file import open_task_file, reopen_task_file
from stilnovo.benchmarks.tasks import find_tasks
from stilnovo.cli.main import app
from stilnovo.errors import InputError

ROWS = [
    {"id": "q1", "domanda": "Quale fiume attraversa Torino?", "opzioni": ["Il Po", "L'Arno", "Il Tevere"], "risposta": "A",
     "tema": "geografia"},
    {"id": "q2", "domanda": "Chi scrisse «I Malavoglia»?", "opzioni": ["Manzoni", "Verga"], "risposta": "B", "tema": "letteratura"},
    {"id": "q3", "domanda": "Quanti lati ha un esagono?", "opzioni": ["5", "6", "8", "10"], "risposta": "B", "tema": "matematica"},
]  # fmt: skip
QUIZ = {"file": "quiz.jsonl", "question": "domanda", "choices": "opzioni", "answer": "risposta"}
HARNESS = {
    "task": "quiz_it", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "quiz.jsonl"}}, "test_split": "test",
    "output_type": "multiple_choice", "doc_to_text": "{{domanda}}", "doc_to_choice": "opzioni",
    "doc_to_target": "{{'ABCDE'.index(risposta)}}",
}  # fmt: skip


def quiz(folder: Path, rows: list[Any] | str = ROWS, file: str = "quiz.jsonl", **settings: Any) -> Path:
    """A YAML file and its data; a setting of None is left out."""
    text = rows if isinstance(rows, str) else "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / file).write_text(text, encoding="utf-8")
    usual = {} if "dataset_path" in settings else {**QUIZ, "file": file}
    content = {key: value for key, value in {**usual, **settings}.items() if value is not None}
    path = folder / "quiz.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def items(path: Path) -> list[Any]:
    return list(select(open_task_file(path)).items)


def test_a_quiz_becomes_questions(tmp_path: Path) -> None:
    path = quiz(tmp_path, name="mio", group="tema", category="tema", licence="CC0", source="scritto a scuola")
    task = open_task_file(path)
    first = items(path)[0]
    assert first == MultipleChoice(
        "q1", "Domanda: Quale fiume attraversa Torino?\nRisposta:", (" Il Po", " L'Arno", " Il Tevere"), 0, "geografia", "geografia"
    )  # fmt: skip
    assert [item.answer for item in items(path)] == [0, 1, 1]
    assert (task.name, task.licence, task.metrics, task.reference) == ("mio", "CC0", ("acc_norm", "acc"), "")
    assert task.source.startswith("the user's own file quiz.yaml (sha256 ")
    assert "quiz.jsonl (sha256 " in task.source and task.source.endswith("; taken from scritto a scuola")
    assert [len(digest) for digest in task.files.values()] == [64, 64]


def test_questions_without_a_group_stand_alone(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "brano": 0}, {**ROWS[1], "brano": None}, {**ROWS[2], "brano": 0}]
    assert [item.cluster for item in items(quiz(tmp_path, rows, group="brano"))] == ["0", "", "0"]


def test_nothing_is_claimed_that_was_not_said(tmp_path: Path) -> None:
    task = open_task_file(quiz(tmp_path))
    assert (task.name, task.licence, task.version) == ("quiz", "not stated", "1")
    assert "huggingface" not in task.source


@pytest.mark.parametrize(
    ("change", "answers"),
    [
        ({"risposta": "a"}, 0),
        ({"risposta": "c"}, 2),
        ({"risposta": 2}, 2),
        ({"risposta": "2"}, 2),
        ({"risposta": "L'Arno"}, 1),
        ({"risposta": " Il Po "}, 0),
    ],
)
def test_an_answer_is_a_letter_an_index_or_the_text(change: dict[str, Any], answers: int, tmp_path: Path) -> None:
    assert items(quiz(tmp_path, [{**ROWS[0], **change}]))[0].answer == answers


def test_indices_from_one_and_answers_that_could_be_two(tmp_path: Path) -> None:
    assert [item.answer for item in items(quiz(tmp_path, [{**ROWS[0], "risposta": "1"}], first_index=1))] == [0]
    numbers = [{**ROWS[2], "opzioni": ["1", "2", "3"], "risposta": "1"}]
    with pytest.raises(InputError, match=r"Row 1 .*answer: '1' may be index or text; say which with answer_is"):
        items(quiz(tmp_path, numbers))
    assert items(quiz(tmp_path, numbers, answer_is="text"))[0].answer == 0
    assert items(quiz(tmp_path, numbers, answer_is="index"))[0].answer == 1


def test_a_table_with_a_column_a_choice(tmp_path: Path) -> None:
    """Semicolons, a byte order mark, Windows line ends, an empty cell that is no choice."""
    rows = "\ufeffdomanda;a;b;c;giusta\r\nQuale è un fiume?;il Po;il Cervino;;A\r\nQuanti sono due?;uno;due;tre;C\r\n"
    path = quiz(tmp_path, rows, "quiz.csv", choices=["a", "b", "c"], answer="giusta")
    first, second = items(path)
    assert (first.endings, first.answer, first.id) == ((" il Po", " il Cervino"), 0, "test/0")
    assert (second.endings, second.answer) == ((" uno", " due", " tre"), 2)


def test_prompts_and_languages(tmp_path: Path) -> None:
    assert items(quiz(tmp_path, language="en"))[0].context == "Question: Quale fiume attraversa Torino?\nAnswer:"
    assert (
        items(quiz(tmp_path, prompt="[{{tema}}] {{domanda}}"))[0].context
        == "[geografia] Quale fiume attraversa Torino?"
    )


def test_written_answers(tmp_path: Path) -> None:
    rows = [{"frase": "the dog", "vere": ["il cane", "un cane"]}, {"frase": "six", "vere": "sei"}]
    path = tmp_path / "scritte.yaml"
    (tmp_path / "frasi.json").write_text(json.dumps(rows), encoding="utf-8")
    path.write_text(
        'file: frasi.json\nprompt: "Traduci: {{frase}}\\n"\ntarget: vere\nmax_tokens: 9\n', encoding="utf-8"
    )
    first, second = items(path)
    assert (first.context, first.references, second.references) == (
        "Traduci: the dog\n",
        ("il cane", "un cane"),
        ("sei",),
    )
    assert first.decoding == Decoding(9, ("\n",))
    task = open_task_file(path)
    assert task.metrics == ("exact_match", "f1") and task.grade is not None
    assert task.grade("Il cane!", first) == {"exact_match": 1.0, "f1": 1.0}
    assert task.grade("un gatto", first)["exact_match"] == 0.0


def test_python_files(tmp_path: Path) -> None:
    source = """
    from stilnovo.benchmarks.task import MultipleChoice, Task

    def load(request):
        return [MultipleChoice("a", "Due più due fa", (" quattro", " cinque"), 0)]

    def task():
        return Task("conti", "3", "", "", ("acc",), ("test",), load)
    """
    path = tmp_path / "conti.py"
    path.write_text("\n".join(line[4:] for line in source.splitlines()), encoding="utf-8")
    (task,) = find_tasks([str(path)])
    assert (task.name, task.version, task.licence) == ("conti", "3", "not stated")
    assert [item.answer for item in select(task).items] == [0]
    path.write_text(path.read_text(encoding="utf-8") + "\nTASK = task()\n", encoding="utf-8")
    assert open_task_file(path).name == "conti"
    for broken, message in (
        ("1/0", "ZeroDivisionError"),
        ("x = 1", "defines no task"),
        ("TASK = 3", "defines no task"),
    ):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            open_task_file(path)


def test_a_quiz_may_have_examples_and_several_prompts(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "id": f"e{number}", "domanda": f"Esempio {number}?"} for number in range(3)]
    (tmp_path / "esempi.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    task = open_task_file(
        quiz(tmp_path, examples="esempi.jsonl", prompt={"breve": "{{domanda}}", "lunga": "Di' bene. {{domanda}}"})
    )
    assert (task.prompts, task.example_splits) == (("breve", "lunga"), ("train",))
    assert "esempi.jsonl (sha256 " in task.source
    asked = {name: select(task, shots=2, prompt=name).items for name in task.prompts}
    assert {name: items[0].question for name, items in asked.items()} == {
        "breve": ROWS[0]["domanda"], "lunga": f"Di' bene. {ROWS[0]['domanda']}",
    }  # fmt: skip
    assert asked["lunga"][0].few_shot.examples[0][0].startswith("Di' bene. Esempio ")
    assert select(task).items == select(task, prompt="breve").items
    written = open_task_file(quiz(
        tmp_path, question=None, choices=None, answer=None, prompt={"x": "domanda", "y": "Rispondi: {{domanda}}"}, target="risposta",
    ))  # fmt: skip
    assert [select(written, prompt=name).items[0].context for name in written.prompts] == [
        ROWS[0]["domanda"], f"Rispondi: {ROWS[0]['domanda']}",
    ]  # fmt: skip
    with pytest.raises(InputError, match="cannot be asked with 1 examples"):
        select(open_task_file(quiz(tmp_path)), shots=1)
    reopened = reopen_task_file(
        tmp_path / "quiz.yaml",
        {Path(file).name: digest for file, digest in open_task_file(tmp_path / "quiz.yaml").files.items()},
    )
    assert reopened.name == "quiz"


BAD_ROWS = {
    "a missing column": ([{"opzioni": ["a", "b"], "risposta": "A"}], "Row 1 .*question: there is no column 'domanda'"),
    "an answer out of range": ([{**ROWS[0], "risposta": "E"}], "Row 1 .*answer: 'E' is none of the 3 choices"),
    "an index out of range": ([ROWS[0], {**ROWS[1], "risposta": 2}], "Row 2 .*answer: 2 is none of the 2 choices"),
    "one choice": ([{**ROWS[0], "opzioni": ["Il Po"]}], "Row 1 .*choices: 1 found"),
    "no list": ([{**ROWS[0], "opzioni": "Il Po"}], "Row 1 .*'opzioni' holds no list"),
    "an empty question": ([{**ROWS[0], "domanda": " "}], "Row 1 .*question: column 'domanda' is empty"),
    "no answer": ([{**ROWS[0], "risposta": None}], "Row 1 .*answer: column 'risposta' is empty"),
    "two ids equal": ([ROWS[0], ROWS[1], ROWS[0]], "Rows 1 and 3 of task quiz have the same id"),
    "nothing": ("", "is empty"),
    "no JSON": ("{", "invalid JSON"),
}
BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"choises": "opzioni"}, "'choises' is not supported.\nDid you mean choices"),
    "a key that is missing": ({"answer": None}, "lacks answer"),
    "a file that is not there": ({"file": "altro.jsonl"}, "altro.jsonl"),
    "a column that is misspelt": ({"answer": "rispota"}, "there is no column 'rispota' .did you mean risposta"),
    "a broken template": ({"prompt": "{{domanda"}, "prompt: .*unexpected end of template"),
    "a template that reaches out": ({"prompt": "{{''.__class__.__mro__}}"}, "prompt: .*unsafe"),
    "prompts that are no texts": ({"prompt": {"a": 3}}, "neither a text nor texts by name"),
    "a list of prompts": ({"prompt": ["domanda"]}, "neither a text nor texts by name"),
    "examples that are not there": ({"examples": "nessuno.jsonl"}, "nessuno.jsonl"),
    "a language": ({"language": "de"}, "language 'de' is not supported"),
    "the harness's: an unknown key": ({**HARNESS, "doc_to_txt": "x"}, "'doc_to_txt' is not supported.\nDid you mean doc_to_text"),
    "the harness's: filters": ({**HARNESS, "filter_list": []}, "'filter_list' is not supported"),
    "the harness's: a filter": ({**HARNESS, "filter_list": [{"filter": [{"function": "regex"}]}]}, "other filters than take_first"),
    "the harness's: repeats": ({**HARNESS, "repeats": 3}, "repeats '3' is not supported"),
    "the harness's: a key that scores": ({**HARNESS, "doc_to_image": "x"}, "'doc_to_image' is not supported.\nIt would change"),
    "choices beside a target": ({"target": "risposta", "prompt": "domanda"}, "'question' does nothing beside 'target'"),
    "a stop of choices": ({"stop": "."}, "'stop' does nothing beside 'choices'"),
    "a language of no labels": ({"prompt": "domanda", "language": "en"}, "'language' does nothing beside 'prompt'"),
    "the harness's: a data set of the hub": ({**HARNESS, "dataset_path": "allenai/ai2_arc"}, "dataset_path 'allenai/ai2_arc' is not"),
    "the harness's: a metric": ({**HARNESS, "metric_list": [{"metric": "bleu"}]}, "metric 'bleu' is not supported"),
    "the harness's: a split": ({**HARNESS, "test_split": "dev"}, "split 'dev' is not supported.\nChoose from: test"),
    "the harness's: too few examples": ({**HARNESS, "num_fewshot": 3, "fewshot_split": "test"}, "only 2 examples for 3 shots"),
    "the harness's: a target": ({**HARNESS, "doc_to_target": "{{9}}"}, "Row 1 .*doc_to_target: 9 is no index below 3"),
    "the harness's: an answer unknown": ({**HARNESS, "doc_to_target": "{{'XY'.index(risposta)}}"}, "doc_to_target: substring not found"),
    "the harness's: a sampler": ({**HARNESS, "fewshot_config": {"sampler": "balanced"}}, "sampler 'balanced' is not supported"),
    "the harness's: top_k": ({**HARNESS, "generation_kwargs": {"top_k": 3}}, "'top_k' is not supported.\nDid you mean top_p"),
    "the harness's: no target": ({**HARNESS, "doc_to_target": None}, "lacks doc_to_target"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_named(name: str, tmp_path: Path) -> None:
    rows, message = BAD_ROWS[name]
    path = quiz(tmp_path, rows)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        items(path)


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_named(name: str, tmp_path: Path) -> None:
    settings, message = BAD_SETTINGS[name]
    path = quiz(tmp_path, **settings)
    if "file" in settings:
        path.write_text(path.read_text(encoding="utf-8").replace("quiz.jsonl", "altro.jsonl"), encoding="utf-8")
        (tmp_path / "altro.jsonl").unlink()
    with pytest.raises(InputError, match=message):
        items(path)


def test_a_bad_example_is_named_where_it_stands(tmp_path: Path) -> None:
    quiz(tmp_path, [*ROWS, {**ROWS[0], "risposta": "Z"}], "examples.jsonl")
    files = {"test": "quiz.jsonl", "train": "examples.jsonl"}
    path = quiz(tmp_path, **{**HARNESS, "dataset_kwargs": {"data_files": files}}, training_split="train", num_fewshot=4)
    with pytest.raises(
        InputError, match=r"Row 4 of the few-shot examples of task quiz_it .*\n.*examples.jsonl, split train"
    ):
        items(path)


def test_files_that_are_no_task(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"quiz.jsonl is no task file.\nA task file ends in .yaml, .yml or .py; describe"
    ):
        find_tasks([str(quiz(tmp_path).with_suffix(".jsonl"))])
    with pytest.raises(InputError, match="There is no task file"):
        find_tasks([str(tmp_path / "manca.yaml")])
    path = tmp_path / "codice.yaml"
    for content, message in (
        ("doc_to_text: !function utils.text\n", "Put code into a Python task file"),
        ("a: [", "cannot be read as YAML"),
        ("- a\n", "holds no keys"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            find_tasks([str(path)])


def test_the_name_of_a_benchmark_is_not_to_be_had(tmp_path: Path) -> None:
    path = quiz(tmp_path, name="arc_it")
    with pytest.raises(InputError, match=r"arc_it is a shipped benchmark.*\nAdd `name: my_arc_it` to .*quiz.yaml"):
        find_tasks([str(path)])
    other = tmp_path / "other.yaml"
    other.write_text(quiz(tmp_path, name="mio").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match=r"other.yaml and .*quiz.yaml are both named mio"):
        find_tasks([str(path), str(other)])


def evaluated(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    loaded: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return loaded


def test_own_questions_from_the_command_to_the_page(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked, cached, paired, and shown with their texts while the file is what it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    path = quiz(tmp_path, category="tema")
    model = ("--model", str(tiny_folder))
    first = evaluated("evaluate", *model, "--task-file", "quiz.yaml", "--out", "a")
    again = evaluated("evaluate", *model, "--tasks", f"{path},sample_questions", "--limit", "3", "--out", "b")
    assert [run["tasks"]["quiz"]["cached"] for run in (first, again)] == [0, 3]
    saved = json.loads((tmp_path / "a/evaluation.json").read_text(encoding="utf-8"))
    assert saved["settings"]["task_files"] == {"quiz": str(path)}
    task = saved["tasks"]["quiz"]
    assert (task["licence"], list(task["files"])) == ("not stated", ["quiz.yaml", "quiz.jsonl"])
    assert "Il Po" not in json.dumps(task)
    assert (
        "the user's own file quiz.yaml" in (tmp_path / "a/report.html").read_text(encoding="utf-8")
        or "the user's own file" in task["source"]
    )
    verdict = evaluated("compare", "a", "b", "--out", "c")["tasks"]["quiz"]
    assert (verdict["n"], verdict["difference"]) == (3, 0)
    (tmp_path / "quiz.jsonl").write_text(
        (tmp_path / "quiz.jsonl").read_text(encoding="utf-8").replace("Torino", "Pavia"), encoding="utf-8"
    )
    shown = CliRunner().invoke(app, ["compare", "a", "b", "--out", "d"])
    assert shown.exit_code == 0
    assert "The data of its task file have changed since." in shown.stderr
    changed = evaluated("evaluate", *model, "--task-file", "quiz.yaml", "--out", "e")
    assert changed["tasks"]["quiz"]["cached"] == 2, "only the question that changed is asked"
    refused = str(CliRunner().invoke(app, ["compare", "a", "e"]).exception)
    assert "different questions" in refused and "Between the runs quiz.jsonl changed" in refused


def test_groups_of_either_run_count(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The groups of the run that has them, in either order; that the task file changed is said."""
    monkeypatch.chdir(tmp_path)
    for out, group in (("a", None), ("b", "brano")):
        quiz(tmp_path, [{**row, "brano": number // 2} for number, row in enumerate(ROWS)], group=group)
        evaluated("evaluate", "--model", str(tiny_folder), "--task-file", "quiz.yaml", "--no-cache", "--out", out)
    both = [evaluated("compare", *order) for order in (("a", "b"), ("b", "a"))]
    assert [run["tasks"]["quiz"]["clusters"] for run in both] == [2, 2]
    assert [run["differences"][0][0] for run in both] == ["quiz: quiz.yaml, sha256"] * 2


def test_a_changed_grader_is_never_served_stale(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text that was written is cached; its grade is computed from it each time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frasi.jsonl").write_text('{"frase": "Nel mezzo", "vera": "x"}\n', encoding="utf-8")
    (tmp_path / "f.yaml").write_text(
        "file: frasi.jsonl\nprompt: frase\ntarget: vera\nmax_tokens: 4\n", encoding="utf-8"
    )
    run = ("evaluate", "--model", str(tiny_folder), "--task-file", "f.yaml", "--cache", "cache")
    assert evaluated(*run)["tasks"]["f"]["exact_match"] == 0
    monkeypatch.setattr("stilnovo.benchmarks.quiz_yaml.grade", lambda written, item: {"exact_match": 1.0, "f1": 0.5})
    again = evaluated(*run)["tasks"]["f"]
    assert (again["cached"], again["exact_match"], again["f1"]) == (1, 1.0, 0.5)


def test_a_share_of_own_questions(tmp_path: Path) -> None:
    assert len(select(open_task_file(quiz(tmp_path)), draw=Draw(2)).items) == 2
