"""From a name to a model that can run: read, quantise and place each weight in turn, then attach the adapter.

Peak host memory is the quantised model plus one dense matrix, because nothing is read before it is wanted and each
projection is quantised as soon as it is read.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.hub import find_model
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FrozenLinear, Scheme, quantized_linear
from stilnovo.model.weights import GGUFReader, SafetensorsReader, WeightReader
from stilnovo.text import tokenizer as tokenizers
from stilnovo.text.tokenizer import Tokenizer


def choose_device(device: str = "auto") -> torch.device:
    """`auto` is the first CUDA card, else the CPU.

    Raises:
        InputError: when a card is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("No CUDA card can be used.", "torch.cuda.is_available() is False.", "Use --device cpu.")
    return torch.device(device)


def compute_dtype(device: torch.device) -> torch.dtype:
    """fp32 on CPU (16-bit products are slow there), bf16 on cards that have it, else fp16."""
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def build(reader: WeightReader, scheme: Scheme, device: torch.device, dtype: torch.dtype) -> Llama:
    """A model from a checkpoint's reader, each weight placed and quantised as it is read."""

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        return reader.tensor(name, shape).to(device=device, dtype=dtype)

    def linear(weight: Tensor) -> FrozenLinear:
        return quantized_linear(weight, scheme)

    model = Llama(reader.config, tensor, linear).to(device)
    model.requires_grad_(False)
    return model.eval()


def open_model(
    name: str,
    *,
    quantization: Scheme = "nf4",
    adapter: Path | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
) -> tuple[Llama, Tokenizer]:
    """A model and its tokeniser by name; see `stilnovo.hub.find_model` for the names.

    Raises:
        InputError: when it cannot be found, read or is not a supported Llama.
    """
    place = choose_device(device)
    files = find_model(name)
    reader: GGUFReader | SafetensorsReader
    if files.kind == "gguf":
        reader = GGUFReader(files.path)
        tokenizer = tokenizers.from_gguf(reader.fields)
    else:
        reader = SafetensorsReader(files.path)
        tokenizer = tokenizers.from_folder(files.path)
    model = build(reader, quantization, place, dtype or compute_dtype(place))
    del reader
    gc.collect()  # the file's pages and metadata go before training starts
    if adapter is not None:
        lora.load(model, adapter)
    return model, tokenizer
