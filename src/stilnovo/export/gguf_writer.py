"""Write a GGUF file: its metadata and list of tensors by the package, then the tensors, some rows at a time.

Unusual: the package's own way holds every tensor, or writes each whole. Here a tensor is asked for when its turn comes and encoded
some rows at a time, so that what is held does not grow with the model. The same input gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.export.gguf_types import GGUFEntry
from stilnovo.export.k_quants import q4_k, q5_k, q6_k
from stilnovo.export.small_blocks import float_bytes, q5_0, q5_1, q8_0

if TYPE_CHECKING:
    import gguf

PIECE = 2**18  # values that are encoded at once: few enough for a processor's cache
_ALIGNMENT = 32  # bytes: a multiple of it is where a tensor begins

RowSource = Callable[[GGUFEntry], Iterator[Tensor]]


def write_gguf(
    path: Path, writer: gguf.GGUFWriter, entries: Sequence[GGUFEntry], source: RowSource,
    importance: Mapping[str, Tensor] | None = None,
) -> Iterator[int]:  # fmt: skip
    """Write a GGUF file; yields the bytes of tensors as they are written.

    Args:
        path: The file.
        writer: Holds the metadata, and no tensor.
        entries: The tensors, in order.
        source: Gives a tensor's rows in order, in parts, in any floating type.
        importance: How much the columns of a tensor matter (C,), by its name; all alike where it says nothing.

    Raises:
        InputError: when a value is none, or does not fit in a tensor's type.
    """
    import gguf
    import numpy as np

    for entry in entries:
        kind = gguf.GGMLQuantizationType[entry.kind]
        writer.add_tensor_info(entry.name, entry.shape, np.dtype("f4"), entry.size, raw_dtype=kind)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.kv_data = [{}]  # a vocabulary takes more memory than some rows
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        file = writer.fout[0]
        _align(file)
        for entry in entries:
            columns = (importance or {}).get(entry.name)
            for part in source(entry):
                yield from _written(file, entry, part, columns)
                del part  # it may be a view of a whole matrix, beside which the next one would be read
            _align(file)
        file.flush()
        os.fsync(file.fileno())
    finally:
        writer.close()


def _align(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))


def _written(file: BinaryIO, entry: GGUFEntry, part: Tensor, importance: Tensor | None) -> Iterator[int]:
    """Encode and write some rows; yields the bytes."""
    rows = part.reshape(-1, entry.shape[-1])
    for piece in torch.split(rows, max(1, PIECE // entry.shape[-1])):
        stored = encode(piece.float(), entry, importance)
        file.write(stored.contiguous().numpy().data)
        yield stored.numel()


def encode(rows: Tensor, entry: GGUFEntry, importance: Tensor | None = None) -> Tensor:
    """Encode rows (R, C) in fp32 as a tensor's type: bytes (R, n).

    Args:
        rows: The values.
        entry: What they are part of.
        importance: How much the squared error of each column counts (C,); None: all alike.

    Raises:
        InputError: when a value is none, or does not fit in the type.
    """
    if not rows.isfinite().all():
        raise InputError(
            f"{entry.name} holds values that are no numbers.", f"In {int((~rows.isfinite()).sum())} places.",
            "The checkpoint is damaged: fetch it again, or export an earlier checkpoint of the training.",
        )  # fmt: skip
    largest = rows.abs().max().item() if rows.numel() else 0.0
    if largest > _LARGEST[entry.kind]:
        raise InputError(
            f"{entry.name} holds values that {entry.kind} cannot.", f"The largest: {largest:.4g}.",
            "Choose --type bf16; values so large mean a damaged checkpoint.",
        )  # fmt: skip
    return _ENCODERS[entry.kind](rows, importance)


_FP16 = 65504.0
#: The largest value that a type can hold: blocks have their scales, and Q5_1 its least values, in fp16.
_LARGEST = {
    "F32": float("inf"), "BF16": 3.38e38, "F16": _FP16, "Q5_1": _FP16, "Q5_0": 15 * _FP16, "Q8_0": 127 * _FP16,
    "Q4_K": 15 * _FP16, "Q5_K": 31 * _FP16, "Q6_K": 31 * _FP16,
}  # fmt: skip
_ENCODERS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "F32": lambda rows, _: float_bytes(rows, torch.float32),
    "F16": lambda rows, _: float_bytes(rows, torch.float16),
    "BF16": lambda rows, _: float_bytes(rows, torch.bfloat16),
    "Q8_0": q8_0, "Q5_0": q5_0, "Q5_1": q5_1, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k,
}  # fmt: skip
