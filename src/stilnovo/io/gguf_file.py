"""What a GGUF file holds: its metadata as plain values and its tensors, not yet read; once, however many ask.

A training asks three times: for its plan, its tokenizer and its weights. The last file is therefore kept until the model
is opened (`forget`). Unusual: the package goes through vocabularies element by element, and an element of a memory map
takes three times as long as one of a plain array over the same pages; so that is what it gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class GGUFContents:
    """Metadata by key, and the package's descriptions of the tensors, whose data are mapped."""

    fields: dict[str, Any]
    tensors: tuple[Any, ...]


def gguf_contents(path: Path) -> GGUFContents:
    """Read a GGUF file's metadata; raises whatever the package does on a damaged one."""
    place = path.resolve()
    state = place.stat()
    return _read(place, state.st_size, state.st_mtime_ns)


def forget() -> None:
    """Let go of the file that is kept."""
    _read.cache_clear()


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
    return GGUFContents({key: field.contents() for key, field in reader.fields.items()}, tuple(reader.tensors))
