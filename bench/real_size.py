"""An 8B Llama 3 at its real size on this machine's processor: what opening, training, evaluating and exporting it take.

The way of a user, one command after another, each a process of its own (`measured.py`) with the memory that its account predicts
beside what it held: the plan with every command's account; the first opening, which quantises, and the second, which maps what
the first kept; two training steps at 64 tokens; the same killed after the first and resumed, which must give the same adapter;
four items evaluated, four tokens written; the merged folder exported, and opened by transformers. Then what writing costs beside
this project's own path of commit ab7a126, and beside llama.cpp (`writing_cpu.py`).

The checkpoint is synthetic (`real_checkpoint.py`), unless --model names one. Everything lies in --folder, with a journal of what
is measured, each row with its commit: the same command goes on where it was stopped, and does again what failed. --layers 2
tries it out in minutes, at full width. The last line is one JSON object; a figure that could not be measured is null in it, and
`why_not` says why.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import real_checkpoint
import writing_cpu
from measured import Measured, measure, stilnovo
from stilnovo.plan.shape import LLAMA_3_8B
from stilnovo.runlog import environment, write_atomic

GIB = 2**30
TOKENS = 64
FIGURES = (
    "load_cpu_seconds_first", "load_cpu_seconds_second", "resident_bytes", "train_predicted_bytes", "train_measured_bytes",
    "write_over_ab7a126_bf16", "write_over_ab7a126_avx2", "write_ratio_llama_cpp_1", "write_ratio_llama_cpp_8",
)  # fmt: skip
Row = dict[str, Any]


class RealSize:
    """The stages over one folder; each is measured once, and its row kept in the journal."""

    def __init__(self, folder: Path, model: Path | None, layers: int) -> None:
        self.folder, self.layers = folder, layers
        self.model = model or folder / f"llama3-8b-{layers}-layers"
        self.made = model is None
        self.journal = folder / "journal.json"
        self.facts = {"model": str(self.model), "layers": layers}
        self.commit = environment()["commit"]
        self.rows: dict[str, Row] = {}
        if self.journal.is_file():
            kept = json.loads(self.journal.read_text())
            if kept["facts"] == self.facts:
                self.rows = kept["rows"]
            else:
                print(f"Begun anew: {self.journal} is of {kept['facts']}.")

    def stage(self, name: str, work: Callable[[], Row]) -> Row:
        """Do a stage, unless the journal has it; what fails is a row, too."""
        if name not in self.rows or "failed" in self.rows[name]:
            print(f"{name} …", flush=True)
            try:
                self.rows[name] = work()
            except StageError as error:
                self.rows[name] = {"failed": str(error)}
            self.rows[name]["commit"] = self.commit
            write_atomic(self.journal, json.dumps({"facts": self.facts, "rows": self.rows}, indent=1) + "\n")
        print(line(name, self.rows[name]), flush=True)
        return self.rows[name]

    def run(self, name: str, *arguments: str, **more: Any) -> tuple[Measured, Row]:
        """One command of this project with the folder's own cache; fails the stage where the command failed."""
        bases = {"STILNOVO_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        return measured_row(name, stilnovo(*arguments, environment=bases, **more), killed="kill_when" in more)

    def checkpoint(self) -> Row:
        """Write the checkpoint where none was named."""
        started = time.process_time()
        if self.made:
            real_checkpoint.write(self.model, replace(LLAMA_3_8B, layers=self.layers))
        size = sum(path.stat().st_size for path in self.model.glob("*.safetensors"))
        return {"cpu_seconds": time.process_time() - started, "weights_bytes": size}

    def plan(self) -> Row:
        """What the commands need by their accounts, on this machine."""
        found, row = self.run(
            "plan", "plan", "--model", str(self.model), "--device", "cpu", "--tokens", str(TOKENS), "--json"
        )
        return {**row, "plan": found.result}

    def load(self, *, first: bool) -> Row:
        """Open the model in a process of its own; the first time nothing is kept."""
        if first:
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
        child = [sys.executable, __file__, "--child-opens", str(self.model)]
        done = measure(child, environment={"STILNOVO_CACHE": str(self.folder / "cache")})
        return {**measured_row("load", done)[1], **done.result}

    def train(self, out: str, *more: str, **options: Any) -> Row:
        """Two steps of one pass each."""
        target = self.folder / out
        if "--resume" not in more:
            shutil.rmtree(target, ignore_errors=True)
        keys = (
            f"data.pack_tokens={TOKENS}", "train.batch_packs=1", "train.accumulation=1", "train.checkpoint_every=1",
            "train.samples=[]",
        )  # fmt: skip
        given = [
            "train", "--recipe", "wikipedia-it", "--model", str(self.model), "--device", "cpu", "--data", "sample", "--out",
            str(target), "--steps", "2", "--json", *(word for key in keys for word in ("--set", key)),
        ]  # fmt: skip
        if "--resume" in more:
            given = ["train", "--out", str(target), "--json"]
        done, row = self.run("train", *given, *more, **options)
        result = done.result
        row |= {
            "predicted_bytes": result.get("predicted_peak_bytes"),
            "measured_bytes": result.get("peak_memory_bytes"),
        }
        adapter = target / "adapter" / "adapter_model.safetensors"
        if adapter.is_file():
            row["adapter_sha256"] = hashlib.sha256(adapter.read_bytes()).hexdigest()
        return row | {"last_loss": result.get("last_loss")}

    def killed(self) -> Row:
        """The same training, killed when its first checkpoint lies there."""
        checkpoints = self.folder / "killed" / "checkpoints"
        return self.train("killed", kill_when=(checkpoints / "step-1").is_dir)

    def resumed(self) -> Row:
        """What was killed, to its end; the adapter must be the uninterrupted run's."""
        row = self.train("killed", "--resume")
        if row["adapter_sha256"] != self.rows["train"].get("adapter_sha256"):
            raise StageError("The resumed training made another adapter than the uninterrupted one.")
        return row

    def evaluate(self) -> Row:
        """Four questions of the sample, as README has it: the scheme is the adapter's own."""
        return self.command(
            "evaluate",
            "--tasks",
            "sample_questions",
            "--limit",
            "4",
            "--no-cache",
            "--out",
            str(self.folder / "evaluation"),
        )

    def generate(self) -> Row:
        """Four tokens of an answer."""
        return self.command("generate", "Dove nasce il Po?", "--max-new-tokens", "4")

    def export(self) -> Row:
        """The merged folder."""
        target = self.folder / "merged"
        shutil.rmtree(target, ignore_errors=True)
        return self.command("export", "--out", str(target))

    def command(self, name: str, *arguments: str) -> Row:
        """A command on the trained adapter; what its account predicts beside what it held more than the program alone."""
        given = ["--model", str(self.model), "--adapter", str(self.folder / "train" / "adapter")]
        place = [] if name == "export" else ["--device", "cpu"]
        account, _ = self.run("plan", "plan", *given, "--command", name, "--device", "cpu", "--json")
        _, row = self.run(name, name, *arguments, *given, *place, "--json")
        own = measure([sys.executable, "-c", "import stilnovo.api, stilnovo.model.load, bitsandbytes"]).resident_bytes
        return row | {"predicted_bytes": account.result["host_bytes"], "measured_bytes": row["resident_bytes"] - own}

    def transformers(self) -> Row:
        """The merged folder as transformers opens it, its first two layers alone."""
        done = measure([sys.executable, __file__, "--child-transformers", str(self.folder / "merged")])
        return {**measured_row("transformers", done)[1], **done.result}

    def write(self) -> Row:
        """Tokens a processor second beside the older path and llama.cpp."""
        return dict(writing_cpu.ratios())


class StageError(Exception):
    """A stage that cannot be measured; the message says why."""


def measured_row(name: str, done: Measured, *, killed: bool = False) -> tuple[Measured, Row]:
    """What every stage writes down of its process."""
    if done.code != (-9 if killed else 0):
        last = " ".join(done.errors.strip().splitlines()[-3:]) or "nothing was said"
        raise StageError(f"{name} ended with {done.code}: {last[:400]}")
    return done, {
        "cpu_seconds": done.cpu_seconds, "seconds": done.seconds, "resident_bytes": done.resident_bytes,
        "anonymous_bytes": done.anonymous_bytes,
    }  # fmt: skip


def line(name: str, row: Row) -> str:
    """A row of the table."""
    if "failed" in row:
        return f"{name:<16}{row['failed']}"
    cells = [f"{name:<16}{row.get('cpu_seconds', 0):8.1f} CPU-s"]
    for key, what in (
        ("predicted_bytes", "predicted"), ("measured_bytes", "measured"), ("resident_bytes", "resident"),
        ("anonymous_bytes", "anonymous"),
    ):  # fmt: skip
        cells.append(f"{what} {row[key] / GIB:6.2f} GiB" if row.get(key) else f"{what}      –    ")
    if row.get("predicted_bytes") and row.get("measured_bytes"):
        cells.append(f"({100 * (row['measured_bytes'] / row['predicted_bytes'] - 1):+.1f} %)")
    return "  ".join(cells)


def figures(rows: dict[str, Row]) -> Row:
    """The figures of the last line, null where a stage failed."""
    first, second, train, write = (rows.get(name, {}) for name in ("load first", "load second", "train", "write"))
    values = {
        "load_cpu_seconds_first": first.get("opening_cpu_seconds"), "load_cpu_seconds_second": second.get("opening_cpu_seconds"),
        "resident_bytes": second.get("resident_bytes"), "train_predicted_bytes": train.get("predicted_bytes"),
        "train_measured_bytes": train.get("measured_bytes"), **{key: write.get(key) for key in FIGURES if key.startswith("write_")},
    }  # fmt: skip
    why = {name: row["failed"] for name, row in rows.items() if "failed" in row}
    if write and "failed" not in write:
        missing = "this processor cannot compute it, or the package of the other side is not installed"
        why |= {key: missing for key in FIGURES if key.startswith("write_") and values[key] is None}
    return {**{key: values[key] for key in FIGURES}, "why_not": why}


def open_here(model: str) -> None:
    """In a process of its own: open the model, then let one pass touch every weight."""
    import torch

    from stilnovo.model.attention import Blocks, positions_of
    from stilnovo.model.load import open_model
    from stilnovo.spec import ModelSpec

    llama, _ = open_model(ModelSpec(model, device="cpu"))
    opened = time.process_time()  # since this process began, its imports included
    at_once = resident()
    with torch.inference_mode():
        llama(torch.tensor([1]), positions_of([1]), Blocks([1]))
    print(
        json.dumps(
            {"opening_cpu_seconds": opened, "resident_opened_bytes": at_once, "resident_touched_bytes": resident()}
        )
    )


def resident() -> int:
    """Bytes of this process that are resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def transformers_here(folder: str) -> None:
    """In a process of its own: every tensor that transformers expects is there, and two layers compute."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        wanted = {
            name: tuple(weight.shape) for name, weight in AutoModelForCausalLM.from_config(config).state_dict().items()
        }
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if found != wanted:
        raise SystemExit(
            f"other tensors than transformers expects: {sorted(set(found.items()) ^ set(wanted.items()))[:3]}"
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, num_hidden_layers=min(2, config.num_hidden_layers), dtype=torch.bfloat16
    )
    ids = AutoTokenizer.from_pretrained(folder)("Nel mezzo del cammin di nostra vita", return_tensors="pt")
    with torch.inference_mode():
        logits = model(**ids).logits
    print(json.dumps({"tensors": len(found), "finite": bool(logits.isfinite().all())}))


def main() -> None:
    """Do every stage, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/real-size"), help="where everything lies; 40 GB at 32 layers"
    )
    parser.add_argument(
        "--model", type=Path, help="a Hugging Face folder of a Llama (default: a synthetic one, made here)"
    )
    parser.add_argument("--layers", type=int, default=LLAMA_3_8B.layers, help="layers of the synthetic one")
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument(
        "--again", nargs="*", default=[], metavar="STAGE", help="measure these once more, such as train"
    )
    parser.add_argument("--child-opens", help=argparse.SUPPRESS)
    parser.add_argument("--child-transformers", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child_opens:
        return open_here(options.child_opens)
    if options.child_transformers:
        return transformers_here(options.child_transformers)
    options.folder.mkdir(parents=True, exist_ok=True)
    stages = RealSize(options.folder.resolve(), options.model and options.model.resolve(), options.layers)
    stages.rows = {name: row for name, row in stages.rows.items() if name not in options.again}
    stages.stage("checkpoint", stages.checkpoint)
    stages.stage("plan", stages.plan)
    stages.stage("load first", lambda: stages.load(first=True))
    stages.stage("load second", lambda: stages.load(first=False))
    stages.stage("train", lambda: stages.train("train"))
    stages.stage("killed", stages.killed)
    stages.stage("resumed", stages.resumed)
    stages.stage("evaluate", stages.evaluate)
    stages.stage("generate", stages.generate)
    stages.stage("export", stages.export)
    stages.stage("transformers", stages.transformers)
    stages.stage("write", stages.write)
    print("\n" + "\n".join(line(name, row) for name, row in stages.rows.items()))
    record = {
        **environment(),
        "command": " ".join(sys.argv),
        "n": 1,
        **stages.facts,
        "rows": stages.rows,
        **figures(stages.rows),
    }
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps({**figures(stages.rows), "folder": str(stages.folder), "commit": stages.commit}))


if __name__ == "__main__":
    main()
