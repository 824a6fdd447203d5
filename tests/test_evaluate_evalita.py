"""Evalita-LLM, minimal pairs, ItaCoLA and WiC-ITA on rows of our own in their form, beside lm-evaluation-harness' own tasks."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stilnovo.benchmarks.corpus_metrics import corpus_measure, is_corpus_metric, item_metric, polarity_f1, table_row
from stilnovo.benchmarks.dataset_files import Row
from stilnovo.benchmarks.task import Generation, MultipleChoice, select
from stilnovo.benchmarks.tasks import TASKS
from stilnovo.errors import InputError
from stilnovo.scoring.packed import ModelAnswer, item_score
from stilnovo.statistics.spread import combined_performance
from test_evaluate_reference import offline as offline
from test_evaluate_reference import reference, requests

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("default::UserWarning:stilnovo")]

ROWS: dict[str, Callable[[int], Row]] = {
    "evalita_te": lambda n: {
        "id": n, "text1": f"Il cane {n} corre nel {{parco}}.", "text2": "Il cane si muove.", "entailment": ("SI", "NO")[n % 2],
    },
    "evalita_sa": lambda n: {"text": f"Che giornata {n}! #sole", "opos": str(n % 2), "oneg": str(n // 2 % 2)},
    "evalita_hs": lambda n: {"full_text": f"@user Gli abitanti del numero {n} \"sono\" così", "hs": int(n % 3 == 0)},
    "evalita_at": lambda n: {
        "Question": f"Quale osso è il numero {n}?", "A": "femore", "B": "tibia", "C": "femore" if n == 2 else "ulna", "D": "radio",
        "E": "nessuno", "Correct": "ABCDE"[n % 5],
    },
    "evalita_wic": lambda n: {
        "lemma": "riso", "sentence1": f"Il riso {n} cuoce.", "start1": 3, "end1": 7, "sentence2": "Un riso contagioso.", "start2": 3,
        "end2": 7, "label": n % 2,
    },
    "evalita_faq": lambda n: {
        "question": f"Dove pago la bolletta {n}?", "A": "In posta.", "B": "Mai.", "C": "In banca", "D": "A casa",
        "correct_answer": "ABCD"[n % 4],
    },
    "multiblimp_it": lambda n: {"sen": f"I gatti {n} dormono.", "wrong_sen": f"I gatti {n} dorme.", "phenomenon": "SV-#"},
}  # fmt: skip
COUNT = 12


def laid(folder: Path, name: str, rows: Sequence[Row], split: str = "test") -> Path:
    place = folder / "data" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder / "data"


def items_of(folder: Path, name: str, rows: Sequence[Row], prompt: str = "") -> list[MultipleChoice]:
    found = select(TASKS[name], laid(folder, name, rows), prompt=prompt).items
    return [item for item in found if isinstance(item, MultipleChoice)]


@pytest.fixture(autouse=True)
def no_rouge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness's code for these tasks imports a slow library for one that is not asked here."""
    monkeypatch.setitem(sys.modules, "evaluate", SimpleNamespace(load=lambda *given, **named: None))


def theirs(name: str, prompt: str, folder: Path, rows: list[Row]) -> Any:
    part = name.removeprefix("evalita_")
    file = (
        "multiblimp/multiblimp_ita.yaml"
        if name == "multiblimp_it"
        else f"evalita_llm/_evalita-mp_{'at_task' if part == 'at' else part}_p{prompt}.yaml"
    )
    kinds = ("test", "dev", "train", "test_all", "test_1", "dev_1")
    return reference(file, folder / "reference", dict.fromkeys(kinds, rows))


@pytest.mark.parametrize(
    ("name", "prompt"), [(name, prompt) for name in ROWS for prompt in TASKS[name].prompts or ("",)]
)
def test_prompts_options_and_metrics_are_the_references(name: str, prompt: str, tmp_path: Path) -> None:
    rows = [ROWS[name](number) for number in range(COUNT)]
    task, items = theirs(name, prompt, tmp_path, rows), items_of(tmp_path, name, rows, prompt)
    assert [item.pairs for item in items] == requests(task)
    rng, results, values, table = random.Random(1), [], [], []
    for item, doc in zip(items, task.eval_docs, strict=True):
        drawn = [-rng.uniform(1, 60) for _ in item.endings]
        results.append(task.process_results(doc, [(value, False) for value in drawn]))
        values.append(item.values(drawn))
        table.append(table_row(item.answer, item.choice(drawn), len(drawn)))
    main = TASKS[name].metric
    if not is_corpus_metric(main):
        assert [value["acc"] for value in values] == [result["acc"] for result in results]
        assert all(
            value["acc_norm"] == result.get("acc_norm", value["acc_norm"])
            for value, result in zip(values, results, strict=True)
        )
        return
    theirs_score = task.aggregation()["f1"]([result["f1"] for result in results])
    mine = corpus_measure(main, len(table[0])).of(np.asarray(table).sum(axis=0))
    assert float(mine) == pytest.approx(theirs_score)


def test_sentiment_of_two_sides() -> None:
    """All positive texts called mixed: the positive side is all right, of the negative one nothing."""
    sums = np.asarray([table_row(0, 3, 4)] * 6 + [table_row(2, 2, 4)] * 4).sum(axis=0)
    no_negative = 2 * 4 / (4 + 10)  # of ten without it, four are given
    assert polarity_f1(sums, 4) == pytest.approx((1 + 1 + no_negative + 0) / 4)
    with pytest.raises(ValueError, match="four"):
        polarity_f1(np.ones(9), 3)


ITACOLA = [
    {
        "unique_id": str(n), "source": f"Libro_{n % 2}", "acceptability": str(int(n % 4 > 0)), "sentence": f"Il gatto {n} dorme.",
        "split": ("test", "dev", "train")[n % 3],
    }
    for n in range(24)
]  # fmt: skip


def test_itacola_reads_the_authors_table(tmp_path: Path) -> None:
    folder = tmp_path / "itacola"
    folder.mkdir()
    lines = ["\t".join(ITACOLA[0]), *("\t".join(row.values()) for row in ITACOLA)]
    (folder / "ItaCoLA_dataset.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = TASKS["itacola"]
    chosen = select(task, tmp_path)
    assert [item.id for item in chosen.items] == [row["unique_id"] for row in ITACOLA if row["split"] == "test"]
    first = chosen.items[0]
    assert isinstance(first, MultipleChoice)
    assert (first.answer, first.endings, first.category) == (0, (" No", " Sì"), "Libro_0")
    shots = select(task, tmp_path, shots=2)
    assert len(shots.examples) == 2
    assert all(name.startswith("train:") for name in shots.examples)
    authors = "UniqueIndexID\tSource\tAcceptability\tSentence\tSplit"
    (folder / "ItaCoLA_dataset.tsv").write_text("\n".join([authors, *lines[1:]]), encoding="utf-8")
    assert select(task, tmp_path).items == chosen.items
    for prompt in task.prompts:
        assert all("gatto" in item.context for item in select(task, tmp_path, prompt=prompt).items)
    bad = [*lines, "99\tLibro\t2\tMah.\ttest"]
    (folder / "ItaCoLA_dataset.tsv").write_text("\n".join(bad), encoding="utf-8")
    with pytest.raises(InputError, match="'2' is none of its options"):
        select(task, tmp_path)
    (folder / "ItaCoLA_dataset.tsv").write_text("\n".join([*lines[:1], lines[2]]), encoding="utf-8")
    with pytest.raises(InputError, match="no rows of split test"):
        select(task, tmp_path, "test")


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("evalita_hs", {"hs": 0.5}, "'0.5' is none of its options"),
        ("evalita_hs", {"hs": None}, "'None' is none of its options"),
        ("evalita_at", {"E": None}, "field 'E' should be text"),
        ("evalita_faq", {"B": 7}, "field 'B' should be text"),
    ],
)
def test_rows_that_are_none_of_the_benchmarks_are_refused(name: str, change: Row, fault: str, tmp_path: Path) -> None:
    row = ROWS[name](1)
    assert items_of(tmp_path, name, [row]) == items_of(tmp_path, name, [{**row, "hs": 0.0} if "hs" in row else row])
    with pytest.raises(InputError, match=fault):
        items_of(tmp_path, name, [{**row, **change}])


def test_pairs_without_a_lemma_are_grouped_by_their_word(tmp_path: Path) -> None:
    rows = [{**ROWS["evalita_wic"](number), "lemma": None} for number in range(3)]
    for name in ("evalita_wic", "wic_ita"):
        assert {item.cluster for item in items_of(tmp_path, name, rows)} == {"riso"}


def test_word_in_context_marks_the_word(tmp_path: Path) -> None:
    rows = [ROWS["evalita_wic"](number) for number in range(4)]
    items = items_of(tmp_path, "wic_ita", rows)
    assert all(item.cluster == "riso" and "«riso»" in item.context for item in items)
    rows[1]["end1"] = 99
    with pytest.raises(InputError, match="are not in sentence1"):
        items_of(tmp_path, "evalita_wic", rows)


def test_minimal_pairs_share_their_right_sentence(tmp_path: Path) -> None:
    rows = [{"sen": "Dormono.", "wrong_sen": wrong, "phenomenon": "SV-#"} for wrong in ("Dorme.", "Dormi.")]
    first, second = items_of(tmp_path, "multiblimp_it", rows)
    assert (first.context, first.cluster, first.category) == ("", second.cluster, "SV-#")
    blimp = [{"sentence_good": "Dormono.", "sentence_bad": "Dorme.", "UID": "sv_1"}]
    (pair,) = items_of(tmp_path, "blimp_it", blimp)
    assert (pair.endings, pair.answer, pair.category) == (("Dormono.", "Dorme."), 0, "sv_1")
    with pytest.raises(InputError, match="are the same"):
        items_of(tmp_path, "multiblimp_it", [{"sen": "Dormono.", "wrong_sen": "Dormono."}])


def test_tasks_of_all_items_together_have_a_metric_of_single_ones() -> None:
    for task in TASKS.values():
        assert not is_corpus_metric(item_metric(task.metrics)), task.name


def test_the_summary_of_several_prompts() -> None:
    assert combined_performance([0.6]) == pytest.approx(0.6)
    assert combined_performance([0.2, 0.4, 0.6]) == pytest.approx((1 - 0.2) * 0.6)


WRITTEN: dict[str, tuple[str, list[Row], list[str]]] = {
    "evalita_ls": (
        "evalita_llm/_evalita-mp_ls_p{}.yaml",
        [
            {"context": "Un <head>bel</head> gatto.", "answers": [{"word": "carino", "count": 3}, {"word": "grazioso", "count": 1}]},
            {"context": "La <head>via</head>.", "answers": []},
            {"context": "Un {x} <head>forte</head>.", "answers": [{"word": "robusto", "count": 2}]},
        ],
        ["carino, grazioso.", "", 'bello, "carino"\ngrazioso', "robusto", ",,", "a,b,c,d,e,f,g,h,i,l,robusto", "carino, carino", "via"],
    ),
    "evalita_ner_adg": (
        "evalita_llm/_evalita-mp_ner_adg_p{}.yaml",
        [
            {"text": "Anna va a Roma.", "entities": [{"entity_text": "Anna", "type": "PER"}, {"entity_text": "Roma", "type": "LOC"}]},
            {"text": "Piove.", "entities": []},
            {"text": "Il {PCI}.", "entities": [{"entity_text": "PCI", "type": "ORG"}]},
        ],
        ["Anna$PER,Roma$LOC", "Anna$per, Roma", "&&NOENT&&", "", "PCI$ORG,Anna$PER,Roma$LOC", "Roma$ORG", ",", "PCI$ORG$PER", "niente"],
    ),
    "evalita_re": (
        "evalita_llm/_evalita-mp_re_p{}.yaml",
        [
            {"text": "Emoglobina 12 g.", "relations": [["12 g", "emoglobina"], ["3", "urea"]]},
            {"text": "Nulla.", "relations": []},
            {"text": "Urea {3}.", "relations": [["3", "urea"]]},
        ],
        [
            "12 g$emoglobina%3$urea", " 12 g $ emoglobina ", "&&NOREL&&", "3$urea%3$urea%1$x", "niente", "1$x%2$y%3$urea",
            "1$x%12 g$emoglobina",
        ],
    ),
    "evalita_sum_fp": (
        "evalita_llm/_evalita-mp_sum_fp_p{}.yaml",
        [{"source": "È successo di tutto {oggi}.", "target": "Oggi è successo di tutto: perché?"}],
        ["Oggi è successo", "", "Perché?", "tutto tutto tutto"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("prompt", ["1", "2"])
@pytest.mark.parametrize("name", WRITTEN)
def test_written_answers_are_asked_and_scored_as_the_reference_does(name: str, prompt: str, tmp_path: Path) -> None:
    file, rows, answers = WRITTEN[name]
    kinds = ("test", "dev", "trial", "reduced_test")
    theirs = reference(file.format(prompt), tmp_path / "reference", dict.fromkeys(kinds, rows))
    task = TASKS[name]
    items = [
        item for item in select(task, laid(tmp_path, name, rows), prompt=prompt).items if isinstance(item, Generation)
    ]
    docs = list(theirs.eval_docs)
    assert [item.context for item in items] == [theirs.doc_to_text(doc) for doc in docs]
    assert [item.references[0] for item in items] == [theirs.doc_to_target(doc) for doc in docs]
    wanted = theirs.config.generation_kwargs
    assert all(list(item.decoding.stop) == wanted["until"] for item in items)
    if name == "evalita_sum_fp":
        return
    rng, aggregate = random.Random(2), theirs.aggregation()["f1"]
    for _ in range(30):
        given = [(item, doc, rng.choice(answers)) for item, doc in zip(items, docs, strict=True)]
        given = given * 2 if rng.random() < 0.3 else given
        results = [theirs.process_results(doc, [answer])["f1"] for _, doc, answer in given]
        scores = [item_score(item, ModelAnswer(text=answer), task) for item, _, answer in given]
        sums = np.sum([score.counts[0] for score in scores], axis=0)
        mine = float(corpus_measure(task.metric, len(sums)).of(sums))
        assert mine == pytest.approx(aggregate(results)), [answer for *_, answer in given]
        assert all(0 <= score.values["found"] <= 1 for score in scores)


def test_summaries_are_scored_by_rouge(tmp_path: Path) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1"])
    _, rows, answers = WRITTEN["evalita_sum_fp"]
    (item,) = select(TASKS["evalita_sum_fp"], laid(tmp_path, "evalita_sum_fp", rows)).items
    assert isinstance(item, Generation)
    for answer in answers:
        theirs = scorer.score(item.references[0], answer)["rouge1"].fmeasure
        assert item_score(item, ModelAnswer(text=answer), TASKS["evalita_sum_fp"]).values["rouge1"] == pytest.approx(
            theirs
        )
