"""Load a model by name: read, quantise and place one weight after another, then attach the adapter.

Peak host memory is the quantised model plus one dense matrix, because nothing is read before it is wanted and each
projection is quantised as soon as it is read. A big model is quantised once (`kept_bases`); so opened, or from a folder that
bitsandbytes quantised, its projections are mapped, and what no product has touched takes no memory.
"""

from __future__ import annotations

import gc
import logging
import math
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.hub import ModelFiles, find_model
from stilnovo.io import gguf_file
from stilnovo.model import card, kept_bases, kernels, lora
from stilnovo.model.base_file import BaseLayout
from stilnovo.model.kept_bases import KeptBases
from stilnovo.model.llama import Llama
from stilnovo.model.memory import give_back
from stilnovo.model.processor import cpu_products
from stilnovo.model.quantize import DenseLinear, FrozenLinear, quantized_linear
from stilnovo.model.weights import GGUFReader, SafetensorsReader, WeightReader
from stilnovo.progress import Progress
from stilnovo.recipe_sections import Scheme
from stilnovo.spec import ModelSpec
from stilnovo.text import tokenizer as tokenizers
from stilnovo.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
#: Whether a weight of that name stays in host memory.
OnHost = Callable[[str], bool]

TABLE_BYTES = 2**28  # an embedding or head that would be larger in the model's type stays in its stored one on a CPU


def choose_device(device: str = "auto") -> torch.device:
    """Resolve a device: `auto` is the first CUDA device, else the CPU.

    Raises:
        InputError: when it is no such name, or a card is asked for and there is none.
    """
    if device == "auto":
        return _prepared(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
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
    return _prepared(chosen)


def _prepared(device: torch.device) -> torch.device:
    if device.type == "cuda":
        card.prepare()
    return device


def compute_dtype(device: torch.device) -> torch.dtype:
    """Choose the dtype: fp32 on CPU (every processor computes the same there), bf16 on GPUs that have it, else fp16."""
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def step_dtype(device: torch.device) -> torch.dtype:
    """Choose the type of a training step: bf16 where a processor multiplies in it (`cpu_products`), else the model's.

    Adapter, optimizer and losses are in fp32 all the same, and the model itself keeps `compute_dtype`: who evaluates it during the
    training computes in that, as on every processor.
    """
    on_cpu = device.type == "cpu"
    return torch.bfloat16 if on_cpu and cpu_products() == "bf16" else compute_dtype(device)


def frozen_projection(
    reader: WeightReader, name: str, shape: tuple[int, ...], scheme: Scheme, device: torch.device, dtype: torch.dtype,
    place: torch.device | None = None,
) -> FrozenLinear:  # fmt: skip
    """Read one projection and keep it as the scheme says, in `place` (None: on the device); one stored so is taken as it is.

    On a CPU it is quantised from its stored type, whatever the model computes in; on a card from the type of the products, which
    it has before it goes there.
    """
    if isinstance(reader, SafetensorsReader) and (stored := reader.four_bit(name, shape, scheme)) is not None:
        return stored.to(place or device)
    weight = reader.tensor(name, shape)
    if scheme == "none" or device.type != "cpu":
        weight = weight.to(dtype)
    # only to be quantised does a weight go to a card where it does not stay
    return quantized_linear(weight.to(device if scheme != "none" else place or device), scheme).to(place or device)


def build(
    reader: WeightReader, scheme: Scheme, device: torch.device, dtype: torch.dtype, name: str = "model",
    on_host: OnHost | None = None,
) -> Llama:  # fmt: skip
    """Build a model from a checkpoint: its projections from the kept base, or quantised as each is read.

    Embedding and head stay in their stored type on a CPU where that is narrower and they are large (`TABLE_BYTES`); those that a
    GGUF file quantises are kept in 16 bits.

    Args:
        name: What the user calls the model.
        on_host: Which weights, by name, stay in host memory: a card need not have room for them even while they are read.
    """
    source = _Weights(reader, scheme, device, dtype, on_host)
    kept = source.kept(name)

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        if name in source.projections:
            return torch.empty(shape, device="meta")
        return kept.pop(name).weight if name in kept else source.table(name, shape)  # type: ignore[return-value]

    model = Llama(reader.config, tensor)
    model.rotary.to(device)
    for weight, projection in source.taken(kept) if kept else source.quantized():
        # one after another: a card has one of them at a time beside those that stay there; a kept one is in host memory
        lora.replace_projection(model, weight.removesuffix(".weight"), projection.to(source.place(weight)))
    return model.requires_grad_(False).eval()


class _Weights:
    """A checkpoint's weights as a model on this device wants them.

    Attributes:
        projections: (out, in) of each projection by the name of its weight.
        narrow: Types of the tables that are kept narrower than the model computes in, and must be made for that.
    """

    def __init__(
        self, reader: WeightReader, scheme: Scheme, device: torch.device, dtype: torch.dtype, on_host: OnHost | None
    ) -> None:
        self.reader, self.scheme, self.device, self.dtype, self._on_host = reader, scheme, device, dtype, on_host
        shapes = reader.config.weight_shapes()
        self.projections = {key: shape for key, shape in shapes.items() if key.endswith("_proj.weight")}
        self.tables = {
            key: shape for key, shape in shapes.items()
            if key not in self.projections and len(shape) == 2 and math.prod(shape) * dtype.itemsize > TABLE_BYTES
        }  # fmt: skip
        types = dict[str, torch.dtype]()
        if isinstance(reader, GGUFReader) and device.type == "cpu":
            types = {key: reader.stored_dtype(key) for key in self.tables}
        self.narrow = {key: kind for key, kind in types.items() if kind.itemsize < dtype.itemsize}

    def place(self, name: str) -> torch.device:
        """Where a weight is kept."""
        return torch.device("cpu") if self._on_host is not None and self._on_host(name) else self.device

    def table(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """An embedding, head or norm; large tables stay in a narrower stored type on a CPU."""
        if isinstance(self.reader, GGUFReader):
            return self.reader.tensor(name, shape, self.narrow.get(name, self.dtype)).to(self.place(name))
        stored = self.reader.tensor(name, shape)
        narrow = name in self.tables and self.device.type == "cpu" and stored.dtype.itemsize < self.dtype.itemsize
        return stored if narrow else stored.to(device=self.place(name), dtype=self.dtype)

    def quantized(self) -> Iterator[tuple[str, FrozenLinear]]:
        """Every projection by the name of its weight, read and quantised one after another."""
        with Progress("open the model", len(self.projections)) as progress:
            for done, (weight, shape) in enumerate(self.projections.items()):
                # before the work: nothing is said of a quick one
                progress.update(done, f"matrix {done + 1} of {len(self.projections)}")
                place = self.place(weight)
                yield weight, frozen_projection(self.reader, weight, shape, self.scheme, self.device, self.dtype, place)
                give_back()

    def kept(self, model: str) -> dict[str, FrozenLinear]:
        """Projections, and tables that had to be made, of the kept base; empty where none is kept of such a model."""
        kind = self.reader.four_bit_kind() if isinstance(self.reader, SafetensorsReader) else None
        as_stored = kind is not None and kind.taken_as(self.scheme)
        if kind is not None and not as_stored and self.scheme != "none":
            log.warning("%s is stored in %s; it is quantised a second time, to %s.", model, kind, self.scheme)
        folder = kept_bases.bases_folder()
        if folder is None or as_stored or not kept_bases.worth_keeping(self.scheme, self.projections):
            return {}
        on_card = f"{self.device.type} {str(self.dtype).removeprefix('torch.')}"
        shapes = {**self.projections, **{name: self.tables[name] for name in self.narrow}}
        layout = BaseLayout(self.scheme, "cpu" if self.device.type == "cpu" else on_card, shapes, self.narrow)
        return KeptBases(folder).opened(model, self.reader.files, layout, self._to_keep)

    def _to_keep(self) -> Iterator[tuple[str, FrozenLinear]]:
        for name in self.narrow:
            yield name, DenseLinear(self.table(name, self.tables[name]))
        yield from self.quantized()

    def taken(self, kept: dict[str, FrozenLinear]) -> Iterator[tuple[str, FrozenLinear]]:
        """What is kept, out of its dictionary, one after another."""
        while kept:
            name = next(iter(kept))
            yield name, kept.pop(name)


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


def open_llama(spec: ModelSpec, *, dtype: torch.dtype | None = None, on_host: OnHost | None = None) -> Llama:
    """Load a model as `open_model` does, without its tokenizer; `on_host` as in `build`."""
    place = choose_device(spec.device)
    reader = _reader(find_model(spec.model))
    if spec.adapter is not None:
        lora.stored(spec.adapter, reader.config, weights=False)  # a wrong one is told before gigabytes are read
    model = _placed(reader, spec, place, dtype, on_host)
    del reader
    gguf_file.forget()
    gc.collect()  # as there
    return model


def _placed(
    reader: WeightReader, spec: ModelSpec, place: torch.device, dtype: torch.dtype | None, on_host: OnHost | None = None
) -> Llama:
    kernels.wanted(
        place
    )  # the first use of a card tries them, in a process that needs room there: before anything lies on it
    model = build(reader, spec.quantization, place, dtype or compute_dtype(place), spec.model, on_host)
    if spec.adapter is not None:
        lora.load(model, spec.adapter)
    return model
