"""Texts that are being written, a token of each at a time, where the host chooses the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from stilnovo.generate.decoder import Decoder
from stilnovo.generate.kv_cache import KVCache
from stilnovo.generate.sampler import Sampler
from stilnovo.generate.sampling import Sampling
from stilnovo.model.llama import Llama


class Texts(Protocol):
    """Interface of texts that are being written."""

    def read(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Read the prompts; returns the first token of each text."""

    def next(self, tokens: Sequence[int]) -> list[int]:
        """Write one more token of each text, behind the ones that came last."""

    def keep(self, texts: Sequence[int]) -> None:
        """Write on with these texts only."""


class HostTexts:
    """Texts with room for `room` tokens each, prompts included.

    Args:
        writer: What computes: the model, or the form of it that writes.
        model: The model.
        samplings: Of each text.
        room: Tokens.
    """

    def __init__(self, writer: Llama | Decoder, model: Llama, samplings: Sequence[Sampling], room: int) -> None:
        self._writer, self._device = writer, model.device
        self._cache = KVCache(model.config, len(samplings), room, model.device, model.dtype)
        self._samplers = [Sampler(sampling) for sampling in samplings]

    def read(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """See `Texts.read`."""
        counts = [len(tokens) for tokens in prompts]
        stream = torch.tensor([t for tokens in prompts for t in tokens], device=self._device)
        hidden = self._writer.hidden(stream, self._cache.expect(counts), self._cache)
        self._cache.advance()
        last = torch.tensor(counts, device=self._device).cumsum(0) - 1
        rows = self._writer.logits(hidden[last])
        return [sampler.choose(row) for sampler, row in zip(self._samplers, rows, strict=True)]

    def next(self, tokens: Sequence[int]) -> list[int]:
        """See `Texts.next`."""
        return self.read([[token] for token in tokens])

    def keep(self, texts: Sequence[int]) -> None:
        """See `Texts.keep`."""
        self._cache.keep(texts)
        self._samplers = [self._samplers[text] for text in texts]
