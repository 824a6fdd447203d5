"""Our prompts and metrics beside lm-evaluation-harness' own: its task files and its code over the same rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import REAL_DATA
from stilnovo.benchmarks.chat_form import ChatForm, choices
from stilnovo.benchmarks.dataset_files import Row
from stilnovo.benchmarks.task import Generation, MultipleChoice, select
from stilnovo.benchmarks.tasks import find_tasks, gsm8k, hellaswag, italic, winogrande
from stilnovo.io.rows import read_rows

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("default::UserWarning:stilnovo")]
SAMPLE = 40

HELLASWAG = [
    {
        "ind": number, "source_id": f"{source}~{number}", "activity_label": label, "ctx_a": first, "ctx_b": second,
        "endings": [f" [substeps] {word} la fune  [title] E poi basta [x]." for word in ("tira", "lascia", "taglia", "lega")],
        "label": str(number % 4), "id": f"it/{number}",
    }
    for number, (source, label, first, second) in enumerate(
        [
            ("activitynet", "Canoeing", "Due donne sono in canoa. ", "un uomo DIVERSO"),
            ("wikihow", "Home and Garden", " [header] Come legare una barca [title] Scegli la fune. [step] È facile.", ""),
            ("activitynet", "Sailing", "", "la vela  bianca"),
        ]
    )
]  # fmt: skip
XCOPA = [
    {
        "premise": f"Il bicchiere numero {number} si è rotto. ", "choice1": "È caduto dal tavolo.",
        "choice2": "Conteneva acqua.", "question": ("cause", "effect")[number % 2], "label": number % 2, "idx": number,
        "changed": False,
    }
    for number in range(4)
]  # fmt: skip
ARC = [
    {
        "id": f"x/{number}", "question": f"Which of these  bodies shines by itself ({number})?",
        "choices": {"text": ["the Moon", "the Sun", "Mars [a planet]"], "label": labels}, "answerKey": labels[1],
    }
    for number, labels in enumerate((["A", "B", "C"], ["1", "2", "3"]))
]  # fmt: skip
MMLU = [
    {
        "question": f"Which bone number {number} is the longest? ", "subject": "anatomy",
        "choices": ["the femur", "the tibia", "the skull", "the rib"], "answer": number % 4,
    }
    for number in range(7)
]  # fmt: skip
TRUTHFUL = [
    {
        "question": f"Do bats see {number} things?",
        "mc1_targets": {"choices": ["They do.", "They are blind.", "Only at noon."], "labels": [1, 0, 0]},
        "mc2_targets": {"choices": ["They do.", "Quite well.", "They are blind.", "They do."], "labels": [1, 1, 0, 1]},
    }
    for number in range(3)
]
MMLU_IT = [
    {
        "id": f"astronomy/test/{number}", "instruction": f" Quale pianeta è il numero {number}? ", "option_a": "Venere",
        "option_b": "Mercurio", "option_c": "Marte", "option_d": "la Terra", "answer": "ABCD"[number % 4],
    }
    for number in range(9)
]  # fmt: skip


ARC_IT = [
    {
        "id": f"x/{number}", "instruction": f"Quale di questi  corpi [celesti] emette luce propria ({number})?",
        "option_a": "la Luna", "option_b": "il  Sole", "option_c": "Marte", "option_d": "una cometa", "answer": "BD"[number % 2],
    }
    for number in range(6)
]  # fmt: skip
WINOGRANDE = [
    {
        "sentence": f"Anna thanked Maria {number} times because _ had helped.", "option1": "Anna", "option2": "Maria",
        "answer": str(1 + number % 2),
    }
    for number in range(6)
]  # fmt: skip
TRUTHFUL_IT = [
    {
        "question": f"I pipistrelli vedono {number} cose?",
        "mc1_targets_choices": ["Sì.", "Sono ciechi.", "Solo a mezzogiorno."], "mc1_targets_labels": [1, 0, 0],
        "mc2_targets_choices": ["Sì.", "Abbastanza bene.", "Sono ciechi."], "mc2_targets_labels": [1, 1, 0],
    }
    for number in range(3)
]  # fmt: skip
INCLUDE = [
    {
        "language": "Italian", "country": "Italy", "domain": "Arts & Humanities", "subject": "History", "level": "Academic",
        "regional_feature": "agnostic", "question": f" Chi costruì il ponte numero {number}? ", "option_a": "i Romani",
        "option_b": "gli Etruschi ", "option_c": "i Sanniti", "option_d": "i Greci", "answer": number % 4,
    }
    for number in range(5)
]  # fmt: skip
GLOBAL_MMLU = [
    {
        "sample_id": f"anatomy/test/{number}", "subject": "anatomy", "subject_category": "STEM",
        "question": f"Quale osso è il numero {number}?\n", "option_a": "il femore", "option_b": "la tibia", "option_c": "{x}",
        "option_d": "il radio", "answer": "ABCD"[number % 4], "cultural_sensitivity_label": ("CA", "CS", "-")[number % 3],
        "is_annotated": number % 3 < 2,
    }
    for number in range(7)
]  # fmt: skip
BELEBELE = [
    {
        "link": f"https://it.example.org/{number // 2}", "question_number": 1 + number % 2,
        "flores_passage": f"La volpe numero {number // 2} vide l'uva. Era acerba.", "question": f" Che cosa vide ({number})? ",
        "mc_answer1": "l'uva", "mc_answer2": "un corvo ", "mc_answer3": "{{nulla}}", "mc_answer4": "una gru",
        "correct_answer_num": str(1 + number % 4), "dialect": "ita_Latn", "ds": "2023-05-03",
    }
    for number in range(6)
]  # fmt: skip
ITALIC = [
    {
        "question": f"Quale parola è sdrucciola ({number})?", "category": "lexicon", "macro_category": "x", "answer": "ABC"[number % 3],
        "options": [{"A": "tavolo"}, {"B": "{albero}"}, *([{"C": "città"}] if number % 3 == 2 else [])],
    }
    for number in range(7)
]  # fmt: skip
HELLASWAG_TEXT = """\
Canoeing: Two women sit in a canoe. the other
2
waves from the shore.
[substeps] sleeps.
paddles on alone.
eats  an apple.
Home and Garden: How to tie a boat. Choose a rope. It is easy.
0
Take the longest one.
Burn it.
Paint the boat.
Go home.
"""
# Rows of our own in the form of files that are not shipped: what is compared where those are not.
TWINS: dict[str, list[Row]] = {
    "arc_it/it_test.json": ARC_IT, "mmlu_it/it_val.json": MMLU_IT, "mmlu_it/it_dev.json": MMLU_IT,
    "winogrande_en/test.json": WINOGRANDE, "truthfulqa_it/it_validation.json": TRUTHFUL_IT,
    "gsm8k_en/gsm8k_test.jsonl": [
        {"question": f"Anna has {number} pears and eats one. How many are left?", "answer": f"#### {number - 1}"} for number in range(2, 22)
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One of our tasks and the harness's file for it; `rows` from a file, or written here."""

    ours: str
    theirs: str
    rows: list[Row] | str
    split: str
    plain: Callable[[Row], Row] = dict
    shots: int = 0
    examples: list[Row] | str | None = None


CASES = {
    "arc_it": Case("arc_it", "okapi/arc_multilingual/arc_it.yaml", "arc_it/it_test.json", "test", lambda row: {"option_e": None, **row}),
    "hellaswag_it": Case("hellaswag_it", "okapi/hellaswag_multilingual/hellaswag_it.yaml", HELLASWAG, "validation"),
    "mmlu_it, 5 shots": Case(
        "mmlu_it", "okapi/mmlu_multilingual/m_mmlu_it.yaml", "mmlu_it/it_val.json", "validation",
        shots=5, examples="mmlu_it/it_dev.json",
    ),
    "mmlu_it, 0 shots": Case("mmlu_it", "okapi/mmlu_multilingual/m_mmlu_it.yaml", MMLU_IT, "validation"),
    "xcopa_it": Case("xcopa_it", "xcopa/default_it.yaml", XCOPA, "test"),
    "arc_challenge": Case("arc_challenge", "arc/arc_challenge.yaml", ARC, "test"),
    "hellaswag": Case("hellaswag", "hellaswag/hellaswag.yaml", HELLASWAG, "validation"),
    "mmlu, 5 shots": Case("mmlu", "mmlu/default/mmlu_anatomy.yaml", MMLU, "test", shots=5, examples=MMLU),
    "mmlu, 0 shots": Case("mmlu", "mmlu/default/mmlu_anatomy.yaml", MMLU, "test"),
    "include_it": Case("include_it", "include/default/Italian/include_base_44_italian_arts_humanities.yaml", INCLUDE, "test"),
    "global_mmlu_full_it": Case(
        "global_mmlu_full_it", "global_mmlu/full/it/global_mmlu_full_it_anatomy.yaml", GLOBAL_MMLU, "test"
    ),
    "global_mmlu_full_it, 3 shots": Case(
        "global_mmlu_full_it", "global_mmlu/full/it/global_mmlu_full_it_anatomy.yaml", GLOBAL_MMLU, "test", shots=3,
        examples=GLOBAL_MMLU,
    ),
    "global_mmlu_it": Case("global_mmlu_it", "global_mmlu/default/it/global_mmlu_it_stem.yaml", GLOBAL_MMLU, "test"),
    "belebele_it": Case("belebele_it", "belebele/belebele_ita_Latn.yaml", BELEBELE, "test"),
    "belebele_it, 2 shots": Case("belebele_it", "belebele/belebele_ita_Latn.yaml", BELEBELE, "test", shots=2),
    "winogrande": Case("winogrande", "winogrande/default.yaml", "winogrande_en/test.json", "validation", winogrande.plain),
}  # fmt: skip
TRUE_CASES = {
    "truthfulqa_it": ("okapi/truthfulqa_multilingual/truthfulqa_it_mc{}.yaml", "truthfulqa_it/it_validation.json"),
    "truthfulqa": ("truthfulqa/truthfulqa_mc{}.yaml", TRUTHFUL),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'stilnovo[dev]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def reference(name: str, folder: Path, files: dict[str, list[Row]], shots: int = 0) -> Any:
    """The harness's task, built from its own YAML and code, over local files instead of the hub."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / name)
    for key in ("tag", "task_list"):
        config.pop(key, None)
    folder.mkdir(exist_ok=True)
    paths = {}
    for split, rows in files.items():
        paths[split] = str(folder / f"{split}.jsonl")
        Path(paths[split]).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    config |= {
        "dataset_path": "json", "dataset_name": None, "num_fewshot": shots,
        "dataset_kwargs": {"data_files": paths, "cache_dir": str(folder / "cache")},
    }  # fmt: skip
    task = ConfigurableTask(config=config)
    task.build_all_requests()
    return task


def requests(task: Any) -> list[list[tuple[str, str]]]:
    """(context, continuation) of every choice of every document."""
    grouped: dict[int, list[tuple[str, str]]] = {}
    for instance in task.instances:
        grouped.setdefault(instance.doc_id, []).append(instance.args)
    return [grouped[number] for number in sorted(grouped)]


def rows_of(rows: list[Row] | str | None) -> list[Row]:
    """Rows written here, or those of a real file; where that is not, its twin's."""
    if not isinstance(rows, str):
        return list(rows or [])
    return read_rows(REAL_DATA / "benchmarks" / rows) if REAL_DATA.is_dir() else TWINS[rows]


def ours(case: Case, rows: Sequence[Row], examples: Sequence[Row], folder: Path) -> list[MultipleChoice]:
    data = folder / "data" / case.ours
    data.mkdir(parents=True)
    (data / f"{case.split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    for name in ("train", "dev"):
        (data / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in examples) or "{}", encoding="utf-8")
    (task,) = find_tasks([case.ours])
    shots = case.shots if task.shots_rule else None
    return [
        item
        for item in select(task, folder / "data", case.split, shots=shots).items
        if isinstance(item, MultipleChoice)
    ]


def compare(case: Case, rows: list[Row], examples: list[Row], folder: Path) -> None:
    plain = [case.plain(row) for row in rows]
    splits = {"train": examples or plain, "dev": examples or plain, "validation": plain, "val": plain, "test": plain}
    task = reference(case.theirs, folder, splits, case.shots)
    theirs = requests(task)
    items = ours(case, plain, examples, folder)
    assert [item.pairs for item in items] == theirs
    rng = random.Random(1)
    for item, doc in zip(items, task.eval_docs, strict=True):
        assert item.context.startswith(item.header)
        # the harness's own accuracy on made-up log-likelihoods
        values = [-rng.uniform(1, 60) for _ in item.endings]
        results = task.process_results(doc, [(value, False) for value in values])
        mine = item.values(values)
        assert mine["acc"] == results["acc"]
        assert mine["acc_norm"] == results.get("acc_norm", mine["acc_norm"])


@pytest.mark.parametrize("name", CASES)
def test_prompts_choices_and_accuracies_are_the_references(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    rows, examples = rows_of(case.rows), rows_of(case.examples)
    chosen = random.Random(0).sample(rows, SAMPLE) if len(rows) > SAMPLE else rows
    compare(case, chosen, examples, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arc_it", "mmlu_it, 5 shots", "winogrande"])
def test_all_of_them_are(name: str, tmp_path: Path, shared_data: Path) -> None:
    case = CASES[name]
    compare(case, rows_of(case.rows), rows_of(case.examples), tmp_path)


def test_italic_asks_as_its_authors_do(tmp_path: Path) -> None:
    """Its authors' program asks in a chat; here the same words stand one after another, each example with its letter."""
    asked = (
        "Rispondi alla seguente domanda a scelta multipla sull'argomento '{}'. La tua risposta deve essere nel seguente formato: "
        "'LETTERA' (senza virgolette) dove LETTERA è una tra {}. Scrivi solo la lettera corrispondente alla tua risposta senza "
        "spiegazioni."
    )

    def words(row: Row) -> str:
        letters, lines = "".join(key for option in row["options"] for key in option), []
        for option in row["options"]:
            lines += [f"{letter}) {value}" for letter, value in option.items()]
        listed = "\n".join(lines)
        return f"{asked.format(row['category'], letters)}\n\n{row['question']}\n\n{listed}\n\nRisposta:"

    (tmp_path / "italic").mkdir()
    for name, rows in (("italic", ITALIC[5:]), ("5_shots", ITALIC[:5])):
        (tmp_path / f"italic/{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (task,) = find_tasks(["italic"])
    begin = "".join(f"{words(row)} {row['answer']}\n\n" for row in ITALIC[:5])
    for shots, header in ((None, begin), (0, "")):
        items = select(task, tmp_path, shots=shots).items
        assert [item.context for item in items] == [header + words(row) for row in ITALIC[5:]]
        assert {item.header for item in items} == {header} and {item.category for item in items} == {"lexicon"}
        for item, row in zip(items, ITALIC[5:], strict=True):
            assert isinstance(item, MultipleChoice)
            assert item.endings == tuple(f" {key}" for option in row["options"] for key in option)
            assert item.endings[item.answer].strip() == row["answer"]
            assert item.chance == 1 / len(row["options"])
            # under a chat template with their system prompt the very turns of their program, answered by bare letters
            turns = ChatForm("Sei un assistente utile.").conversation(item)
            theirs = [("system", "Sei un assistente utile.")]
            for example in ITALIC[:5] if shots is None else []:
                theirs += [("user", words(example)), ("assistant", str(example["answer"]))]
            assert [(turn.role, turn.content) for turn in turns] == [*theirs, ("user", words(row))]
            assert choices(item) == [key for option in row["options"] for key in option]


def test_italic_is_answered_in_writing_too(tmp_path: Path) -> None:
    """The same prompts; the authors take the first capital of what was written, whatever word it begins."""
    (tmp_path / "italic").mkdir()
    (tmp_path / "italic/italic.jsonl").write_text("\n".join(map(json.dumps, ITALIC)), encoding="utf-8")
    letters, written = (select(task, tmp_path, shots=0).items for task in find_tasks(["italic", "italic_written"]))
    assert [item.context for item in written] == [item.context for item in letters]
    item = written[1]
    assert isinstance(item, Generation) and item.references == ("B",)
    for answer, exact, first in (
        ("B", 1, 1), ("B) {albero}", 1, 1), ("la risposta è B", 1, 1), ("La risposta corretta è B.", 1, 0), ("{albero}", 1, 0),
        ("Boh, direi A", 0, 1), ("A", 0, 0), ("non so", 0, 0), ("", 0, 0), ("C", 0, 0),
    ):  # fmt: skip
        assert italic.grade(answer, item) == {"exact_match": exact, "first_capital": first}, answer


def test_hellaswag_as_text_is_the_references(tmp_path: Path) -> None:
    """Rows rebuilt from the plain-text form, through the harness's own joining of both halves of the context."""
    path = REAL_DATA / "benchmarks/hellaswag_en/hellaswag_val_full.txt"
    if not path.is_file():
        path = tmp_path / "hellaswag.txt"
        path.write_text(HELLASWAG_TEXT, encoding="utf-8")
    rows = hellaswag.text_rows(path)
    compare(CASES["hellaswag"], random.Random(0).sample(rows, min(SAMPLE, len(rows))), [], tmp_path)


@pytest.mark.parametrize("name", TRUE_CASES)
def test_truthfulqa_is_the_references(name: str, tmp_path: Path) -> None:
    """Both lists, in its order, out of our one tree; mc1 and mc2 on made-up log-likelihoods."""
    path, source = TRUE_CASES[name]
    rows = rows_of(source)
    odd = [
        row
        for row in rows
        if "mc1_targets_choices" in row and not set(row["mc1_targets_choices"]) <= set(row["mc2_targets_choices"])
    ]
    chosen = [*random.Random(0).sample(rows, min(SAMPLE, len(rows))), *odd[:5]]
    items = ours(Case(name, path, chosen, "validation"), chosen, [], tmp_path)
    splits = {"validation": chosen, "val": chosen}
    one, many = (reference(path.format(number), tmp_path / f"mc{number}", splits) for number in (1, 2))
    rng = random.Random(2)
    for item, ones, manys, doc1, doc2 in zip(
        items, requests(one), requests(many), one.eval_docs, many.eval_docs, strict=True
    ):
        assert [item.pairs[index] for index in item.rivals] == ones
        assert [pair for pair, label in zip(item.pairs, item.labels, strict=True) if label >= 0] == manys
        values = {pair: -rng.uniform(1, 30) for pair in item.pairs}
        mine = item.values([values[pair] for pair in item.pairs])
        assert mine["mc1"] == one.process_results(doc1, [(values[pair], False) for pair in ones])["acc"]
        assert mine["mc2"] == pytest.approx(
            many.process_results(doc2, [(values[pair], False) for pair in manys])["acc"]
        )


WRITTEN = [
    " She has 9 left.\n#### 9\n\n", "#### 18", " #### $1,234.00", "The answer is 18.", "so 2 + 3 = 5. #### 5 and #### 6", "no number",
    "", "about -7 or 3.5.", "#### -7", "costs $18.", "1,000", "####18", "#### 18.",
]  # fmt: skip


def test_gsm8k_is_the_references(tmp_path: Path) -> None:
    """Prompts without examples, stop strings, and both of its filters with its exact match."""
    rows = rows_of("gsm8k_en/gsm8k_test.jsonl")[: len(WRITTEN)]
    numbers = ["9", "18", "1234", "18", "5", "1", "2", "3.5", "-7", "18", "1000", "18", "18"]
    rows = [{**row, "answer": f"x\n#### {number}"} for row, number in zip(rows, numbers, strict=True)]
    task = reference("gsm8k/gsm8k.yaml", tmp_path, {"train": rows, "test": rows})
    items = [gsm8k.make_item(row, f"test/{number}") for number, row in enumerate(rows)]
    for instance, written in zip(task.instances, WRITTEN, strict=True):
        instance.resps = [written]
    task.apply_filters()
    for item, instance, written in zip(items, task.instances, WRITTEN, strict=True):
        prompt, settings = instance.args
        assert item.context == prompt
        assert item.decoding.stop == tuple(settings["until"])
        assert item.decoding.temperature == settings["temperature"] == 0
        mine = gsm8k.grade(written, item)
        for filtered, metric in (("strict-match", "exact_match"), ("flexible-extract", "exact_match_flexible")):
            result = task.process_results(instance.doc, [instance.filtered_resps[filtered]])
            assert mine[metric] == result["exact_match"], (written, filtered)  # type: ignore[index]


def test_gsm8k_examples_add_up() -> None:
    """Every sum in our examples is right, and the last one is the answer."""
    for _, answer in gsm8k.EXAMPLES:
        sums = [part.split(">>")[0].split("=") for part in answer.split("<<")[1:]]
        assert all(eval(left) == pytest.approx(float(right)) for left, right in sums)
        assert float(sums[-1][1]) == float(answer.split("#### ")[1])
        assert gsm8k.grade(answer, Generation("x", "p", (answer,), gsm8k.DECODING))["exact_match"] == 1
