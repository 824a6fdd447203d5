"""What a GGUF file holds: its metadata as plain values, and its tensors, read in pieces of their rows; once, however many ask.

A training asks three times: for its plan, its tokenizer and its weights. The last file's metadata are therefore kept until
the model is opened (`forget`). Unusual: the package goes through vocabularies element by element, and an element of a memory
map takes three times as long as one of a plain array over the same pages; so that is what it gets. And no tensor is mapped:
pages of a map count as this process's memory, and the package dequantises through copies several times the size of what it
is given, so it is given few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError

PIECE = 2**20  # values dequantised at once: few enough for a processor's cache, many enough to outweigh the calls


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor of a GGUF file: where it lies, its type by the package's name, its shape as in a Hugging Face file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    size: int

    def pieces(self) -> Iterator[tuple[int, Any]]:
        """Dequantise some rows after others: number of the first row, fp32 array (rows, columns); a vector is one row.

        Raises:
            ValueError: when the file has become shorter.
        """
        import gguf
        import numpy as np

        columns = self.shape[-1]
        rows = 1
        for length in self.shape[:-1]:
            rows *= length
        width = self.size // rows
        step = max(1, PIECE // columns)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            raw = np.fromfile(self.path, np.uint8, count * width, offset=self.offset + start * width)
            stored = raw.reshape(count, width)
            yield start, gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[self.kind]).astype("f4", copy=False)


@dataclass(frozen=True)
class GGUFContents:
    """Metadata by key, and the tensors by name."""

    fields: dict[str, Any]
    tensors: dict[str, GGUFTensor]


def gguf_contents(path: Path) -> GGUFContents:
    """Read a GGUF file's metadata; raises whatever the package does on a damaged one.

    Raises:
        InputError: when it was written for machines of the other byte order.
    """
    place = path.resolve()
    state = place.stat()
    return _read(place, state.st_size, state.st_mtime_ns)


def forget() -> None:
    """Let go of the file that is kept."""
    _read.cache_clear()


def unreadable(kinds: Iterable[str]) -> list[str]:
    """Those of the tensor types that the package cannot dequantise."""
    return [kind for kind in dict.fromkeys(kinds) if not _readable(kind)]


def readable_kinds() -> list[str]:
    """Every tensor type that the package dequantises."""
    import gguf

    return [kind.name for kind in gguf.GGMLQuantizationType if _readable(kind.name)]


@cache
def _readable(kind: str) -> bool:
    # Asked by trying: the package has no list, and a newer one reads more.
    import gguf
    import numpy as np

    known = gguf.GGMLQuantizationType[kind]
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[known][1]), np.uint8), known)
    except NotImplementedError:
        return False
    return True


@lru_cache(maxsize=1)
def _read(path: Path, _size: int, _changed: int) -> GGUFContents:
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            self._plain = np.asarray(mapped)

    reader = Reader(str(path))
    if reader.byte_order != "I":
        raise InputError(
            "The GGUF file was written for machines of the other byte order.", f"In {path}.",
            "Give a little-endian file, as the hub has them.",
        )  # fmt: skip
    fields = {key: field.contents() for key, field in reader.fields.items()}
    tensors = (
        GGUFTensor(
            tensor.name, tensor.tensor_type.name, tuple(map(int, reversed(tensor.shape))), path,
            int(tensor.data_offset), int(tensor.n_bytes),
        )
        for tensor in reader.tensors
    )  # fmt: skip
    return GGUFContents(fields, {tensor.name: tensor for tensor in tensors})
