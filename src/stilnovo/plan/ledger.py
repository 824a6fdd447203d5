"""Memory ledger: every byte of a training step, on the card and in host memory, from shapes and settings alone.

The sums follow the code of `stilnovo.engine` line by line and are no fits; `bench/memory.py` runs the real step of the 8B
shape without storage and compares (within 5 %; usually within 1 %). What lives through the step is listed by kind. What
comes and goes is the largest of several moments, each named; the peak is everything that lives plus that moment.

Shape letters: T tokens in one pass, t of a tile, C hidden size, F feed-forward size, H query heads, K key/value heads,
D head size, V vocabulary, r rank, n groups of heads. All sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stilnovo.plan.levers import (
    ALIGN,
    BLOCK,
    DENSE_PART,
    FUSED_BYTES,
    NESTED_BLOCK,
    Levers,
    Place,
    size_class,
    sub_tile,
)
from stilnovo.plan.shape import PROJECTIONS, LlamaConfig, LoraConfig, lora_parameters, moment_bytes

CONTEXT_BYTES = 512 * 2**20  # what a CUDA context and the libraries' workspaces take outside torch's allocator
HEAD_TILE_BYTES = 2**26  # of a head that is kept narrower than the products, made wide at once
MAPPED_AROUND = 2**16  # bytes that the kernel maps of a file around what is read
FRAGMENTATION = 0.03  # of what comes and goes


@dataclass(frozen=True, kw_only=True)
class Run:
    """Facts of a training step, beside the levers, on which its memory depends.

    Attributes:
        tokens: T, the tokens of one forward pass, all documents together.
        value_bytes: Bytes of the type in which the step computes: 2 on cards and on a CPU that multiplies in bf16, else 4.
        weight_bytes: Bytes of the model's own type, in which tables, norms and plain projections are kept; None: the step's.
        table_bytes: Bytes of a value of embedding and head, where they are kept in a narrower type.
        mapped: Whether they are mapped from their file.
        flash: Whether attention is one kernel for all documents (its workspace is counted).
        frozen: Ranks of a frozen adapter under the one that learns, layer by layer, in the order of `PROJECTIONS`; empty: none.
    """

    config: LlamaConfig
    lora: LoraConfig
    scheme: str = "nf4"
    tokens: int = 2048
    value_bytes: int = 2
    weight_bytes: int | None = None
    table_bytes: int | None = None
    mapped: bool = False
    flash: bool = True
    frozen: tuple[tuple[int, ...], ...] = ()

    @property
    def own_bytes(self) -> int:
        """Bytes of the model's own type."""
        return self.weight_bytes or self.value_bytes

    def frozen_values(self, index: int) -> int:
        """Values of the frozen adapter in one layer: r · (in + out) of each projection."""
        if not self.frozen:
            return 0
        shapes = self.config.linear_shapes()
        return sum(r * sum(shapes[name]) for r, name in zip(self.frozen[index], PROJECTIONS, strict=True))

    def frozen_bytes(self, first: int, stop: int) -> list[int]:
        """Bytes of the frozen adapter in each of these layers, in the model's type."""
        return [self.own_bytes * self.frozen_values(index) for index in range(first, stop)]


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


def linear_bytes(rows: int, columns: int, scheme: str, value_bytes: int) -> int:
    """Bytes that a projection (rows × columns) takes under a scheme, tables included."""
    size = rows * columns
    if scheme == "none":
        return size * value_bytes
    if scheme in ("nf4", "fp4"):
        blocks = -(-size // BLOCK)
        # packed, 8-bit block maxima, their scales, two code tables (16 and 256 values) and the offset
        return -(-size // 2) + blocks + 4 * -(-blocks // NESTED_BLOCK) + 4 * (16 + 256 + 1)
    groups = rows * -(-columns // BLOCK)
    return groups * BLOCK * (8 if scheme == "int8" else 4) // 8 + 3 * groups  # 16-bit scale, 8-bit zero point


def embedding_bytes(config: LlamaConfig, tokens: int, value_bytes: int, *, mapped: bool = False) -> int:
    """Bytes of the input table; of one that a processor maps from its file, no more than is read for so many tokens."""
    table = config.vocab_size * config.hidden_size * value_bytes
    return min(table, tokens * MAPPED_AROUND) if mapped and not config.tie_embeddings else table


def layer_bytes(config: LlamaConfig, scheme: str, value_bytes: int) -> int:
    """Bytes of the seven frozen projections of one layer."""
    return sum(linear_bytes(*shape, scheme, value_bytes) for shape in config.linear_shapes().values())


def ledger(run: Run, levers: Levers) -> Ledger:
    """Compute every item of the step, the peak's moment last."""
    moments = _moments(run, levers)
    moment = max(moments, key=moments.__getitem__)
    items = [*_weights(run, levers), *_adapter(run, levers), *_waiting(run, levers)]
    items.append(MemoryItem("peak inside the step", "card", moments[moment], moment))
    return Ledger(tuple(item for item in items if item.size), moments, moment)


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
    copies = c.layers * c.layer_matrix() * run.value_bytes if levers.keep_dense and others else 0
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
        MemoryItem("norms", "card", (2 * c.layers + 1) * c.hidden_size * w),
        MemoryItem("head", "host" if levers.head == "streamed" else "card", head, head_note),
        MemoryItem("tiles of the head", "card", tiles, f"2 of {tile:,} rows"),
    ]  # fmt: skip


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
        MemoryItem(
            "gradients of one layer",
            "card",
            4 * count // (run.config.layers - run.lora.first_layer),
            "sent to the host as they appear",
        ),
        MemoryItem("adapter and gradients", "host", 8 * count, "fp32"),
        MemoryItem("optimizer", "host", states, moments),
    ]


def saved_bytes(run: Run, levers: Levers, index: int) -> int:
    """Bytes that layer `index` saves for backward, wherever they are stored."""
    c, w = run.config, run.value_bytes
    if index < run.lora.first_layer:  # no gradient is wanted there
        return 0
    heads, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    values = {
        "recompute": c.hidden_size,
        "attention": c.hidden_size + heads,
        # input, q, k, v, attention's output, the residual after it, gate and up
        "keep": 2 * c.hidden_size + 2 * heads + 2 * kv + 2 * c.intermediate_size,
    }
    values["offload"] = values["keep"]
    return run.tokens * values[levers.layers[index]] * w


def on_host(levers: Levers, index: int) -> bool:
    """Whether a layer's saved activations are offloaded to host memory."""
    choice = levers.layers[index]
    return choice == "offload" or (choice != "keep" and levers.inputs == "host")


def _waiting(run: Run, levers: Levers) -> list[MemoryItem]:
    c = run.config
    sizes = [(saved_bytes(run, levers, index), on_host(levers, index)) for index in range(c.layers)]
    host = sum(size_class(size) for size, sent in sizes if sent)
    card = sum(size for size, sent in sizes if not sent)
    kernels = 4 * run.tokens * c.heads * sum(choice != "recompute" for choice in levers.layers[run.lora.first_layer :])
    counts = {name: levers.layers.count(name) for name in ("keep", "offload", "attention", "recompute")}
    note = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    tables = 2 * run.tokens * (c.head_dim // 2) * run.value_bytes
    return [
        MemoryItem("saved for backward", "card", card + kernels, note),
        MemoryItem("saved for backward", "host", host, note),
        MemoryItem("tokens, targets, rotary tables", "card", 16 * run.tokens + tables),
    ]


def _moments(run: Run, levers: Levers) -> dict[str, int]:
    """Bytes of all temporary tensors at each moment that may be the peak.

    What layers save is counted once, whole, as lasting; at a layer's turn those above it have saved nothing yet, or no
    longer, which is taken off.
    """
    largest = {"loss": _loss(run, levers)}
    above = 0
    known: dict[tuple[str, str], dict[str, int]] = {}  # layers whose neighbour below is alike cost alike
    for index in reversed(range(run.config.layers)):
        kind = (levers.layers[index], levers.layers[index - 1] if index else "")
        if kind not in known:
            known[kind] = {
                "forward, MLP": _forward(run, levers, index),
                "backward, MLP": _backward_mlp(run, levers, index),
                "backward, attention": _backward_attention(run, levers, index),
            }
        for name, size in known[kind].items():
            if index < run.lora.first_layer and name.startswith("backward"):
                continue
            largest[name] = max(largest.get(name, 0), size - above)
        above += 0 if on_host(levers, index) else saved_bytes(run, levers, index)
    return largest


def dense_bytes(scheme: str, rows: int, columns: int, value_bytes: int) -> int:
    """Bytes of a projection that is made dense for a product, and of the workspace of its making; 0 where it is dense."""
    dense = rows * columns * value_bytes
    if scheme in ("nf4", "fp4"):
        return dense + 4 * -(-rows * columns // BLOCK)  # the block maxima in fp32
    return 0 if scheme == "none" else dense + 6 * min(rows * columns, DENSE_PART)


def _dense(run: Run, levers: Levers, rows: int, columns: int) -> int:
    if levers.keep_dense:
        return 0
    if run.scheme == "none" and run.own_bytes != run.value_bytes:
        return rows * columns * run.value_bytes
    return dense_bytes(run.scheme, rows, columns, run.value_bytes)


def load_extra(config: LlamaConfig, scheme: str, value_bytes: int) -> int:
    """Bytes that come and go while the last projection is placed: its dense matrix, and what is made of it."""
    rows, columns = max(config.linear_shapes().values(), key=lambda shape: shape[0] * shape[1])
    return rows * columns * value_bytes + (0 if scheme == "none" else linear_bytes(rows, columns, scheme, value_bytes))


def load_bytes(run: Run, levers: Levers) -> int:
    """Bytes that the card holds at most while the model is opened: what stays on the host is placed there at once."""
    c, w = run.config, run.own_bytes
    table = c.vocab_size * c.hidden_size * (run.table_bytes or w)
    tables = 0 if levers.embedding == "host" else embedding_bytes(c, 0, run.table_bytes or w, mapped=run.mapped)
    tables += 0 if c.tie_embeddings or levers.head == "streamed" else table
    here = c.layers - levers.streamed_layers
    placed = here * layer_bytes(c, run.scheme, w) + (2 * c.layers + 1) * c.hidden_size * w + tables
    return placed + load_extra(c, run.scheme, w)


def _loss(run: Run, levers: Levers) -> int:
    c, w = run.config, run.value_bytes
    rows = min(levers.loss_chunk, run.tokens)
    tile = min(levers.head_tile or c.vocab_size, c.vocab_size)
    narrow = (run.table_bytes or run.own_bytes) < w  # tiles of the head become wide one after another
    tile = min(tile, HEAD_TILE_BYTES // (w * c.hidden_size)) if narrow else tile
    stream = run.tokens * c.hidden_size * w  # last layer's output, hidden states, their gradient
    logits = rows * tile * (4 + (w if w < 4 else 0))
    wide = rows * c.hidden_size * (4 + 2 * w)  # running mean, one tile's part, the targets' rows
    dense = 0
    if levers.head in ("int8", "nf4"):
        dense = tile * c.hidden_size * w + (
            6 * DENSE_PART if levers.head == "int8" else 4 * tile * c.hidden_size // BLOCK
        )
    return 3 * stream + logits + wide + dense + (HEAD_TILE_BYTES if narrow else 0)


def _tile(run: Run, levers: Levers) -> int:
    return min(levers.tile or run.tokens, run.tokens)


def _sent(run: Run, levers: Levers, index: int) -> int:
    """Bytes that layer `index` sends to the host or fetches; on the GPU while the copy lasts."""
    known = 0 <= index < run.config.layers and on_host(levers, index)
    return saved_bytes(run, levers, index) if known else 0


def _forward(run: Run, levers: Levers, index: int) -> int:
    c, w, t, choice = run.config, run.value_bytes, _tile(run, levers), levers.layers[index]
    stream = run.tokens * c.hidden_size * w  # the output; the input is what is saved
    if choice == "recompute":
        stream += run.tokens * c.heads * c.head_dim * w  # attention's output
    # what this layer saves, until it has left, and what the layer before it saved, on its way
    stream += _sent(run, levers, index) + _sent(run, levers, index - 1)
    inside = c.hidden_size + c.intermediate_size  # the down projection's output, the gated product
    if choice in ("recompute", "attention"):
        inside += c.hidden_size + 2 * c.intermediate_size  # the residual, gate and up
    return stream + t * inside * w + _dense(run, levers, c.hidden_size, c.intermediate_size)


def _backward_stream(run: Run, levers: Levers, index: int) -> int:
    """Whole-stream tensors of a layer's backward: gradient, recomputed input, attention's output and its gradient."""
    c, w = run.config, run.value_bytes
    heads, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    stream = run.tokens * (c.hidden_size + heads) * w + _sent(run, levers, index)
    if levers.prefetch:
        stream += _sent(run, levers, index - 1)
    if levers.layers[index] == "recompute":
        stream += run.tokens * heads * w + 4 * run.tokens * c.heads
        if levers.attention_groups == 1:
            stream += run.tokens * (heads + 2 * kv) * w
    return stream


def _backward_mlp(run: Run, levers: Levers, index: int) -> int:
    c, w, t = run.config, run.value_bytes, _tile(run, levers)
    f, h = c.intermediate_size, c.hidden_size
    saved = levers.layers[index] in ("keep", "offload")
    inside = t * h * w + (0 if saved else t * (h + 2 * f) * w)  # the normed input; the residual, gate and up
    down = t * f * w + _dense(run, levers, h, f)  # the product's gradient
    elementwise = t * f * w + 2 * min(t, sub_tile(f, levers.elementwise_bytes)) * f * w
    fused = 2 * f * h * w <= FUSED_BYTES  # gate and up are made dense together
    up = 2 * t * h * w + _dense(run, levers, (2 if fused else 1) * f, h)
    return _backward_stream(run, levers, index) + inside + max(down, elementwise, up)


def _backward_attention(run: Run, levers: Levers, index: int) -> int:
    c, w, t, n = run.config, run.value_bytes, _tile(run, levers), levers.attention_groups
    heads, kv, ranks = c.heads * c.head_dim, c.kv_heads * c.head_dim, 3 * run.lora.r
    ranks += max((sum(layer[:3]) for layer in run.frozen), default=0)  # of q, k and v
    width = (heads + 2 * kv) // n
    stream = _backward_stream(run, levers, index)
    if levers.layers[index] == "attention" and n == 1:
        stream += run.tokens * (heads + 2 * kv) * w
    norm = 3 * min(t, sub_tile(c.hidden_size, levers.elementwise_bytes)) * c.hidden_size * 4
    if n == 1:
        kernel = run.tokens * (heads + 2 * kv) * w + _workspace(run, heads, kv, copies=False)
        last = t * 2 * c.hidden_size * w + _dense(run, levers, heads + 2 * kv, c.hidden_size) + norm
        return stream + max(kernel, last)
    dense = _dense(run, levers, heads + 2 * kv, c.hidden_size)
    whole = run.tokens * (c.hidden_size + 2 * ranks) * w  # gradient of the normed input; low ranks
    group = run.tokens * width * w  # q, k and v
    kernel = run.tokens * width * w + _workspace(run, heads // n, kv // n, copies=True)
    matrix = width * c.hidden_size * w
    return stream + whole + dense + group + max(kernel, matrix + t * c.hidden_size * w, norm)


def _workspace(run: Run, heads: int, kv: int, *, copies: bool) -> int:
    """Workspace of flash attention's backward: dq in fp32, keys' gradients for each query head, copies of a part."""
    if not run.flash:
        return 0
    w = run.value_bytes
    size = run.tokens * heads * 4 + run.tokens * 4 * (heads // run.config.head_dim)
    size += 2 * run.tokens * heads * w if heads != kv else 0
    return size + (2 * run.tokens * heads * w if copies else 0)
