"""The settings among which a plan is chosen, and their memory, computed part by part.

The settings are the same whatever memory there is: so more memory can only add to those that fit, and never makes the best of
them slower. Three things are chosen: where what lasts lies (`places`), what layers save (`choices`, and how many are kept or
sent), and how large the parts are in which the rest is computed (`parts`, `loss_parts`), the largest and so the
fewest launches first.

`Sums` gives the peak and the host memory of a setting as `ledger` does, for a search that asks thousands of times.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from stilnovo.plan.ledger import lasting_items, load_bytes, waiting_bytes
from stilnovo.plan.levers import (
    ELEMENTWISE_BYTES,
    HeadKind,
    LayerChoice,
    Levers,
    OptimizerChoice,
    Place,
    all_layers,
    optimizer_kind,
)
from stilnovo.plan.sizes import Run
from stilnovo.plan.temporaries import kind_of, layer_moments, loss_moment, peak_moments

TILES = (16_384, 8192, 4096, 2048, 1024)
WHOLE = 2**50  # bytes: an element-wise step takes all rows
LOSS_CHUNK = 256  # tokens whose logits exist at once, unless the recipe says otherwise
LARGE_HEAD = 2**28  # values: its logits come in tiles of the vocabulary
SHARES = 8  # steps in which layers are streamed or sent


@dataclass(frozen=True)
class Wishes:
    """Settings that the user has fixed; `recompute`: every layer is recomputed in backward (gradient checkpointing)."""

    optimizer: OptimizerChoice = "adamw8bit"
    head: HeadKind | None = None
    document: int | None = None
    loss_chunk: int | None = None
    recompute: bool = False


def steps_of(layers: int, shares: int = SHARES) -> list[int]:
    """Numbers of layers from none to all."""
    return sorted({round(layers * share / shares) for share in range(shares + 1)})


def places(run: Run, wishes: Wishes) -> Iterator[Levers]:
    """Where what lasts lies: embedding, head, optimizer, frozen layers; dense copies where nothing is elsewhere."""
    config = run.config
    heads: tuple[HeadKind, ...] = ("dense",) if config.tie_embeddings else ("dense", "streamed")
    embeddings: tuple[Place, ...] = ("card",) if config.tie_embeddings else ("card", "host")
    plain = Levers(layers=all_layers("recompute", config.layers), prefetch=False)
    spots: tuple[Place, ...] = ("card", "host")
    for head, embedding, place, streamed in itertools.product(
        heads if wishes.head is None else (wishes.head,), embeddings, spots, steps_of(config.layers)
    ):
        optimizer = optimizer_kind(wishes.optimizer, on_card=place == "card")
        setting = replace(
            plain, head=head, embedding=embedding, optimizer_place=place, optimizer=optimizer, streamed_layers=streamed
        )
        yield setting
        if not streamed and run.scheme != "none":
            yield replace(setting, keep_dense=True)


def choices(wishes: Wishes) -> Iterator[tuple[LayerChoice, Place, bool]]:
    """What the layers that are neither kept nor sent save, where it waits, and whether it is fetched ahead."""
    kinds: tuple[LayerChoice, ...] = ("recompute",) if wishes.recompute else ("attention", "recompute")
    waits: tuple[tuple[Place, bool], ...] = (("card", False), ("card", True), ("host", True), ("host", False))
    yield from ((kind, *wait) for kind in kinds for wait in waits)


def parts(run: Run) -> list[tuple[int | None, int, int]]:
    """Tile, bytes of an element-wise step and groups of heads, the largest parts first."""
    kv = run.config.kv_heads
    groups = [count for count in (1, 2, 4, 8) if count <= kv and kv % count == 0]
    tiles: list[tuple[int | None, int]] = [(None, WHOLE), (None, ELEMENTWISE_BYTES)]
    tiles += [(tile, ELEMENTWISE_BYTES) for tile in TILES if tile < run.tokens]
    return [(*tile, count) for count, tile in itertools.product(groups, tiles)]


def loss_parts(run: Run, wishes: Wishes) -> list[tuple[int, int | None]]:
    """Tokens and rows of the vocabulary whose logits exist at once, the largest parts first."""
    large = run.config.vocab_size * run.config.hidden_size > LARGE_HEAD or wishes.head not in (None, "dense")
    if not large:
        chunks = [(wishes.loss_chunk or min(most, run.tokens), None) for most in (2048, LOSS_CHUNK)]
        return list(dict.fromkeys(chunks))
    sizes = ((8192, None), (2048, None), (2048, 32_768), (2048, 8192), (512, 8192))
    return list(dict.fromkeys((wishes.loss_chunk or min(chunk, run.tokens), tile) for chunk, tile in sizes))


def sized(levers: Levers, part: tuple[int | None, int, int], loss: tuple[int, int | None]) -> Levers:
    """A setting with these parts."""
    return replace(
        levers, tile=part[0], elementwise_bytes=part[1], attention_groups=part[2], loss_chunk=loss[0], head_tile=loss[1]
    )


@cache
def spread(layers: int, kept: int, sent: int, base: LayerChoice) -> tuple[LayerChoice, ...]:
    """Assign `kept` layers to the top (backward frees them first), spread `sent` ones evenly among the rest."""
    rest = layers - kept
    sent = min(sent, rest)
    chosen = {round((i + 0.5) * rest / sent - 0.5) for i in range(sent)} if sent else set()
    return tuple("keep" if i >= rest else "offload" if i in chosen else base for i in range(layers))


class Sums:
    """Memory of many settings of one pass; what they share is computed once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lasting: dict[Any, tuple[int, int]] = {}
        self._waiting: dict[Any, tuple[int, int]] = {}
        self._moments: dict[Any, dict[str, int]] = {}
        self._losses: dict[Any, int] = {}

    def lasting(self, levers: Levers) -> tuple[int, int]:
        """Bytes on the card and on the host of what lives through the step, whatever layers save."""
        key = (
            levers.head, levers.head_tile, levers.embedding, levers.optimizer_place, levers.optimizer,
            levers.streamed_layers, levers.keep_dense,
        )  # fmt: skip
        if key not in self._lasting:
            items = lasting_items(self.run, levers)
            self._lasting[key] = (
                sum(item.size for item in items if item.place == "card"),
                sum(item.size for item in items if item.place == "host"),
            )
        return self._lasting[key]

    def waiting(self, layers: tuple[LayerChoice, ...], inputs: Place) -> tuple[int, int]:
        """Bytes on the card and on the host of what layers save."""
        key = (layers, inputs)
        if key not in self._waiting:
            self._waiting[key] = waiting_bytes(self.run, layers, inputs)
        return self._waiting[key]

    def load(self, levers: Levers) -> int:
        """Bytes of the card while the model is opened."""
        return load_bytes(self.run, levers)

    def host(self, levers: Levers) -> int:
        """Bytes of host memory."""
        return self.lasting(levers)[1] + self.waiting(levers.layers, levers.inputs)[1]

    def moment(self, levers: Levers) -> int:
        """Bytes of what comes and goes, at the peak."""
        small = (
            levers.inputs, levers.prefetch, levers.tile, levers.elementwise_bytes, levers.attention_groups, levers.keep_dense,
            levers.optimizer_place,
        )  # fmt: skip
        loss = (levers.head, levers.head_tile, levers.loss_chunk, *(small if self.run.anchored else ()))
        if loss not in self._losses:
            self._losses[loss] = loss_moment(self.run, levers)

        def of(index: int) -> dict[str, int]:
            key = (kind_of(self.run, levers, index), small)
            if key not in self._moments:
                self._moments[key] = layer_moments(self.run, levers, index)
            return self._moments[key]

        return max(peak_moments(self.run, levers, self._losses[loss], of).values())

    def card(self, levers: Levers) -> int:
        """Most bytes of the card's allocator, blocks that it cannot use left out."""
        return self.lasting(levers)[0] + self.waiting(levers.layers, levers.inputs)[0] + self.moment(levers)
