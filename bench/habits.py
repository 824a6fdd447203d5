"""Training with everybody's data and habits: a dry run of large files, stacked adapters, and what held-out evaluation costs.

Held-out overhead: --steps steps of at least 4,096 tokens of a small random Llama, evaluated as often as the defaults choose;
processor seconds of all evaluations, the base's before the first step counted, over those of the steps.

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
PACK, PACKS = 544, 8  # tokens of a pack, packs of a step: more than 4,096 though no pack is quite full
SMALL: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 1024, "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": 0,
}  # fmt: skip
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


def small_model(folder: Path) -> None:
    """A random Llama whose tokens are bytes, as a Hugging Face folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    end = "<|endoftext|>"
    vocabulary = {token: number for number, token in enumerate([end, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([end])
    LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=len(vocabulary))).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": end}))


class Watch:
    """Processor and wall seconds inside a function, over all its calls."""

    def __init__(self, owner: type, name: str) -> None:
        self.calls, self.cpu_seconds, self.seconds = 0, 0.0, 0.0
        call = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return call(*arguments)
            finally:
                self.calls, self.cpu_seconds = self.calls + 1, self.cpu_seconds + time.process_time() - cpu
                self.seconds += time.perf_counter() - wall

        setattr(owner, name, timed)


def held_out_overhead(steps: int) -> dict[str, float]:
    """Train, and set the time of the evaluations beside that of the steps."""
    from stilnovo.recipe import Recipe
    from stilnovo.runlog import RunFolder
    from stilnovo.train.held_out import HeldOutEvaluation
    from stilnovo.train.loop import Trainer
    from stilnovo.train.run import TrainingRun

    step = Watch(Trainer, "train_step")
    base, evaluations = Watch(HeldOutEvaluation, "begin"), Watch(HeldOutEvaluation, "evaluate")
    with tempfile.TemporaryDirectory() as place:
        folder, data = Path(place), Path(place, "texts.jsonl")
        small_model(folder / "model")
        as_lines(data, made_up(1_200 * PACK * PACKS * steps // 1_000))
        run = {
            "task": "text",
            "steps": steps,
            "batch_packs": 2,
            "accumulation": PACKS // 2,
            "checkpoint_every": 10 * steps,
        }
        model = {"name": str(folder / "model"), "quantization": "none", "device": "cpu"}
        recipe = Recipe.model_validate(
            {"model": model, "lora": {"r": 16}, "data": {"paths": [str(data)], "pack_tokens": PACK}, "train": run}
        )
        TrainingRun(recipe, folder / "run").train()
        rows = RunFolder(folder / "run").metrics()
    evaluated = [row for row in rows if "held_out_loss" in row]
    return {
        "held_out_overhead": (base.cpu_seconds + evaluations.cpu_seconds) / step.cpu_seconds,
        "by_the_clock": (base.seconds + evaluations.seconds) / step.seconds,
        "by_metrics": sum(row["evaluation_seconds"] for row in evaluated) / rows[-1]["seconds"],
        "steps": len(rows), "tokens_per_step": rows[-1]["tokens"] / len(rows), "evaluations": len(evaluated),
        "step_cpu_seconds": step.cpu_seconds / step.calls,
    }  # fmt: skip


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    evaluation = held_out_overhead(options.steps)
    print(json.dumps(evaluation), file=sys.stderr)
    runs = dry_runs(options.kinds, round(options.gigabytes * 1e9))
    figures = {
        "held_out_overhead": evaluation["held_out_overhead"],
        "dry_run_seconds": runs["texts.jsonl"]["seconds"] if "texts.jsonl" in runs else None,
        "stack_equals_merge_max_difference": stack_equals_merge_max_difference(),
    }
    record = {
        **environment(), "command": " ".join(sys.argv), "n": 1, "evaluation": evaluation, "dry_runs": runs, **figures,
        "load_average": os.getloadavg(),
    }  # fmt: skip
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
