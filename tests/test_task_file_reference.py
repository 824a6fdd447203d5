"""Task files of lm-evaluation-harness: our contexts, continuations, log-likelihoods and metrics beside its own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from stilnovo.benchmarks.task import Generation, MultipleChoice, select
from stilnovo.benchmarks.task_file import open_task_file
from stilnovo.scoring.packed import score
from test_evaluate_scoring import byte_tokenizer, tiny_llama

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("default::UserWarning:stilnovo")]

ROWS = [
    {"id": f"q{n}", "domanda": f"Quanto fa {n} più uno?", "opzioni": [str(n + 1), str(n + 2), "non si sa"], "risposta": "ABC"[n % 3],
     "indice": n % 3, "testo": [str(n + 1), str(n + 2), "non si sa"][n % 3], "vero": bool(n % 2)}
    for n in range(7)
]  # fmt: skip
CHOICE: dict[str, Any] = {
    "task": "quiz_it", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "quiz.jsonl", "esempi": "examples.jsonl"}},
    "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "Domanda: {{domanda}}\nRisposta:",
    "doc_to_choice": "{{opzioni}}", "doc_to_target": "{{'ABCDE'.index(risposta)}}",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
    "metadata": {"version": 1.0},
}  # fmt: skip
WRITTEN: dict[str, Any] = {
    **{key: value for key, value in CHOICE.items() if key not in ("doc_to_choice", "metric_list")},
    "output_type": "generate_until", "doc_to_target": "testo",
}  # fmt: skip
CHOICES = {
    "templates": {},
    "columns": {"doc_to_text": "domanda", "doc_to_choice": "opzioni", "doc_to_target": "indice"},
    "the text of the choice": {"doc_to_target": "testo"},
    "a list in the file, a bool": {"doc_to_choice": ["falso", "vero"], "doc_to_target": "vero"},
    "a mapping in the file": {"doc_to_choice": {"no": " no.", "yes": " sì, certo."}, "doc_to_target": "vero"},
    "another delimiter": {"target_delimiter": "\n", "description": "Un quiz.\n\n"},
    "no delimiter": {"target_delimiter": "", "doc_to_choice": [" falso", " vero"], "doc_to_target": "vero"},
    "a filter": {"doc_to_text": "{{domanda|regex_replace('più', '+')}}"},
    "drawn examples": {"num_fewshot": 2, "fewshot_split": "esempi", "description": "Un quiz:\n"},
    "examples of the same split": {"num_fewshot": 3, "fewshot_split": "test"},
    "the first examples": {"num_fewshot": 2, "fewshot_split": "esempi", "fewshot_config": {"sampler": "first_n"},
                           "fewshot_delimiter": "\n"},
    "examples of the training split": {"num_fewshot": 2, "training_split": "esempi", "validation_split": "test"},
    "examples of the only split": {"num_fewshot": 2},
    "examples of the validation split": {"num_fewshot": 2, "test_split": None, "validation_split": "test"},
    "keys that change nothing": {"repeats": 1, "should_decontaminate": True, "doc_to_decontamination_query": "domanda", "tag": "quiz",
                                 "filter_list": [{"name": "none", "filter": [{"function": "take_first"}]}]},
}  # fmt: skip
WRITTENS = {
    "the harness's own settings": {},
    "stop strings": {"generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 7}},
    "drawn": {"generation_kwargs": {"do_sample": True, "temperature": 0.5, "until": "\n"}},
    "examples": {"num_fewshot": 2, "fewshot_split": "esempi"},
    "the text of a choice": {"doc_to_choice": "opzioni", "doc_to_target": "indice", "num_fewshot": 1, "fewshot_split": "test"},
    "several answers": {"doc_to_target": "opzioni"},
    "lenient": {"metric_list": [{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True, "regexes_to_ignore": ["non "]}]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'stilnovo[dev]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def both(settings: dict[str, Any], folder: Path) -> tuple[Any, list[Any]]:
    """The harness's task and our items of one YAML file."""
    from lm_eval.api.task import ConfigurableTask

    (folder / "quiz.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    (folder / "examples.jsonl").write_text("\n".join(map(json.dumps, ROWS[::-1])), encoding="utf-8")
    (folder / "quiz.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    config = yaml.safe_load((folder / "quiz.yaml").read_text(encoding="utf-8"))
    files = {split: str(folder / name) for split, name in config["dataset_kwargs"]["data_files"].items()}
    config["dataset_kwargs"] = {"data_files": files, "cache_dir": str(folder / "cache")}
    theirs = ConfigurableTask(config=config)
    theirs.set_fewshot_seed(1234)
    theirs.build_all_requests()
    task = open_task_file(folder / "quiz.yaml")
    return theirs, list(select(task).items)


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_the_harnesss(name: str, tmp_path: Path) -> None:
    theirs, items = both({**CHOICE, **CHOICES[name]}, tmp_path)
    asked: dict[int, list[tuple[str, str]]] = {}
    for instance in theirs.instances:
        asked.setdefault(instance.doc_id, []).append(instance.args)
    assert [item.pairs for item in items] == [asked[number] for number in sorted(asked)]
    rng = random.Random(1)
    for item, doc in zip(items, theirs.eval_docs, strict=True):
        values = [-rng.uniform(1, 60) for _ in item.endings]
        assert item.values(values) == theirs.process_results(doc, [(value, False) for value in values])


@pytest.mark.parametrize("name", WRITTENS)
def test_written_answers_are_the_harnesss(name: str, tmp_path: Path) -> None:
    theirs, items = both({**WRITTEN, **WRITTENS[name]}, tmp_path)
    task = open_task_file(tmp_path / "quiz.yaml")
    assert task.grade is not None
    for item, instance in zip(items, theirs.instances, strict=True):
        prompt, how = instance.args
        assert isinstance(item, Generation)
        assert item.context == prompt
        assert list(item.decoding.stop) == ([how["until"]] if isinstance(how["until"], str) else how["until"])
        assert item.decoding.max_tokens == how.get("max_gen_toks", 256)
        assert item.decoding.temperature == (how["temperature"] if how.get("do_sample") else 0)
        for answer in (item.references[0], item.references[-1].upper() + "!", f" {item.references[0]}", "sa", ""):
            expected = theirs.process_results(instance.doc, [answer])["exact_match"]
            assert task.grade(answer, item)["exact_match"] == expected, answer


def test_loglikelihoods_are_the_harnesss(tmp_path: Path) -> None:
    """Its own run of the file with our model behind its interface, beside our run of the file."""
    from lm_eval import simple_evaluate

    from stilnovo.scoring.harness import HarnessModel

    theirs, items = both({**CHOICE, **CHOICES["drawn examples"]}, tmp_path)
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    result = simple_evaluate(
        model=HarnessModel(model, tokenizer), tasks=[theirs], bootstrap_iters=0, log_samples=True
    )["samples"]["quiz_it"]  # fmt: skip
    assert all(isinstance(item, MultipleChoice) for item in items)
    for found, sample in zip(score(model, tokenizer, items), result, strict=True):
        assert found.loglikelihoods == pytest.approx([response[0] for response in sample["filtered_resps"]], abs=1e-3)
        assert (found.values["acc"], found.values["acc_norm"]) == (sample["acc"], sample["acc_norm"])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_are_the_harnesss(kind: str, tmp_path: Path) -> None:
    """Cells that are numbers, an empty one, and the answer as a column of numbers."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet
    from lm_eval.api.task import ConfigurableTask

    table = pa.table({"domanda": ["Uno più uno?", "Due più due?"], "a": [2, 5], "b": [3, 4], "indice": [0, 1]})
    file = tmp_path / f"quiz.{kind}"
    (pyarrow.csv.write_csv if kind == "csv" else pyarrow.parquet.write_table)(table, file)
    settings = {
        "task": "tabella", "dataset_path": kind, "output_type": "multiple_choice", "test_split": "train",
        "doc_to_text": "domanda", "doc_to_choice": "{{[a|string, b|string]}}", "doc_to_target": "indice",
    }  # fmt: skip
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump({**settings, "dataset_kwargs": {"data_files": file.name}}), encoding="utf-8")
    data = {"data_files": str(file), "cache_dir": str(tmp_path / "cache")}
    theirs = ConfigurableTask(config={**settings, "dataset_kwargs": data})
    theirs.build_all_requests()
    items = [item for item in select(open_task_file(path)).items if isinstance(item, MultipleChoice)]
    assert [pair for item in items for pair in item.pairs] == [instance.args for instance in theirs.instances]
    assert [item.answer for item in items] == [theirs.doc_to_target(doc) for doc in theirs.eval_docs]
