"""Search by words and meaning together, beside words alone: SQuAD-it, the questions about literature, speed and memory.

What meaning counts beside words (`search.MEANING`) is fitted on one half of the questions of SQuAD-it, drawn by seed;
reported are the other half, and the first 500 of it. Questions about literature are those of `questions/` whose split is named; a
passage is right when it holds one of the spans that answer, a section likewise. Vectors are those of the default
embedding model. For the time of a search of 100,000 passages they are made up: a product takes as long with any numbers.

`bench/retrieval.py` runs what needs no library with vectors; the rest needs one that `stilnovo library embed` was run on:

    python bench/meaning.py FILE [--split dev|test]

Needs: stilnovo[bench,embeddings].
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from stilnovo.library.embedders import NanoEmbedder, default_embedder, has_default, nearest
from stilnovo.library.index import Index, Row
from stilnovo.library.search import DEPTH, MEANING, added, search, sought
from stilnovo.library.store import Library
from stilnovo.library.vectors import embedded_text

SHOWN, SEED = 10, 20261129
SHARES = (0.0, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 1.0)
#: Passages whose embedding is timed, and questions that are asked of 100,000.
TIMED, ASKED = 256, 400
QUESTIONS = Path(__file__).parent / "questions"
ANSWERABLE = ("literature.jsonl", "classroom_a.jsonl", "classroom_b.jsonl")

#: A query, and the ids of the texts that answer it.
Query = tuple[str, set[int]]
Ranking = list[tuple[int, float]]


def ranks(ranking: Sequence[tuple[int, float]], right: set[int]) -> int:
    """Place of the first right one, from 0; a large number where there is none."""
    return next((place for place, (number, _) in enumerate(ranking) if number in right), 10**9)


def figures(places: Sequence[int]) -> dict[str, float]:
    """Recall at 1 and 10 and nDCG at 10, where each query has one right text."""
    found = np.array(places)
    gains = np.where(found < SHOWN, 1 / np.log2(np.minimum(found, SHOWN) + 2), 0)
    values = {"R@1": (found < 1).mean(), "R@10": (found < SHOWN).mean(), "nDCG@10": gains.mean()}
    return {**{name: round(float(value), 4) for name, value in values.items()}, "n": len(places)}


def rank_fusion(words: Mapping[int, float], cosines: Mapping[int, float]) -> Ranking:
    """Reciprocal rank fusion (Cormack, Clarke and Buettcher 2009, k = 60), to compare with."""
    sums: dict[int, float] = {}
    for scores in (words, cosines):
        for place, number in enumerate(sorted(scores, key=lambda key: -scores[key]), start=1):
            sums[number] = sums.get(number, 0.0) + 1 / (60 + place)
    return sorted(sums.items(), key=lambda hit: -hit[1])


def squad(texts: Sequence[str], questions: Sequence[Query], say: Callable[[str], None]) -> dict[str, Any]:
    """SQuAD-it: the share of meaning fitted on one half of the questions, and all ways of searching on the other."""
    model, index = default_embedder(), Index(None)
    rows: list[Row] = [(number, text, ()) for number, text in enumerate(texts, start=1)]
    index.sync({1: "squad-it"}, lambda _: rows)
    matrix, ids = model.passages(texts), np.arange(1, len(texts) + 1)
    say(f"{len(texts)} paragraphs of SQuAD-it embedded")
    ways: dict[str, list[int]] = {name: [] for name in ("words", "meaning", "ranks", *map(str, SHARES), "hybrid")}
    for text, right in questions:
        wanted = sought(text)
        found = index.match(wanted, DEPTH)
        cosines = dict(nearest(matrix, ids, model.query(text), DEPTH, also=dict(found)))
        words = {**dict(found), **index.scores(wanted, [number for number in cosines if number not in dict(found)])}
        by_meaning = sorted(cosines.items(), key=lambda hit: -hit[1])
        ways["words"].append(ranks(found, right))
        ways["meaning"].append(ranks(by_meaning, right))
        ways["ranks"].append(ranks(rank_fusion(dict(found), dict(by_meaning[:DEPTH])), right))
        for share in SHARES:
            ways[str(share)].append(ranks(added(words, cosines, share), right))
        ways["hybrid"].append(ranks(added(words, cosines), right))
    order = random.Random(SEED).sample(range(len(questions)), len(questions))
    fitted, kept = order[: len(order) // 2], order[len(order) // 2 :]

    def of(which: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
        return {name: figures([ways[name][i] for i in which]) for name in names}

    compared = ("words", "meaning", "ranks", "hybrid")
    return {
        "share": MEANING, "fitted": of(fitted, [*map(str, SHARES)]), "reported": of(kept, compared),
        "first_500": of(kept[:500], compared), "all": of(range(len(questions)), compared),
    }  # fmt: skip


def literature(library: Library, split: str) -> dict[str, Any]:
    """The questions about literature: a right passage, and a right section, among the first ten, by words and by both."""
    asked = [
        row
        for name in ANSWERABLE
        for row in map(json.loads, (QUESTIONS / name).read_text(encoding="utf-8").splitlines())
        if row["split"] == split
    ]
    counts: dict[str, dict[str, int]] = {}
    for row in asked:
        spans = [row["span"], *(place["span"] for place in row.get("spans", ()))]
        for way, words_only in (("words", True), ("hybrid", False)):
            hits = [hit.passage for hit in search(library, row["question"], SHOWN, words_only=words_only)]
            sections = [
                library.text(passage.section.work)[passage.section.start : passage.section.end] for passage in hits
            ]
            count = counts.setdefault(way, dict.fromkeys(("passage@1", "passage@10", "section@3", "section@10"), 0))
            right = [any(span in passage.text for span in spans) for passage in hits]
            inside = [any(span in section for span in spans) for section in sections]
            count["passage@1"] += any(right[:1])
            count["passage@10"] += any(right)
            count["section@3"] += any(inside[:3])
            count["section@10"] += any(inside)
    return {"split": split, "questions": len(asked), **counts}


def embedding_speed(library: Library) -> dict[str, float]:
    """Passages embedded a second and core (processor seconds of this process), drawn from the library."""
    numbers = [number for (number,) in library.connection.execute("SELECT id FROM passages ORDER BY id")]
    drawn = random.Random(SEED).sample(numbers, min(TIMED, len(numbers)))
    texts = [f"passage: {embedded_text(passage)}" for passage in library.passages(drawn)]
    encoder = default_embedder()._encoder
    encoder(texts[:16])
    begun = time.process_time()
    encoder(texts)
    seconds = time.process_time() - begun
    tokens = statistics.fmean(len(ids) for ids in encoder.ids(texts))
    engine = default_embedder()._engine
    begun = time.process_time()
    engine.passage([text.removeprefix("passage: ") for text in texts[:32]])
    wheel = 32 / (time.process_time() - begun)
    return {
        "passages_per_second": round(len(texts) / seconds, 2), "tokens_per_passage": round(tokens, 1),
        "bf16": float(str(encoder.dtype) == "torch.bfloat16"), "by_the_wheel_s_engine": round(wheel, 2),
    }  # fmt: skip


def beside_words(
    library: Library, texts: Sequence[str], questions: Sequence[Query], say: Callable[[str], None]
) -> dict[str, Any]:
    """What needs no library with vectors; nothing where there is no embedding model."""
    if not has_default():
        return {}
    found = {"squad_it": squad(texts, questions, say), "speed": embedding_speed(library)}
    say(f"words and meaning: {found}")
    return found


def headline(found: Mapping[str, Any], speeds: Mapping[int, Any]) -> dict[str, Any]:
    """The figures of words and meaning together; none where there is no embedding model."""
    hybrid = found.get("squad_it", {}).get("reported", {}).get("hybrid", {})
    at_100k = speeds.get(100_000, {}).get("hybrid", {})
    return {
        "hybrid_recall_at_1": hybrid.get("R@1"),
        "hybrid_recall_at_10": hybrid.get("R@10"),
        "hybrid_ndcg_at_10": hybrid.get("nDCG@10"),
        "hybrid_p95_ms_at_100k": at_100k.get("whole_p95_ms"),
        "embedded_passages_per_second": found.get("speed", {}).get("passages_per_second"),
    }


def made_up(library: Library) -> None:
    """Give every passage a vector of numbers drawn at random, as the default model's."""
    draw = np.random.default_rng(SEED)
    numbers = [number for (number,) in library.connection.execute("SELECT id FROM passages ORDER BY id")]
    for start in range(0, len(numbers), 10_000):
        part = numbers[start : start + 10_000]
        rows: NDArray[np.float32] = draw.standard_normal((len(part), 384), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        with library._transaction():
            library._insert_vectors(
                (number, NanoEmbedder.NAME, library._stored(row)) for number, row in zip(part, rows, strict=True)
            )


def latency(library: Library, queries: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of a search by both, of its query's embedding, and bytes of memory that the vectors take."""
    made_up(library)
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    search(library, queries[0], SHOWN)
    opened, held = time.perf_counter() - begun, psutil.Process().memory_info().rss - before
    asked = random.Random(SEED).sample(list(queries), min(ASKED, len(queries)))
    times: dict[str, list[float]] = {"query": [], "rest": [], "whole": [], "cpu": []}
    for text in asked:
        start, cpu = time.perf_counter(), time.process_time()
        default_embedder().query(text)  # remembered: the search does not make it again
        middle = time.perf_counter()
        search(library, text, SHOWN)
        end = time.perf_counter()
        for name, seconds in (("query", middle - start), ("rest", end - middle), ("whole", end - start)):
            times[name].append(seconds * 1e3)
        times["cpu"].append((time.process_time() - cpu) * 1e3)
    cuts = {name: statistics.quantiles(values, n=100) for name, values in times.items()}
    passages = library.embedded(NanoEmbedder.NAME)[0]
    return {
        "passages": passages, **{f"{name}_p50_ms": round(cut[49], 2) for name, cut in cuts.items()},
        **{f"{name}_p95_ms": round(cut[94], 2) for name, cut in cuts.items()}, "first_search_seconds": round(opened, 2),
        "vector_bytes": held,
    }  # fmt: skip


def main() -> None:
    """Measure a library whose vectors are made: quotations and the questions about literature; the last line is JSON."""
    from retrieval import measured, quotations

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path, help="library file with the vectors of the default model")
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--queries", type=int, default=500, help="six-word quotations")
    options = parser.parse_args()
    with Library.open(options.library) as library:
        vectors, passages = library.embedded(NanoEmbedder.NAME)
        if not vectors or vectors < passages:
            sys.exit(f"{vectors} of {passages} passages have vectors: run stilnovo library embed --library FILE first.")
        result: dict[str, Any] = {"passages": passages, "literature": literature(library, options.split)}
        numbers = [number for (number,) in library.connection.execute("SELECT id FROM passages ORDER BY id")]
        every = [p for i in range(0, len(numbers), 5000) for p in library.passages(numbers[i : i + 5000])]
        asked = quotations(every, options.queries)
        for name, words_only in (("quotations_by_words", True), ("quotations_hybrid", False)):
            result[name] = measured(
                asked,
                lambda query, alone=words_only: (
                    (hit.passage.id, hit.score) for hit in search(library, query, SHOWN, words_only=alone)
                ),
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
