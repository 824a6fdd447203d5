"""Memory ledger: every byte of a training step, on the card and in host memory, from shapes and settings alone.

The sums follow the code of `stilnovo.engine` line by line and are no fits; `bench/memory.py` runs the real step of the 8B
shape without storage and compares (within 5 %; usually within 1 %). What lives through the step is listed by kind. What
comes and goes is the largest of several moments, each named; the peak is everything that lives plus that moment.

Shape letters: T tokens in one pass, t of a tile, C hidden size, F feed-forward size, H query heads, K key/value heads,
D head size, V vocabulary, r rank, n groups of heads. All sizes in bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from stilnovo.plan.levers import ALIGN, LayerChoice, Levers, Place, size_class
from stilnovo.plan.shape import lora_parameters, moment_bytes
from stilnovo.plan.sizes import (
    Run,
    embedding_bytes,
    joined_values,
    layer_bytes,
    linear_bytes,
    load_extra,
    saved_values,
    waits_on_host,
)
from stilnovo.plan.temporaries import layer_gradients, moments_of

CONTEXT_BYTES = 512 * 2**20  # what a CUDA context and the libraries' own memory take outside torch's allocator
#: Of what comes and goes: blocks that are free and fit nothing. A share that is assumed: torch's allocator rounds blocks to
#: 512 bytes and, without expandable segments, takes memory in pieces of 2 to 20 MiB of which a rest stays unused.
FRAGMENTATION = 0.03
#: Of a handle of cuBLAS, which torch takes from its allocator for each thread that multiplies: forward's and backward's.
BLAS_BYTES = 8 * 2**20 + 2**17
LARGE_BLAS_BYTES = 32 * 2**20  # on Hopper and the large Blackwell
LARGE_BLAS = (9.0, 10.0)


@dataclass(frozen=True)
class MemoryItem:
    """One item of memory: bytes as predicted and, after a run, as measured where possible."""

    name: str
    place: Place
    size: int
    note: str = ""
    measured: int | None = None


@dataclass(frozen=True)
class Ledger:
    """All items; `moments` maps each candidate for the peak to its bytes, and `moment` is the largest."""

    items: tuple[MemoryItem, ...]
    moments: dict[str, int] = field(hash=False)
    moment: str

    @property
    def peak(self) -> int:
        """Most bytes that torch's allocator holds at once."""
        return sum(item.size for item in self.items if item.place == "card")

    @property
    def host(self) -> int:
        """Bytes of host memory, the program itself not counted."""
        return sum(item.size for item in self.items if item.place == "host")


def ledger(run: Run, levers: Levers) -> Ledger:
    """Compute every item of the step, the peak's moment last."""
    moments = moments_of(run, levers)
    moment = max(moments, key=moments.__getitem__)
    items = [*lasting_items(run, levers), *_waiting(run, levers)]
    items.append(MemoryItem("peak inside the step", "card", moments[moment], moment))
    return Ledger(tuple(item for item in items if item.size), moments, moment)


def lasting_items(run: Run, levers: Levers) -> list[MemoryItem]:
    """What lives through the step, whatever layers save."""
    tables = 2 * run.tokens * (run.config.head_dim // 2) * run.value_bytes
    tokens = MemoryItem("tokens, targets, rotary tables", "card", 16 * run.tokens + tables)
    return [*_weights(run, levers), *_adapter(run, levers), tokens]


def waiting_bytes(run: Run, layers: Sequence[LayerChoice], inputs: Place) -> tuple[int, int]:
    """Bytes on the card and on the host of what layers save for backward."""
    c, card, host = run.config, 0, 0
    for choice, count in Counter(layers[run.lora.first_layer :]).items():
        size = run.tokens * saved_values(c, choice) * run.value_bytes
        kernel = 0 if choice == "recompute" else 4 * run.tokens * c.heads
        sent = waits_on_host(choice, inputs)
        host += count * size_class(size) if sent else 0
        card += count * (kernel + (0 if sent else size))
    return card, host


def _weights(run: Run, levers: Levers) -> list[MemoryItem]:
    c, w = run.config, run.own_bytes
    layer = layer_bytes(c, run.scheme, w)
    arena = layer + 7 * ALIGN * (6 if run.scheme in ("nf4", "fp4") else 3) // 2  # each tensor starts aligned
    streamed = levers.streamed_layers
    if run.frozen and streamed:
        arena += max(run.frozen_bytes(0, streamed)) + 14 * ALIGN // 2
    beside = sum(run.frozen_bytes(streamed, c.layers))
    table = c.vocab_size * c.hidden_size * (run.table_bytes or w)
    others = run.scheme != "none" or w != run.value_bytes  # than what is kept anyway
    matrices = c.layer_matrix() if others else joined_values(c, run.value_bytes)
    copies = c.layers * matrices * run.value_bytes if levers.keep_dense else 0
    tile = min(levers.head_tile or c.vocab_size, c.vocab_size)
    head, head_note = 0 if levers.head == "dense" and c.tie_embeddings else table, "as it is"
    kept = run.table_bytes or w
    if levers.head == "dense" and kept > run.value_bytes:
        head, head_note = head + table * run.value_bytes // kept, "and a copy in the step's type"
    if levers.head in ("int8", "nf4"):
        spans = [min(tile, c.vocab_size - start) for start in range(0, c.vocab_size, tile)]
        head = sum(linear_bytes(rows, c.hidden_size, levers.head, w) for rows in spans)
        head_note = f"{levers.head}, {len(spans)} tiles"
    tiles = 2 * tile * c.hidden_size * w if levers.head == "streamed" else 0
    return [
        MemoryItem("frozen projections", "card", (c.layers - streamed) * layer, f"{c.layers - streamed} layers, {run.scheme}"),
        MemoryItem("frozen adapter", "card", beside, f"of {c.layers - streamed} layers, in the model's type"),
        MemoryItem("slots of streamed layers", "card", min(levers.slots, streamed) * arena, f"{min(levers.slots, streamed)} of them"),
        MemoryItem("streamed layers", "host", streamed * arena, f"{streamed} layers, {run.scheme}"),
        MemoryItem("embedding", levers.embedding, embedding_bytes(c, run.tokens, run.table_bytes or w, mapped=run.mapped),
                   "and head, tied" if c.tie_embeddings else "mapped, as far as it is read" if run.mapped else ""),
        MemoryItem("dense copies", "card", copies, f"kept between products, in {8 * run.value_bytes} bits"),
        MemoryItem("norms and biases" if c.biases else "norms", "card", c.vectors() * w),
        MemoryItem("head", "host" if levers.head == "streamed" else "card", head, head_note),
        MemoryItem("tiles of the head", "card", tiles, f"2 of {tile:,} rows"),
        MemoryItem("workspaces of products", "card", blas_bytes(run), "cuBLAS's, of forward and backward"),
    ]  # fmt: skip


def blas_bytes(run: Run) -> int:
    """Bytes that cuBLAS's handles of both threads hold on a card."""
    return 2 * (LARGE_BLAS_BYTES if run.capability in LARGE_BLAS else BLAS_BYTES) if run.flash else 0


def _adapter(run: Run, levers: Levers) -> list[MemoryItem]:
    count = lora_parameters(run.config, run.lora)
    states = moment_bytes(run.config, run.lora, levers.optimizer)
    moments = "two moments in fp32" if levers.optimizer == "adamw" else "two moments, 8 bits each"
    if levers.optimizer_place == "card":
        return [
            MemoryItem("adapter", "card", 4 * count, f"{count:,} values in fp32"),
            MemoryItem("gradients", "card", 4 * count, "of the adapter alone"),
            MemoryItem("optimizer", "card", states, moments),
        ]
    return [
        MemoryItem("adapter", "card", run.value_bytes * count, f"{count:,} values in the model's type"),
        MemoryItem("gradients of one layer", "card", layer_gradients(run), "sent to the host as they appear"),
        MemoryItem("adapter and gradients", "host", 8 * count, "fp32"),
        MemoryItem("optimizer", "host", states, moments),
    ]


def _waiting(run: Run, levers: Levers) -> list[MemoryItem]:
    card, host = waiting_bytes(run, levers.layers, levers.inputs)
    counts = Counter(levers.layers)
    note = ", ".join(f"{counts[name]} {name}" for name in ("keep", "offload", "attention", "recompute") if counts[name])
    return [
        MemoryItem("saved for backward", "card", card, note),
        MemoryItem("saved for backward", "host", host, note),
    ]


def load_bytes(run: Run, levers: Levers) -> int:
    """Bytes that the card holds at most while the model is opened: what stays on the host is placed there at once."""
    c, w = run.config, run.own_bytes
    table = c.vocab_size * c.hidden_size * (run.table_bytes or w)
    tables = 0 if levers.embedding == "host" else embedding_bytes(c, 0, run.table_bytes or w, mapped=run.mapped)
    tables += 0 if c.tie_embeddings or levers.head != "dense" else table
    here = c.layers - levers.streamed_layers
    small = (
        2 * c.layers + 1
    ) * c.hidden_size * w + 2 * c.head_dim  # norms, and the frequencies of the positions in fp32
    placed = here * layer_bytes(c, run.scheme, w) + small + tables
    # what is not quantised is made narrow on the host and goes where it stays
    return placed + (load_extra(c, run.scheme, w) if run.scheme != "none" else 0)
