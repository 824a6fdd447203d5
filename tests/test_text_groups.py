"""Pieces of one book are one unit: the sources of held-out texts, and the intervals and verdicts over them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stilnovo.benchmarks.task import Draw
from stilnovo.compare.paired import compare, text_verdict
from stilnovo.data.sources import groups_of, read_documents
from stilnovo.forgetting.slice import read_slice
from stilnovo.report.evaluation import evaluation_page, evaluation_text
from stilnovo.scoring.evaluate import evaluate
from stilnovo.scoring.perplexity import HeldOutScore, HeldOutTexts, held_out_texts, score_texts, what_text_can_show
from stilnovo.scoring.result import load_result
from test_evaluate_scoring import byte_tokenizer, tiny_llama

CASES = Path(__file__).parents[2] / "shared" / "cases" / "evaluation"


def rows(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps({"text": "Un testo.", **record}) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def novels(tmp_path: Path) -> Path:
    """Three novels of five thousand characters each, which are cut."""
    folder = tmp_path / "novels"
    folder.mkdir()
    for book in ("uno", "due", "tre"):
        lines = [f"Riga {number} del libro {book}, che continua." for number in range(130)]
        (folder / f"{book}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_pieces_keep_their_book(novels: Path) -> None:
    texts = held_out_texts([novels])
    assert len(texts) > 3 and len(texts) == len(texts.groups)
    assert set(texts.groups) == {"uno", "due", "tre"}
    for text, group in zip(texts, texts.groups, strict=True):
        assert f"libro {group}" in text
    fewer = held_out_texts([novels], Draw(4))
    assert list(zip(fewer, fewer.groups, strict=True)) == [
        pair for pair in zip(texts, texts.groups, strict=True) if pair[0] in fewer
    ]
    assert what_text_can_show(texts).startswith(f"{len(texts)} pieces of 3 documents, ")
    assert what_text_can_show(texts).endswith("fewer than 8 independent ones have no interval and no verdict")


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{}, {}], ["document 1", "document 2"]),
        ([{"title": "A"}, {"title": "B"}, {"title": "A"}], ["A", "B", "A"]),
        ([{"group": "x", "title": "A"}, {"group": "x", "title": "B"}], ["x", "x"]),
        ([{"source": "a"}, {"source": "b"}, {"source": "a"}], ["a", "b", "a"]),
        ([{"source": "wiki", "title": "A"}, {"source": "wiki", "title": "B"}], ["A", "B"]),
        ([{"source": "book"}, {"source": "book"}], ["book", "book"]),
        ([{"path": "a.epub", "title": "I"}, {"path": "a.epub", "title": "II"}], ["a.epub", "a.epub"]),
        ([{"group": 7}, {"group": ""}, {}], ["7", "document 2", "document 3"]),
    ],
)
def test_groups_of_rows(tmp_path: Path, records: list[dict[str, Any]], expected: list[str]) -> None:
    assert groups_of(read_documents([rows(tmp_path / "rows.jsonl", *records)])) == expected


def test_intervals_and_verdicts_are_over_books() -> None:
    """Ten books of six pieces, of which what differs is mostly the book's: twice as wide as over pieces."""
    rng = np.random.default_rng(3)
    index = np.repeat(np.arange(10), 6)
    nats = 1000 * (2 + rng.normal(0, 0.3, 10)[index] + rng.normal(0, 0.1, 60))

    def score(values: np.ndarray, groups: tuple[str, ...]) -> HeldOutScore:
        return HeldOutScore(tuple(values), (1000,) * 60, (250,) * 60, "same", 64, 32, groups=groups)

    books = tuple(f"book {number}" for number in index)
    alone, grouped = score(nats, ()).bits_per_byte(), score(nats, books).bits_per_byte()
    assert alone.value == grouped.value
    assert (alone.clusters, grouped.clusters, grouped.n) == (60, 10, 60)
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    assert score(nats, tuple(map(str, range(60)))).bits_per_byte() == alone, "each its own is no grouping"
    after = nats - 1000 * (0.05 + rng.normal(0, 0.2, 10)[index])
    over_pieces, over_books = (text_verdict(score(nats, names), score(after, names)) for names in ((), books))
    assert over_books.p > over_pieces.p
    assert "60 pieces of 10 documents" in over_books.sentence
    older = text_verdict(score(nats, ()), score(after, books))
    assert older.difference == over_books.difference, "the run that knows the books says them"


def test_an_evaluation_names_its_units(novels: Path, tmp_path: Path) -> None:
    texts = held_out_texts([novels], Draw(5))
    result = evaluate(tiny_llama(), byte_tokenizer(True), [], texts=texts, text_name="novels", model_name="tiny")
    result.save(tmp_path)
    assert load_result(tmp_path).text == result.text
    summary = result.summary()["text"]
    assert (summary["documents"], summary["units"], summary["groups"]) == (5, 3, 3)
    assert summary["bits_per_byte_interval"] == [None, None]
    shown = "\n".join(str(part) for part in evaluation_text(result))
    assert "(no interval: units 3, at least 8 needed), 5 pieces of 3 documents, " in shown
    page = re.sub(r"\s+", " ", evaluation_page(result))
    assert "over 5 pieces of 3 documents," in page and "inf" not in re.sub("info|infer", "", page)
    verdict = compare(result, result).verdicts["bits_per_byte"]
    assert verdict.outcome == "inconclusive" and not verdict.can_decide
    assert verdict.sentence.endswith(
        "no verdict can be reached: 3 independent documents are too few, at least 8 are needed."
    )


def test_plain_lists_stand_alone() -> None:
    score = score_texts(tiny_llama(), byte_tokenizer(True), ["uno due", "tre quattro"])
    assert score.clusters is None and score.groups == ()
    grouped = score_texts(tiny_llama(), byte_tokenizer(True), HeldOutTexts(["uno due", "tre quattro"], ["a", "a"]))
    assert grouped.clusters == ["a", "a"]
    assert grouped.nats == score.nats


def test_short_windows_keep_their_books() -> None:
    score = HeldOutScore(
        (1.0,) * 20, (10,) * 20, (4,) * 20, "", 64, 32, tuple(float(i) for i in range(20)), (1, 0) * 10,
        tuple(str(index % 10) for index in range(20)),
    )  # fmt: skip
    perplexity = score.perplexity_of_short_windows()
    assert perplexity is not None and perplexity.clusters == 5
    assert (perplexity.low, perplexity.high) == (-math.inf, math.inf)


def test_the_guard_counts_books(novels: Path) -> None:
    what = read_slice([], 0, [str(novels)], 50, None, 0)
    (name,) = what.texts
    assert len(what.groups[name]) == len(what.texts[name]) > 3
    assert set(what.groups[name]) == {"uno", "due", "tre"}


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
def test_the_case_of_six_books() -> None:
    case = json.loads((CASES / "pieces_of_six_books.json").read_text(encoding="utf-8"))
    sizes = case["sizes"]
    score = HeldOutScore(tuple(case["b"]), tuple(sizes), (1,) * len(sizes), "", 64, 32, groups=tuple(case["src"]))
    bits = score.bits_per_byte()
    assert (bits.n, bits.clusters, bits.has_interval) == (36, 6, False)
