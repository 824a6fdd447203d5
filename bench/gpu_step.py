"""The 8B training step on a card, as `stilnovo train` does it: the plan, the trainer, its steps, timed.

`gpu.py` runs these parts in child processes. The weights are random and packed, made where they compute in a second; what the
plan keeps on the host goes there at once, as in a real load. A row with the plan comes before the first step, so that even
a part that runs out of memory says what was planned.

Needs: stilnovo.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from gpu_runner import Row
from stilnovo.data.batches import Batch
from stilnovo.data.packing import pack
from stilnovo.model import card, kernels, lora
from stilnovo.model.llama import Llama
from stilnovo.model.memory import free_memory
from stilnovo.model.quantize import FourBitLinear
from stilnovo.plan.cards import CARDS, Card, bytes_of
from stilnovo.plan.choice import HOST_RESERVE, Budget, Plan, Wishes, best
from stilnovo.plan.ledger import Run
from stilnovo.plan.levers import Levers
from stilnovo.plan.shape import LLAMA_3_8B, LlamaConfig, LoraConfig
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train.loop import Trainer
from stilnovo.train.planning import card_of
from stilnovo.trials.trial import half_type

TINY = LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2, head_dim=16, max_positions=4096,
)  # fmt: skip
SHAPES = {"8b": replace(LLAMA_3_8B, max_positions=131_072), "tiny": TINY}
ADAPTER = LoraConfig(r=32)
GIB = 2**30
CAP = int(7.5 * GIB)
SMALL_CARD = Budget(8 * GIB, 32 * GIB)  # whose plan is tried: an RTX 4060 in a machine of 32 GB


def documents(tokens: int) -> tuple[int, ...]:
    """Lengths of a packed stream: long and short documents in turn, as in an encyclopedia."""
    lengths, left, pattern = [], tokens, (700, 150, 1100, 300)
    while left:
        lengths.append(min(left, pattern[len(lengths) % 4]))
        left -= lengths[-1]
    return tuple(lengths)


def lengths_of(job: Row) -> tuple[int, ...]:
    """Lengths of the job's documents."""
    return (job["tokens"],) if job.get("one_document") else documents(job["tokens"])


def synchronize() -> None:
    """Wait for the card, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_of(job: Row) -> torch.device:
    """Where the job computes; torch's allocator is set up for it as for a training."""
    device = torch.device(job["device"])
    if device.type == "cuda":
        card.prepare()
    return device


def step_type(device: torch.device) -> torch.dtype:
    """The type of the step."""
    return torch.float32 if device.type == "cpu" else half_type(device)


def build(config: LlamaConfig, device: torch.device, dtype: torch.dtype, levers: Levers | None = None) -> Llama:
    """The shape with random packed weights, made where it computes; never a dense projection."""
    asked = ""

    def placed(tensor: Any) -> Any:
        return tensor.to("cpu") if levers is not None and levers.stays_on_host(asked) else tensor

    def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        nonlocal asked
        asked = name
        if len(shape) == 1:
            return torch.ones(shape, device=device, dtype=dtype)
        if shape in set(config.linear_shapes().values()):
            return torch.empty(shape, device="meta")
        return placed(torch.randn(shape, device=device, dtype=dtype).mul_(0.02))

    model = Llama(config, tensor, lambda weight: placed(FourBitLinear.of_shape(*weight.shape, "nf4", device)))
    model.rotary.frequencies = model.rotary.frequencies.to(device)
    lora.attach(model, ADAPTER)
    return model


def budget(job: Row, measured: Card) -> Budget:
    """What the step may hold: the small card's, the cap, or nine tenths of the card; of the host what it has, or was said to have."""
    if job.get("small_card"):
        return SMALL_CARD
    host = bytes_of(job["host_memory"]) if job.get("host_memory") else free_memory()
    return Budget(
        card=job["cap"] or measured.memory * 9 // 10, host=min(host, 32 * GIB) if job["cap"] else host, context=0
    )


def card_for(job: Row, device: torch.device) -> Card:
    """The card as it was measured, else by its name."""
    return Card(**job["card"]) if job.get("card") else card_of(device)


def plan_for(job: Row, measured: Card, value_bytes: int) -> Plan:
    """The plan that `stilnovo train` would choose; of a job with kernels off in some turns, that without them.

    Raises:
        RuntimeError: when none fits.
    """
    turns = job["kernels"] if isinstance(job["kernels"], list) else [job["kernels"]]
    run = Run(
        config=SHAPES[job["shape"]], lora=ADAPTER, tokens=job["tokens"], documents=len(lengths_of(job)), value_bytes=value_bytes,
        flash=job["device"] == "cuda", kernels=all(turns), capability=measured.capability,
    )  # fmt: skip
    wishes = Wishes(recompute=bool(job.get("recompute")))
    plan = best(run, budget(job, measured), CARDS["rtx-4060"] if job.get("small_card") else measured, wishes)
    if plan is None:
        raise RuntimeError(f"no plan fits for {job['tokens']:,} tokens in {budget(job, measured)}")
    return plan


def cap_allocator(device: torch.device, cap: int | None) -> None:
    """Let torch's allocator hold no more than `cap` bytes; None: all of the card."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if cap is None else min(1.0, cap / total), device)


def grow(size: int) -> None:
    """Use so much host memory for a moment: a machine that was said to have more than it shows may grow as it is used."""
    held = []
    while free_memory() + sum(part.nbytes for part in held) < size + HOST_RESERVE and len(held) * GIB < size:
        held.append(torch.ones(GIB, dtype=torch.uint8))


def batch_of(config: LlamaConfig, lengths: Sequence[int]) -> Batch:
    """One pass over random documents of these lengths."""
    ids = torch.randint(0, config.vocab_size, (sum(lengths) + 1,), generator=torch.Generator().manual_seed(1))
    return Batch(ids[:-1], ids[1:], tuple(lengths), None, ())


class Steps:
    """A trainer on random documents, one pass a step."""

    def __init__(self, job: Row, folder: Path) -> None:
        self.device = device_of(job)
        self.card = card_for(job, self.device)
        dtype = step_type(self.device)
        self.plan = plan_for(job, self.card, dtype.itemsize)
        if job.get("host_memory") and self.device.type == "cuda":
            grow(self.plan.ledger.host)
        cap_allocator(self.device, job["cap"])
        lengths = lengths_of(job)
        config = SHAPES[job["shape"]]
        model = build(config, self.device, dtype, self.plan.levers)
        corpus = pack([range(10)], 16)  # the trainer wants one; the batches are ours
        settings = TrainSection(steps=10_000, optimizer=self.plan.levers.optimizer, schedule="constant", batch_packs=1)
        self.trainer = Trainer(model, corpus, settings, RunFolder(folder), plan=self.plan)
        self.batch = batch_of(config, lengths)
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def planned(self) -> Row:
        """What is expected of the step."""
        return {
            "planned": True, "predicted_bytes": self.plan.peak, "predicted_live_bytes": self.plan.ledger.peak,
            "predicted_host_bytes": self.plan.ledger.host, "forecast_seconds": self.plan.speed.seconds,
            "levers": asdict(self.plan.levers),
        }  # fmt: skip

    def step(self) -> float:
        """Seconds of one step."""
        synchronize()
        started = time.perf_counter()
        loss = self.trainer.train_step([self.batch])["loss"]
        synchronize()
        if not loss == loss:
            raise RuntimeError(f"the loss is {loss}")
        return time.perf_counter() - started

    def memory(self) -> Row:
        """The most that the allocator handed out and held since the steps began; None without a card."""
        if self.device.type != "cuda":
            return {"allocated_bytes": None, "reserved_bytes": None}
        return {
            "allocated_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved(),
        }  # fmt: skip


def memory(job: Row) -> Iterator[Row]:
    """A plan under its cap: what it holds beside what was predicted, and its speed."""
    facts = {"tokens": job["tokens"], "cap_bytes": job["cap"]}
    with tempfile.TemporaryDirectory() as folder, kernels.switched(job["kernels"]):
        steps = Steps(job, Path(folder))
        yield {**facts, **steps.planned()}
        first = steps.step()
        seconds = [steps.step()]
        while len(seconds) < job["steps"] and time.monotonic() + 2 * seconds[-1] < job["until"]:
            seconds.append(steps.step())
        speed = job["tokens"] / statistics.median(seconds)
        yield {
            **facts, **steps.memory(), "predicted_bytes": steps.plan.peak, "kernels": job["kernels"], "first_seconds": first,
            "step_seconds": seconds, "tokens_per_second": speed, "forecast_seconds": steps.plan.speed.seconds,
        }  # fmt: skip


def speeds(job: Row) -> Iterator[Row]:
    """Tokens a second with kernels off and on in turn (A B A B), one trainer for both."""
    facts = {"tokens": job["tokens"], "cap_bytes": job["cap"], "recompute": bool(job.get("recompute"))}
    with tempfile.TemporaryDirectory() as folder:
        with kernels.switched(job["kernels"][-1]):
            steps = Steps(job, Path(folder))
        yield {**facts, **steps.planned()}
        floor = 4 * steps.plan.speed.flops_per_token / steps.plan.speed.times_n
        used = 0.0
        for turn in range(job["rounds"]):
            for on in job["kernels"]:
                if turn and time.monotonic() + used > job["until"]:
                    yield {**facts, "note": f"{turn} of {job['rounds']} rounds: no time"}
                    return
                started = time.monotonic()
                with kernels.switched(on):
                    if not turn:
                        steps.step()  # compiles, and fills the allocator
                    seconds = [steps.step() for _ in range(job["steps"])]
                used = time.monotonic() - started
                speed = job["tokens"] / statistics.median(seconds)
                yield {
                    **facts, **steps.memory(), "kernels": on, "turn": turn, "tokens_per_second": speed, "step_seconds": seconds,
                    "predicted_bytes": steps.plan.peak, "of_floor": speed * floor / steps.card.flops,
                }  # fmt: skip
