"""What comes and goes in a step: the bytes of all temporary tensors at each moment that may be the peak, each named.

The sums follow the code of `stilnovo.engine` line by line. Kernels take memory beside their results, where no tensor is seen;
that of torch's variable-length flash attention is of its source (`mha_varlen_bwd`, alike in torch 2.9 to 2.13): gradients of the
queries in fp32 and a softmax sum a row and head, both with 128 rows more for every document, and keys' and values' gradients for
each query head before they are added up. Head sizes are rounded up to 32 there (64 beyond 128).
Shape letters as in `ledger.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from stilnovo.plan.levers import FUSED_BYTES, Levers, sub_tile
from stilnovo.plan.shape import lora_parameters
from stilnovo.plan.sizes import Run, dense_bytes, on_host, saved_bytes

HEAD_TILE_BYTES = 2**26  # of a head that is kept narrower than the products, made wide at once
PADDED_ROWS = 128  # beside each document's own, in the workspace of flash attention's backward


def moments_of(run: Run, levers: Levers) -> dict[str, int]:
    """Bytes of all temporary tensors at each moment that may be the peak."""
    known: dict[tuple[str, str, int, bool], dict[str, int]] = {}  # layers whose neighbour below is alike cost alike

    def of(index: int) -> dict[str, int]:
        kind = kind_of(run, levers, index)
        if kind not in known:
            known[kind] = layer_moments(run, levers, index)
        return known[kind]

    return peak_moments(run, levers, loss_moment(run, levers), of)


def peak_moments(run: Run, levers: Levers, loss: int, of: Callable[[int], dict[str, int]]) -> dict[str, int]:
    """The largest of each moment, given those of the loss and `of` each layer.

    What layers save is counted once, whole, as lasting; at a layer's turn those above it have saved nothing yet, or no
    longer, which is taken off.
    """
    largest, above = {"loss": loss}, 0
    for index in reversed(range(run.config.layers)):
        for name, size in of(index).items():
            largest[name] = max(largest.get(name, 0), size - above)
        above += 0 if on_host(levers, index) else saved_bytes(run, levers, index)
    return largest


def kind_of(run: Run, levers: Levers, index: int) -> tuple[str, str, int, bool]:
    """What a layer's moments depend on beside the levers that all share: its choice, that below it, whether either learns, the last."""
    first = run.lora.first_layer
    return (
        levers.layers[index],
        levers.layers[index - 1] if index else "",
        max(-1, min(index - first, 1 if index else 0)),
        index + 1 == run.config.layers,
    )


def layer_moments(run: Run, levers: Levers, index: int) -> dict[str, int]:
    """Bytes of temporary tensors at each moment of one layer's turn; no backward where nothing learns."""
    ahead = {"forward, MLP": _forward(run, levers, index)}
    if index < run.lora.first_layer:
        return ahead
    return ahead | {
        "backward, MLP": _backward_mlp(run, levers, index),
        "backward, attention": _backward_attention(run, levers, index),
    }


def _dense(run: Run, levers: Levers, rows: int, columns: int, joined: int = 0) -> int:
    """Bytes while a product's matrix is made dense; `joined`: rows of the largest of several that are put together in it."""
    if levers.keep_dense:
        return 0
    w = run.value_bytes
    wide = run.scheme == "none" and run.own_bytes != w  # another type than what is kept
    if not joined:
        return rows * columns * w if wide else dense_bytes(run.scheme, rows, columns, w, fused=run.fused)
    part = joined * columns * w if wide else dense_bytes(run.scheme, joined, columns, w, fused=run.fused)
    return rows * columns * w + (0 if run.fused else part)  # a kernel writes each where it belongs


def _qkv_dense(run: Run, levers: Levers) -> int:
    """The same of q, k and v together."""
    c = run.config
    heads, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    return _dense(run, levers, heads + 2 * kv, c.hidden_size, max(heads, kv))


def _gate_dense(run: Run, levers: Levers) -> int:
    """The same of gate and up, which are put together where they are small (`joined_values`)."""
    f, h = run.config.intermediate_size, run.config.hidden_size
    if 2 * f * h * run.value_bytes <= FUSED_BYTES:
        return _dense(run, levers, 2 * f, h, f)
    return _dense(run, levers, f, h)


def _narrowed(run: Run, levers: Levers) -> int:
    """Copies of a layer's adapters in the step's type, which a card makes for the time of its turn."""
    if not run.flash or run.value_bytes >= 4:
        return 0
    learning = run.config.layers - run.lora.first_layer
    own = lora_parameters(run.config, run.lora) // learning if levers.optimizer_place == "card" else 0
    kept = max(map(run.frozen_values, range(run.config.layers)), default=0) if run.own_bytes != run.value_bytes else 0
    return (own + kept) * run.value_bytes


def layer_gradients(run: Run) -> int:
    """Bytes of the gradients of one layer's adapter, in fp32."""
    return 4 * lora_parameters(run.config, run.lora) // (run.config.layers - run.lora.first_layer)


def loss_moment(run: Run, levers: Levers) -> int:
    """Bytes of temporary tensors while losses are computed."""
    c, w = run.config, run.value_bytes
    rows = min(levers.loss_chunk, run.tokens)
    tile = min(levers.head_tile or c.vocab_size, c.vocab_size)
    narrow = (run.table_bytes or run.own_bytes) < w  # tiles of the head become wide one after another
    tile = min(tile, HEAD_TILE_BYTES // (w * c.hidden_size)) if narrow else tile
    logits, hidden = rows * tile, rows * c.hidden_size
    several = tile < c.vocab_size
    sums = (4 + w) * hidden if several else 0  # running mean, and the targets' rows
    if run.fused and not several and run.half_is_bf16:
        work = w * logits  # the gradient takes their place
    elif run.fused:
        work = w * logits + max(w * hidden + sums, (4 + w) * hidden, (4 + 3 * w) * hidden if several else 0)
    else:  # in fp32, and again in the step's type; then what is multiplied of them, a tile's part, the targets' rows
        wide = 4 * logits
        copy = w * logits if w < 4 else 0
        work = max(wide + copy + w * hidden + sums, wide + (4 + (3 if several else 1) * w) * hidden)
    making, held = 0, HEAD_TILE_BYTES if narrow else 0
    if levers.head in ("int8", "nf4"):
        held = tile * c.hidden_size * w
        making = dense_bytes(levers.head, tile, c.hidden_size, w, fused=run.fused) - held
    # last layer's output, hidden states, perhaps those of some tokens, their gradient
    streams = (4 if run.gathered else 3) * run.tokens * c.hidden_size * w
    learnt = streams + held + max(work, making + sums)
    return max(learnt, streams + _anchor(run, levers, tile, held, making)) if run.anchored else learnt


def _anchor(run: Run, levers: Levers, tile: int, held: int, making: int) -> int:
    """The same of the divergence from the base, and of the base's pass before it, should all tokens be rehearsed ones."""
    c, w, t = run.config, run.value_bytes, _tile(run, levers)
    h, f, heads, kv = c.hidden_size, c.intermediate_size, c.heads * c.head_dim, c.kv_heads * c.head_dim
    rows = max(1, min(levers.loss_chunk, run.tokens) // 2)
    means = 2 * 4 * rows * h if tile < c.vocab_size else 0
    # both rows of logits in fp32 and their difference; of one tile also the base's shares
    logits = (3 if means else 4) * 4 * rows * tile
    divergence = 3 * run.tokens * h * w + means + held + max(logits, making)  # both hidden states and a gradient
    attention = run.tokens * (2 * heads + 2 * kv) * w + t * h * w + _qkv_dense(run, levers)
    products = run.tokens * heads * w + t * (2 * h + 2 * f) * w + max(_gate_dense(run, levers), w * t * f)
    return max(divergence, run.tokens * h * w + max(attention, products))


def _tile(run: Run, levers: Levers) -> int:
    return min(levers.tile or run.tokens, run.tokens)


def _sent(run: Run, levers: Levers, index: int) -> int:
    """Bytes that layer `index` sends to the host or fetches; on the GPU while the copy lasts."""
    known = 0 <= index < run.config.layers and on_host(levers, index)
    return saved_bytes(run, levers, index) if known else 0


def _part(run: Run, levers: Levers, columns: int) -> int:
    """Values of the rows that an elementwise step takes at once where no kernel does it; 0: one does."""
    return 0 if run.fused else columns * min(_tile(run, levers), sub_tile(columns, levers.elementwise_bytes))


def _forward(run: Run, levers: Levers, index: int) -> int:
    c, w, t, choice = run.config, run.value_bytes, _tile(run, levers), levers.layers[index]
    h, f = c.hidden_size, c.intermediate_size
    learning = index >= run.lora.first_layer
    kept = learning and choice in ("keep", "offload")
    stream = _narrowed(run, levers) if learning else 0
    stream += run.tokens * h * w  # the output, or the input that it takes the place of; another input is what is saved
    if not learning or choice == "recompute":
        stream += run.tokens * c.heads * c.head_dim * w  # attention's output
    # what this layer saves, until it has left, and what the layer before it saved, on its way
    stream += _sent(run, levers, index) + _sent(run, levers, index - 1)
    if not kept and not (run.flash and learning):
        stream += t * h * w  # the residual, which else grows where the output will be, or is saved
    branches = 0 if kept else 2 * t * f * w
    norm = t * h * w + 3 * 4 * _part(run, levers, h)
    up = t * h * w + branches + _gate_dense(run, levers)
    gated = t * f * w + branches + w * _part(run, levers, f)
    down = t * f * w + _dense(run, levers, h, f) + (0 if run.flash else t * h * w)
    return stream + max(norm, up, gated, down)


def _backward_stream(run: Run, levers: Levers, index: int) -> int:
    """Whole-stream tensors of a layer's backward: gradient, recomputed input, attention's output and its gradient."""
    c, w = run.config, run.value_bytes
    heads, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    stream = run.tokens * (c.hidden_size + heads) * w + _sent(run, levers, index) + _narrowed(run, levers)
    if levers.optimizer_place == "host" and index + 1 < c.layers:
        stream += layer_gradients(run)  # those of the layer above are on their way
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
    inside = 0 if saved else t * (2 * h + 2 * f) * w  # the residual and its norm, gate and up
    down = t * f * w + _dense(run, levers, h, f)  # the product's gradient
    gated = t * f * w + 2 * w * _part(run, levers, f)
    up = (1 if run.flash else 2) * t * h * w + _gate_dense(run, levers)
    norm = t * h * w + 3 * 4 * _part(run, levers, h)
    return _backward_stream(run, levers, index) + inside + max(down, gated, up, norm)


def _backward_attention(run: Run, levers: Levers, index: int) -> int:
    c, w, t, n = run.config, run.value_bytes, _tile(run, levers), levers.attention_groups
    heads, kv, ranks = c.heads * c.head_dim, c.kv_heads * c.head_dim, 3 * run.lora.r
    ranks += max((sum(layer[:3]) for layer in run.frozen), default=0)  # of q, k and v
    saved = levers.layers[index] in ("keep", "offload")
    stream = _backward_stream(run, levers, index)
    outputs = run.tokens * heads * w * (2 if levers.layers[index] == "recompute" else 1)  # until attention is done
    if saved:  # the residual, gate and up are of no more use
        stream -= run.tokens * (c.hidden_size + 2 * c.intermediate_size) * w
    if levers.layers[index] == "attention" and n == 1:
        stream += run.tokens * (heads + 2 * kv) * w
    norm, dense = 3 * 4 * _part(run, levers, c.hidden_size), _qkv_dense(run, levers)
    if n == 1:
        again = t * c.hidden_size * w + dense if levers.layers[index] == "attention" else 0
        kernel = run.tokens * (heads + 2 * kv) * w + _workspace(run, heads, kv, copies=False)
        last = t * c.hidden_size * w + max(dense, norm) - outputs
        return stream + max(again, kernel, last)
    width = (heads + 2 * kv) // n
    whole = run.tokens * (c.hidden_size + 2 * ranks) * w  # gradient of the normed input; low ranks
    group = 0 if saved else run.tokens * width * w  # q, k and v
    kernel = run.tokens * width * w + _workspace(run, heads // n, kv // n, copies=True)
    matrix = width * c.hidden_size * w
    again = matrix + t * c.hidden_size * w + norm
    return stream + whole + max(dense + group + max(kernel, again), norm - outputs)


def _workspace(run: Run, heads: int, kv: int, *, copies: bool) -> int:
    """Memory that attention's backward takes beside its results; `heads` and `kv` are widths, `copies` of strided arguments."""
    if not run.flash:
        return 0
    w, size = run.value_bytes, run.config.head_dim
    if run.capability < 8:
        return _per_document(run, heads, kv)
    rounded = -(-size // 32) * 32 if size <= 128 else -(-size // 64) * 64
    rows = run.tokens + PADDED_ROWS * run.documents
    count = heads // size
    sums = max(1, -(-run.multiprocessors // (run.documents * count)))
    total = 4 * rows * count * (rounded * sums + 1)
    total += 2 * run.tokens * heads * w if heads != kv else 0
    return total + (2 * run.tokens * heads * w if copies else 0)


def _per_document(run: Run, heads: int, kv: int) -> int:
    """The same of the memory-efficient kernel, for one document after another: one that is as long as the pass is the worst.

    Queries, keys and values of each head, the output and its gradient as they must lie, the three gradients, and
    what the kernel adds up in fp32.
    """
    longest = run.tokens - run.documents + 1
    return longest * heads * (8 * run.value_bytes + 3 * 4)
