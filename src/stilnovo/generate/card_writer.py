"""A model as it writes on a card: at the speed of its memory, and with nothing to ask the host between two tokens.

At a few tokens a step costs the bytes of the weights (`stilnovo.model.card_products`) and, launched one by one, the host's time for
some hundred operations. So the step is one function of tensors that stay where they are: it embeds the last tokens, runs the layers,
draws the next tokens and advances the positions. Recorded as a CUDA graph it is launched as one. The host reads the tokens, once a step.

Unusual:
- A graph is recorded at the second step of its kind (texts, reach of the cache, enabled adapters): the first one warms up what
  may not happen while recording. Where recording fails that is said once, and steps go on as single launches.
- Keys, values and graph stay for the next text, because a graph knows them by their address.
- Finished texts stay as idle rows, which cost next to nothing, until half of the rows are idle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from stilnovo.errors import NonFiniteScore
from stilnovo.generate.card_cache import CardCache
from stilnovo.generate.decoder import Decoder
from stilnovo.generate.sampler import UNDECIDED, draw, looked_at, uniforms
from stilnovo.generate.sampling import Sampling
from stilnovo.model.llama import Llama

log = logging.getLogger("stilnovo.generate")

REACH = 512  # a recorded step reads the cache in multiples of so many tokens: at most 64 MiB too much at 8B, one graph for 512 tokens

#: Records a function's operations on a device without running them; what it returns runs them again, on the tensors as they then are.
Recorder = Callable[[Callable[[], None], torch.device], Callable[[], None]]


def cuda_graph(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record a step as a CUDA graph; other threads may use the card meanwhile."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


class CardWriter:
    """A model with all that writing needs on its card, made when a text is begun and used again for the next.

    Args:
        model: Any Llama whose weights lie on its device.
        recorder: How a step is recorded; None: each operation is launched by itself.
    """

    def __init__(self, model: Llama, recorder: Recorder | None = cuda_graph) -> None:
        self.model, self.recorder, self._asked = model, recorder, recorder
        self.decoder = Decoder(model, None)
        self._idle: list[_Buffers] = []

    def made_of(self, model: Llama, recorder: Recorder | None) -> bool:
        """Whether this model still computes with what the writer was made of, and is recorded as it was asked to."""
        return self._asked is recorder and self.decoder.made_of(model, None)

    @contextmanager
    def texts(self, samplings: Sequence[Sampling], room: int) -> Iterator[CardTexts]:
        """Context manager: texts to be written, with room for `room` tokens each, prompts included.

        Texts of two streams at a time have buffers of their own.
        """
        buffers = self._idle.pop() if self._idle else None
        if buffers is None or not buffers.hold(len(samplings), room):
            buffers = None  # the old one goes before a new one is made
            buffers = _Buffers(self.model, len(samplings), room)
        self.decoder.refresh()
        try:
            yield CardTexts(self, buffers, samplings)
        finally:
            if not self._idle:
                self._idle.append(buffers)


@dataclass(frozen=True)
class _Recorded:
    """A recorded step, and what its caller looks at after each repetition."""

    kind: tuple[object, ...]
    replay: Callable[[], None]
    logits: Tensor
    uniform: Tensor


class _Buffers:
    """Tensors of fixed place that a step reads and writes, for some texts."""

    def __init__(self, model: Llama, texts: int, room: int) -> None:
        device = model.device
        self.cache = CardCache(model.config, texts, room, device, model.dtype)
        self.tokens = torch.zeros(texts, dtype=torch.int64, device=device)  # the last of each text
        self.advancing = torch.zeros(texts, dtype=torch.int64, device=device)  # 1, or 0 of an idle row
        self.temperature = torch.zeros(texts, device=device)
        self.top_p = torch.ones(texts, device=device)
        self.uniforms = torch.zeros(texts, self.cache.room, device=device)
        self.written = torch.zeros(1, dtype=torch.int64, device=device)  # tokens of each text so far
        self.recorded: _Recorded | None = None

    def hold(self, texts: int, room: int) -> bool:
        """Whether these are the buffers for so many texts of so much room, or little more."""
        return len(self.tokens) == texts and room <= self.cache.room <= 2 * room + REACH

    def begin(self, samplings: Sequence[Sampling]) -> None:
        """Set what the texts are drawn by."""
        count = self.uniforms.shape[1]
        self.temperature.copy_(torch.tensor([sampling.temperature for sampling in samplings]))
        self.top_p.copy_(torch.tensor([sampling.top_p for sampling in samplings]))
        self.uniforms.copy_(torch.stack([uniforms(sampling, count)[:count] for sampling in samplings]))
        self.advancing.fill_(1)
        self.written.zero_()

    def idle(self, row: int) -> None:
        """Let a row write to one place that nobody reads, by the cheapest rule."""
        for vector in (self.temperature, self.advancing, self.cache.positions):
            vector[row].zero_()

    def keep(self, rows: Sequence[int]) -> None:
        """Move these rows to the front."""
        self.cache.keep(rows)
        for place, row in enumerate(rows):  # ascending: none is overwritten before it has moved
            if place != row:
                for tensor in (self.tokens, self.advancing, self.temperature, self.top_p, self.uniforms):
                    tensor[place].copy_(tensor[row])


class CardTexts:
    """Texts that are being written, a token of each at a time; see `CardWriter.texts`."""

    def __init__(self, writer: CardWriter, buffers: _Buffers, samplings: Sequence[Sampling]) -> None:
        self._writer, self._buffers, self._model = writer, buffers, writer.model
        self._rows, self._count = list(range(len(samplings))), len(samplings)
        self._lengths: list[int] = []
        self._most = looked_at(samplings, self._model.config.vocab_size)
        self._warm: tuple[object, ...] | None = None
        self._logits = self._uniform = buffers.temperature
        buffers.begin(samplings)

    def read(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Read the prompts; returns the first token of each text."""
        model, self._lengths = self._model, [len(prompt) for prompt in prompts]
        stream = torch.tensor([token for prompt in prompts for token in prompt], device=model.device)
        hidden = model.hidden(stream, self._buffers.cache.read_prompts(self._lengths), self._buffers.cache)
        last = torch.tensor(self._lengths, device=model.device).cumsum(0) - 1
        self._draw(model.logits(hidden[last]))
        return self._chosen()

    def next(self, _tokens: Sequence[int]) -> list[int]:
        """Write one more token of each text: behind the tokens that were drawn last, which the card still has."""
        buffers, recorder = self._buffers, self._writer.recorder
        self._lengths = [length + 1 for length in self._lengths]
        buffers.cache.reach = min(buffers.cache.room, -(-max(self._lengths) // REACH) * REACH)
        kind = (self._count, buffers.cache.reach, self._most, self._writer.decoder.enabled)
        if buffers.recorded is not None and buffers.recorded.kind == kind:
            self._replay(buffers.recorded)
        elif recorder is None or self._warm != kind or not self._writer.decoder.known:
            self._warm = kind
            self._step()
        else:
            self._record(recorder, kind)
        return self._chosen()

    def keep(self, texts: Sequence[int]) -> None:
        """Write on with these texts only."""
        kept = [self._rows[text] for text in texts]
        for row in set(self._rows) - set(kept):
            self._buffers.idle(row)
        self._rows, self._lengths = kept, [self._lengths[text] for text in texts]
        if 2 * len(kept) <= self._count:
            self._buffers.keep(kept)
            self._rows, self._count = list(range(len(kept))), len(kept)

    def _step(self) -> None:
        """One step of all rows, from the last tokens to the next: what is recorded."""
        buffers, count = self._buffers, self._count
        cache = buffers.cache
        cache.begin_step(count)
        hidden = self._writer.decoder.hidden(buffers.tokens[:count], cache.positions[:count], cache)
        self._draw(self._model.logits(hidden))
        cache.positions[:count].add_(buffers.advancing[:count])

    def _draw(self, logits: Tensor) -> None:
        buffers, count = self._buffers, self._count
        self._logits = logits
        self._uniform = buffers.uniforms[:count].index_select(1, buffers.written)[:, 0]
        settings = buffers.temperature[:count], buffers.top_p[:count]
        buffers.tokens[:count].copy_(draw(logits, *settings, self._uniform, self._most))
        buffers.written.add_(1)

    def _record(self, recorder: Recorder, kind: tuple[object, ...]) -> None:
        self._buffers.recorded = None  # its memory goes before another is recorded
        try:
            replay = recorder(self._step, self._model.device)
        except RuntimeError as error:
            self._writer.recorder = None
            log.warning("A step cannot be recorded as a CUDA graph; its operations are launched one by one. %s", error)
            self._step()
            return
        self._buffers.recorded = _Recorded(kind, replay, self._logits, self._uniform)
        replay()

    def _replay(self, recorded: _Recorded) -> None:
        self._logits, self._uniform = recorded.logits, recorded.uniform
        recorded.replay()

    def _chosen(self) -> list[int]:
        """The tokens on the host; where the likeliest did not make up the nucleus, after a look at all of them."""
        buffers, count = self._buffers, self._count
        tokens = buffers.tokens[:count]
        found: list[int] = tokens.tolist()
        if UNDECIDED in found:
            settings = buffers.temperature[:count], buffers.top_p[:count]
            every = draw(self._logits, *settings, self._uniform, self._logits.shape[-1])
            found = tokens.copy_(torch.where(tokens == UNDECIDED, every, tokens)).tolist()
            if UNDECIDED in found:
                raise NonFiniteScore("a token that was to be written")
        return [found[row] for row in self._rows]
