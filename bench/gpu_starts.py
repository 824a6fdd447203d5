"""What the machine is, and whether each part of a step works on it: the first minute of `gpu.py`.

Needs: stilnovo.
"""

from __future__ import annotations

import importlib.metadata
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import torch

from gpu_runner import Row
from gpu_step import GIB, device_of, synchronize
from stilnovo.engine.link import Link
from stilnovo.model import kernels
from stilnovo.model.kernels import parity
from stilnovo.model.memory import free_memory
from stilnovo.plan.cards import CARDS, Card
from stilnovo.runlog import environment
from stilnovo.train.planning import card_of
from stilnovo.trials.parts import attempt, trials
from stilnovo.trials.trial import half_type

OUTCOMES = {"works": "ok", "not here": "not here", "wrong": "differs", "fails": "failed"}


def machine(job: Row) -> Iterator[Row]:
    """What is here and can be tried; then the card's speeds as `stilnovo plan --measured` reads them."""
    device = device_of(job)
    if device.type == "cuda" and not torch.cuda.is_available():
        yield {"outcome": "no card", "note": "torch.cuda.is_available() is False"}
        return
    from gpu_decoding import WAYS
    from gpu_parity import levers_to_try

    facts: Row = {
        **environment(), "trials": list(trials(device)), "levers": list(levers_to_try(1)), "ways": WAYS,
        "kernels": list(parity.COMPARISONS) if kernels.available(device) else [], "host_free_bytes": free_memory(),
    }  # fmt: skip
    facts["versions"] |= {
        name: version(name) for name in ("triton", "pydantic", "transformers", "peft", "trl", "unsloth")
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "capability": list(torch.cuda.get_device_capability(device)), "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }  # fmt: skip
    yield facts
    yield {"card": asdict(measured_card(device)), "expandable_segments": segments(device)}


def segments(device: torch.device) -> bool | None:
    """Whether torch's allocator grows its segments (`stilnovo.model.card`); None where it does not say."""
    try:
        return bool(torch.cuda.memory._snapshot(device)["allocator_settings"]["expandable_segments"])
    except Exception:  # a private function: whatever it raises, it does not say
        return None


def version(package: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def measured_card(device: torch.device) -> Card:
    """The card as it computes here: products (4,096 wide, in its training type), copies on it, copies to it."""
    if device.type != "cuda":
        return replace(CARDS["rtx-4060"], name="tiny-cpu")
    with kernels.switched(False):  # their trial comes later
        known = card_of(device)
    a = torch.randn(4096, 4096, device=device, dtype=half_type(device))
    big = torch.empty(GIB // 4, dtype=torch.uint8, device=device)
    other, host = torch.empty_like(big), Link(device).host(GIB // 4)
    product = median_seconds(lambda: a @ a, 20)
    copy = median_seconds(lambda: other.copy_(big), 10)
    link = median_seconds(lambda: big.copy_(host, non_blocking=True), 5)
    return replace(
        known, name=torch.cuda.get_device_name(device),
        flops=2 * 4096**3 / product, memory_speed=2 * big.nbytes / copy,
        link_speed=big.nbytes / link, attention=0.0, measured=True, derived=False,
    )  # fmt: skip


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


def kernel(job: Row) -> Iterator[Row]:
    """One Triton kernel: its largest error against its formula."""
    try:
        yield {"largest_error": parity.checks()[job["kernel"]](device_of(job))}
    except ValueError as error:
        yield {"outcome": "differs", "note": str(error)}


def trial(job: Row) -> Iterator[Row]:
    """One part of a step."""
    found = attempt(job["trial"], device_of(job))
    yield {"outcome": OUTCOMES[found.outcome], "note": found.note, "figures": found.figures}
    if found.outcome == "fails":  # what an error leaves behind is for the next child to be without
        raise RuntimeError(found.note)
