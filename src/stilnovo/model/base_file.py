"""The file of a kept base: quantised projections as they are held in memory, to be mapped.

It is an ordinary safetensors file: `model.layers.0.mlp.up_proj.weight.packed` and so on, one tensor for each buffer of the
projection's module. Which there are, and where they lie, follows from the shapes and the scheme, so that the header is
written first and each projection after it as it comes; and a file whose header is another is another base.

Unusual: the tensors lie by the size of their elements, the widest first, and begin at a whole page, because a mapped tensor
must be aligned. The content's hash is one over the hashes of header and tensors, so that it is known once all is written,
in whatever order.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from stilnovo.model.mapped_file import header_of, mapped_tensor
from stilnovo.model.quantize import DenseLinear, FrozenLinear, quantized_linear
from stilnovo.recipe_sections import Scheme

FORMAT = 1
PAGE = 4096  # bytes: a multiple of it is where the tensors begin
_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8"}
_PIECE = 2**24  # bytes read at once by `content_sha256`


@dataclass(frozen=True)
class BaseTensor:
    """Place of a tensor in the file: type, shape, first byte, and the one behind its last."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class BaseLayout:
    """What a base's file looks like.

    Attributes:
        scheme: How the projections are quantised.
        made_on: Where, and from which type if not the stored one: another processor may round otherwise.
        shapes: (out, in) of each projection and each table by the name of its weight.
        tables: Types of the embedding and head, where they are kept too: of files whose tables are slow to read.
    """

    scheme: Scheme
    made_on: str
    shapes: dict[str, tuple[int, ...]]
    tables: dict[str, torch.dtype] = field(default_factory=dict)

    def shell(self, name: str) -> FrozenLinear:
        """A projection or table without storage: its buffers say which tensors there are."""
        if name in self.tables:
            return DenseLinear(torch.empty(self.shapes[name], dtype=self.tables[name], device="meta"))
        return quantized_linear(torch.empty(self.shapes[name], device="meta"), self.scheme)

    @cached_property
    def tensors(self) -> dict[str, BaseTensor]:
        """All tensors in the file's order; their places count from the file's beginning."""
        parts = [
            (f"{name}.{part}", buffer.dtype, tuple(buffer.shape))
            for name in self.shapes
            for part, buffer in self.shell(name).named_buffers(recurse=False)
        ]
        placed, stop = dict[str, BaseTensor](), 0
        for name, dtype, shape in sorted(parts, key=lambda part: -part[1].itemsize):
            start, stop = stop, stop + dtype.itemsize * torch.Size(shape).numel()
            placed[name] = BaseTensor(dtype, shape, start, stop)
        return placed

    @cached_property
    def header(self) -> bytes:
        """The file's first bytes, up to the first tensor."""
        about = {"format": "pt", "base": str(FORMAT), "scheme": self.scheme, "made_on": self.made_on}
        entries: dict[str, object] = {"__metadata__": about}
        for name, tensor in self.tensors.items():
            places = [tensor.start, tensor.stop]
            entries[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": places}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % PAGE)
        return struct.pack("<Q", len(text)) + text

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + max(tensor.stop for tensor in self.tensors.values())

    def fits(self, path: Path) -> bool:
        """Whether a file has this size and this header."""
        with path.open("rb") as file:
            return path.stat().st_size == self.size and file.read(len(self.header)) == self.header

    def mapped(self, path: Path) -> dict[str, FrozenLinear]:
        """Map a file: everything in it by the name of its weight; nothing is read or copied before it is wanted."""
        found, (header, begin) = dict[str, FrozenLinear](), header_of(path)
        for name in self.shapes:
            found[name] = shell = self.shell(name)
            for part, _ in list(shell.named_buffers(recurse=False)):
                setattr(shell, part, mapped_tensor(path, header[f"{name}.{part}"], begin))
        return found


def content_sha256(path: Path) -> str:
    """Hash the content of a whole file: one hash of those of its header and its tensors, in their order.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it does not begin with a header.
    """
    header, begin = header_of(path)
    places = [(begin + a, begin + b) for a, b in (entry["data_offsets"] for entry in header.values())]
    with path.open("rb") as file:
        hashes = [_range_sha256(file, *place) for place in [(0, begin), *places]]
    return _joined_sha256(hashes)


def _range_sha256(file: BinaryIO, start: int, stop: int) -> str:
    digest = hashlib.sha256()
    file.seek(start)
    for done in range(start, stop, _PIECE):
        digest.update(file.read(min(_PIECE, stop - done)))
    return digest.hexdigest()


def _joined_sha256(hashes: list[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


class BaseWriter:
    """Writes a base's file, one projection after another in any order.

    Attributes:
        content: The content's hash, once `close` was called.
    """

    def __init__(self, path: Path, layout: BaseLayout) -> None:
        self.layout, self.content = layout, ""
        self._hashes = {"": hashlib.sha256(layout.header).hexdigest()}
        self._file = path.open("wb")
        self._file.write(layout.header)

    def add(self, name: str, projection: FrozenLinear) -> None:
        """Write one projection or table by the name of its weight."""
        for part, buffer in projection.named_buffers(recurse=False):
            place = self.layout.tensors[f"{name}.{part}"]
            assert (buffer.dtype, tuple(buffer.shape)) == (place.dtype, place.shape), f"{name}.{part}"
            content = _bytes(buffer)
            self._hashes[f"{name}.{part}"] = hashlib.sha256(content).hexdigest()
            self._file.seek(len(self.layout.header) + place.start)
            self._file.write(content)

    def close(self) -> None:
        """Bring the file to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.content = _joined_sha256([self._hashes[name] for name in ("", *self.layout.tensors)])

    def abandon(self) -> None:
        """Close the file, unfinished as it is."""
        self._file.close()


def _bytes(buffer: Tensor) -> memoryview:
    plain = buffer.detach().cpu().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data
