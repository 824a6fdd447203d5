"""Write a model with its adapter merged in, W' = W + s · B·A, as a Hugging Face folder.

That is how one training follows another: the next adapter is learnt on the result of the last.

Unusual: a safetensors file is a header, which the shapes alone decide, and the weights one after another; so each weight is
written as it comes from `stilnovo.export.opened`. The parts of a sharded model are for their readers; they save nothing here.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.export.folder import companions
from stilnovo.export.opened import ExportShape, beside, check_out, open_source
from stilnovo.modelcard.provenance import Provenance
from stilnovo.plan.account import ROWS_PART
from stilnovo.progress import Progress, bytes_text
from stilnovo.runlog import check_room, write_atomic
from stilnovo.spec import ModelSpec

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_STORED = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        files: The weight files, in order.
        size: Bytes of all weights.
        tensors: How many weights there are.
        merged: How many of them had an adapter.
        arrived: See `stilnovo.export.opened.MergedWeights`.
        memory: Bytes as predicted and as measured; see `stilnovo.model.budget.Admitted`.
        origin: Where it comes from, and under which terms.
    """

    files: tuple[str, ...]
    size: int
    tensors: int
    merged: int
    arrived: float | None
    memory: dict[str, int]
    origin: Provenance


def checked_dtype(name: str) -> torch.dtype:
    """Look up a weight type by name.

    Raises:
        InputError: when weights are not written in it.
    """
    if name not in DTYPES:
        raise InputError(f"Weights are not written as {name!r}.", next=f"Choose one of: {', '.join(DTYPES)}.")
    return DTYPES[name]


def export_model(
    spec: ModelSpec,
    out: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    shard_bytes: int = 5 * 10**9,
) -> Exported:
    """Merge the adapter into the model and write it to the folder `out`, which appears only when complete.

    Args:
        spec: The model, its adapter if any, and how the base was kept while the adapter learnt.
        out: A folder that does not exist, or is empty.
        dtype: What the weights are written in: one of `DTYPES`.
        shard_bytes: Most bytes of weights in one file; a single larger weight has a file of its own.

    Raises:
        InputError: when model or adapter cannot be read or do not fit together, or `out` holds something.
        StilnovoError: when the disk has no room for it.
    """
    out = out.expanduser().resolve()
    check_out(out)
    if shard_bytes < 1:
        raise InputError("A weight file needs a size.", f"Found: {shard_bytes} bytes.", "Such as 5 gigabytes.")
    opened = open_source(spec, dtype)
    shapes, weights = opened.shapes, opened.weights
    texts = companions(opened.files, opened.reader, opened.tokenizer, dtype, spec, opened.origin)
    shards = _shards(shapes, dtype.itemsize, shard_bytes)
    size = dtype.itemsize * sum(math.prod(shape) for shape in shapes.values())
    check_room(
        out, size + sum(len(text) for text in texts.values()),
        "Free some space, choose another --out, or a smaller --dtype.",
    )  # fmt: skip
    written = 0
    with beside(out) as folder, Progress("export", size) as progress:
        for file, tensors in shards.items():
            for count in write_safetensors(folder / file, tensors, dtype, weights.parts):
                written += count
                progress.update(written, f"{bytes_text(written)} of {bytes_text(size)}")
        if len(shards) > 1:
            places = {tensor: file for file, tensors in shards.items() for tensor, _ in tensors}
            index = {"metadata": {"total_size": size}, "weight_map": places}
            write_atomic(folder / "model.safetensors.index.json", json.dumps(index, indent=1) + "\n")
        for file, text in texts.items():
            write_atomic(folder / file, text)
    memory = opened.admitted.figures()
    return Exported(tuple(shards), size, len(shapes), len(weights.adapted), weights.arrived, memory, opened.origin)


def write_safetensors(
    path: Path,
    tensors: Sequence[tuple[str, ExportShape]],
    dtype: torch.dtype,
    source: Callable[[str, ExportShape], Tensor | Iterator[Tensor]],
) -> Iterator[int]:
    """Write a safetensors file, asking `source` for each tensor when its turn comes; yields bytes as they are written.

    The format (github.com/huggingface/safetensors): 8 bytes, the header's length, little-endian; the header, JSON filled up
    with spaces to a multiple of 8, which gives each tensor its type, shape and first and last byte behind the header;
    then the tensors, without gaps.

    Args:
        path: The file.
        tensors: Names and shapes, in order.
        dtype: The type of all of them.
        source: Gives a tensor of any floating type, or its rows in parts; it is written in `dtype`, some of it at a time.

    Raises:
        InputError: when a value does not fit in `dtype`, or is none.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors:
        begin, end = end, end + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": _STORED[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            for part in _pieces(source(name, shape)):
                yield _write(file, name, part, dtype)
                del part
        file.flush()
        os.fsync(file.fileno())


def _pieces(weight: Tensor | Iterator[Tensor]) -> Iterator[Tensor]:
    """A weight's values in order, some at a time."""
    for part in (weight,) if isinstance(weight, Tensor) else weight:
        yield from torch.split(part.reshape(-1), ROWS_PART)


def _write(file: BinaryIO, name: str, values: Tensor, dtype: torch.dtype) -> int:
    """Round values and write them; returns the bytes."""
    rounded = values.to(dtype)
    if not rounded.isfinite().all():
        raise InputError(
            f"{name} holds values that {str(dtype).removeprefix('torch.')} cannot.",
            f"The largest: {values.abs().max().item():.4g}.",
            "Choose --dtype bfloat16 or float32; infinite or missing values mean a damaged checkpoint.",
        )
    file.write(rounded.view(torch.uint8).numpy().data)
    return rounded.nbytes


def _shards(shapes: dict[str, ExportShape], itemsize: int, limit: int) -> dict[str, list[tuple[str, ExportShape]]]:
    """Assign weights to files by name; files are filled in order."""
    parts: list[list[tuple[str, ExportShape]]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = itemsize * math.prod(shape)
        if parts[-1] and filled + size > limit:
            parts.append([])
            filled = 0
        parts[-1].append((name, shape))
        filled += size
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {f"model-{number:05}-of-{len(parts):05}.safetensors": part for number, part in enumerate(parts, 1)}
