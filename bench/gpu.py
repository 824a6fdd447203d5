"""The 8B training step on a CUDA card, with its allocator capped at 7.5 GiB and without; no checkpoint, no network.

Four parts, each in child processes so that nothing one leaves behind helps or hinders another:
1. the card: bf16 products, memory and link, measured (`stilnovo plan --measured` reads the file);
2. parity: every lever in bf16 against the plain setting, on a small shape;
3. the step: packed documents at 2k, 4k and 8k tokens, by turns with TRL + PEFT + bitsandbytes and Unsloth where they are
   installed (A B A B): tokens a second, predicted beside measured peak, the share of the FLOP floor (4N a token) reached;
4. the longest context under the cap, beside the plan's.

The 8B shape gets random packed weights (`synthetic.py`). Out of memory is a result too. `--tiny-cpu` runs the same lines
on a tiny shape without a card; its figures mean nothing.

Needs: stilnovo.
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
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gpu_step import ADAPTER, CAP, EIGHT_B, GIB, TINY, budget, documents, median_seconds, our_row
from stilnovo.engine.loss import tiled_losses
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import lora
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.cards import CARDS, Card
from stilnovo.plan.choice import longest
from stilnovo.plan.ledger import Run
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LoraConfig
from stilnovo.runlog import environment, write_atomic

HERE = Path(__file__).parent
PEERS: dict[str, dict[str, Any]] = {
    "trl": {"side": "trl"},
    "unsloth": {"side": "unsloth"},
    "unsloth, offload_layers": {"side": "unsloth", "load": {"offload_layers": "auto"}},
    "unsloth, offload_layers and tiled MLP": {
        "side": "unsloth", "load": {"offload_layers": "auto", "unsloth_tiled_mlp": True},
    },
}  # fmt: skip


def measured_card(device: torch.device) -> Card:
    """The card as it computes here: products (4,096 wide, in its training type), copies on it, copies to it."""
    if device.type != "cuda":
        return replace(CARDS["rtx-4060"], name="tiny-cpu")
    properties = torch.cuda.get_device_properties(0)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16 if bf16 else torch.float16)
    big = torch.empty(GIB // 4, dtype=torch.uint8, device=device)
    other, host = torch.empty_like(big), torch.empty(GIB // 4, dtype=torch.uint8, pin_memory=True)
    product = median_seconds(lambda: a @ a, 20)
    copy = median_seconds(lambda: other.copy_(big), 10)
    link = median_seconds(lambda: big.copy_(host, non_blocking=True), 5)
    return Card(
        properties.name, 2 * 4096**3 / product, properties.total_memory, 2 * big.nbytes / copy, big.nbytes / link, bf16, True
    )  # fmt: skip


def levers_to_try(layers: int) -> dict[str, Levers]:
    """The plain setting first, then each lever by itself, then all that save memory together."""
    plain = Levers(layers=all_layers("keep", layers), optimizer="adamw")
    alone: dict[str, dict[str, Any]] = {
        "recompute": {"layers": all_layers("recompute", layers)},
        "attention kept": {"layers": all_layers("attention", layers)},
        "offload": {"layers": all_layers("offload", layers)},
        "inputs on the host": {"layers": all_layers("recompute", layers), "inputs": "host"},
        "streamed layers": {"streamed_layers": layers}, "embedding on the host": {"embedding": "host"},
        "streamed head": {"head": "streamed", "head_tile": 100}, "tiled": {"tile": 48},
        "head groups": {"attention_groups": 2},
    }  # fmt: skip
    together = {key: value for lever in alone.values() for key, value in lever.items()}
    together["layers"] = all_layers("recompute", layers)
    return {"plain": plain, **{n: replace(plain, **c) for n, c in {**alone, "together": together}.items()}}


def parity(device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Loss and gradients of every lever against the plain setting: |Δ| / |·|, and whether it is at rounding level."""
    config = replace(TINY, hidden_size=256, intermediate_size=512, heads=8, kv_heads=4, head_dim=32, layers=4)
    lengths, rows, reference = (130, 1, 75, 50), [], None
    ids = torch.randint(0, config.vocab_size, (257,), generator=torch.Generator().manual_seed(3)).to(device)
    for name, levers in levers_to_try(config.layers).items():
        model = Llama(config, random_source(3, std=0.05), lambda weight: quantized_linear(weight, "nf4"))
        model = model.to(device=device, dtype=dtype)
        lora.attach(model, LoraConfig(r=8))
        generator = torch.Generator().manual_seed(5)
        for module in lora.adapters(model).values():
            module.lora_B.data.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.05)
        engine = TrainingEngine(model, levers)
        loss = tiled_losses(engine.hidden(ids[:-1], lengths), engine.head, ids[1:], levers.loss_chunk).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([p.grad.float().flatten().cpu() for p in lora.parameters(model) if p.grad is not None])
        found = (loss.item(), gradient)
        reference = reference or found
        off = float((gradient - reference[1]).norm() / reference[1].norm())
        loss_off = abs(found[0] / reference[0] - 1)
        limit = 0.02 if dtype != torch.float32 else 1e-4
        rows.append({"lever": name, "loss": loss_off, "gradient": off, "same": off < limit and loss_off < limit})
    return rows


def spawn(command: list[str], job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One child process; its last line of output, or the reason it failed."""
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
    try:
        done = subprocess.run(
            [*command, str(path)], capture_output=True, text=True, cwd=folder, env=settings, timeout=job["patience"]
        )
    except subprocess.TimeoutExpired:
        return {"note": f"more than {job['patience']} s"}
    if done.returncode:
        short = "out of memory" if "OutOfMemoryError" in done.stderr else done.stderr.strip()[-300:]
        return {"note": short}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peer_row(found: dict[str, Any]) -> dict[str, Any]:
    """A peer's outcome in the form of ours."""
    rows = found.get("rows", [])[1:]
    if not rows:
        return {"note": found.get("note", "no counted step")}
    speed = statistics.median(row["tokens"] / row["seconds"] for row in rows)
    return {"note": "", "tokens_per_second": speed, "peak_bytes": found["peak_memory_bytes"]}


def speeds(options: argparse.Namespace, card: Card, folder: Path, started: float) -> list[dict[str, Any]]:
    """Every length, capped and not, contestants in turn; stops beginning new rows when the time is over."""
    base = {
        "device": options.device, "shape": options.shape, "card": asdict(card), "steps": options.steps, "patience": options.patience,
    }  # fmt: skip
    rows = []
    peers = installed(options)
    model = None
    if peers:
        from synthetic import write

        dtype = torch.float32 if options.device == "cpu" else torch.bfloat16 if card.bf16 else torch.float16
        model = str(write(folder / "model", EIGHT_B if options.shape == "8b" else TINY, dtype))
    for tokens in options.tokens:
        for cap in (CAP, None):
            for turn in range(options.rounds):
                for name in ("stilnovo", *peers):
                    if time.monotonic() - started > options.minutes * 60:
                        print("The time is over; what was measured stands.", file=sys.stderr)
                        return rows
                    job = {**base, "tokens": tokens, "cap": cap}
                    if name == "stilnovo":
                        found = spawn([sys.executable, __file__, "--child"], job, folder)
                    else:
                        found = peer_row(
                            spawn([peers[name], str(HERE / "peers.py")], peer_job(job, name, model), folder)
                        )
                    rows.append({"contestant": name, "tokens": tokens, "cap_bytes": cap, "turn": turn, **found})
                    speed, note = found.get("tokens_per_second", float("nan")), found.get("note", "")
                    limit = "7.5 GiB" if cap else "no cap"
                    print(f"{name:<38}{tokens:>7} tokens {limit:>8} {speed:>9.1f} tok/s  {note}", file=sys.stderr)
    return rows


def peer_job(job: dict[str, Any], name: str, model: str | None) -> dict[str, Any]:
    """What `peers.py` needs to do the same step."""
    lengths = documents(job["tokens"])
    stream = [[(7 * i + 11 * n) % 200 + 3 for i in range(length)] for n, length in enumerate(lengths)] * job["steps"]
    ids = Path(model or "").parent / "ids.json"
    ids.write_text(json.dumps(stream))
    return {
        **job, **PEERS[name], "model": model, "ids": str(ids), "folder": str(ids.parent), "pack": job["tokens"], "batch": 1,
        "packs_a_step": 1, "rate": 1e-4, "optimizer": "adamw_bnb_8bit", "checkpointing": True,
        "cuda": job["device"] == "cuda", "half": "bfloat16" if job["card"]["bf16"] else "float16",
    }  # fmt: skip


def installed(options: argparse.Namespace) -> dict[str, str]:
    """Each peer that can run here, with the Python that has it."""
    import importlib.util

    found = {}
    if options.peers and all(importlib.util.find_spec(name) for name in ("trl", "peft", "datasets")):
        found["trl"] = sys.executable
    if options.peers and options.unsloth_python:
        found |= {name: options.unsloth_python for name in PEERS if name.startswith("unsloth")}
    return found


def longest_context(options: argparse.Namespace, card: Card, folder: Path) -> dict[str, Any]:
    """The plan's longest context under the cap, then what really ran: that, and a little less where it did not."""
    shape = EIGHT_B if options.shape == "8b" else TINY
    run = Run(config=shape, lora=ADAPTER, value_bytes=4 if options.device == "cpu" else 2)
    predicted = min(longest(run, budget(CAP, card), card), options.longest or shape.max_positions)
    tried = []
    for share in (1.0, 0.95, 0.85, 0.7):
        tokens = int(predicted * share) // 64 * 64
        job = {
            "device": options.device, "shape": options.shape, "card": asdict(card), "steps": 2, "tokens": tokens, "cap": CAP,
            "one_document": True, "patience": options.patience,
        }  # fmt: skip
        found = spawn([sys.executable, __file__, "--child"], job, folder)
        tried.append({"tokens": tokens, **found})
        if not found["note"]:
            break
    ran = next((row["tokens"] for row in tried if not row["note"]), 0)
    return {"predicted_tokens": predicted, "longest_context_tokens": ran, "tried": tried}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[2048, 4096, 8192])
    parser.add_argument("--steps", type=int, default=4, help="the first is not counted")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=9.0, help="no new row of the speeds begins after this")
    parser.add_argument("--patience", type=int, default=180, help="seconds that one row may take")
    parser.add_argument("--longest", type=int, help="try no longer context than this")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--unsloth-python", help="Python of an environment that has Unsloth")
    parser.add_argument("--tiny-cpu", action="store_true", help="dry run of the logic without a card")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.device, options.shape = ("cpu", "tiny") if options.tiny_cpu else ("cuda", "8b")
    return options


def main() -> None:
    """All parts; the last line is one JSON object."""
    options, started = arguments(), time.monotonic()
    if options.child:
        print(json.dumps(our_row(json.loads(options.child.read_text()))))
        return
    if not options.tiny_cpu and not torch.cuda.is_available():
        print("This benchmark needs a CUDA card.\ntorch.cuda.is_available() is False.", file=sys.stderr)
        sys.exit(2)
    device = torch.device(options.device)
    card = measured_card(device)
    dtype = torch.float32 if options.tiny_cpu else torch.bfloat16 if card.bf16 else torch.float16
    same = parity(device, dtype)
    for row in same:
        print(
            f"{row['lever']:<24} loss {row['loss']:.1e} gradient {row['gradient']:.1e} {'' if row['same'] else 'DIFFERS'}"
        )
    with tempfile.TemporaryDirectory() as name:
        context = longest_context(options, card, Path(name))
        rows = speeds(options, card, Path(name), started)
    record = {
        **environment(), "command": " ".join(sys.argv), "card": asdict(card), "cap_bytes": CAP, "parity": same, "context": context,
        "rows": rows, "n": options.rounds, "minutes": (time.monotonic() - started) / 60,
    }  # fmt: skip
    place = options.out
    if place is None and not options.tiny_cpu:
        place = Path("results") / f"gpu-step_8b_{card.name.replace(' ', '-').lower()}_{datetime.now(UTC):%Y-%m-%d}.json"
    if place is not None:
        write_atomic(place, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
