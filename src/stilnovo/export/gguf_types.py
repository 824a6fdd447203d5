"""Which type each tensor of a GGUF file gets, by the type of the whole file.

A file "in Q4_K_M" is a mix: the tensors that suffer most keep more bits. The mixes here are those that llama.cpp's quantiser makes of
a Llama (ggml-org/llama.cpp, src/llama-quant.cpp), so that a file from here is as large, as fast and as exact as one from there.
Rows that a type's blocks do not divide get the type that it falls back to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stilnovo.errors import InputError
from stilnovo.io.gguf_names import gguf_name
from stilnovo.plan.shape import LlamaConfig


@dataclass(frozen=True)
class GGUFType:
    """The type of a file.

    Attributes:
        kind: The type of most tensors, by the package's name.
        number: What `general.file_type` says (llama.cpp's `llama_ftype`).
    """

    kind: str
    number: int


TYPES = {
    "f32": GGUFType("F32", 0), "f16": GGUFType("F16", 1), "bf16": GGUFType("BF16", 32), "q8_0": GGUFType("Q8_0", 7),
    "q6_k": GGUFType("Q6_K", 18), "q5_k_m": GGUFType("Q5_K", 17), "q4_k_m": GGUFType("Q4_K", 15),
}  # fmt: skip
#: Types of files in whose tensors some columns may be kept better than others.
WEIGHED = ("q4_k_m", "q5_k_m", "q6_k")
#: Values and bytes of a block.
BLOCKS = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q5_0": (32, 22), "Q5_1": (32, 24),
    "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
}  # fmt: skip
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_MIXED = ("q4_k_m", "q5_k_m")


def checked_type(name: str) -> str:
    """The type of a file by its name, in any case.

    Raises:
        InputError: when no file is written in it.
    """
    if (known := name.lower().replace("-", "_")) not in TYPES:
        raise InputError(f"GGUF files are not written as {name!r}.", next=f"Choose a --type: {', '.join(TYPES)}.")
    return known


@dataclass(frozen=True)
class GGUFEntry:
    """A tensor to be written.

    Attributes:
        name: Its GGUF name.
        shape: As in a Hugging Face folder: (rows, columns), or a vector's length.
        kind: Its type, by the package's name.
        wanted: The type that it would have, if its rows were a multiple of that type's block.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    wanted: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        values, size = BLOCKS[self.kind]
        return self.shape[-1] // values * size

    @property
    def size(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape[:-1]) * self.row_bytes


def model_entries(config: LlamaConfig, type_name: str) -> dict[str, GGUFEntry]:
    """The tensors of a model in a file of this type, by their Hugging Face names, in order."""
    return {name: _entry(name, shape, config, type_name) for name, shape in config.weight_shapes().items()}


def _entry(name: str, shape: tuple[int, ...], config: LlamaConfig, type_name: str) -> GGUFEntry:
    stored = gguf_name(name)
    if len(shape) == 1:  # norms and biases are small, and much depends on them
        return GGUFEntry(stored, shape, "F32", "F32")
    wanted = _wanted(name, shape, config, type_name)
    return GGUFEntry(stored, shape, _fitting(wanted, shape[-1]), wanted)


def _wanted(name: str, shape: tuple[int, ...], config: LlamaConfig, type_name: str) -> str:
    kind = TYPES[type_name].kind
    if BLOCKS[kind][0] == 1 or kind == "Q8_0":
        return kind
    if name == "lm_head.weight" or (config.tie_embeddings and name == "model.embed_tokens.weight"):
        return "Q6_K"  # what every prediction goes through
    if type_name in _MIXED and name.endswith((".v_proj.weight", ".down_proj.weight")):
        layer = int(name.split(".")[2])
        if _more_bits(layer, config.layers):
            return "Q6_K"
        if (
            name.endswith(".v_proj.weight")
            and kind == "Q4_K"
            and config.layers == 80
            and config.heads != config.kv_heads
        ):
            return "Q5_K"  # of a Llama of 70B
    return kind


def _more_bits(layer: int, layers: int) -> bool:
    """Whether a layer is among those whose values and last products keep more bits: the outer eighths, and a third of the others."""
    first, last = layers // 8, 7 * layers // 8
    return layer < first or layer >= last or (layer - first) % 3 == 2


def _fitting(kind: str, columns: int) -> str:
    """The type, or what it falls back to where its blocks do not divide a row."""
    if columns % BLOCKS[kind][0] == 0:
        return kind
    other = _FALLBACK.get(kind, kind)
    return other if columns % BLOCKS[other][0] == 0 else "F16"
