"""Load a model by name: read, quantise and place one weight after another, then attach the adapter.

Peak host memory is the quantised model plus one dense matrix, because nothing is read before it is wanted and each
projection is quantised as soon as it is read. A big model is quantised once (`kept_bases`); so opened, or from a folder that
bitsandbytes quantised, its projections are mapped, and what no product has touched takes no memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.hub import ModelFiles, find_model
from stilnovo.io import gguf_file
from stilnovo.model import kept_bases, lora
from stilnovo.model.base_file import BaseLayout
from stilnovo.model.kept_bases import KeptBases
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FrozenLinear, quantized_linear
from stilnovo.model.weights import GGUFReader, SafetensorsReader, WeightReader
from stilnovo.progress import Progress
from stilnovo.recipe_sections import Scheme
from stilnovo.spec import ModelSpec
from stilnovo.text import tokenizer as tokenizers
from stilnovo.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

TABLE_BYTES = 2**28  # an embedding or head that would be larger in the model's type stays in its stored one on a CPU


def choose_device(device: str = "auto") -> torch.device:
    """Resolve a device: `auto` is the first CUDA device, else the CPU.

    Raises:
        InputError: when it is no such name, or a card is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise InputError(f"There is no device {device!r}.", next="Choose auto, cpu, cuda or cuda:N.")
    chosen = torch.device(device)
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen.type == "cuda" and (chosen.index or 0) >= cards:
        raise InputError(
            "No CUDA card can be used." if not cards else f"There is no card {device}.",
            f"torch finds {cards} of them.",
            "Use --device cpu." if not cards else f"Use --device cuda:0 … cuda:{cards - 1}.",
        )
    return chosen


def compute_dtype(device: torch.device) -> torch.dtype:
    """Choose the dtype: fp32 on CPU (16-bit products are slow there), bf16 on GPUs that have it, else fp16."""
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def frozen_projection(
    reader: WeightReader, name: str, shape: tuple[int, ...], scheme: Scheme, device: torch.device, dtype: torch.dtype
) -> FrozenLinear:
    """Read one projection and keep it as the scheme says; one that is stored under the scheme is taken as it is.

    On a CPU it is quantised from its stored type, whatever the model computes in; on a card from the type of the products.
    """
    if isinstance(reader, SafetensorsReader) and (stored := reader.four_bit(name, shape, scheme)) is not None:
        return stored.to(device)
    weight = reader.tensor(name, shape).to(device)
    if scheme == "none" or device.type != "cpu":
        weight = weight.to(dtype)
    return quantized_linear(weight, scheme)


def build(reader: WeightReader, scheme: Scheme, device: torch.device, dtype: torch.dtype, name: str = "model") -> Llama:
    """Build a model from a checkpoint: its projections from the kept base, or quantised as each is read.

    Embedding and head stay in their stored type on a CPU where that is narrower and they are large (`TABLE_BYTES`); those that a
    GGUF file quantises are kept in 16 bits.
    `name` is what the user calls the model.
    """
    shapes = {key: shape for key, shape in reader.config.weight_shapes().items() if key.endswith("_proj.weight")}

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        if name in shapes:
            return torch.empty(shape, device="meta")
        large = device.type == "cpu" and len(shape) == 2 and math.prod(shape) * dtype.itemsize > TABLE_BYTES
        if isinstance(reader, GGUFReader):
            stored = reader.tensor(name, shape, reader.stored_dtype(name) if large else dtype)
        else:
            stored = reader.tensor(name, shape)
        narrow = large and stored.dtype.itemsize < dtype.itemsize
        return stored if narrow else stored.to(device=device, dtype=dtype)

    model = Llama(reader.config, tensor)
    for weight, projection in _projections(reader, scheme, device, dtype, shapes, name):
        lora.replace_projection(model, weight.removesuffix(".weight"), projection)
    return model.to(device).requires_grad_(False).eval()


def _projections(
    reader: WeightReader, scheme: Scheme, device: torch.device, dtype: torch.dtype,
    shapes: dict[str, tuple[int, ...]], name: str,
) -> Iterator[tuple[str, FrozenLinear]]:  # fmt: skip
    """Every projection by the name of its weight: as stored, of the kept base, or quantised as it is read."""

    def quantize() -> Iterator[tuple[str, FrozenLinear]]:
        with Progress("open the model", len(shapes)) as progress:
            for done, (weight, shape) in enumerate(shapes.items()):
                progress.update(done, f"matrix {done + 1} of {len(shapes)}")  # before the work: nothing of a quick one
                yield weight, frozen_projection(reader, weight, shape, scheme, device, dtype)
                # glibc keeps freed blocks under 32 MiB for later; over a whole model they would be more than it takes.
                with contextlib.suppress(AttributeError, TypeError, OSError):  # other C libraries have no such call
                    ctypes.CDLL(None).malloc_trim(0)

    stored = reader.four_bit_kind() if isinstance(reader, SafetensorsReader) else None
    if stored is not None and not stored.taken_as(scheme) and scheme != "none":
        log.warning("%s is stored in %s; it is quantised a second time, to %s.", name, stored, scheme)
    folder = kept_bases.bases_folder()
    as_stored = stored is not None and stored.taken_as(scheme)
    if folder is None or as_stored or not kept_bases.worth_keeping(scheme, shapes):
        yield from quantize()
        return
    made_on = "cpu" if device.type == "cpu" else f"{device.type} {str(dtype).removeprefix('torch.')}"
    layout = BaseLayout(scheme, made_on, shapes)
    kept = KeptBases(folder).projections(name, reader.files, layout, quantize)
    while kept:
        weight = next(iter(kept))
        yield weight, kept.pop(weight).to(device)  # one after another: a card's copy is made of one at a time


def open_checkpoint(files: ModelFiles) -> tuple[WeightReader, Tokenizer]:
    """Open a checkpoint's weights (lazily) and its tokenizer.

    Raises:
        InputError: when one of them cannot be read, is not supported, or does not go with the other.
    """
    reader = _reader(files)
    if isinstance(reader, GGUFReader):
        tokenizer = tokenizers.from_gguf(reader.fields)
    else:
        tokenizer = tokenizers.from_folder(files.path)
    tokenizer.check_vocabulary(reader.config.vocab_size)
    return reader, tokenizer


def _reader(files: ModelFiles) -> WeightReader:
    reader = GGUFReader(files.path) if files.kind == "gguf" else SafetensorsReader(files.path)
    reader.check()
    return reader


class ModelCheckpoint:
    """A model's files with its adapter, opened and checked: everything but the weights, which `load` reads.

    Attributes:
        spec: What was named.
        reader: The weights, by name; none is read yet.
        config: The model's shape.
        tokenizer: Its tokenizer.

    Raises:
        InputError: for everything that can be known to be wrong before a weight is read.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec, self._device = spec, choose_device(spec.device)
        if spec.adapter is not None:
            lora.check_files(spec.adapter)  # before the model, which may have to be fetched
        self.reader, self.tokenizer = open_checkpoint(find_model(spec.model))
        self.config = self.reader.config
        if spec.adapter is not None:
            lora.stored(spec.adapter, self.config, weights=False)

    def load(self, dtype: torch.dtype | None = None) -> Llama:
        """Read the weights, quantize one after another, and attach the adapter; once, then the files are let go."""
        model = _placed(self.reader, self.spec, self._device, dtype)
        del self.reader
        return model


def open_model(model: ModelSpec | ModelCheckpoint, *, dtype: torch.dtype | None = None) -> tuple[Llama, Tokenizer]:
    """Load a model and its tokenizer: weights are quantized one after another, then the adapter is attached.

    Raises:
        InputError: when it cannot be found, read or is not a supported Llama.
    """
    checkpoint = ModelCheckpoint(model) if isinstance(model, ModelSpec) else model
    llama, tokenizer = checkpoint.load(dtype), checkpoint.tokenizer
    del model, checkpoint
    gguf_file.forget()
    gc.collect()  # the file's pages and metadata go before training starts
    return llama, tokenizer


def open_llama(spec: ModelSpec, *, dtype: torch.dtype | None = None) -> Llama:
    """Load a model as `open_model` does, without its tokenizer."""
    place = choose_device(spec.device)
    reader = _reader(find_model(spec.model))
    if spec.adapter is not None:
        lora.stored(spec.adapter, reader.config, weights=False)  # a wrong one is told before gigabytes are read
    model = _placed(reader, spec, place, dtype)
    del reader
    gguf_file.forget()
    gc.collect()  # as there
    return model


def _placed(reader: WeightReader, spec: ModelSpec, place: torch.device, dtype: torch.dtype | None) -> Llama:
    model = build(reader, spec.quantization, place, dtype or compute_dtype(place), spec.model)
    if spec.adapter is not None:
        lora.load(model, spec.adapter)
    return model
