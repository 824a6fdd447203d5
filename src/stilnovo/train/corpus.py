"""Read and split a recipe's training data: a seeded share of the rows is held out and never trained on."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stilnovo.data import corpora
from stilnovo.data.conversations import Conversation, Preference
from stilnovo.data.packing import IntArray, LazySequence, LongArray, PackedCorpus, beginnings, coded, cut
from stilnovo.data.pieces import at_turns, shortened_to, without_idle
from stilnovo.data.shards import MappedDocuments
from stilnovo.data.sources import Document, read_documents, training_text
from stilnovo.errors import InputError
from stilnovo.io.bad_rows import Tally
from stilnovo.recipe_sections import DataSection
from stilnovo.text import lint
from stilnovo.text.chat_template import REFUSED, TemplateRefusal
from stilnovo.text.template import MarkedMessage, Message
from stilnovo.text.tokenizer import Tokenizer

log = logging.getLogger("stilnovo.train")
Row = TypeVar("Row")
Chat = TypeVar("Chat", Conversation, Preference)
HeldOutRows = tuple[Any, ...]  # documents, conversations or pairs, as the objective reads them


@dataclass(frozen=True)
class Corpus:
    """Packed training documents and the held-out rows; the digest covers everything that was read.

    `remarks` are the lines that were logged while it was read: what was left out and why, what is odd about the template;
    `prepared` says of each prepared corpus what it holds.
    """

    packed: PackedCorpus
    held_out: HeldOutRows
    sha256: str
    remarks: tuple[str, ...] = ()
    prepared: tuple[str, ...] = ()

    @property
    def held_out_texts(self) -> list[str]:
        """The held-out texts, as they would be trained on."""
        return [training_text(row) for row in self.held_out if isinstance(row, Document)]


class Joined(LazySequence[IntArray]):
    """Several lists of documents as one, without copying."""

    def __init__(self, *parts: Sequence[IntArray]) -> None:
        self.parts = parts
        self._ends = list(itertools.accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def item(self, at: int) -> IntArray:
        """One document."""
        part = bisect.bisect_right(self._ends, at)
        return self.parts[part][at - (self._ends[part - 1] if part else 0)]


def split(rows: Sequence[Row], held_out: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows into training and held-out by seed; at least one of each when both are wanted."""
    count = round(held_out * len(rows))
    if held_out and len(rows) > 1:
        count = min(max(1, count), len(rows) - 1)
    elif held_out and rows:
        count = 0
        warn(
            [
                "Nothing is held out: the data are one row (a text file is one). Give several files or rows to have a held-out set."
            ]
        )
    chosen = set(np.random.default_rng(seed).permutation(len(rows))[:count].tolist())
    return [r for i, r in enumerate(rows) if i not in chosen], [r for i, r in enumerate(rows) if i in chosen]


def split_distinct(rows: Sequence[Chat], held_out: float, seed: int) -> tuple[list[Chat], list[Chat]]:
    """Split rows as `split`, dropping training rows that repeat a held-out one: chat data often hold a row twice.

    Raises:
        InputError: when nothing is left to learn from.
    """
    learnt, apart = split(rows, held_out, seed)
    contents = {replace(row, id="") for row in apart}
    distinct = [row for row in learnt if replace(row, id="") not in contents]
    if repeats := len(learnt) - len(distinct):
        warn([f"{repeats:,} left out, equal to a held-out row"])
    if rows and not distinct:
        raise InputError(
            "Nothing is left to learn from beside the held-out rows.", f"Rows: {len(rows):,}, and all repeat one of those.",
            "Give more rows, or hold none out with --set data.held_out=0.",
        )  # fmt: skip
    return distinct, apart


def warn_of_template(tokenizer: Tokenizer) -> None:
    """Log what is odd about the chat template."""
    warn(f"{warning.rule}: {warning.text}" for warning in lint.check(tokenizer))


def read_texts(paths: Sequence[str], max_rows: int | None, model: str) -> tuple[list[Document], str]:
    """Read texts, and the digest of all of them; `model` is named in the advice to prepare a large corpus.

    Raises:
        InputError: for files that cannot be read, and for a corpus of the catalogue that has to be prepared.
    """
    for name in paths:
        if name in corpora.SOURCES and not Path(name).exists():
            raise InputError(
                f"{name} is a corpus that is prepared once, and no folder of that name is here.",
                corpora.SOURCES[name].about,
                f"Run: stilnovo prepare {name} --model {model} --out prepared; then train with --data prepared. To try: --data sample",
            )
    documents = read_documents(paths, max_rows)
    return documents, _sha256(documents)


def read_chats(
    reader: Callable[..., tuple[list[Chat], Tally]], paths: Sequence[str], max_rows: int | None
) -> tuple[list[Chat], str]:
    """Read conversations or pairs, and the digest of all of them; unusable rows are logged."""
    rows, tally = reader(corpora.locate(paths, agree=None), max_rows=max_rows)
    tally.warn()
    return rows, _sha256(rows)


@contextmanager
def remarks() -> Iterator[list[str]]:
    """Collect the warnings that the package logs meanwhile, wherever a reader makes them, in order and each once."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (line := record.getMessage()) not in lines:
                lines.append(line)

    handler = Collect(logging.WARNING)
    logging.getLogger("stilnovo").addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger("stilnovo").removeHandler(handler)


def warn(lines: Iterable[str], prefix: str = "") -> None:
    """Log each line as a warning."""
    for line in lines:
        log.warning("%s%s", prefix, line)


def _sha256(rows: Iterable[Document | Conversation | Preference]) -> str:
    """Digest of the rows' training content, in order: titles, roles and boundaries included, ids not."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{replace(row, id='')!r}\n".encode())
    return digest.hexdigest()


def supervised(conversation: Conversation, tokenizer: Tokenizer) -> IntArray:
    """Encode a conversation as a document with a loss on the assistant's turns only."""
    return coded(*tokenizer.supervised(conversation.messages))


def supervised_all(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, pack_tokens: int, what: str = "conversations"
) -> list[IntArray]:
    """Encode conversations with a loss on the assistant's turns; a piece without any loss token is dropped.

    A conversation that is longer than a pack is split at its turns: every piece begins with the system turn and a question,
    and holds as many whole exchanges as fit. Of an exchange that is longer than a pack by itself, the question loses its
    beginning. Both are counted and said, of `what`, and so are conversations that the model's chat template refuses.

    Raises:
        TemplateRefusal: when it refuses every one.
    """
    documents, split_talks, cut = list[IntArray](), 0, list[int]()
    refused = list[TemplateRefusal]()
    for conversation in conversations:
        try:
            pieces = [supervised(conversation, tokenizer)]
        except TemplateRefusal as refusal:
            refused.append(refusal)
            continue
        if len(pieces[0]) - 1 > pack_tokens:
            split_talks += 1
            pieces, lengths = _split_at_turns(conversation, tokenizer, pack_tokens)
            cut += lengths
        documents += [piece for piece in pieces if (piece[1:] >= 0).any()]
    if refused and len(refused) == len(conversations):
        raise refused[0]
    if refused:
        warn([f"{len(refused):,} {what} left out, {REFUSED}: {refused[0].found}"])
    if split_talks:
        warn([f"{split_talks:,} {what} longer than {pack_tokens:,} tokens were split at their turns"])
    if cut:
        warn([
            f"{len(cut):,} questions of {what} lost their beginning: with the answer they are longer than {pack_tokens:,} tokens "
            f"(data.pack_tokens); the longest has {max(cut):,}"
        ])  # fmt: skip
    return documents


def _split_at_turns(
    conversation: Conversation, tokenizer: Tokenizer, pack_tokens: int
) -> tuple[list[IntArray], list[int]]:
    """Split a conversation into pieces that fit; also returns the lengths of exchanges that do not by themselves."""
    messages = conversation.messages
    opening = messages[:1] if messages[0].role == "system" else ()
    ends = [at + 1 for at, turn in enumerate(messages) if turn.role == "assistant"]
    pieces, cut = list[IntArray](), list[int]()
    begun: tuple[Message, ...] = ()  # exchanges of the last piece, while more of them fit
    for begin, end in itertools.pairwise([len(opening), *ends]):
        exchange = messages[begin:end]
        piece = coded(*tokenizer.supervised((*opening, *begun, *exchange)))
        if begun and len(piece) - 1 <= pack_tokens:
            pieces[-1], begun = piece, (*begun, *exchange)
            continue
        if begun:
            piece = coded(*tokenizer.supervised((*opening, *exchange)))
        begun = exchange
        if len(piece) - 1 > pack_tokens:
            cut.append(len(piece))
            piece, begun = piece[shortened_to(int((piece >= 0).argmax()), len(piece), pack_tokens) :], ()
        pieces.append(piece)
    return pieces, cut


def turns(*messages: Message) -> list[dict[str, Any]]:
    """Convert messages to JSON objects; `train` says so where the data marked a turn."""
    marks = [{"train": message.has_loss} if isinstance(message, MarkedMessage) else {} for message in messages]
    return [{"role": turn.role, "content": turn.content, **mark} for turn, mark in zip(messages, marks, strict=True)]


def repeated(documents: list[IntArray], tokens: int, seed: int) -> list[IntArray]:
    """Repeat documents in seeded passes over `documents` until they hold `tokens`."""
    orders = (np.random.default_rng((seed, epoch)).permutation(len(documents)) for epoch in itertools.count())
    endless = (documents[at] for at in itertools.chain.from_iterable(orders))
    drawn: list[IntArray] = []
    while tokens > 0:
        drawn.append(next(endless))
        tokens -= len(drawn[-1])
    return drawn


def lengths_of(documents: Sequence[IntArray]) -> LongArray:
    """Length in tokens of each document; mapped ones know theirs."""
    if isinstance(documents, Joined):
        return np.concatenate([np.empty(0, np.int64), *map(lengths_of, documents.parts)])
    counted = documents.lengths if isinstance(documents, MappedDocuments) else [len(document) for document in documents]
    return np.asarray(counted, dtype=np.int64)


def packed(documents: Sequence[IntArray], data: DataSection, anchored: int | None = None) -> PackedCorpus:
    """Pack documents as the recipe's `data` section says; what was cut or left out is logged.

    Raises:
        InputError: when no piece holds a loss token.
    """
    lengths = lengths_of(documents)
    if data.rows == "truncated":
        pieces = without_idle(beginnings(lengths, data.pack_tokens), documents, _conversations(documents))
        index = pieces.rows()
    else:
        pieces = at_turns(cut(lengths, data.pack_tokens), documents, _conversations(documents), data.pack_tokens)
        index = pieces.packed(data.pack_tokens)
    if pieces.idle and not len(index):
        raise InputError(
            "Nothing is left to learn from.", f"Pieces of conversations without any loss token: {pieces.idle:,}.",
            f"Raise data.pack_tokens, now {data.pack_tokens:,}: --set data.pack_tokens=N.",
        )  # fmt: skip
    warn(pieces.lines(data.pack_tokens))
    return PackedCorpus(documents, index, data.pack_tokens, anchored)


def _conversations(documents: Sequence[IntArray]) -> Iterator[int]:
    """Places of the documents of which not every token has a loss."""
    if isinstance(documents, Joined):
        begins = [0, *itertools.accumulate(map(len, documents.parts))]
        for begin, part in zip(begins, documents.parts, strict=False):
            yield from (begin + at for at in _conversations(part))
    elif not (isinstance(documents, MappedDocuments) and documents.plain):
        yield from (at for at, document in enumerate(documents) if (document < 0).any())
