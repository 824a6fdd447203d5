"""Training with everybody's data and habits: a dry run of large files, stacked adapters, and what held-out evaluation costs.

Dry run: `stilnovo train --dry-run` on SmolLM2 in a process of its own, its start and imports counted, over files of
--gigabytes each that are made here, row by row, from the shipped sample's sentences and deleted afterwards: texts as lines
of JSON (the figure of the last line) and as every other kind that people have, and conversations. A compressed file is of
so much text. `peak_rss_bytes` is the most memory that the command held.

Stack: see stack.py.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stack import stack_equals_merge_max_difference
from stilnovo.io import sample
from stilnovo.io.rows import read_rows
from stilnovo.runlog import environment, write_atomic

Rows = Iterator[dict[str, Any]]
COLUMNS = ("id", "title", "text")
GROUP = 20_000  # rows of one Parquet row group


def made_up(size: int) -> Rows:
    """Articles of 2 to 40 sentences, drawn by seed, until `size` characters of text are reached; no two are alike."""
    source, number = random.Random(14), 0
    texts = [str(row["text"]) for name in sample.ENCYCLOPAEDIA for row in read_rows(sample.path(name))]
    sentences = [f"{part.strip()}." for text in texts for part in text.split(". ") if part.strip()]
    while size > 0:
        text = " ".join(source.choices(sentences, k=source.randint(2, 40)))
        number, size = number + 1, size - len(text)
        yield {"id": str(number), "title": f"Voce {number}", "text": f"Voce {number}: {text}"}


def conversations(size: int) -> Rows:
    """The same articles as conversations of one to three exchanges."""
    for row in made_up(size):
        parts = row["text"].split(". ")
        count = 1 + len(parts) % 3
        turns = [
            {"role": role, "content": content}
            for at in range(count)
            for role, content in (
                ("user", f"{row['title']}, parte {at}?"),
                ("assistant", ". ".join(parts[at::count]) or "."),
            )
        ]
        yield {"messages": turns}


def as_lines(path: Path, rows: Rows) -> None:
    """JSONL, compressed where the name says so."""
    with gzip.open(path, "wt", 1, "utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def as_array(path: Path, rows: Rows) -> None:
    """One array of JSON on one line, as `json.dump` writes it."""
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            file.write(("," if number else "[") + json.dumps(row, ensure_ascii=False))
        file.write("]")


def as_table(path: Path, rows: Rows) -> None:
    """CSV with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(path: Path, rows: Rows) -> None:
    """Parquet, a row group at a time; without compression, so that the file is as large as its text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    with pq.ParquetWriter(path, schema, compression="none") as out:
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(row)
            if len(group) == GROUP:
                out.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            out.write_table(pa.Table.from_pylist(group, schema))


def as_text(path: Path, rows: Rows) -> None:
    """One plain text."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row["text"] + "\n\n")


KINDS: dict[str, tuple[Callable[[Path, Rows], None], Callable[[int], Rows]]] = {
    "texts.jsonl": (as_lines, made_up), "texts.jsonl.gz": (as_lines, made_up), "texts.json": (as_array, made_up),
    "texts.csv": (as_table, made_up), "texts.parquet": (as_parquet, made_up), "text.txt": (as_text, made_up),
    "conversations.jsonl": (as_lines, conversations),
}  # fmt: skip


def dry_run(data: Path, recipe: str, folder: Path) -> dict[str, float]:
    """Wall and processor seconds of the command in a process of its own."""
    command = [
        sys.executable, "-m", "stilnovo.cli.main", "train", "--dry-run", "--json", "--recipe", recipe, "--model", "smollm2",
        "--data", str(data), "--out", str(folder / "run"),
    ]  # fmt: skip
    started = time.perf_counter()
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        said.seek(0)
        text = said.read()
    if status:
        sys.exit(f"{data.name} failed:\n{text[-2000:]}")
    return {
        "seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime,
        "file_bytes": data.stat().st_size, "documents_said": json.loads(text.splitlines()[-1])["documents"],
    }  # fmt: skip


def dry_runs(kinds: list[str], size: int) -> dict[str, dict[str, float]]:
    """A dry run of each kind of file, one file at a time."""
    found = {}
    for name in kinds:
        write, rows = KINDS[name]
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, name)
            write(path, rows(size))
            recipe = "anita-sft" if rows is conversations else "wikipedia-it"
            found[name] = dry_run(path, recipe, Path(place))
        print(
            f"{name:<22}{found[name]['seconds']:>8.1f} s {found[name]['cpu_seconds']:>8.1f} processor s "
            f"{found[name]['file_bytes']:>16,} bytes",
            file=sys.stderr,
            flush=True,
        )
    return found


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runs = dry_runs(options.kinds, round(options.gigabytes * 1e9))
    figures = {
        "dry_run_seconds": runs["texts.jsonl"]["seconds"] if "texts.jsonl" in runs else None,
        "stack_equals_merge_max_difference": stack_equals_merge_max_difference(),
    }
    record = {
        **environment(), "command": " ".join(sys.argv), "n": 1, "dry_runs": runs, **figures, "load_average": os.getloadavg(),
    }  # fmt: skip
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
