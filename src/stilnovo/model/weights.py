"""Read weights from disk, one tensor at a time: safetensors (single, sharded, bitsandbytes 4-bit) and GGUF.

Unusual: nothing is loaded ahead. A reader gives a tensor when it is asked for by its Hugging Face name, so that building
a quantised model holds one dense matrix at most, and of a GGUF file some dequantised rows beside it. GGUF stores Llama's
query and key rows in another order (pairs of rotary dimensions side by side); the reader undoes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stilnovo.errors import InputError, reported
from stilnovo.hub import base_reference
from stilnovo.io.gguf_names import ROPE_FREQS, gguf_name, paired_heads, stored_rows
from stilnovo.model.mapped_file import header_of, mapped_tensor
from stilnovo.plan.account import ROWS_PART
from stilnovo.plan.model_shape import config_from_gguf, read_gguf
from stilnovo.plan.shape import LlamaConfig, config_from_json, read_json
from stilnovo.recipe_sections import Scheme

if TYPE_CHECKING:
    from stilnovo.model.quantize import FourBitKind, FrozenLinear

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def _damage(
    path: Path, errors: type[Exception] | tuple[type[Exception], ...] = Exception
) -> AbstractContextManager[None]:
    """Context manager that reports damage while a weight file is read."""
    return reported(
        f"The weight file {path.name} cannot be read.", f"It may be truncated: fetch {path} again.", errors=errors
    )


def _check_shape(found: tuple[int, ...], name: str, shape: tuple[int, ...], path: Path) -> None:
    if found != shape:
        raise InputError(
            f"{name} has an unexpected shape.", f"{found} instead of {shape} in {path}.",
            "The weights and what describes the model do not belong together: fetch both again.",
        )  # fmt: skip


def _checked(tensor: Tensor, name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    _check_shape(tuple(tensor.shape), name, shape, path)
    return tensor


def _check_names(left: list[str], missing: str | None, path: Path) -> None:
    if left:
        told = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
        raise InputError(
            f"The checkpoint holds {len(left)} tensors that this architecture does not read.", f"{told} in {path}.",
            "The model computes something else than its config.json says; give the model as its makers publish it.",
        )  # fmt: skip
    if missing is not None:
        raise InputError(f"The checkpoint has no tensor {missing}.", f"Folder: {path}", "Is it a whole model?")


def _full_names(stored: Iterable[str], config: LlamaConfig, folder: Path) -> dict[str, str]:
    """Stored names by the full ones: of a model that was saved without its head `layers.0.…` is `model.layers.0.…`.

    Raises:
        InputError: when a weight is there under both names.
    """
    full: dict[str, str] = {}
    for called in stored:
        name = called if not re.match(r"(embed_tokens|layers|norm|rotary_emb)\.", called) else f"model.{called}"
        if name in full:
            raise InputError(
                f"The checkpoint holds {name} twice.", f"As {full[name]} and as {called} in {folder}.",
                "Leave one copy of the weights in the folder.",
            )  # fmt: skip
        full[name] = called
    if config.tie_embeddings and "model.embed_tokens.weight" not in full and "lm_head.weight" in full:
        full["model.embed_tokens.weight"] = full.pop("lm_head.weight")  # one of two tied ones is enough
    return full


def _no_weights(folder: Path) -> InputError:
    """What a folder without `model.safetensors` holds instead, and what to do with it."""
    held = sorted(path.name for path in folder.iterdir())
    if pickled := [name for name in held if name.endswith((".bin", ".pth", ".pt", ".ckpt"))]:
        found, next = (
            f"It holds {pickled[0]}: a pickle, which may run code of its maker's when it is opened.",
            "Convert it where you trust it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW) of transformers.",
        )
    elif ggufs := [name for name in held if name.endswith(".gguf")]:
        found, next = f"It holds {ggufs[0]}.", f"Give that file: --model {folder / ggufs[0]}"
    elif others := [name for name in held if name.endswith(".safetensors")]:
        found, next = (
            f"It holds {', '.join(others[:3])}.",
            "Weights are read from model.safetensors, or from the files that model.safetensors.index.json names: fetch it too.",
        )
    else:
        found, next = f"It holds {', '.join(held[:5]) or 'nothing'}.", "Only safetensors and GGUF weights are read."
        if (repository := base_reference(str(folder))[0]).count("/") == 1:  # of the hub only what is read was fetched
            next = f"{next} Look at what https://huggingface.co/{repository}/tree/main has; of GGUF, fetch a file and give it."
    return InputError(f"No model.safetensors in {folder}.", found, next)


def _beside(name: str) -> str:
    """The weight beside which bitsandbytes stores scales and tables: `….weight.absmax` → `….weight`."""
    return re.sub(
        r"\.weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)$", ".weight", name
    )


def row_blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """First row and the one behind the last of each block in which a weight is read, `ROWS_PART` values or a row."""
    rows = max(1, ROWS_PART // max(1, shape[-1]))
    return ((first, min(first + rows, shape[0])) for first in range(0, shape[0], rows))


class SafetensorsReader:
    """A Hugging Face folder: one `model.safetensors` or several with an index.

    Attributes:
        files: Its weight files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = config_from_json(folder / "config.json")
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            stored: dict[str, str] = read_json(index).get("weight_map", {})
            if missing := sorted(f for f in set(stored.values()) if not (folder / f).is_file()):
                raise InputError(
                    f"{len(missing)} weight files are missing in {folder}.", f"First: {missing[0]}", "Fetch them."
                )
        elif (folder / "model.safetensors").is_file():
            stored = dict.fromkeys(self._open("model.safetensors").keys(), "model.safetensors")
        else:
            raise _no_weights(folder)
        #: Names in the files by the names that are asked for.
        self._called = _full_names(stored, self.config, folder)
        self._file_of = {name: stored[called] for name, called in self._called.items()}
        self._headers = dict[str, tuple[dict[str, Any], int]]()
        self.files = [folder / name for name in sorted(set(self._file_of.values()))]

    def _open(self, name: str) -> Any:
        from safetensors import SafetensorError, safe_open

        with _damage(self.folder / name, (SafetensorError, OSError)):
            return safe_open(self.folder / name, framework="np")  # torch would map the file a second time

    def _entry(self, name: str) -> tuple[dict[str, Any], int]:
        """A tensor's entry in the header of its file, and where that file's tensors begin."""
        file = self._file_of[name]
        if file not in self._headers:
            self._headers[file] = header_of(self.folder / file)
        header, begin = self._headers[file]
        return header[self._called[name]], begin

    def _stored(self, name: str) -> Tensor:
        """Map a tensor as it is stored."""
        path = self.folder / self._file_of[name]
        with _damage(path):  # the index may name a file that does not hold it
            return mapped_tensor(path, *self._entry(name))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """One tensor by its Hugging Face name, as stored, checked against `shape`."""
        if name not in self._file_of:
            raise InputError(f"The checkpoint has no tensor {name}.", f"Folder: {self.folder}", "Is it a whole model?")
        stored = self._stored(name)
        if stored.dtype == torch.uint8 or self._state_name(name) is not None:  # saved by bitsandbytes in 4 bits
            from stilnovo.model.quantize import decode_four_bit

            with self._four_bit_damage(name):
                stored = decode_four_bit(stored.view(torch.uint8), self._four_bit_state(name))
        if stored.dtype not in FLOATS:  # other quantisations keep scales beside; without them the weights are nonsense
            raise InputError(
                f"The weights are stored as {str(stored.dtype).removeprefix('torch.')}, which is not supported.",
                f"{name} in {self.folder}.",
                "Supported: fp32, fp16, bf16 and bitsandbytes 4-bit; give the model before it was quantised.",
            )
        return _checked(stored, name, shape, self.folder)

    def check(self) -> None:
        """Check that what is stored is what the model reads, by name and shape, before any of it is read.

        Raises:
            InputError: for a tensor that is missing or of another shape, one that nobody would read, or a file that was cut
                short. Harmless are rotary tables, and a head that repeats the embedding to which it is tied.
        """
        wanted = self.config.weight_shapes()
        left = [
            name for name in self._file_of
            if name not in wanted and not name.endswith(".rotary_emb.inv_freq") and _beside(name) not in wanted
        ]  # fmt: skip
        if left == ["lm_head.weight"]:
            self._check_tied_head()
            left = []
        missing = next((name for name in wanted if name not in self._file_of), None)
        if missing == "lm_head.weight" and not left:
            raise InputError(
                "The checkpoint has no output head.",
                f"No lm_head.weight in {self.folder}, and its config.json does not tie the head to the embedding.",
                'It was saved without: give the whole model, or set "tie_word_embeddings": true where it is tied.',
            )
        _check_names(left, missing, self.folder)
        for file_name in sorted({self._file_of[name] for name in wanted}):
            file = self._open(file_name)
            for name in (name for name in wanted if self._file_of[name] == file_name):
                with _damage(self.folder / file_name):  # the index may name a file that does not hold it
                    stored = file.get_slice(self._called[name])
                if stored.get_dtype() != "U8" and self._state_name(name) is None:  # in 4 bits the shape is kept beside
                    _check_shape(tuple(stored.get_shape()), name, wanted[name], self.folder)

    def _check_tied_head(self) -> None:
        """Check that a head beside the embedding to which it is tied only repeats it.

        Raises:
            InputError: when it is another: then programs differ in which of them they read.
        """
        shape = (self.config.vocab_size, self.config.hidden_size)
        head, table = (self.tensor(name, shape) for name in ("lm_head.weight", "model.embed_tokens.weight"))
        if not torch.equal(head, table):
            raise InputError(
                "config.json ties the output head to the embedding, but the checkpoint holds another head.",
                f"lm_head.weight is not model.embed_tokens.weight in {self.folder}.",
                'Set "tie_word_embeddings": false in config.json if the head is right, or remove lm_head.weight.',
            )

    def parts(self, name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
        """The same tensor as blocks of rows in order, each mapped alone: what was used of the file takes no memory any more."""
        whole = self.tensor(name, shape)
        entry, begin = self._entry(name)
        if self._state_name(name) is not None or entry["dtype"] == "U8" or len(shape) == 1:
            yield whole
            return
        row = whole[0].nbytes
        del whole
        path, start = self.folder / self._file_of[name], entry["data_offsets"][0]
        for first, stop in row_blocks(shape):
            places = [start + first * row, start + stop * row]
            block = {"dtype": entry["dtype"], "shape": [stop - first, *shape[1:]], "data_offsets": places}
            yield mapped_tensor(path, block, begin)

    def four_bit(self, name: str, shape: tuple[int, ...], scheme: Scheme) -> FrozenLinear | None:
        """A projection that bitsandbytes saved under this scheme, taken as it is; None where it is kept otherwise.

        Packed weights and block maxima are mapped, not read. Where the maxima are in fp32, they alone are quantised
        ("double quantisation"), as everywhere here.
        """
        from stilnovo.model.quantize import FourBitKind, FourBitLinear

        if self._state_name(name) is None or scheme not in ("nf4", "fp4"):
            return None
        with self._four_bit_damage(name):
            state = self._four_bit_state(name)
            if not FourBitKind.of(state).taken_as(scheme):
                return None
            packed = self._stored(name)
            _check_shape(tuple(state.shape), name, shape, self.folder)
            return FourBitLinear.of_state(packed.view(torch.uint8), state)

    def four_bit_kind(self) -> FourBitKind | None:
        """How bitsandbytes saved the projections (the first of them that it did); None where it did not."""
        from stilnovo.model.quantize import FourBitKind

        for name in self.config.weight_shapes():
            if name in self._file_of and self._state_name(name) is not None:
                with self._four_bit_damage(name):
                    return FourBitKind.of(self._four_bit_state(name))
        return None

    def _state_name(self, name: str) -> str | None:
        """Name of the tensor in which bitsandbytes describes a 4-bit weight; None beside any other weight."""
        names = (f"{name}.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
        return next((key for key in names if key in self._file_of), None)

    def _four_bit_state(self, name: str) -> Any:
        from stilnovo.model.four_bit import bitsandbytes_functional

        parts = {key: self._stored(key) for key in self._file_of if key.startswith(f"{name}.")}
        return bitsandbytes_functional().QuantState.from_dict(parts, device=torch.device("cpu"))

    def _four_bit_damage(self, name: str) -> AbstractContextManager[None]:
        return reported(
            f"{name} is no bitsandbytes 4-bit weight.",
            f"It may be truncated: fetch {self.folder / self._file_of[name]} again.",
        )


class GGUFReader:
    """A GGUF file of a Llama; `fields` holds its metadata as plain Python values, `files` itself alone."""

    def __init__(self, path: Path) -> None:
        contents = read_gguf(path)
        self.path, self.files = path, [path]
        self.fields, self._tensors = contents.fields, contents.tensors
        self.config = config_from_gguf(contents, path)

    def check(self) -> None:
        """See `SafetensorsReader.check`; a table of rotary divisors is read with the metadata."""
        wanted = {gguf_name(name): shape for name, shape in self.config.weight_shapes().items()}
        left = [name for name in self._tensors if name not in wanted and name != ROPE_FREQS]
        _check_names(left, next((name for name in wanted if name not in self._tensors), None), self.path)
        for name, shape in wanted.items():
            _check_shape(self._tensors[name].shape, name, shape, self.path)

    def tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """One tensor by its Hugging Face name, dequantised to `dtype` some rows after others, checked against `shape`."""
        stored_name = gguf_name(name)
        if stored_name not in self._tensors:
            raise InputError(f"The GGUF file has no tensor {stored_name}.", f"In {self.path}.", "Is it a whole model?")
        entry = self._tensors[stored_name]
        _check_shape(entry.shape, name, shape, self.path)
        dense = torch.empty(shape, dtype=dtype)
        rows, places = dense.view(-1, shape[-1]), self._places(stored_name, shape)
        with _damage(self.path):
            for start, values in entry.pieces():
                here = slice(start, start + len(values))
                if places is not None and len(shape) == 1:  # a bias is one row of them
                    dense[places] = torch.from_numpy(values[0]).to(dtype)
                else:
                    rows[here if places is None else places[here]] = torch.from_numpy(values).to(dtype)
        return dense

    def parts(self, name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
        """The same tensor as blocks of rows in order, in fp32, of which one is held at a time where rows lie in their order."""
        stored_name = gguf_name(name)
        if stored_name not in self._tensors or self._places(stored_name, shape) is not None:
            yield self.tensor(name, shape)
            return
        entry = self._tensors[stored_name]
        _check_shape(entry.shape, name, shape, self.path)
        for _, values in entry.pieces():
            with _damage(self.path):
                yield torch.from_numpy(values).to(torch.float32).view(-1, *shape[1:])

    def stored_dtype(self, name: str) -> torch.dtype:
        """Type of a stored tensor; fp16 for a quantised one, whose steps are wider than fp16's."""
        kind = self._tensors[gguf_name(name)].kind
        return {"F32": torch.float32, "BF16": torch.bfloat16}.get(kind, torch.float16)

    def _places(self, stored_name: str, shape: tuple[int, ...]) -> Tensor | None:
        """Where each stored row belongs; None where it stays. A head's pairs of rotary dimensions become its two halves."""
        heads = paired_heads(stored_name, self.config.heads, self.config.kv_heads)
        return None if heads is None else torch.tensor(stored_rows(shape[0], heads))


WeightReader = SafetensorsReader | GGUFReader
