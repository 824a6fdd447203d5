"""Tokens a second while writing on a card: one stream and eight, each way in which the weights can be multiplied.

What is timed is `Generator.continue_tokens`, the path of every command that writes, with sampling and all; a token's time is the
difference between a longer and a shorter text over the difference of their lengths, so that reading the prompt is not in it.

Needs: stilnovo.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpu_runner import Row
from gpu_step import SHAPES, build, device_of, step_type, synchronize
from stilnovo.generate.generator import Generator
from stilnovo.generate.sampling import Sampling
from stilnovo.model import kernels, lora

PROMPT = 64
WAYS = [
    "captured",
    "fused",
    "plain",
]  # of `STILNOVO_CARD`: one graph, 4-bit products one by one, every matrix dequantised


class NoWords:
    """A tokenizer for texts that nobody reads: no token ends one."""

    turn_end_ids: frozenset[int] = frozenset()

    def decode(self, ids: Any) -> str:
        """Nothing."""
        return ""


def decoding(job: Row) -> Iterator[Row]:
    """One way of writing, with so many texts at once."""
    device = device_of(job)
    os.environ["STILNOVO_CARD"] = job["way"]
    config = SHAPES[job["shape"]]
    model = build(config, device, step_type(device)).eval()
    lora.detach(model)
    generator, streams = Generator(model, NoWords()), job["streams"]  # type: ignore[arg-type]
    prompts = [[(7 * i + 11 * n) % 200 + 3 for i in range(PROMPT)] for n in range(streams)]

    def seconds(tokens: int) -> float:
        settings = [Sampling(max_new_tokens=tokens, seed=seed) for seed in range(streams)]
        synchronize()
        started = time.perf_counter()
        found = generator.continue_tokens(prompts, settings)
        synchronize()
        assert all(answer.tokens == tokens for answer in found), "a text ended early"
        return time.perf_counter() - started

    with kernels.switched(job["kernels"]):
        yield row_of(job, seconds)


def row_of(job: Row, seconds: Callable[[int], float]) -> Row:
    """A token's time from texts of two lengths."""
    short, long = job["tokens"]
    first = seconds(short)
    each: list[float] = []
    began = time.monotonic()
    while not each or (len(each) < job["rounds"] and 2 * time.monotonic() - began < job["until"]):
        each.append((seconds(long) - seconds(short)) / (long - short))
    token = statistics.median(each)
    streams = job["streams"]
    return {
        "streams": streams, "way": job["way"], "first_seconds": first, "seconds_a_token": token,
        "tokens_per_second": streams / token, "n": len(each),
    }  # fmt: skip
