"""The 8B training step on a CUDA card whose allocator may hold 7.5 GiB: tokens a second and peak memory, short table last.

Weights are random (speed and memory do not depend on their values) and are made and quantised on the card one by one, so
that no checkpoint is needed. `--tiny-cpu` runs the same lines on a tiny shape without a card; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from stilnovo.data.batches import Batch
from stilnovo.model import lora
from stilnovo.model.llama import Llama, LlamaConfig
from stilnovo.model.load import compute_dtype
from stilnovo.model.quantize import quantized_linear
from stilnovo.recipe import TrainSection
from stilnovo.runlog import environment, write_atomic
from stilnovo.train.loop import batch_loss, peak_memory
from stilnovo.train.optimizer import make_optimizer

EIGHT_B = LlamaConfig(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, layers=32, heads=32, kv_heads=8, head_dim=128,
    rope_theta=500_000.0, max_positions=8192,
)  # fmt: skip
TINY = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2, head_dim=16)
CAP_GIB = 7.5


def main() -> None:
    """Build, step at each length, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--steps", type=int, default=4, help="the first is not counted")
    parser.add_argument("--tiny-cpu", action="store_true", help="dry run of the logic without a card")
    options = parser.parse_args()
    if not options.tiny_cpu and not torch.cuda.is_available():
        print("This benchmark needs a CUDA card.\ntorch.cuda.is_available() is False.", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cpu" if options.tiny_cpu else "cuda")
    dtype = compute_dtype(device)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP_GIB * 2**30 / total))

    def tensor(_name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=dtype).mul_(0.02)

    model = Llama(TINY if options.tiny_cpu else EIGHT_B, tensor, partial(quantized_linear, scheme="nf4")).to(device)
    lora.attach(model, lora.LoraConfig(r=32))
    model.checkpointing = True
    optimizer = make_optimizer(lora.parameters(model), TrainSection())
    rows = [one_length(model, optimizer, tokens, options.steps) for tokens in options.tokens]
    for row in rows:
        print("{tokens:>7} tokens {tokens_per_second:>9.1f} tok/s {peak:>8.2f} GiB {note}".format(**row))
    record = {
        **environment(),
        "command": " ".join(sys.argv),
        "n": options.steps - 1,
        "cap_gib": CAP_GIB,
        "results": rows,
    }
    if not options.tiny_cpu:
        card = torch.cuda.get_device_name(0).replace(" ", "-").lower()
        write_atomic(
            Path("results") / f"gpu-step_8b_{card}_{datetime.now(UTC):%Y-%m-%d}.json",
            json.dumps(record, indent=1) + "\n",
        )
    print(json.dumps(record))


def one_length(model: Llama, optimizer: torch.optim.Optimizer, tokens: int, steps: int) -> dict[str, object]:
    """Median speed and peak memory of steps over one document of `tokens`; running out of memory is a result too."""
    stream = torch.randint(0, model.config.vocab_size, (tokens + 1,))
    batch, seconds = Batch(stream[:-1], stream[1:], (tokens,)), []
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(steps):
            started = time.perf_counter()
            (batch_loss(model, batch, 256) / tokens).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    except torch.cuda.OutOfMemoryError:
        return {"tokens": tokens, "tokens_per_second": float("nan"), "peak": float("nan"), "note": "out of memory"}
    typical = sorted(seconds[1:])[(steps - 1) // 2]
    return {
        "tokens": tokens,
        "tokens_per_second": tokens / typical,
        "peak": peak_memory(model.device) / 2**30,
        "note": "",
    }


if __name__ == "__main__":
    main()
