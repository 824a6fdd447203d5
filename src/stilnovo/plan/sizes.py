"""What a pass is, and the bytes of its parts: weights in each scheme, what layers save, what products are made dense in.

`ledger.py` sums what lasts, `temporaries.py` what comes and goes. Shape letters as there; all sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from stilnovo.plan.levers import (
    BLOCK,
    DENSE_PART,
    FUSED_BYTES,
    NESTED_BLOCK,
    QUANTIZED_PART,
    LayerChoice,
    Levers,
    Place,
)
from stilnovo.plan.shape import PROJECTIONS, LlamaConfig, LoraConfig

MAPPED_AROUND = 2**16  # bytes that the kernel maps of a file around what is read


@dataclass(frozen=True, kw_only=True)
class Run:
    """Facts of a training step, beside the levers, on which its memory depends.

    Attributes:
        tokens: T, the tokens of one forward pass, all documents together.
        value_bytes: Bytes of the type in which the step computes: 2 on cards and on a CPU that multiplies in bf16, else 4.
        weight_bytes: Bytes of the model's own type, in which tables, norms and plain projections are kept; None: the step's.
        table_bytes: Bytes of a value of embedding and head, where they are kept in a narrower type.
        mapped: Whether they are mapped from their file.
        flash: Whether it runs on a card (what its kernels take beside their results is counted).
        kernels: Whether that card's elementwise steps run in kernels of our own (`stilnovo.model.kernels`).
        capability: Compute capability of that card: before 8.0 attention goes one document after another.
        documents: Documents in a pass; attention's backward pads each.
        multiprocessors: Of a card on which the queries' gradients repeat to the last bit: it keeps several sums of them where the heads
            are fewer than these. 0: one sum, whose order changes from run to run.
        gathered: Whether losses are those of some tokens alone, whose hidden states are copied: answers, what is not rehearsed.
        anchored: Whether the divergence from the base is a part of the loss: the base reads while all that is saved waits.
        accumulation: Passes whose gradients are added up before the optimizer steps.
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
    kernels: bool = True
    frozen: tuple[tuple[int, ...], ...] = ()
    capability: float = 8.9
    documents: int = 1
    multiprocessors: int = 0
    gathered: bool = False
    anchored: bool = False
    accumulation: int = 1

    @property
    def fused(self) -> bool:
        """Whether elementwise steps run in kernels of our own, of which a processor has none."""
        return self.flash and self.kernels

    @property
    def half_is_bf16(self) -> bool:
        """Whether the step's 16 bits are bf16: probabilities of a vocabulary are too small for fp16."""
        return self.capability >= 8

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


def saved_values(config: LlamaConfig, choice: LayerChoice) -> int:
    """Values per token that a layer of this choice saves for backward."""
    heads, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    if choice == "recompute":
        return config.hidden_size
    if choice == "attention":
        return config.hidden_size + heads
    # input, q, k, v, attention's output, the residual after it, gate and up
    return 2 * config.hidden_size + 2 * heads + 2 * kv + 2 * config.intermediate_size


def saved_bytes(run: Run, levers: Levers, index: int) -> int:
    """Bytes that layer `index` saves for backward, wherever they are stored."""
    if index < run.lora.first_layer:  # no gradient is wanted there
        return 0
    return run.tokens * saved_values(run.config, levers.layers[index]) * run.value_bytes


def waits_on_host(choice: LayerChoice, inputs: Place) -> bool:
    """Whether what a layer of this choice saves waits in host memory, where `inputs` wait there."""
    return choice == "offload" or (choice != "keep" and inputs == "host")


def on_host(levers: Levers, index: int) -> bool:
    """Whether a layer's saved activations are offloaded to host memory."""
    return waits_on_host(levers.layers[index], levers.inputs)


def dense_bytes(scheme: str, rows: int, columns: int, value_bytes: int, *, fused: bool = False) -> int:
    """Bytes of a projection that is made dense for a product, and of the workspace of its making; 0 where it is dense.

    With `fused` a kernel of our own makes it, which needs no workspace.
    """
    dense = rows * columns * value_bytes
    if fused and scheme != "none":
        return dense
    if scheme in ("nf4", "fp4"):
        return dense + 4 * -(-rows * columns // BLOCK)  # the block maxima in fp32
    # some rows in fp32, of 4 bits also as bytes
    return 0 if scheme == "none" else dense + (4 if scheme == "int8" else 5) * min(rows * columns, DENSE_PART)


def joined_values(config: LlamaConfig, value_bytes: int) -> int:
    """Values of the projections of a layer that products put together: q, k and v; gate and up where they are small."""
    h, both = config.hidden_size, 2 * config.intermediate_size
    qkv = (config.heads + 2 * config.kv_heads) * config.head_dim
    return h * (qkv + (both if both * h * value_bytes <= FUSED_BYTES else 0))


def load_extra(config: LlamaConfig, scheme: str, value_bytes: int) -> int:
    """Bytes that come and go while the last projection is placed: its dense matrix, and what is made of it."""
    rows, columns = max(config.linear_shapes().values(), key=lambda shape: shape[0] * shape[1])
    size = rows * columns
    if scheme == "none":
        return size * value_bytes
    # block maxima in fp32, and less their mean; or two copies in fp32 of what is quantised at once, and its numbers
    working = 8 * -(-size // BLOCK) if scheme in ("nf4", "fp4") else 9 * min(size, QUANTIZED_PART)
    return size * value_bytes + linear_bytes(rows, columns, scheme, value_bytes) + working
