"""Engine settings (levers) that trade memory for compute or for traffic; each leaves loss and gradients unchanged.

Only `head` is different in kind: a head kept in 8 or 4 bits is another matrix, and loss and gradients are those of the
model that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What a layer saves for backward: *keep*: all of its inside, on the card; *offload*: the same, in host memory;
#: *attention*: attention's output, beside its input, where `inputs` says; *recompute*: its input alone.
LayerChoice = Literal["keep", "offload", "attention", "recompute"]
Place = Literal["card", "host"]
HeadKind = Literal["dense", "int8", "nf4", "streamed"]
OptimizerKind = Literal["adamw", "adamw8bit", "paged_adamw8bit"]
OptimizerChoice = Literal["auto", "adamw", "adamw8bit", "paged_adamw8bit"]

# Block and buffer sizes that the step and its ledger share.
ELEMENTWISE_BYTES = 32 * 2**20  # an elementwise step takes rows of this size in fp32, unless there is memory for more
FUSED_BYTES = 32 * 2**20  # projections of one input are made dense together up to this size
DENSE_PART = 2**22  # weights made dense at once under int8 and int4
BLOCK = 64  # weights that share an absolute maximum (nf4, fp4) or a scale and zero point (int8, int4)
QUANTIZED_PART = (
    BLOCK * 2**15
)  # weights quantised at once: the working copies of a wide matrix would outweigh what is kept
NESTED_BLOCK = 256  # block maxima that share a scale under double quantisation
OPTIMIZER_BLOCK = 256  # values that share a scale in 8-bit optimizer states
OPTIMIZER_SMALLEST = 4096  # values of a matrix whose states are kept in 8 bits
LEFT_PAGEABLE = (
    2 * 2**30
)  # bytes of host memory that pinning leaves free: what is pinned, no other program can push out
ALIGN = 256  # bytes: what a card's loads and bitsandbytes' kernels expect of the start of a tensor


@dataclass(frozen=True, kw_only=True)
class Levers:
    """One complete setting of the engine.

    Attributes:
        layers: For each layer, what it saves for backward.
        inputs: Where what the layers of the choices *attention* and *recompute* save waits for backward.
        prefetch: Whether what waits on the host for the next layer is brought while this one computes; costs its room.
        streamed_layers: Frozen layers, from the first, that live in host memory and visit the card when their turn comes.
        slots: Streamed layers on the card at once: the one at work and those on their way.
        embedding: Where the input table lies.
        head: How the output head is kept: as it is, in 8 or 4 bits, or in host memory and visiting tile by tile.
        head_tile: Rows of the vocabulary whose logits exist at once; None: all.
        tile: Tokens of the stream that one pass of the token-wise parts (projections, MLP, norms) takes; None: all.
        attention_groups: Parts into which attention's heads are divided; one part is computed, and differentiated, at a time.
        loss_chunk: Tokens whose logits exist at once.
        optimizer: AdamW with 8-bit moments, paged 8-bit ones (unified memory), or fp32 ones.
        optimizer_place: `host`: master weights, gradients and moments live in host memory; the card has the adapter in the model's type.
        keep_dense: Whether dequantised projections are kept (memory to spare) or made for each product anew.
        elementwise_bytes: Size in fp32 of the rows that an elementwise step takes at once where no kernel fuses it.
    """

    layers: tuple[LayerChoice, ...]
    inputs: Place = "card"
    prefetch: bool = True
    streamed_layers: int = 0
    slots: int = 2
    embedding: Place = "card"
    head: HeadKind = "dense"
    head_tile: int | None = None
    tile: int | None = None
    attention_groups: int = 1
    loss_chunk: int = 256
    optimizer: OptimizerKind = "adamw8bit"
    optimizer_place: Place = "card"
    keep_dense: bool = False
    elementwise_bytes: int = ELEMENTWISE_BYTES

    @property
    def moves_weights(self) -> bool:
        """Whether frozen weights live in host memory, where only the engine finds them."""
        return self.streamed_layers > 0 or self.embedding == "host"

    def stays_on_host(self, weight: str) -> bool:
        """Whether a weight, by its Hugging Face name, is loaded to host memory: it lives there, or goes to the card in another form."""
        if weight == "model.embed_tokens.weight":
            return self.embedding == "host"
        if weight == "lm_head.weight":
            return self.head != "dense"
        layer = weight.removeprefix("model.layers.").partition(".")[0]
        return weight.endswith("_proj.weight") and layer.isdigit() and int(layer) < self.streamed_layers


def optimizer_kind(choice: OptimizerChoice, *, on_card: bool) -> OptimizerKind:
    """Resolve `auto`: 8-bit states on a GPU, where memory counts; fp32 on a CPU, where 8-bit steps take thirty times as long."""
    if choice == "auto":
        return "adamw8bit" if on_card else "adamw"
    return "adamw8bit" if choice == "paged_adamw8bit" and not on_card else choice


def all_layers(choice: LayerChoice, layers: int) -> tuple[LayerChoice, ...]:
    """The same choice for every layer."""
    return (choice,) * layers


def sub_tile(columns: int, part: int = ELEMENTWISE_BYTES) -> int:
    """Rows that an elementwise step over rows of `columns` values processes at once, `part` bytes of them in fp32."""
    return max(1, part // (4 * columns))


def size_class(size: int) -> int:
    """Bytes of the host buffer for `size`: classes a sixteenth apart, since batches differ a little and should share."""
    step = max(ALIGN, 1 << max(0, size.bit_length() - 5))
    return -(-size // step) * step
