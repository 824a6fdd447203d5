"""What is exported, whatever the format: a model's files, and its weights with the adapter merged into them, by name.

Unusual: no model is ever built. Each weight is read, merged and handed on before the next one, some rows at a time; what is held
is the adapter and, of a quantised base, one dense matrix, whatever the model.

Which W: an adapter learnt beside the base as that was kept in its training (NF4, say), and makes up for its rounding too.
So each projection, with an adapter or not, is first rounded under that scheme and taken back, from the stored weight in
fp32; then s · B·A is added in fp32, and the sum is rounded once, to the type that is written. Embedding, norms and head are
no part of any scheme. What is written computes what the base under that scheme computes with its adapter on.

An update far smaller than the weight it is added to may be lost in a 16-bit type; how much of it
arrives is measured on the way.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.hub import ModelFiles, find_model
from stilnovo.model import lora
from stilnovo.model.budget import Admitted, admit, use_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import ModelCheckpoint, frozen_projection
from stilnovo.model.lora_linear import LoraLinear
from stilnovo.model.memory import give_back
from stilnovo.model.weights import WeightReader, row_blocks
from stilnovo.modelcard.provenance import Provenance, provenance
from stilnovo.plan.shape import PROJECTIONS, LlamaConfig
from stilnovo.recipe_sections import Scheme
from stilnovo.runlog import check_writable, disk_errors
from stilnovo.spec import ModelSpec
from stilnovo.text.tokenizer import Tokenizer

ExportShape = tuple[int, ...]


@dataclass(frozen=True)
class Opened:
    """A model that is exported.

    Attributes:
        spec: What was named.
        files: The base's files.
        reader: The base's weights.
        tokenizer: Its tokenizer.
        shapes: Shapes of all weights by their Hugging Face names, in order.
        weights: The weights with the adapter merged into them.
        admitted: What it needs of memory, and what it takes.
    """

    spec: ModelSpec
    files: ModelFiles
    reader: WeightReader
    tokenizer: Tokenizer
    shapes: dict[str, ExportShape]
    weights: MergedWeights
    admitted: Admitted

    @property
    def config(self) -> LlamaConfig:
        """The model's shape."""
        return self.reader.config

    @cached_property
    def origin(self) -> Provenance:
        """Where it comes from: its base, what was learnt, and the terms of both."""
        return provenance(self.spec.model, self.spec.adapter)


def open_source(spec: ModelSpec, dtype: torch.dtype | None) -> Opened:
    """Open a model for export: everything but its weights is read.

    Args:
        spec: The model, its adapter if any, and how the base was kept while the adapter learnt.
        dtype: The type that will be written, None where it is no type of torch's.

    Raises:
        InputError: when model or adapter cannot be read or do not fit together.
    """
    checkpoint = ModelCheckpoint(replace(spec, device="cpu"))
    admitted = admit(
        use_of("export", checkpoint.spec, checkpoint.config, torch.device("cpu"), tokens=1), checkpoint.spec
    )
    reader = checkpoint.reader
    shell, shapes = shell_of(reader.config)
    if spec.adapter is not None:
        lora.load(shell, spec.adapter)
    weights = MergedWeights(reader, shell, spec.quantization, dtype)
    return Opened(spec, find_model(spec.model), reader, checkpoint.tokenizer, shapes, weights, admitted)


class MergedWeights:
    """The weights to be written, by name.

    Args:
        reader: The base's.
        shell: The model's shape with the adapter on it.
        scheme: How the base was kept in training.
        dtype: What will be written, only for `arrived`; None: that is not measured.
    """

    def __init__(self, reader: WeightReader, shell: Llama, scheme: Scheme, dtype: torch.dtype | None) -> None:
        self.reader, self.scheme, self.dtype = reader, scheme, dtype
        self.adapted = lora.adapters(shell)
        self._along, self._update = 0.0, 0.0  # numerator and denominator of `arrived`

    @property
    def arrived(self) -> float | None:
        """⟨R(W + ΔW) − R(W), ΔW⟩ / ⟨ΔW, ΔW⟩ over all merged weights so far, R being the rounding to the written type: 1 where the
        whole update arrives, less where some was too small to change a weight. None without an update."""
        return self._along / self._update if self._update else None

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

    def _merged(self, dense: Tensor, module: LoraLinear, rows: slice) -> Tensor:
        """Merge the adapter into some rows of the base's weight, and measure what arrives."""
        b, a = module.lora_B.detach()[rows].float(), module.lora_A.detach().float()
        merged = torch.addmm(dense, b, a, alpha=module.scale)
        if self.dtype is not None:
            update = merged - dense
            self._update += float(update.square().sum())
            moved = merged.to(self.dtype).float() - dense.to(self.dtype).float()
            self._along += float(moved.mul_(update).sum())
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


def shell_of(config: LlamaConfig) -> tuple[Llama, dict[str, ExportShape]]:
    """A model of this shape without storage, on which to load an adapter, and its weights' shapes by name, in order."""
    shapes: dict[str, ExportShape] = {}

    def tensor(name: str, shape: ExportShape) -> Tensor:
        shapes[name] = shape
        return torch.zeros(1).expand(shape)  # one number seen from everywhere

    return Llama(config, tensor).requires_grad_(False), shapes


def check_out(out: Path) -> None:
    """Check that a folder is new or empty, and can be made.

    Raises:
        InputError: when it cannot.
    """
    if out.is_dir():
        if held := sorted(path.name for path in out.iterdir()):
            raise InputError(f"{out} is not empty.", f"It holds {', '.join(held[:3])}.", "Choose another --out.")
    elif out.exists():
        raise InputError(f"{out} is a file.", next="Choose a folder with --out.")
    check_writable(out)


@contextlib.contextmanager
def beside(out: Path) -> Iterator[Path]:
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
