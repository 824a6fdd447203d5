"""Preparing a corpus: tokens a second and core against `datasets` + TRL's packing, and memory as the corpus grows.

Speed: all start with the same JSONL and the tokeniser loaded, run in one process each (a child of this one, in turn:
A B A B), and end when training could start: ours with checksummed shards opened and packed, the peers with a packed
`datasets.Dataset` in its cache. The clock is the process's CPU time, all threads, so that other work on the machine counts
little; tokens a CPU second are tokens a second and core. The peers:

- `trl`: `SFTTrainer._prepare_dataset`, what a user of the trainer gets: end-of-text added, tokenised, labels built, one
  row a call each, then shuffled and packed.
- `datasets + trl`: the best that these libraries offer by hand: `Dataset.map` over whole batches of texts, then
  `trl.pack_dataset`. The ratio is against the faster of the two.

No peer looks for near-duplicates; `stilnovo, near-duplicates` is ours with that search, against the same peers.

The text is real when there is any: our encoder remembers words, and made-up text could repeat more or fewer of them.
Memory: made-up text of 10 MB, 100 MB and, with --gigabyte, 1 GB, of 400,000 word forms with Zipf's frequencies, enough to
fill every memory; near-duplicate search on; the sum over all processes, sampled.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stilnovo.data.prepare import prepare
from stilnovo.data.shards import open_prepared
from stilnovo.data.sources import read_documents, training_text
from stilnovo.data.work import PreparationSettings
from stilnovo.runlog import environment, write_atomic
from stilnovo.text.tokenizer import Tokenizer, open_tokenizer

PACK, ARTICLE_CHARS, TOKENIZER = 512, 3000, "tokenizer.pickle"
SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL = [str(SHARED / "wikipedia_it" / "passages.jsonl"), *map(str, sorted((SHARED / "library").glob("*-*_*.txt")))]
OURS: dict[str, dict[str, Any]] = {"stilnovo": {}, "stilnovo, near-duplicates": {"duplicates": 0.8}}
PEERS = ("trl", "datasets + trl")


def opened(job: dict[str, Any]) -> Tokenizer:
    """The tokeniser as the parent left it: reading it from the model's file takes seconds that are no part of this."""
    tokenizer: Tokenizer = pickle.loads((Path(job["folder"]) / TOKENIZER).read_bytes())
    return tokenizer


def run_ours(job: dict[str, Any]) -> dict[str, float]:
    """Prepare, open and pack, in this process."""
    tokenizer = opened(job)
    folder = Path(job["folder"]) / f"ours-{os.getpid()}"
    wall, cpu = time.perf_counter(), time.process_time()
    prepare(PreparationSettings((job["data"],), **OURS[job["side"]]), tokenizer, "smollm2", folder)
    corpus = open_prepared(folder, tokenizer.fingerprint())
    packed = corpus.packed(PACK)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert len(packed.packs)
    return {
        "tokens": sum(shard["tokens"] for shard in corpus.manifest["shards"]),  # what was tokenised, repeats too
        "cpu_seconds": cpu,
        "seconds": wall,
        "packs": len(packed.packs),
    }


def run_peer(job: dict[str, Any]) -> dict[str, float]:
    """`datasets` reads, tokenises and packs with TRL's `bfd_split`, which loses no token; as its trainer, or in batches."""
    from datasets import load_dataset
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer, pack_dataset

    definition, end = opened(job).definition, "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(definition), eos_token=end)

    def tokenised(rows: dict[str, Any]) -> dict[str, Any]:
        return {"input_ids": [[*ids, tokenizer.eos_token_id] for ids in tokenizer(rows["text"])["input_ids"]]}

    args = SFTConfig(
        max_length=PACK, packing=True, packing_strategy="bfd_split", use_cpu=True, bf16=False, report_to=[]
    )
    # A trainer needs a model; its preparation needs these alone.
    trainer = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=False, padding_free=True)
    wall, cpu = time.perf_counter(), time.process_time()
    cache = str(Path(job["folder"]) / f"peer-{os.getpid()}")
    rows = load_dataset("json", data_files=job["data"], split="train", cache_dir=cache)
    if job["side"] == "trl":
        packed = SFTTrainer._prepare_dataset(trainer, rows, tokenizer, args, True, None, "train")
    else:
        packed = pack_dataset(rows.map(tokenised, batched=True, remove_columns=rows.column_names), PACK, "bfd_split")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tokens = sum(len(ids) for ids in packed["input_ids"])
    return {"tokens": tokens, "cpu_seconds": cpu, "seconds": wall, "packs": len(packed)}


def run_memory(job: dict[str, Any]) -> dict[str, float]:
    """Prepare with two workers; the parent watches from outside."""
    settings = PreparationSettings((job["data"],), duplicates=0.8, held_out=0.001)
    folder = Path(job["folder"]) / f"memory-{os.getpid()}"
    wall = time.perf_counter()
    done = prepare(settings, opened(job), "smollm2", folder, processes=2)
    seconds = time.perf_counter() - wall
    open_prepared(folder).packed(PACK)
    return {"tokens": done.tokens, "seconds": seconds}


def child(job: dict[str, Any]) -> dict[str, Any]:
    """One contestant in a process of its own, and the most memory that it and its workers held at once."""
    import psutil

    command = [sys.executable, __file__, "--child", json.dumps(job)]
    settings = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.05):
            total = 0
            try:
                root = psutil.Process(process.pid)
                for one in (root, *root.children(recursive=True)):
                    total += one.memory_info().rss
            except psutil.Error:
                pass
            peak = max(peak, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, errors = process.communicate()
    over.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{job['side']} failed:\n{errors[-2000:]}")
    return {**json.loads(out.splitlines()[-1]), "peak_rss_bytes": peak}


def made_up(path: Path, size: int) -> None:
    """Write JSONL of about `size` bytes: paragraphs of words with Zipf's frequencies, no two texts alike."""
    import numpy as np

    rng = np.random.default_rng(7)
    syllables = np.array(
        [c + v for c in "bcdfglmnprstvz" for v in "aeiou"] + ["sto", "gli", "che", "tra", "con", "per"]
    )
    forms = np.array(["".join(rng.choice(syllables, n)) for n in rng.integers(1, 6, 400_000)], dtype=object)
    weights = 1 / np.arange(1, len(forms) + 1)
    ladder = np.cumsum(weights / weights.sum())
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            words = forms[np.minimum(np.searchsorted(ladder, rng.random(200_000)), len(forms) - 1)]
            at = 0
            while at < len(words):
                count = int(rng.integers(80, 800))
                text = ". ".join(" ".join(words[i : i + 14]) for i in range(at, min(at + count, len(words)), 14))
                line = json.dumps({"id": str(number), "text": text + "."}) + "\n"
                file.write(line)
                written, number, at = written + len(line), number + 1, at + count


def articles(text: str) -> list[str]:
    """A text in parts of an article's length, cut between lines: a novel in one row would slow the peer down."""
    parts: list[list[str]] = [[]]
    size = 0
    for line in text.split("\n"):
        parts[-1].append(line)
        size += len(line)
        if size > ARTICLE_CHARS:
            parts.append([])
            size = 0
    return [joined for part in parts if (joined := "\n".join(part).strip())]


def speed(data: str, rounds: int, folder: str) -> dict[str, Any]:
    """Medians a contestant, and each against the faster peer."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*OURS, *PEERS)}
    for _ in range(rounds):
        for name, runs in found.items():
            runs.append(child({"side": name, "data": data, "folder": folder}))
            last = runs[-1]
            print(
                f"{name:<26}{last['tokens'] / last['cpu_seconds']:>12,.0f} tokens/s and core",
                file=sys.stderr,
                flush=True,
            )
    tokens = {run["tokens"] for runs in found.values() for run in runs}
    assert len(tokens) == 1, f"the sides made different tokens: {tokens}"
    table = {
        name: {
            "tokens_per_cpu_second": statistics.median(run["tokens"] / run["cpu_seconds"] for run in runs),
            "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs), "runs": runs,
        }
        for name, runs in found.items()
    }  # fmt: skip
    best = max(table[name]["tokens_per_cpu_second"] for name in PEERS)
    for row in table.values():
        row["ratio"] = row["tokens_per_cpu_second"] / best
    return table


def main() -> None:
    """Run both parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=REAL if Path(REAL[0]).exists() else ["sample"], help="any text")
    parser.add_argument("--megabytes", type=float, help="an even sample of the texts of about this size, not all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gigabyte", action="store_true", help="also 1 GB of made-up text: some minutes more")
    parser.add_argument("--no-memory", action="store_true", help="speed only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        job = json.loads(options.child)
        runner = run_ours if job["side"] in OURS else run_memory if job["side"] == "memory" else run_peer
        print(json.dumps(runner(job)))
        return
    peaks: dict[str, int | None] = {"10mb": None, "100mb": None, "1gb": None}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / TOKENIZER).write_bytes(pickle.dumps(open_tokenizer("smollm2")))
        data = str(Path(folder) / "text.jsonl")
        texts = [part for d in read_documents(options.data) for part in articles(training_text(d))]
        size = sum(map(len, texts))
        step = 1 if options.megabytes is None else max(1, round(size / (options.megabytes * 10**6)))
        texts = texts[::step]
        Path(data).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        table = speed(data, options.rounds, folder)
        sizes = {} if options.no_memory else {"10mb": 10**7, "100mb": 10**8}
        if options.gigabyte:
            sizes["1gb"] = 10**9
        for name, size in sizes.items():
            corpus = Path(folder) / f"{name}.jsonl"
            made_up(corpus, size)
            found = child({"side": "memory", "data": str(corpus), "folder": folder})
            peaks[name] = found["peak_rss_bytes"]
            corpus.unlink()
            print(
                f"{name:<14}{peaks[name] or 0:>14,} bytes at the peak, {found['tokens']:,} tokens, {found['seconds']:.0f} s",
                file=sys.stderr,
            )
    for name, row in table.items():
        print(
            f"{name:<26}{row['tokens_per_cpu_second']:>12,.0f} tokens/s and core   x{row['ratio']:.2f} of the best peer"
            f"{row['peak_rss_bytes'] / 2**20:>8.0f} MiB"
        )
    record = {
        **environment(), "command": " ".join(sys.argv), "n": options.rounds, "characters": sum(map(len, texts)),
        "speed": table, "peaks": peaks, "load_average": os.getloadavg(),
    }  # fmt: skip
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    last = {
        "speed_ratio": table["stilnovo"]["ratio"],
        **{f"peak_rss_bytes_{name}": peak for name, peak in peaks.items()},
    }
    print(json.dumps(last))


if __name__ == "__main__":
    main()
