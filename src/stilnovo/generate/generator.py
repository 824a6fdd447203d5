"""Text generation: conversations in, streamed or complete answers out, batched where that is faster.

Unusual: on a CPU the weights are kept a second time in a form that is fast to multiply with few tokens (`generate.decoder`), for as
long as the `Generator` lives. `products="fp32"` computes as everywhere else, the same on every processor: evaluation asks for it.
On a card the tokens are drawn there, and a step is recorded once and repeated (`generate.card_writer`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from stilnovo.errors import InputError
from stilnovo.generate.card_writer import CardWriter, cuda_graph
from stilnovo.generate.decoder import Decoder
from stilnovo.generate.sampling import Sampling, stop_at
from stilnovo.generate.texts import HostTexts, Texts
from stilnovo.model.budget import Admitted, dense_copies_fit, writing_room
from stilnovo.model.card_products import card_writing
from stilnovo.model.llama import Llama, evaluating
from stilnovo.model.load import ModelCheckpoint, choose_device, open_model
from stilnovo.model.processor import CpuProducts, cpu_products
from stilnovo.model.quantize import FrozenLinear
from stilnovo.plan.account import SMALL_BYTES, Command, writing_weights
from stilnovo.spec import ModelSpec, adapter_differences
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer

log = logging.getLogger("stilnovo.generate")

__all__ = ["Completion", "Generator", "Sampling", "open_engine"]


@dataclass(frozen=True)
class Completion:
    """A generated text; `stopped`: the model ended it itself; `ids`: its tokens, special ones included."""

    text: str
    tokens: int
    stopped: bool
    ids: tuple[int, ...] = ()


class _Text:
    """A text being generated: its tokens, and how much of it is safe to show."""

    def __init__(self, tokenizer: Tokenizer, sampling: Sampling) -> None:
        self.tokenizer, self.sampling, self.stop = tokenizer, sampling, sampling.stop
        self.left, self.ids, self.shown = sampling.max_new_tokens, list[int](), 0
        self.done = self.stopped = False

    def add(self, token: int) -> None:
        self.left -= 1
        self.stopped = token in self.tokenizer.turn_end_ids
        if not self.stopped:
            self.ids.append(token)
            self.stopped = bool(self.stop) and stop_at(self.text(), self.stop, True)[1]
        self.done = self.stopped or self.left == 0

    def text(self) -> str:
        # Half a character at the end is no text yet, and none at all when the writing ends there.
        return self.tokenizer.decode(self.ids).rstrip("\ufffd")

    def fresh(self) -> str:
        """Text not shown yet; the beginning of a possible stop string is held back."""
        text = self.text()
        end, _ = stop_at(text, self.stop, self.done)
        piece, self.shown = text[self.shown : end], max(self.shown, end)
        return piece


class Generator:
    """A model and its tokenizer, for text generation.

    Of a `ModelCheckpoint` the weights are read when they are first wanted (`model`): what cannot be answered, for its length or
    its template, is refused before.

    Args:
        model: The model, or where it comes from.
        tokenizer: Its tokenizer.
        products: How a CPU computes; None: what `STILNOVO_CPU` says, else the fastest way (`stilnovo.model.processor`)
            for which there is memory where the weights are read here.
        command: For which the weights are read here, as its account of memory calls it.
        captured: Whether a card's step may be recorded as a CUDA graph, which takes memory of its own.
    """

    def __init__(
        self, model: Llama | ModelCheckpoint, tokenizer: Tokenizer, *, products: CpuProducts | None = None,
        command: Command = "generate", captured: bool = True,
    ) -> None:  # fmt: skip
        self._model, self.tokenizer, self._products, self._command = model, tokenizer, products, command
        self._decoder: Decoder | None = None
        self._on_card: CardWriter | None = None
        self._captured = captured
        self._copies = True  # whether there is memory for dense copies of a small model's weights
        self.admitted: Admitted | None = None
        self.context_tokens = model.config.max_positions

    @property
    def model(self) -> Llama:
        """The model, with its weights."""
        if isinstance(self._model, ModelCheckpoint):
            self.context_tokens = self._open(self._model, self.context_tokens).use.tokens
        assert isinstance(self._model, Llama)
        return self._model

    def _open(self, checkpoint: ModelCheckpoint, tokens: int, cached: int | None = None) -> Admitted:
        """Read the weights, if what is to be written fits in memory with them; see `stilnovo.model.budget.writing_room`."""
        made, self._products = writing_room(checkpoint, self._command, tokens, cached, products=self._products)
        self.admitted, self._copies = made, made.use.copies > 0
        with torch.inference_mode(False):  # whoever asks first: the weights are ordinary tensors
            self._model, _ = open_model(checkpoint)
        return made

    def memory(self) -> dict[str, int]:
        """Memory as predicted and as measured, in bytes, of a model whose weights were read here; else empty."""
        return {} if self.admitted is None else self.admitted.figures()

    def load(self) -> Generator:
        """Read the weights now; returns itself."""
        assert self.model is not None
        return self

    @contextmanager
    def _texts(self, samplings: Sequence[Sampling], room: int) -> Iterator[Texts]:
        """Context manager: texts to be written where the model lies, with room for `room` tokens each, prompts included."""
        model = self.model
        if writes_on_card(model) and (way := card_writing()) != "plain":
            recorder = cuda_graph if way == "captured" and self._captured else None
            on_card = self._on_card  # another thread may put a new one in its place meanwhile
            if on_card is None or not on_card.made_of(model, recorder):
                self._on_card = on_card = None  # its buffers go before new ones are made
                self._on_card = on_card = CardWriter(model, recorder)
            with on_card.texts(samplings, room) as texts:
                yield texts
            return
        writer, held = self._writer(model)
        with held:
            yield HostTexts(writer, model, samplings, room)

    def _writer(self, model: Llama) -> tuple[Llama | Decoder, AbstractContextManager[None]]:
        """What computes where the host chooses, and what holds while it does."""
        if model.device.type != "cpu" or model.dtype != torch.float32:
            return model, nullcontext()
        way = self._products or cpu_products(writing_weights(model.config))
        if way == "fp32":
            return model, dense_weights(model) if self._copies else nullcontext()
        if self._decoder is None or not self._decoder.made_of(model, way):
            self._decoder = None  # its copies go before new ones are made
            self._decoder = Decoder(model, way)
        return self._decoder, nullcontext()

    def check_opening(self, messages: Sequence[Message], new_tokens: int = 1) -> None:
        """Check that a conversation can be begun with these messages, before the weights are read.

        Raises:
            InputError: when there is no template for them, or they leave no room for `new_tokens`.
        """
        if (tokens := self.count(messages)) + new_tokens > self.context_tokens:
            raise InputError(
                "The system prompt and the answer do not fit into the model's context.",
                f"{tokens:,} tokens, and {new_tokens:,} for the answer; the model reads {self.context_tokens:,}.",
                "Shorten the prompt or lower --max-new-tokens." if new_tokens > 1 else "Shorten it.",
            )

    def count(self, messages: Sequence[Message]) -> int:
        """Count the tokens of a conversation, the opening of the answer included."""
        return len(self._prompt(messages))

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.render(self.tokenizer.taken(messages), generation=True)

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        """Stream the answer in pieces.

        Raises:
            InputError: when the conversation leaves no room in the model's context.
        """
        text = _Text(self.tokenizer, sampling)
        for _ in self._write([self._prompt(messages)], [text]):
            if piece := text.fresh():
                yield piece

    def complete(self, conversations: Sequence[Sequence[Message]], sampling: Sequence[Sampling]) -> list[Completion]:
        """Generate the answers to several conversations as a batch; each equals its answer alone, up to rounding."""
        return self.continue_tokens([self._prompt(talk) for talk in conversations], sampling)

    def continue_tokens(self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling]) -> list[Completion]:
        """Generate continuations of several token sequences as a batch; each equals its continuation alone, up to rounding."""
        texts = [_Text(self.tokenizer, settings) for settings in sampling]
        for _ in self._write(prompts, texts):
            pass
        return [Completion(text.fresh(), len(text.ids), text.stopped, tuple(text.ids)) for text in texts]

    # As a decorator the mode ends at each `yield`: between the pieces of a stream the caller's code runs outside it.
    @torch.inference_mode()
    def _write(self, prompts: Sequence[Sequence[int]], texts: Sequence[_Text]) -> Iterator[None]:
        if not texts:
            return
        for prompt, text in zip(prompts, texts, strict=True):
            room = self.context_tokens - len(prompt)
            if room < 1:
                raise InputError(
                    "The conversation is longer than the model's context.",
                    f"{len(prompt)} tokens; the model reads {self.context_tokens}.",
                    "Begin a new conversation or shorten it.",
                )
            text.left = min(text.left, room)
        longest = max(len(prompt) + text.left for prompt, text in zip(prompts, texts, strict=True))
        if isinstance(self._model, ModelCheckpoint):
            self._open(self._model, sum(map(len, prompts)), longest * len(texts))
        with evaluating(self.model), self._texts([text.sampling for text in texts], longest) as passes:
            writing, tokens = list(texts), passes.read(prompts)
            while True:
                for text, token in zip(writing, tokens, strict=True):
                    text.add(token)
                yield
                unfinished = [index for index, text in enumerate(writing) if not text.done]
                if not unfinished:
                    return
                if len(unfinished) < len(writing):
                    passes.keep(unfinished)
                    writing = [writing[index] for index in unfinished]
                tokens = passes.next([text.ids[-1] for text in writing])


def writes_on_card(model: Llama) -> bool:
    """Whether all of a model lies on one card, where it can write without the host; a training's plan may move parts of it."""
    together = model.embed_tokens.device == model.device and model.head_logits is None
    return model.device.type == "cuda" and together


@contextmanager
def dense_weights(model: Llama) -> Iterator[None]:
    """Context manager: on a CPU, keep the frozen weights dense if they are small enough and fit: the results are the same."""
    linears = [module for module in model.modules() if isinstance(module, FrozenLinear)]
    size = sum(linear.out_features * linear.in_features for linear in linears) * model.dtype.itemsize
    keep = model.device.type == "cpu" and size <= SMALL_BYTES and dense_copies_fit()
    try:
        for linear in linears if keep else ():
            linear.keep_dense(model.dtype)
        yield
    finally:
        for linear in linears:
            linear.keep_dense(None)


def sample_answers(
    model: Llama, tokenizer: Tokenizer, prompts: Sequence[str], max_new_tokens: int
) -> list[dict[str, str]]:
    """Answer prompts greedily, as `{"prompt": …, "answer": …}`: as a user's messages, or continued where there is no chat template.

    For a training's samples: what is kept has to fit beside the training step. So no copies of a large model's weights are made on a
    CPU, and no graph on a card.
    """
    products: CpuProducts | None = None if 2 * writing_weights(model.config) <= SMALL_BYTES else "fp32"
    generator = Generator(model, tokenizer, products=products, captured=False)
    greedy = Sampling(temperature=0, max_new_tokens=max_new_tokens)
    read = [
        [*tokenizer.opening, *tokenizer.encode(prompt)]
        if not tokenizer.converses
        else tokenizer.render([Message("user", prompt)], generation=True)
        for prompt in prompts
    ]
    answers = generator.continue_tokens(read, [greedy] * len(prompts))
    return [{"prompt": prompt, "answer": answer.text} for prompt, answer in zip(prompts, answers, strict=True)]


def open_engine(spec: ModelSpec, command: Command = "generate") -> Generator:
    """Open a model for generation, for a command; its weights are read when they are first wanted.

    Raises:
        InputError: see `stilnovo.model.load.ModelCheckpoint`; also when `STILNOVO_CPU` asks for what the processor has not, or
            `STILNOVO_CARD` for what no card has.
    """
    if choose_device(spec.device).type == "cpu":
        cpu_products()
    else:
        card_writing()
    checkpoint = ModelCheckpoint(spec)
    for difference in adapter_differences(spec):
        log.info(difference)
    return Generator(checkpoint, checkpoint.tokenizer, command=command)
