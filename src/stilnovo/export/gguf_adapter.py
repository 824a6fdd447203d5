"""Write an adapter alone as a GGUF file, which llama.cpp and Ollama put on a base at run time.

Unusual: llama.cpp knows one α for the file and applies each pair at α / r, r being that pair's own rank. Where scales differ from
projection to projection (`rank_pattern`, `alpha_pattern`), what a scale has beyond that goes into B. A and B are kept in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stilnovo.export.gguf_types import GGUFEntry
from stilnovo.export.gguf_vocabulary import add_fields, general_fields
from stilnovo.export.gguf_writer import write_gguf
from stilnovo.export.modelfile import adapter_companions
from stilnovo.export.opened import beside, check_out
from stilnovo.io.gguf_names import gguf_name, paired_heads, stored_rows
from stilnovo.model import lora
from stilnovo.model.lora_linear import LowRank
from stilnovo.modelcard.provenance import Provenance, provenance
from stilnovo.plan.model_shape import config_of
from stilnovo.plan.shape import LlamaConfig
from stilnovo.runlog import check_room, write_atomic

if TYPE_CHECKING:
    import gguf

ADAPTER_FILE = "adapter-F32.gguf"


@dataclass(frozen=True)
class ExportedAdapter:
    """Result of an export of an adapter.

    Attributes:
        file: The GGUF file's name.
        size: Its bytes.
        modules: How many projections it adapts.
        alpha: α as llama.cpp reads it: a pair of rank r is applied at α / r.
        origin: Where it comes from, and under which terms.
    """

    file: str
    size: int
    modules: int
    alpha: float
    origin: Provenance


def export_adapter(model: str, adapter: Path, out: Path) -> ExportedAdapter:
    """Write an adapter as a GGUF file in the folder `out`, which appears only when complete.

    Args:
        model: Name of its base; of the base only the shape is read.
        adapter: Folder of the adapter.
        out: A folder that does not exist, or is empty.

    Raises:
        InputError: when base or adapter cannot be read or do not fit together, or `out` holds something.
        StilnovoError: when the disk has no room for it.
    """
    out = out.expanduser().resolve()
    check_out(out)
    config = config_of(model)
    updates = lora.stored(adapter, config)
    first = next(iter(updates.values()))
    alpha = first.scale * len(first.a) or 1.0  # 0 would say that there is none
    tensors = dict(_tensors(updates, config, alpha))
    entries = [GGUFEntry(name, tuple(tensor.shape), "F32") for name, tensor in tensors.items()]
    origin = provenance(model, adapter)
    texts = adapter_companions(origin, adapter, ADAPTER_FILE)
    check_room(out, sum(entry.size for entry in entries) + 2**16, "Free some space, or choose another --out.")
    with beside(out) as folder:
        for _ in write_gguf(
            folder / ADAPTER_FILE,
            _described(origin, adapter, alpha),
            entries,
            lambda entry: iter([tensors[entry.name]]),
        ):
            pass
        for name, text in texts.items():
            write_atomic(folder / name, text)
        size = (folder / ADAPTER_FILE).stat().st_size
    return ExportedAdapter(ADAPTER_FILE, size, len(updates), alpha, origin)


def _tensors(updates: dict[str, LowRank], config: LlamaConfig, alpha: float) -> Iterator[tuple[str, Tensor]]:
    """Every A and B by its GGUF name, B's rows in GGUF's order."""
    for path, update in updates.items():
        name = gguf_name(f"{path}.weight")
        b = update.b.double() * (update.scale * len(update.a) / alpha)
        if heads := paired_heads(name, config.heads, config.kv_heads):
            b = b[torch.tensor(stored_rows(len(b), heads))]
        yield f"{name}.lora_a", update.a.float().contiguous()
        yield f"{name}.lora_b", b.float().contiguous()


def _described(origin: Provenance, adapter: Path, alpha: float) -> gguf.GGUFWriter:
    import gguf

    writer = gguf.GGUFWriter(None, "llama")
    add_fields(writer, {
        "general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": float(alpha), "general.file_type": 0,
        **general_fields(origin, adapter),
    })  # fmt: skip
    return writer
