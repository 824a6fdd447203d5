"""From the request to the first streamed piece of an extractive answer, over HTTP, alone and with fifty clients at once.

The service runs in a process of its own, the questions are the sample's own twenty-five, and every one is asked through
`/v1/chat/completions` with `stream: true`; what is timed is the first piece that holds a word. `--library` times another
library file with its own questions (`--questions`, one a line).

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from stilnovo.io import sample
from stilnovo.io.rows import read_rows
from stilnovo.runlog import environment, write_atomic

CLIENTS = 50


def first_piece(client: httpx.Client, question: str) -> float:
    """Milliseconds to the first word of the answer."""
    body = {"model": "stilnovo-library", "stream": True, "messages": [{"role": "user", "content": question}]}
    begun, first = time.perf_counter(), None
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if (
                first is None
                and line.startswith("data: {")
                and json.loads(line[6:])["choices"][0]["delta"].get("content")
            ):
                first = (time.perf_counter() - begun) * 1000
    if first is None:
        raise RuntimeError("the answer had no word")
    return first


def summary(milliseconds: list[float]) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    ordered = sorted(milliseconds)
    return {
        "n": len(ordered),
        "median_ms": round(statistics.median(ordered), 1),
        "p95_ms": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
        "max_ms": round(ordered[-1], 1),
    }


def measure(address: str, questions: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Alone: one client, every question in turn. Crowd: fifty clients at once, each with its own connection."""
    with httpx.Client(base_url=address, timeout=60) as client:
        for question in questions[:4]:  # the workers open their library
            first_piece(client, question)
        alone = [first_piece(client, question) for _ in range(rounds) for question in questions]

    def one(i: int) -> float:
        with httpx.Client(base_url=address, timeout=120) as own:
            return first_piece(own, questions[i % len(questions)])

    with ThreadPoolExecutor(CLIENTS) as pool:
        crowd = list(pool.map(one, range(CLIENTS)))
    return {"alone": summary(alone), "crowd_of_50": summary(crowd)}


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, help="a library file; none: the sample")
    parser.add_argument("--questions", type=Path, help="one a line; none: the sample's")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.questions:
        questions = [
            line.strip() for line in options.questions.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    else:
        questions = [str(row["question"]) for row in read_rows(sample.path("library_questions.jsonl"))]
    with tempfile.TemporaryDirectory() as folder:
        library = options.library or Path(folder) / "library.sqlite"
        extra = [] if options.library else ["--sample"]
        command = [
            sys.executable,
            "-m",
            "stilnovo.cli.main",
            "serve",
            "--port",
            "0",
            "--json",
            "--library",
            str(library),
        ]
        with subprocess.Popen([*command, *extra], stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as running:
            assert running.stdout is not None
            told = json.loads(next(line for line in running.stdout if line.startswith("{")))
            try:
                found = measure(told["address"], questions, options.rounds)
            finally:
                running.terminate()
    for name, row in found.items():
        print(
            f"{name:<12} median {row['median_ms']:>7} ms   p95 {row['p95_ms']:>7} ms   max {row['max_ms']:>7} ms   n {row['n']}"
        )
    record = {
        **environment(),
        "command": " ".join(sys.argv),
        "load": os.getloadavg()[0],
        "works": told["works"],
        **found,
    }
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
