"""What comes and goes in a step: the bytes of all temporary tensors at each moment that may be the peak, each named.

The sums follow the code of `stilnovo.engine` line by line. Kernels take memory beside their results, where no tensor is seen;
that of torch's variable-length flash attention is of its source (`mha_varlen_bwd`, alike in torch 2.9 to 2.13): gradients of the
queries in fp32 and a softmax sum a row and head, both with 128 rows more for every document, and keys' and values' gradients for
each query head before they are added up. Head sizes are rounded up to 32 there (64 beyond 128).
Shape letters as in `ledger.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from stilnovo.plan.levers import BLOCK, DENSE_PART, FUSED_BYTES, Levers, sub_tile
from stilnovo.plan.sizes import Run, dense_bytes, on_host, saved_bytes

HEAD_TILE_BYTES = 2**26  # of a head that is kept narrower than the products, made wide at once
PADDED_ROWS = 128  # beside each document's own, in the workspace of flash attention's backward


def moments_of(run: Run, levers: Levers) -> dict[str, int]:
    """Bytes of all temporary tensors at each moment that may be the peak."""
    known: dict[tuple[str, str, int], dict[str, int]] = {}  # layers whose neighbour below is alike cost alike

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


def kind_of(run: Run, levers: Levers, index: int) -> tuple[str, str, int]:
    """What a layer's moments depend on beside the levers that all share: its choice, that below it, whether either learns."""
    first = run.lora.first_layer
    return (
        levers.layers[index],
        levers.layers[index - 1] if index else "",
        max(-1, min(index - first, 1 if index else 0)),
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


def _dense(run: Run, levers: Levers, rows: int, columns: int) -> int:
    if levers.keep_dense:
        return 0
    if run.scheme == "none" and run.own_bytes != run.value_bytes:
        return rows * columns * run.value_bytes
    return dense_bytes(run.scheme, rows, columns, run.value_bytes)


def loss_moment(run: Run, levers: Levers) -> int:
    """Bytes of temporary tensors while losses are computed."""
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
    if levers.layers[index] in ("keep", "offload"):  # the residual, gate and up are of no more use
        stream -= run.tokens * (c.hidden_size + 2 * c.intermediate_size) * w
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
