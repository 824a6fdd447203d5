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
from pathlib import Path

from torch import Tensor

from stilnovo.benchmarks.task import Draw
from stilnovo.data import sources
from stilnovo.model.llama import Llama
from stilnovo.progress import counted
from stilnovo.scoring import reading
from stilnovo.scoring.answer_cache import Answer
from stilnovo.scoring.boundary import check_finite
from stilnovo.scoring.encode import filled
from stilnovo.scoring.packed import TOKEN_BUDGET
from stilnovo.scoring.reading import DEFAULTS, Reading, ReadOptions, document_place, read_documents
from stilnovo.statistics.estimates import FEWEST_UNITS, Estimate, ratio
from stilnovo.text.tokenizer import Tokenizer

TEXT, SHORT = "held-out text", "held-out text in short windows"  # as named in progress and in the cache
SHORT_WINDOW = 64
ENOUGH_DOCUMENTS = 30
PIECE_CHARACTERS = 2000
MOST_NATS = 700.0  # exp of more is infinite


@dataclass(frozen=True)
class HeldOutScore:
    """Negative log-likelihood of D documents: `nats`, `sizes` in UTF-8 bytes and `tokens`, all (D,).

    Raises:
        NonFiniteScore: a document's nats are no finite number.
    """

    nats: tuple[float, ...]
    sizes: tuple[int, ...]
    tokens: tuple[int, ...]
    texts_sha256: str
    window: int
    stride: int
    short_losses: tuple[float, ...] = ()
    short_windows: tuple[int, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def clusters(self) -> list[str] | None:
        """What each document is a piece of, (D,), or None where all stand alone."""
        return list(self.groups) if len(set(self.groups)) < len(self.groups) else None

    def __post_init__(self) -> None:
        for name, values in ((TEXT, self.nats), (SHORT, self.short_losses)):
            for index, nats in enumerate(values):
                check_finite(document_place(name, index), nats)

    def perplexity_of_short_windows(self) -> Estimate | None:
        """Perplexity as in the 2024 report, with its interval; None if not measured.

        `short_losses` are the sums over a document's short windows of their mean losses in nats, (D,), `short_windows`
        how many there are.
        """
        if not sum(self.short_windows):
            return None
        read = [index for index, count in enumerate(self.short_windows) if count]
        losses, counts = ([part[index] for index in read] for part in (self.short_losses, self.short_windows))
        loss = ratio(losses, counts, [self.clusters[index] for index in read] if self.clusters else None)
        value, low, high = (math.exp(min(nats, MOST_NATS)) for nats in (loss.value, loss.low, loss.high))
        if not loss.has_interval:
            low, high = loss.low, loss.high
        return Estimate(value, low, high, value * loss.standard_error, loss.n, loss.clusters)

    def bits_per_byte(self) -> Estimate:
        """Bits per byte over all documents, with an interval over documents."""
        return ratio(self.nats, [size * math.log(2) for size in self.sizes], self.clusters)


class HeldOutTexts(list[str]):
    """Texts in a list, with `groups`: what each is a piece of, (D,); pieces of one book are no independent documents."""

    def __init__(self, texts: Iterable[str], groups: Iterable[str]) -> None:
        super().__init__(texts)
        self.groups = tuple(groups)

    def sample(self, draw: Draw) -> HeldOutTexts:
        """Sample some of them, in their order."""
        chosen = draw.sample(range(len(self)))
        return HeldOutTexts((self[index] for index in chosen), (self.groups[index] for index in chosen))


def held_out_texts(paths: Sequence[str | Path], draw: Draw = Draw()) -> HeldOutTexts:  # noqa: B008 - frozen
    """Read and sample the documents of the files, formatted as in training.

    Where the files hold few, each is cut at line breaks into pieces of some thousand characters (`pieces`), and every
    piece starts anew: the sample then comes from all of them. Nothing is dropped but the line break at a cut. The pieces
    keep their document as their group, and so do rows the `group`, path or source that they name (`sources.groups_of`).

    Raises:
        InputError: a file is missing, empty or unreadable, or the limit makes no sense.
    """
    documents = sources.read_documents(paths)
    named = list(zip(map(sources.training_text, documents), sources.groups_of(documents), strict=True))
    if len(named) < ENOUGH_DOCUMENTS:
        named = [(piece, group) for text, group in named for piece in pieces(text)]
    return HeldOutTexts((text for text, _ in named), (group for _, group in named)).sample(draw)


def groups_of(texts: Sequence[str]) -> tuple[str, ...]:
    """What each text is a piece of, (D,); empty where that is not known."""
    return texts.groups if isinstance(texts, HeldOutTexts) else ()


def documents_text(n: int, units: int) -> str:
    """Describe what bits per byte were measured on: "24 documents", "36 pieces of 6 documents"."""
    return counted(n, "document") if units == n else f"{counted(n, 'piece')} of {counted(units, 'document')}"


def what_text_can_show(texts: HeldOutTexts) -> str:
    """Describe held-out texts before a run, and what they are too few for."""
    units = len(set(texts.groups))
    size = sum(len(text.encode("utf-8")) for text in texts)
    few = (
        "" if units >= FEWEST_UNITS else f"; fewer than {FEWEST_UNITS} independent ones have no interval and no verdict"
    )
    return f"{documents_text(len(texts), units)}, {size:,} bytes{few}"


def pieces(text: str, characters: int = PIECE_CHARACTERS) -> list[str]:
    """Cut `text` at line breaks into pieces of at least `characters`; a shorter rest joins the last piece."""
    cut = list(filled(text.split("\n"), lambda lines, _: sum(map(len, lines)) < characters))
    if len(cut) > 1 and sum(map(len, cut[-1])) < characters:
        cut[-2:] = [cut[-2] + cut[-1]]
    joined = ["\n".join(lines) for lines in cut]
    return [piece for piece in joined if piece.strip()]


def score_texts(
    model: Llama,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    window: int = TOKEN_BUDGET,
    stride: int | None = None,
    short_windows: bool = False,
    options: ReadOptions = DEFAULTS,
) -> HeldOutScore:
    """Compute the negative log-likelihood of every text, through the answer cache.

    Args:
        model: Any Llama; dropout is off while it is scored.
        tokenizer: Its tokeniser.
        texts: The documents, none empty.
        window: Most tokens read at once; lowered to what the model can hold.
        stride: Tokens scored by each further window of a long document; half the window by default.
        short_windows: Whether they are also read as the report of 2024 did (`score_short_windows`).
        options: Budget, progress (as `TEXT` and `SHORT`) and cache.
    """
    if not texts or not all(texts):
        raise ValueError("held-out text needs documents that are not empty")
    window = min(window, model.config.max_positions)
    stride = min(stride or max(1, window // 2), window)

    def long(index: int) -> Iterator[Reading]:
        tokens = reading.opened(tokenizer, texts[index])
        for start, stop, first in windows(len(tokens), window, stride):
            yield Reading(index, tokens[start : stop + 1], range(first - start, stop - start + 1))

    def measure(parts: Sequence[Tensor]) -> Answer:
        return {"nats": -sum(float(part.sum()) for part in parts), "count": sum(map(len, parts))}

    rows = read_documents(model, TEXT, f"window {window}, stride {stride}", texts, long, measure, options)
    short = score_short_windows(model, tokenizer, texts, options=options) if short_windows else ((), ())
    return HeldOutScore(
        tuple(row["nats"] for row in rows),
        tuple(len(text.encode("utf-8")) for text in texts),
        tuple(row["count"] for row in rows),
        texts_sha256(texts),
        window,
        stride,
        *short,
        groups_of(texts),
    )


def score_short_windows(
    model: Llama,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    window: int = SHORT_WINDOW,
    options: ReadOptions = DEFAULTS,
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Sum of mean losses over a text's short windows, and their number, for each text; see the module.

    The last window of a text is shorter; one of a single token predicts nothing and is left out.
    """

    def parts(index: int) -> Iterator[Reading]:
        tokens = [*tokenizer.opening, *tokenizer.encode(texts[index])]
        for start in range(0, len(tokens) - 1, window):
            part = tokens[start : start + window]
            if len(part) > 1:
                yield Reading(index, part, range(1, len(part)))

    def measure(values: Sequence[Tensor]) -> Answer:
        return {"nats": -sum(float(part.mean()) for part in values), "count": len(values)}

    rows = read_documents(model, SHORT, f"windows of {window}", texts, parts, measure, options)
    return tuple(row["nats"] for row in rows), tuple(row["count"] for row in rows)


def windows(tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Sliding windows over `tokens` tokens (BOS included) that predict 1 … tokens-1 once each.

    One is (start, stop, first), first > start: it reads start … stop-1 and predicts first … stop. The last is pushed
    back to end with the document, so that it reads as much as the others.
    """
    last = tokens - 1  # the highest index to predict; the token there is never read
    parts = [(0, min(window, last), 1)]
    while (end := parts[-1][1]) < last:
        stop = min(end + stride, last)
        parts.append((stop - window, stop, end + 1))
    return parts


def texts_sha256(texts: Sequence[str]) -> str:
    """Hex sha256 of the documents, in order, lengths included."""
    documents = [text.encode("utf-8") for text in texts]
    return hashlib.sha256(b"".join(f"{len(data)}\n".encode() + data for data in documents)).hexdigest()
