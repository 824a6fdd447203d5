"""Training speed and memory on a CPU: stilnovo against TRL + PEFT + bitsandbytes, and beside Unsloth, in one run.

SmolLM2 (NF4 with double quantisation, LoRA r = 32 on all projections) learns the same documents in packs of --pack tokens.
Each contestant trains in a process of its own. First TRL and stilnovo look for their best settings, a short run each; then
the best take turns, A B A B …, and every ratio is of two neighbours in time. The first step of a run is not counted.

Useful tokens are predicted tokens (label ≠ -100). Memory is the most the process held while training, loading not counted.
On a busy machine the clock on the wall measures the others too: processor seconds stand beside it in the JSON
(`cpu_speed_ratio`). Unsloth needs an environment of its own, named by --unsloth-python; how it is made stands in README.md here.

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
from pathlib import Path
from typing import Any

from peers import forget_peak, peak_bytes

RATE = 2e-4
OURS = {
    "stilnovo": {"keep_dense": False},
    "stilnovo, dense copies kept": {"keep_dense": True},
}
TRL = {
    "trl, batch 1": {"batch": 1, "checkpointing": False},
    "trl, batch 2": {"batch": 2, "checkpointing": False},
    "trl, batch 4": {"batch": 4, "checkpointing": False},
    "trl, batch 4, checkpointing": {"batch": 4, "checkpointing": True},
    "trl, batch 1, padding-free": {"batch": 1, "checkpointing": False, "sft": {"packing": False, "padding_free": True}},
    "trl, batch 1, 8-bit AdamW": {"batch": 1, "checkpointing": False, "optimizer": "adamw_bnb_8bit"},
}
#: Only where the processor multiplies in bf16: elsewhere these are many times slower.
TRL_BF16 = {
    "trl, batch 1, bf16": {"batch": 1, "checkpointing": False, "dtype": "bfloat16"},
    "trl, batch 2, bf16": {"batch": 2, "checkpointing": False, "dtype": "bfloat16"},
    "trl, batch 1, bf16 autocast": {"batch": 1, "checkpointing": False, "dtype": "bfloat16", "sft": {"bf16": True}},
}
UNSLOTH = {"unsloth": {"batch": 1, "checkpointing": False}}
HERE = Path(__file__).parent


def run_ours(job: dict[str, Any]) -> list[dict[str, float]]:
    """Steps of stilnovo's own trainer, as `stilnovo train` makes them."""
    from stilnovo.data.packing import pack
    from stilnovo.model import lora
    from stilnovo.model.load import open_model, step_dtype
    from stilnovo.plan.cards import CPU
    from stilnovo.plan.choice import CPU_HEAD_TILE, plan_for
    from stilnovo.plan.levers import Levers, all_layers
    from stilnovo.plan.shape import LoraConfig
    from stilnovo.plan.sizes import Run
    from stilnovo.recipe_sections import TrainSection
    from stilnovo.runlog import RunFolder
    from stilnovo.spec import ModelSpec
    from stilnovo.train.loop import Trainer

    model, _ = open_model(ModelSpec("smollm2", quantization="nf4", device="cpu"))
    corpus = pack(json.loads(Path(job["ids"]).read_text()), job["pack"])
    adapter = LoraConfig(r=32, alpha=32)
    lora.attach(model, adapter)
    section = TrainSection(
        steps=job["steps"], batch_packs=job["batch"], accumulation=job["packs_a_step"] // job["batch"],
        learning_rate=RATE, schedule="constant", warmup_ratio=0, seed=42,
    )  # fmt: skip
    dtype = step_dtype(model.device)
    levers = Levers(
        layers=all_layers("keep", model.config.layers), keep_dense=job["keep_dense"], optimizer="adamw",
        head_tile=CPU_HEAD_TILE if dtype.itemsize == 2 else None,
    )  # fmt: skip
    run = Run(
        config=model.config, lora=adapter, scheme="nf4", tokens=job["pack"] * job["batch"], flash=False,
        value_bytes=dtype.itemsize, weight_bytes=model.dtype.itemsize,
    )  # fmt: skip
    plan = plan_for(run, levers, CPU)
    trainer = Trainer(model, corpus, section, RunFolder(Path(job["folder"]) / f"ours-{os.getpid()}"), plan=plan)
    stream, rows = iter(trainer.stream), []
    forget_peak()
    for _ in range(job["steps"]):
        before, started, spent = trainer.tokens, time.perf_counter(), time.process_time()
        row = trainer.train_step([next(stream) for _ in range(section.accumulation)])
        spans = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - spent}
        rows.append({**spans, "tokens": trainer.tokens - before, "loss": row["loss"]})
    return rows


def child(path: str) -> None:
    """Our side in this process; prints its steps and peak memory as the last line."""
    rows = run_ours(json.loads(Path(path).read_text()))
    print(json.dumps({"rows": rows, "peak_memory_bytes": peak_bytes()}))


class Contest:
    """Contestants run one at a time, each in its own process; a failed one is reported and left out."""

    def __init__(self, options: argparse.Namespace, folder: Path, model: str, ids: Path) -> None:
        self.options, self.folder = options, folder
        self.common = {
            "model": model, "ids": str(ids), "folder": str(folder), "pack": options.pack, "batch": 1, "rate": RATE,
            "packs_a_step": options.packs_a_step, "optimizer": "adamw_torch_fused",
        }  # fmt: skip

    def run(self, name: str, steps: int) -> dict[str, Any] | None:
        """One run of a contestant: speeds over the counted steps, memory, losses; None where it failed."""
        side = name.split(",")[0]
        settings = {**OURS, **TRL, **TRL_BF16, **UNSLOTH}[name]
        job = self.folder / "job.json"
        job.write_text(json.dumps({**self.common, **settings, "side": side, "steps": steps}))
        python = self.options.unsloth_python if side == "unsloth" else sys.executable
        command = [__file__, "--child", str(job)] if side == "stilnovo" else [str(HERE / "peers.py"), str(job)]
        # Unsloth writes its compiled cache where it runs; nobody reaches for a network.
        if self.options.packs_a_step % settings.get("batch", 1):
            return None  # this many packs at a time do not divide a step
        done = subprocess.run(
            [python, *command],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"},
        )
        if done.returncode:
            print(f"{name} failed:\n{done.stderr[-1500:]}", file=sys.stderr)
            return None
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        counted = found["rows"][1:]
        tokens = sum(row["tokens"] for row in counted)
        result = {
            "tokens_per_second": tokens / sum(row["seconds"] for row in counted),
            "tokens_per_cpu_second": tokens / sum(row["cpu_seconds"] for row in counted),
            "peak_memory_bytes": found["peak_memory_bytes"],
            "losses": [row["loss"] for row in found["rows"]],
        }
        print(
            f"{name:<30}{result['tokens_per_second']:>8.1f} tok/s {result['tokens_per_cpu_second']:>8.1f} tok a processor "
            f"second {result['peak_memory_bytes'] / 2**20:>8.0f} MiB",
            file=sys.stderr,
        )
        return result

    def best(self, names: list[str]) -> tuple[str, dict[str, Any]]:
        """The name of the fastest, by processor seconds, and what each did."""
        tried = {name: found for name in names if (found := self.run(name, self.options.steps))}
        if not tried:
            sys.exit(f"None of these ran: {', '.join(names)}.")
        return max(tried, key=lambda name: float(tried[name]["tokens_per_cpu_second"])), tried


def dense_copy(folder: Path) -> str:
    """SmolLM2's weights as a Hugging Face folder, for the peers: bitsandbytes quantises that on loading."""
    from stilnovo.hub import smollm2_path

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
    # transformers calls a dequantised GGUF model quantised and will not save it
    config.pop("quantization_config", None)
    plain = LlamaForCausalLM(type(read.config).from_dict(config))
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(target)
    return str(target)


def token_ids(data: str, count: int) -> list[list[int]]:
    """The first documents as token ids with their end-of-text: both sides get the very same."""
    from stilnovo.data.sources import read_documents, training_text
    from stilnovo.model.load import open_model
    from stilnovo.spec import ModelSpec

    _, tokenizer = open_model(ModelSpec("smollm2", device="cpu"))
    return [[int(i) for i in tokenizer.document(training_text(d))] for d in read_documents([data], count)]


def summarise(rounds: list[dict[str, dict[str, Any]]], ours: str, trl: str) -> dict[str, Any]:
    """Medians of paired ratios: a pair is both sides of one round."""

    def ratio(key: str, over: str) -> float:
        pairs = [r[ours][key] / r[over][key] for r in rounds if ours in r and over in r]
        return statistics.median(pairs) if pairs else float("nan")

    found = {
        "ours": ours, "trl": trl, "n": sum(ours in r and trl in r for r in rounds),
        "speed_ratio": ratio("tokens_per_second", trl), "cpu_speed_ratio": ratio("tokens_per_cpu_second", trl),
        "memory_ratio": ratio("peak_memory_bytes", trl),
    }  # fmt: skip
    if any("unsloth" in r for r in rounds):
        found["unsloth_speed_ratio"] = ratio("tokens_per_second", "unsloth")
        found["unsloth_cpu_speed_ratio"] = ratio("tokens_per_cpu_second", "unsloth")
        found["unsloth_memory_ratio"] = ratio("peak_memory_bytes", "unsloth")
    return found


def main() -> None:
    """Search, take turns, print the table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="sample", help="text, JSONL or Parquet; `sample` is the project's own")
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--pack", type=int, default=512)
    parser.add_argument("--packs-a-step", type=int, default=4, help="packs in one optimizer step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="a contestant's steps in a round, the first not counted")
    parser.add_argument("--ours", choices=list(OURS), help="skip the search of our setting")
    parser.add_argument("--trl", choices=[*TRL, *TRL_BF16], help="skip the search of TRL's setting")
    parser.add_argument("--unsloth-python", help="Python of an environment that has Unsloth")
    parser.add_argument("--model", help="folder of the dense copy; made anew where not given")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in ("model", "unsloth_python"):  # contestants run elsewhere; a link to an interpreter must stay one
        if getattr(options, name):
            setattr(options, name, str(Path(getattr(options, name)).absolute()))
    if options.child:
        child(options.child)
        return
    from stilnovo.model.processor import cpu_products, instruction_sets
    from stilnovo.runlog import environment, write_atomic

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = folder / "ids.json"
        ids.write_text(json.dumps(token_ids(options.data, options.documents)))
        contest = Contest(options, folder, options.model or dense_copy(folder), ids)
        searched: dict[str, Any] = {}
        ours, trl = options.ours, options.trl
        if ours is None:
            ours, searched["ours"] = contest.best(list(OURS))
        if trl is None:
            trl, searched["trl"] = contest.best([*TRL, *(TRL_BF16 if "avx512_bf16" in instruction_sets() else ())])
        turn = [ours, trl, *(["unsloth"] if options.unsloth_python else [])]
        rounds = [
            {name: found for name in turn if (found := contest.run(name, options.steps))} for _ in range(options.rounds)
        ]
    outcome = summarise(rounds, ours, trl)
    record = {
        **environment(), "command": " ".join(sys.argv), "pack": options.pack, "searched": searched, "rounds": rounds, **outcome,
    }  # fmt: skip
    record["processor"] = {
        "name": record["hardware"]["processor"], "instruction_sets": list(instruction_sets()), "products": cpu_products(),
    }  # fmt: skip
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(
        f"{ours} over {trl}: {outcome['speed_ratio']:.2f} x the tokens a second ({outcome['cpu_speed_ratio']:.2f} x by processor "
        f"seconds) at {outcome['memory_ratio']:.2f} of the memory, medians of {outcome['n']} pairs"
    )
    print(json.dumps(record))


if __name__ == "__main__":
    main()
