"""Merge an adapter into its base, W' = W + s · B·A, and write a Hugging Face folder.

That is how one training follows another: the next adapter is learnt on the result of the last.

Unusual: no model is ever built. A safetensors file is a header, which the shapes alone decide, and the weights one after
another; so each weight is read, merged, rounded and written before the next one, some rows at a time; what is held is the
adapter and, of a quantised base, one dense matrix, whatever the model. The parts of a sharded model are for their readers; they
save nothing here.

Which W: an adapter learnt beside the base as that was kept in its training (NF4, say), and makes up for its rounding too.
So each projection, with an adapter or not, is first rounded under that scheme and taken back, from the stored weight in
fp32; then s · B·A is added in fp32, and the sum is rounded once, to the type that is written. Embedding, norms and head are
no part of any scheme. The folder computes what the base under that scheme computes with its adapter on.

An update far smaller than the weight it is added to may be lost in a 16-bit type; how much of it
arrives is measured on the way.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.export.folder import companions
from stilnovo.hub import find_model
from stilnovo.model import lora
from stilnovo.model.budget import admit, use_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import ModelCheckpoint, frozen_projection
from stilnovo.model.memory import give_back
from stilnovo.model.weights import WeightReader, row_blocks
from stilnovo.plan.account import ROWS_PART
from stilnovo.plan.shape import PROJECTIONS, LlamaConfig
from stilnovo.progress import Progress, bytes_text
from stilnovo.recipe_sections import Scheme
from stilnovo.runlog import check_room, check_writable, disk_errors, write_atomic
from stilnovo.spec import ModelSpec

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_STORED = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}

ExportShape = tuple[int, ...]


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        files: The weight files, in order.
        size: Bytes of all weights.
        tensors: How many weights there are.
        merged: How many of them had an adapter.
        arrived: ⟨R(W + ΔW) − R(W), ΔW⟩ / ⟨ΔW, ΔW⟩ over all merged weights, R being the rounding to the written type: 1 where
            the whole update arrives, less where some was too small to change a weight. None without an update.
        memory: Bytes as predicted and as measured; see `stilnovo.model.budget.Admitted`.
    """

    files: tuple[str, ...]
    size: int
    tensors: int
    merged: int
    arrived: float | None
    memory: dict[str, int]


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
        spec: The model, its adapter if any, and how the base was kept while the adapter learnt (see the module).
        out: A folder that does not exist, or is empty.
        dtype: What the weights are written in: one of `DTYPES`.
        shard_bytes: Most bytes of weights in one file; a single larger weight has a file of its own.

    Raises:
        InputError: when model or adapter cannot be read or do not fit together, or `out` holds something.
        StilnovoError: when the disk has no room for it.
    """
    out = out.expanduser().resolve()
    _check_out(out)
    if shard_bytes < 1:
        raise InputError("A weight file needs a size.", f"Found: {shard_bytes} bytes.", "Such as 5 gigabytes.")
    checkpoint = ModelCheckpoint(replace(spec, device="cpu"))
    device = torch.device("cpu")
    admitted = admit(use_of("export", checkpoint.spec, checkpoint.config, device, tokens=1), checkpoint.spec)
    files, reader, tokenizer = find_model(spec.model), checkpoint.reader, checkpoint.tokenizer
    shell, shapes = _shell(reader.config)
    if spec.adapter is not None:
        lora.load(shell, spec.adapter)
    texts = companions(files, reader, tokenizer, dtype, spec.adapter, spec.quantization)
    shards = _shards(shapes, dtype.itemsize, shard_bytes)
    size = dtype.itemsize * sum(math.prod(shape) for shape in shapes.values())
    check_room(
        out, size + sum(len(text) for text in texts.values()),
        "Free some space, choose another --out, or a smaller --dtype.",
    )  # fmt: skip
    source = _Merging(reader, shell, spec.quantization, dtype)
    written = 0
    with _beside(out) as folder, Progress("export", size) as progress:
        for file, tensors in shards.items():
            for count in write_safetensors(folder / file, tensors, dtype, source.parts):
                written += count
                progress.update(written, f"{bytes_text(written)} of {bytes_text(size)}")
        if len(shards) > 1:
            places = {tensor: file for file, tensors in shards.items() for tensor, _ in tensors}
            index = {"metadata": {"total_size": size}, "weight_map": places}
            write_atomic(folder / "model.safetensors.index.json", json.dumps(index, indent=1) + "\n")
        for file, text in texts.items():
            write_atomic(folder / file, text)
    arrived = source.along / source.update if source.update else None
    return Exported(tuple(shards), size, len(shapes), len(source.adapted), arrived, admitted.figures())


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


class _Merging:
    """The weights to be written, by name.

    Args:
        reader: The base's.
        shell: The model's shape with the adapter on it.
        scheme: How the base was kept in training.
        dtype: What will be written: only for `arrived`.
    """

    def __init__(self, reader: WeightReader, shell: Llama, scheme: Scheme, dtype: torch.dtype) -> None:
        self.reader, self.scheme, self.dtype = reader, scheme, dtype
        self.adapted = lora.adapters(shell)
        self.along, self.update = 0.0, 0.0  # numerator and denominator of `Exported.arrived`

    def parts(self, name: str, shape: ExportShape) -> Iterator[Tensor]:
        """The weight of that name as blocks of rows in order: read, rounded and merged."""
        path = name.removesuffix(".weight")
        module = self.adapted.get(path)
        if path.rpartition(".")[2] not in PROJECTIONS or (module is None and self.scheme == "none"):
            yield from self.reader.parts(name, shape)
            return
        row = 0
        for dense in self._base(name, shape):
            rows = slice(row, row := row + len(dense))
            yield dense if module is None else self._merged(dense, module, rows)

    def _merged(self, dense: Tensor, module: lora.LoraLinear, rows: slice) -> Tensor:
        """Merge the adapter into some rows of the base's weight, and measure what arrives."""
        b, a = module.lora_B.detach()[rows].float(), module.lora_A.detach().float()
        merged = torch.addmm(dense, b, a, alpha=module.scale)
        update = merged - dense
        self.update += float(update.square().sum())
        moved = merged.to(self.dtype).float() - dense.to(self.dtype).float()
        self.along += float(moved.mul_(update).sum())
        return merged

    def _base(self, name: str, shape: ExportShape) -> Iterator[Tensor]:
        """The base's weight in fp32, as its scheme keeps it, as blocks of rows in order."""
        if self.scheme == "none":
            yield from (part.float() for part in self.reader.parts(name, shape))
            return
        base = frozen_projection(self.reader, name, shape, self.scheme, torch.device("cpu"), torch.float32)
        dense = base.dense(torch.float32)
        del base
        give_back()
        yield from (dense[first:stop] for first, stop in row_blocks(shape))


def _shell(config: LlamaConfig) -> tuple[Llama, dict[str, ExportShape]]:
    """A model of this shape without storage, on which to load an adapter, and its weights' shapes by name, in order."""
    shapes: dict[str, ExportShape] = {}

    def tensor(name: str, shape: ExportShape) -> Tensor:
        shapes[name] = shape
        return torch.zeros(1).expand(shape)  # one number seen from everywhere

    return Llama(config, tensor).requires_grad_(False), shapes


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


def _check_out(out: Path) -> None:
    if out.is_dir():
        if held := sorted(path.name for path in out.iterdir()):
            raise InputError(f"{out} is not empty.", f"It holds {', '.join(held[:3])}.", "Choose another --out.")
    elif out.exists():
        raise InputError(f"{out} is a file.", next="Choose a folder with --out.")
    check_writable(out)


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Context manager: a temporary folder that becomes `out` at the end; on any error it is removed."""
    new_parents = [parent for parent in out.parents if not parent.exists()]
    with disk_errors(out):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True
            ) as name:
                folder = Path(name) / out.name
                folder.mkdir()
                yield folder
                if out.is_dir():
                    out.rmdir()  # it was empty
                os.replace(folder, out)
        except BaseException:
            for parent in new_parents:
                with contextlib.suppress(OSError):
                    parent.rmdir()
            raise
