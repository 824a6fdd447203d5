"""Export a model with its adapter merged in as a GGUF file, for llama.cpp, Ollama and LM Studio.

The architecture is `llama` for every model that opens here: the same equations. Its query and key rows are written in the order
of `stilnovo.io.gguf_names`, one head at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.export.gguf_types import TYPES, WEIGHED, GGUFEntry, checked_type, model_entries
from stilnovo.export.gguf_vocabulary import add_vocabulary
from stilnovo.export.gguf_writer import write_gguf
from stilnovo.export.importance import PIECE_TOKENS, Importance, importance_of
from stilnovo.export.modelfile import gguf_companions
from stilnovo.export.opened import Opened, beside, check_out, open_source
from stilnovo.io.gguf_names import ROPE_FREQS, gguf_name, paired_heads, stored_rows
from stilnovo.model.rotary import RotaryTable
from stilnovo.modelcard.provenance import Provenance
from stilnovo.plan.shape import LlamaConfig
from stilnovo.progress import Progress, bytes_text
from stilnovo.runlog import check_room, write_atomic
from stilnovo.spec import ModelSpec

if TYPE_CHECKING:
    import gguf

_FLOATS = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
_METADATA = 64  # bytes of metadata for each token of the vocabulary, merges included: more than any known file has


@dataclass(frozen=True)
class ExportedGGUF:
    """Result of an export to GGUF.

    Attributes:
        file: The GGUF file's name.
        size: Its bytes.
        entries: Its tensors, in order.
        merged: How many of them had an adapter.
        arrived: See `stilnovo.export.opened.MergedWeights`; None for types with blocks.
        importance_tokens: How many tokens were read to weigh columns; 0: they are weighed alike.
        memory: Bytes as predicted and as measured; see `stilnovo.model.budget.Admitted`.
        origin: Where it comes from, and under which terms.
    """

    file: str
    size: int
    entries: tuple[GGUFEntry, ...]
    merged: int
    arrived: float | None
    importance_tokens: int
    memory: dict[str, int]
    origin: Provenance

    def kinds(self) -> dict[str, int]:
        """How many tensors have which type."""
        return Counter(entry.kind for entry in self.entries)

    def fallen_back(self) -> dict[tuple[str, str], int]:
        """How many tensors have another type than their file's mix says, by both types: their rows do not hold its blocks."""
        return Counter((entry.wanted, entry.kind) for entry in self.entries if entry.wanted != entry.kind)


def export_gguf(
    spec: ModelSpec, out: Path, *, type_name: str = "q4_k_m", importance_text: str | Path | None = None
) -> ExportedGGUF:
    """Merge the adapter into the model and write it as a GGUF file in the folder `out`, which appears only when complete.

    Args:
        spec: The model, its adapter if any, and how the base was kept while the adapter learnt.
        out: A folder that does not exist, or is empty.
        type_name: One of `TYPES`.
        importance_text: A text by whose reading the quantiser weighs the columns of a matrix; see `stilnovo.export.importance`.

    Raises:
        InputError: when model or adapter cannot be read or do not fit together, or `out` holds something.
        StilnovoError: when the disk has no room for it.
    """
    type_name = checked_type(type_name)
    out = out.expanduser().resolve()
    check_out(out)
    if importance_text is not None and type_name not in WEIGHED:
        raise InputError(
            f"--importance-text changes nothing in a file of type {type_name}.",
            next=f"Leave it out, or choose a --type: {', '.join(WEIGHED)}.",
        )
    weighed = None if importance_text is None else importance_of(spec, importance_text)
    opened = open_source(spec, _FLOATS.get(type_name))
    writer = _described(opened, type_name)
    if weighed is not None:
        add_importance(writer, weighed, str(importance_text))
    names = model_entries(opened.config, type_name)
    rotary = _rotary_entries(opened.config)
    entries = (*rotary, *names.values())
    file = f"model-{type_name.upper()}.gguf"
    texts = gguf_companions(opened, file, type_name)
    size = sum(entry.size for entry in entries)
    check_room(
        out, size + _METADATA * opened.config.vocab_size + sum(map(len, texts.values())),
        "Free some space, choose another --out, or a smaller --type.",
    )  # fmt: skip
    columns = {gguf_name(name): found for name, found in (weighed.columns if weighed else {}).items()}
    source = _Rows(opened, {entry.name: name for name, entry in names.items()})
    written = 0
    with beside(out) as folder, Progress("export", size) as progress:
        for count in write_gguf(folder / file, writer, entries, source, columns):
            written += count
            progress.update(written, f"{bytes_text(written)} of {bytes_text(size)}")
        for name, text in texts.items():
            write_atomic(folder / name, text)
        size = (folder / file).stat().st_size
    weights = opened.weights
    memory = opened.admitted.figures()
    if weighed is not None:
        memory = {key: max(value, weighed.memory[key]) for key, value in memory.items()}
    tokens = 0 if weighed is None else weighed.tokens
    return ExportedGGUF(file, size, entries, len(weights.adapted), weights.arrived, tokens, memory, opened.origin)


class _Rows:
    """Rows of the tensors as GGUF stores them.

    Args:
        opened: The model.
        names: Hugging Face names of its weights by their GGUF names.
    """

    def __init__(self, opened: Opened, names: dict[str, str]) -> None:
        self._opened, self._names = opened, names

    def __call__(self, entry: GGUFEntry) -> Iterator[Tensor]:
        """A tensor's rows in order, in parts."""
        config = self._opened.config
        if entry.name == ROPE_FREQS:
            yield rope_divisors(config)
            return
        name = self._names[entry.name]
        parts = self._opened.weights.parts(name, entry.shape)
        heads = paired_heads(name, config.heads, config.kv_heads)
        if heads is None:
            yield from parts
            return
        order = torch.tensor(stored_rows(config.head_dim, 1))
        for part in _in_blocks(parts, config.head_dim):
            yield part.view(-1, config.head_dim, *part.shape[1:])[:, order].flatten(0, 1)


def _in_blocks(parts: Iterator[Tensor], rows: int) -> Iterator[Tensor]:
    """The same rows in parts whose lengths are multiples of `rows`."""
    held: list[Tensor] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if whole := count - count % rows:
            joined = torch.cat(held)
            yield joined[:whole]
            held, count = [joined[whole:]], count - whole
    assert count == 0, f"{count} rows are left"


def _rotary_entries(config: LlamaConfig) -> tuple[GGUFEntry, ...]:
    """The table of rotary divisors, where a model's frequencies are not those of its base."""
    if config.rope_scaling is None and config.rope_factors is None:
        return ()
    return (GGUFEntry(ROPE_FREQS, (config.head_dim // 2,), "F32", "F32"),)


def rope_divisors(config: LlamaConfig) -> Tensor:
    """What each rotary frequency is divided by (head_dim / 2)."""
    if config.rope_factors is not None and config.rope_scaling is None:
        return torch.tensor(config.rope_factors)
    plain = RotaryTable(replace(config, rope_scaling=None, rope_factors=None)).frequencies
    return plain / RotaryTable(config).frequencies


def add_importance(writer: gguf.GGUFWriter, weighed: Importance, text: str) -> None:
    """Say by which text the columns were weighed, under llama.cpp's keys."""
    writer.add_string("quantize.imatrix.dataset", Path(text).name)
    writer.add_uint32("quantize.imatrix.entries_count", len(weighed.columns))
    writer.add_uint32("quantize.imatrix.chunks_count", -(-weighed.tokens // PIECE_TOKENS))


def _described(opened: Opened, type_name: str) -> gguf.GGUFWriter:
    """The metadata: the architecture, the file's type, the vocabulary."""
    import gguf

    config = opened.config
    writer = gguf.GGUFWriter(None, "llama")
    writer.add_type("model")
    writer.add_block_count(config.layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if config.attention_factor != 1:  # YaRN's; its frequencies are among the divisors, so no scaling type is named
        writer.add_rope_scaling_attn_factors(config.attention_factor)
    writer.add_layer_norm_rms_eps(config.rms_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(TYPES[type_name].number)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_vocabulary(writer, opened)
    return writer
