"""Our side of the card's benchmark: the shapes, the plan that `stilnovo train` would choose, and its steps, timed.

`gpu.py` starts one of these rows in a process of its own and sets it beside the peers' (`peers.py`).

Needs: stilnovo.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from stilnovo.engine.loss import tiled_losses
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FourBitLinear
from stilnovo.plan.cards import Card
from stilnovo.plan.choice import Budget, Plan, best
from stilnovo.plan.ledger import Run
from stilnovo.plan.levers import Levers
from stilnovo.plan.shape import LlamaConfig, LoraConfig

EIGHT_B = LlamaConfig(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, layers=32, heads=32, kv_heads=8, head_dim=128,
    rope_theta=500_000.0, max_positions=131_072,
)  # fmt: skip
TINY = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    max_positions=4096,
)
ADAPTER = LoraConfig(r=32)
GIB = 2**30
CAP = int(7.5 * GIB)


def documents(tokens: int) -> tuple[int, ...]:
    """Lengths of a packed stream: long and short documents in turn, as in an encyclopedia."""
    lengths, left, pattern = [], tokens, (700, 150, 1100, 300)
    while left:
        lengths.append(min(left, pattern[len(lengths) % 4]))
        left -= lengths[-1]
    return tuple(lengths)


def median_seconds(action: Callable[[], object], times: int) -> float:
    """Seconds of an action on the card."""
    seconds = []
    for _ in range(times + 2):
        synchronize()
        started = time.perf_counter()
        action()
        synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])


def synchronize() -> None:
    """Wait for the card, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def build(config: LlamaConfig, device: torch.device, dtype: torch.dtype) -> Llama:
    """The shape with random packed weights, made where it computes; never a dense projection."""

    def tensor(_name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if len(shape) == 1:
            return torch.ones(shape, device=device, dtype=dtype)
        if shape in set(config.linear_shapes().values()):
            return torch.empty(shape, device="meta")
        return torch.randn(shape, device=device, dtype=dtype).mul_(0.02)

    model = Llama(config, tensor, lambda weight: FourBitLinear.of_shape(*weight.shape, "nf4", device))
    model.rotary.frequencies = model.rotary.frequencies.to(device)
    lora.attach(model, ADAPTER)
    return model


def our_steps(model: Llama, levers: Levers, steps: int) -> Callable[[tuple[int, ...]], list[float]]:
    """A callable: seconds of each of `steps` whole steps over documents of given lengths."""
    from stilnovo.engine.product import HostAdapter
    from stilnovo.recipe_sections import TrainSection
    from stilnovo.train.loop import make_optimizer

    host = HostAdapter(model) if levers.optimizer_place == "host" else None
    engine = TrainingEngine(model, levers, host) if host is not None else TrainingEngine(model, levers)
    parameters = host.masters if host is not None else lora.parameters(model)
    optimizer = make_optimizer(parameters, TrainSection(optimizer="adamw" if host is not None else levers.optimizer))

    def run(lengths: tuple[int, ...]) -> list[float]:
        tokens, seconds = sum(lengths), []
        ids = torch.randint(0, model.config.vocab_size, (tokens + 1,), device=model.device)
        for _ in range(steps):
            synchronize()
            started = time.perf_counter()
            loss = tiled_losses(engine.hidden(ids[:-1], lengths), engine.head, ids[1:], levers.loss_chunk).sum()
            (loss / tokens).backward()  # type: ignore[no-untyped-call]
            if host is not None:
                host.collect()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if host is not None:
                host.publish()
            synchronize()
            seconds.append(time.perf_counter() - started)
        return seconds

    return run


def our_row(job: dict[str, Any]) -> dict[str, Any]:
    """Plan, build, step: one row of ours, or `out of memory`."""
    device = torch.device(job["device"])
    card = Card(**job["card"])
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16 if card.bf16 else torch.float16
    plan = plan_for_job(job, card, dtype.itemsize)
    if plan is None:
        return {"note": "no plan fits"}
    cap_allocator(device, job["cap"])
    try:
        run = our_steps(build(EIGHT_B if job["shape"] == "8b" else TINY, device, dtype), plan.levers, job["steps"])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = run((job["tokens"],) if job.get("one_document") else documents(job["tokens"]))
    except torch.cuda.OutOfMemoryError:
        return {"note": "out of memory", "predicted_bytes": plan.peak}
    speed = job["tokens"] / statistics.median(seconds[1:])
    floor = 4 * plan.speed.flops_per_token / plan.speed.times_n
    return {
        "note": "", "tokens_per_second": speed, "predicted_bytes": plan.peak, "predicted_live_bytes": plan.ledger.peak,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        "predicted_seconds": plan.speed.seconds, "of_floor": speed * floor / card.flops, "levers": asdict(plan.levers),
    }  # fmt: skip


def plan_for_job(job: dict[str, Any], card: Card, value_bytes: int) -> Plan | None:
    """The plan that `stilnovo train` would choose."""
    shape = EIGHT_B if job["shape"] == "8b" else TINY
    run = Run(config=shape, lora=ADAPTER, tokens=job["tokens"], value_bytes=value_bytes)
    return best(run, budget(job["cap"], card), card)


def budget(cap: int | None, card: Card) -> Budget:
    """What the allocator may hold: the cap, or nine tenths of the card; host memory as it is."""
    import psutil

    return Budget(card=cap or card.memory * 9 // 10, host=int(psutil.virtual_memory().available), context=0)


def cap_allocator(device: torch.device, cap: int | None) -> None:
    """Let torch's allocator hold no more than `cap` bytes."""
    if device.type == "cuda" and cap is not None:
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / torch.cuda.get_device_properties(0).total_memory))
