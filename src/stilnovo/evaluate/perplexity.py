"""Bits per byte of held-out text: how many bits the model needs for each byte of it, whatever its tokeniser.

Perplexity per token cannot be compared between models with different vocabularies; bits per byte can: the sum of
-log2 p(token) over the UTF-8 bytes of the text. Each document starts from the opening token (end-of-text where the
model has none), so its first word is predicted too. Over a document longer than the window, the window slides: every
token is scored exactly once, and after the first window never with fewer than window - stride tokens before it. The
nats of each document are kept, because a comparison of two models is paired by document.

Beside it stands what the report of 2024 called perplexity: windows of 64 tokens that do not overlap, each read alone,
its first token not predicted, an opening token in the first one only; exp of the mean of the windows' mean losses
(`score_short_windows`). Every window forgets what was before it, so that the figure says more of the windows than of
the model, and it cannot be compared between tokenisers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from stilnovo.evaluate.likelihood import token_loglikelihoods
from stilnovo.evaluate.scoring import TOKEN_BUDGET, Progress
from stilnovo.evaluate.statistics import Estimate, bootstrap_ratio
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.text.tokenizer import Tokenizer

SHORT_WINDOW = 64
MOST_NATS = 700.0  # exp of more is infinite


@dataclass(frozen=True)
class HeldOutScore:
    """What each of D documents cost: `nats`, `sizes` in UTF-8 bytes and `tokens`, all (D,); a hash names them."""

    nats: tuple[float, ...]
    sizes: tuple[int, ...]
    tokens: tuple[int, ...]
    texts_sha256: str
    window: int
    stride: int
    short_losses: tuple[float, ...] = ()
    short_windows: tuple[int, ...] = ()

    def perplexity_of_short_windows(self) -> Estimate | None:
        """The report's perplexity with a bootstrap interval over documents; None where it was not measured.

        `short_losses` are the sums over a document's short windows of their mean losses in nats, (D,), `short_windows`
        how many there are.
        """
        if not sum(self.short_windows):
            return None
        kept = [(loss, count) for loss, count in zip(self.short_losses, self.short_windows, strict=True) if count]
        loss = bootstrap_ratio([part for part, _ in kept], [count for _, count in kept])
        value, low, high = (math.exp(min(nats, MOST_NATS)) for nats in (loss.value, loss.low, loss.high))
        return Estimate(value, low, high, value * loss.standard_error, loss.n, loss.clusters)

    def bits_per_byte(self) -> Estimate:
        """Bits per byte over all documents, with a bootstrap interval over documents."""
        return bootstrap_ratio(self.nats, [size * math.log(2) for size in self.sizes])


@dataclass(frozen=True)
class Window:
    """Part of one document's tokens: reads `start` … `stop`-1 and predicts `first` … `stop`, `first` > `start`."""

    document: int
    start: int
    stop: int
    first: int


def score_texts(
    model: Llama,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    window: int = TOKEN_BUDGET,
    stride: int | None = None,
    token_budget: int = TOKEN_BUDGET,
    progress: Progress | None = None,
) -> HeldOutScore:
    """Score every text.

    Args:
        model: Any Llama; dropout is off while it is scored.
        tokenizer: Its tokeniser.
        texts: The documents, none empty.
        window: Most tokens read at once; lowered to what the model can hold.
        stride: Tokens scored by each further window of a long document; half the window by default.
        token_budget: Most tokens in one forward pass; several short documents share one.
        progress: Called with (documents done, documents in all).
    """
    if not texts or not all(texts):
        raise ValueError("held-out text needs documents that are not empty")
    window = min(window, model.config.max_positions)
    stride = min(stride or max(1, window // 2), window)
    opening = tokenizer.end_of_text_id if tokenizer.bos_id is None else tokenizer.bos_id
    nats, tokens = [0.0] * len(texts), [0] * len(texts)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for pack in _packed(_long(texts, tokenizer, opening, window, stride), max(token_budget, window)):
                for (part, _), loss in zip(pack, _forward(model, pack), strict=True):
                    nats[part.document] += loss
                    tokens[part.document] += part.stop - part.first + 1
                if progress is not None:
                    progress(pack[-1][0].document + 1, len(texts))
    finally:
        model.train(training)
    sizes = tuple(len(text.encode("utf-8")) for text in texts)
    return HeldOutScore(tuple(nats), sizes, tuple(tokens), texts_sha256(texts), window, stride)


def score_short_windows(
    model: Llama,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    window: int = SHORT_WINDOW,
    token_budget: int = TOKEN_BUDGET,
    progress: Progress | None = None,
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """For each text the sum over its short windows of their mean loss in nats, and their number; see the module.

    The last window of a text is shorter; one of a single token predicts nothing and is left out.
    """
    opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    losses, counts = [0.0] * len(texts), [0] * len(texts)

    def parts() -> Iterator[tuple[Window, list[int]]]:
        for number, text in enumerate(texts):
            tokens = [*opening, *tokenizer.encode(text)]
            for start in range(0, len(tokens) - 1, window):
                stop = min(start + window, len(tokens)) - 1
                if stop > start:
                    yield Window(number, start, stop, start + 1), tokens[start : stop + 1]

    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for pack in _packed(parts(), token_budget):
                for (part, _), loss in zip(pack, _forward(model, pack), strict=True):
                    losses[part.document] += loss / (part.stop - part.start)
                    counts[part.document] += 1
                if progress is not None:
                    progress(pack[-1][0].document + 1, len(texts))
    finally:
        model.train(training)
    return tuple(losses), tuple(counts)


def windows(document: int, tokens: int, window: int, stride: int) -> list[Window]:
    """Windows over `tokens` tokens, the opening one (index 0) included, that predict 1 … tokens-1 once each.

    The last window is pushed back to end with the document, so that it reads as much as the others.
    """
    last = tokens - 1  # the highest index to predict; the token there is never read
    parts = [Window(document, 0, min(window, last), 1)]
    while parts[-1].stop < last:
        stop = min(parts[-1].stop + stride, last)
        parts.append(Window(document, stop - window, stop, parts[-1].stop + 1))
    return parts


def texts_sha256(texts: Sequence[str]) -> str:
    """Hex sha256 of the documents, in order, lengths included."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8")
        digest.update(f"{len(data)}\n".encode() + data)
    return digest.hexdigest()


def _long(
    texts: Sequence[str], tokenizer: Tokenizer, opening: int, window: int, stride: int
) -> Iterator[tuple[Window, list[int]]]:
    """The windows of all texts with their tokens (one more than is read: the last is only predicted)."""
    for number, text in enumerate(texts):
        tokens = [opening, *tokenizer.encode(text)]
        for part in windows(number, len(tokens), window, stride):
            yield part, tokens[part.start : part.stop + 1]


def _packed(parts: Iterable[tuple[Window, list[int]]], token_budget: int) -> Iterator[list[tuple[Window, list[int]]]]:
    """Windows in their order, as many together as the budget holds."""
    pack: list[tuple[Window, list[int]]] = []
    size = 0
    for part, tokens in parts:
        length = part.stop - part.start
        if pack and size + length > token_budget:
            yield pack
            pack, size = [], 0
        pack.append((part, tokens))
        size += length
    if pack:
        yield pack


def _forward(model: Llama, pack: Sequence[tuple[Window, list[int]]]) -> list[float]:
    """Negative log-likelihood in nats of what each window predicts."""
    lengths = [part.stop - part.start for part, _ in pack]
    read = [token for _, tokens in pack for token in tokens[:-1]]
    rows: list[int] = []
    targets: list[int] = []
    offset = 0
    for (part, tokens), length in zip(pack, lengths, strict=True):
        skipped = part.first - part.start - 1  # rows whose target an earlier window has scored
        rows += range(offset + skipped, offset + length)
        targets += tokens[skipped + 1 :]
        offset += length
    hidden = model.hidden(
        torch.tensor(read, device=model.device), positions_of(lengths, model.device), Blocks.documents(lengths)
    )  # (T, C)
    values = token_loglikelihoods(model, hidden, rows, targets)
    counts = [part.stop - part.first + 1 for part, _ in pack]
    return [-float(part.sum()) for part in torch.split(values, counts)]
