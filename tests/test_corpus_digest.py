"""The digest that a resumed training trusts: different corpora differ, the same corpus agrees however it is stored."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stilnovo.data.packing import coded, documents_sha256
from stilnovo.data.prepare import prepare
from stilnovo.data.shards import open_prepared
from stilnovo.data.work import PreparationSettings
from stilnovo.recipe import Recipe
from stilnovo.text.tokenizer import Tokenizer, from_folder
from stilnovo.train.objectives.base import objective_of

Rows = Sequence[dict[str, Any]]
TEXTS = [{"id": str(n), "title": f"T{n}", "text": f"Testo {n}, {'parola ' * (n % 4 + 1)}fine."} for n in range(6)]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return from_folder(tiny_folder)


def talk(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant") * len(contents)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def written(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def digest(tokenizer: Tokenizer, path: Path, **changes: Any) -> str:
    settings = {key.replace("__", "."): value for key, value in changes.items()}
    recipe = Recipe().changed({"data.paths": [str(path)], "data.pack_tokens": 512, "data.held_out": 0.0, **settings})
    return objective_of(recipe).read(tokenizer).sha256


DIFFERENT: dict[str, list[Rows]] = {
    "text": [
        TEXTS,
        [{**row, "title": ""} for row in TEXTS],
        [{**TEXTS[0], "title": "Altro"}, *TEXTS[1:]],
        TEXTS[::-1],
        TEXTS[:-1],
        [*TEXTS, TEXTS[0]],
        [{"text": "\n".join(row["text"] for row in TEXTS)}],
        [{"text": "ab"}, {"text": "c"}],
        [{"text": "a"}, {"text": "bc"}],
        [{"text": "abc"}],
    ],
    "sft": [
        [talk("a", "b", "c", "d")],
        [talk("a", "b"), talk("c", "d")],
        [talk("c", "d"), talk("a", "b")],
        [talk("ab", "c")],
        [talk("a", "bc")],
        [{"messages": [{"role": "system", "content": "a"}, *talk("a", "bc")["messages"]]}],
    ],
    "dpo": [
        [pair("a", "b", "c")],
        [pair("a", "c", "b")],
        [pair("ab", "b", "c")],
        [pair("a", "b", "c"), pair("d", "e", "f")],
        [pair("d", "e", "f"), pair("a", "b", "c")],
    ],
}


@pytest.mark.parametrize("task", DIFFERENT)
def test_different_corpora_differ_and_the_same_agree(tmp_path: Path, tokenizer: Tokenizer, task: str) -> None:
    digests = set()
    for number, rows in enumerate(DIFFERENT[task]):
        stored = {
            digest(tokenizer, written(tmp_path / f"{number}{suffix}", rows), train__task=task)
            for suffix in (".jsonl", ".json", ".parquet")
        }
        assert len(stored) == 1, rows
        digests |= stored
    assert len(digests) == len(DIFFERENT[task])


def test_whatever_decides_what_is_learnt_is_in_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = written(tmp_path / "texts.jsonl", TEXTS)
    one = written(tmp_path / "one.jsonl", [talk("a", "b"), talk("c", "d")])
    two = written(tmp_path / "two.jsonl", [talk("a", "b"), talk("c", "e")])
    readings: list[dict[str, Any]] = [
        {}, {"data__max_documents": 5}, {"data__rehearsal": [str(one)]}, {"data__rehearsal": [str(two)]},
        {"data__rehearsal": [str(one), str(two)]}, {"data__rehearsal": [str(two), str(one)]},
    ]  # fmt: skip
    digests = [digest(tokenizer, texts, **changes) for changes in readings]
    assert len(set(digests)) == len(readings)
    # What is held out of them is still the same corpus; the recipe says which rows those are.
    assert digests == [digest(tokenizer, texts, data__held_out=0.2, **changes) for changes in readings]


def test_tokens_boundaries_order_and_loss_tokens_are_in_it() -> None:
    rng = random.Random(5)
    seen: dict[str, object] = {}
    for _ in range(3000):
        documents = [
            [(rng.randint(0, 1), rng.random() < 0.5) for _ in range(rng.randint(0, 3))]
            for _ in range(rng.randint(0, 3))
        ]
        sha256 = documents_sha256([coded([t for t, _ in d], [learnt for _, learnt in d]) for d in documents])
        assert seen.setdefault(sha256, documents) == documents
    assert len(seen) > 1000


def test_a_prepared_corpus_is_known_by_what_it_holds(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def prepared(name: str, rows: Rows, **changes: Any) -> str:
        source = written(tmp_path / name, rows)
        folder = tmp_path / f"{name} {sorted(changes.items())} {len(list(tmp_path.iterdir()))}"
        prepare(PreparationSettings((str(source),), **changes), tokenizer, "tiny", folder)
        corpus = open_prepared(folder)
        assert digest(tokenizer, folder) == digest(tokenizer, folder)
        return corpus.sha256

    same = [prepared(name, TEXTS, held_out=0.3) for name in ("a.jsonl", "b.json", "c.parquet")]
    assert len(set(same)) == 1
    others = [prepared(f"{n}.jsonl", rows) for n, rows in enumerate(DIFFERENT["text"])]
    others += [prepared("d.jsonl", TEXTS, held_out=0.3, seed=1)]
    assert len({*same, *others}) == 1 + len(others)
