"""Map single tensors of a safetensors file: the pages of each are reserved alone, and read when they are touched.

The safetensors library maps the whole file, twice, for each handle, and a tensor keeps all of it reserved; of a model in
shards of 5 GB, opened once a weight, that adds up to more than a process may be allowed (`ulimit -v`).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Types by their names in the format (github.com/huggingface/safetensors).
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
SMALL = 2**16  # bytes: what is not larger is read at once, since mappings are counted


def header_of(path: Path) -> tuple[dict[str, Any], int]:
    """Read a file's header: each tensor's `dtype`, `shape` and `data_offsets` by its name; and where the tensors begin.

    Raises:
        OSError: when it cannot be read.
        ValueError: when there is no header.
    """
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
        if size > path.stat().st_size:
            raise ValueError("The header is longer than the file.")
        header = json.loads(file.read(size))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + size


def mapped_tensor(path: Path, entry: dict[str, Any], begin: int) -> Tensor:
    """Map a tensor by its entry in the header; writing to it changes memory alone, never the file."""
    dtype, (start, stop) = TYPES[entry["dtype"]], entry["data_offsets"]
    if stop - start <= SMALL:
        with path.open("rb") as file:
            file.seek(begin + start)
            raw = torch.frombuffer(bytearray(file.read(stop - start) or b"\0"), dtype=torch.uint8)[: stop - start]
    else:
        raw = torch.from_numpy(np.memmap(path, np.uint8, "c", begin + start, (stop - start,)))
        raw = raw.clone() if (begin + start) % dtype.itemsize else raw
    return raw.view(dtype).view(entry["shape"])
