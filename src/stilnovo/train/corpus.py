"""What a recipe learns from, read, tokenised and packed: texts, conversations or pairs, a prepared corpus, rehearsal beside.

A seeded share of the texts, conversations or pairs is kept aside for measuring and never learnt; a prepared corpus has set
its own aside, and rehearsal is learnt whole. Rehearsal conversations are repeated, in an order drawn by seed, until they
make up their share of all tokens; they come after the others in the list of documents, so that a batch knows them by
their number.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from stilnovo.data import corpora
from stilnovo.data.conversations import Conversation, Preference, read_conversations, read_preferences
from stilnovo.data.packing import IntArray, LongArray, PackedCorpus, coded, pack_index, truncated_index
from stilnovo.data.pairs import pack_pairs
from stilnovo.data.shards import is_prepared, open_prepared
from stilnovo.data.sources import Document, read_documents, training_text
from stilnovo.errors import InputError
from stilnovo.io.bad_rows import Tally
from stilnovo.recipe import Recipe
from stilnovo.text import lint
from stilnovo.text.encoder import Encoder
from stilnovo.text.tokenizer import Tokenizer

Row = TypeVar("Row")
Chat = TypeVar("Chat", Conversation, Preference)
Aside = tuple[Document, ...] | tuple[Conversation, ...] | tuple[Preference, ...]


@dataclass(frozen=True)
class Corpus:
    """What is learnt, packed, and what was kept aside for measuring.

    Attributes:
        held_out: Texts kept aside, as they would be trained on; those of a prepared corpus too.
        sha256: Of everything that was read, what was kept aside included.
        aside: The rows kept aside here, whatever they are; none of a prepared corpus.
    """

    packed: PackedCorpus
    held_out: tuple[str, ...]
    sha256: str
    aside: Aside = ()

    @property
    def kept_aside(self) -> int:
        """How many were kept aside."""
        return max(len(self.held_out), len(self.aside))


class Joined(Sequence[IntArray]):
    """Two lists of documents as one; neither is copied."""

    def __init__(self, first: Sequence[IntArray], second: Sequence[IntArray]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, at: int) -> IntArray: ...
    @overload
    def __getitem__(self, at: slice) -> list[IntArray]: ...
    def __getitem__(self, at: int | slice) -> IntArray | list[IntArray]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        return self._first[at] if at < len(self._first) else self._second[at - len(self._first)]


def split(documents: Sequence[Row], held_out: float, seed: int) -> tuple[list[Row], list[Row]]:
    """What is learnt and what is kept aside, drawn by seed; at least one of each when both are wanted."""
    kept_aside = round(held_out * len(documents))
    if held_out and len(documents) > 1:
        kept_aside = min(max(1, kept_aside), len(documents) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(documents))[:kept_aside].tolist())
    learnt = [d for i, d in enumerate(documents) if i not in chosen]
    return learnt, [d for i, d in enumerate(documents) if i in chosen]


def read_corpus(recipe: Recipe, tokenizer: Tokenizer) -> Corpus:
    """Read, split, tokenise and pack what the recipe names; a prepared folder is opened as it is.

    Raises:
        InputError: for files that cannot be read, a broken chat template, or keys that do not go together.
    """
    section, seed = recipe.data, recipe.train.seed
    _check(recipe, tokenizer)
    if recipe.train.task == "dpo":
        return _pairs(recipe, tokenizer)
    prepared = len(section.paths) == 1 and is_prepared(Path(section.paths[0]))
    held_out: tuple[str, ...] = ()
    aside: Aside = ()
    documents: Sequence[IntArray]
    if prepared:
        opened = open_prepared(Path(section.paths[0]), tokenizer.fingerprint())
        documents, held_out, digest = opened.documents, opened.held_out, opened.sha256
        lengths = opened.documents.lengths
    elif recipe.train.task == "sft":
        conversations, digest = _conversations(section.paths, section.max_documents)
        chats, kept = _apart(conversations, section.held_out, seed)
        documents, aside = [learnt_of(conversation, tokenizer) for conversation in chats], tuple(kept)
        lengths = _lengths(documents)
    else:
        texts, aside, digest = _texts(recipe)
        held_out = tuple(training_text(text) for text in aside)
        documents = Encoder(tokenizer).documents([training_text(text) for text in texts])
        if section.comprehension:
            documents += _questions(texts, tokenizer, section.comprehension, seed)
        lengths = _lengths(documents)
    index = truncated_index if section.rows == "truncated" else pack_index
    if not section.rehearsal:
        packed = PackedCorpus(documents, index(lengths, section.pack_tokens), section.pack_tokens)
        return Corpus(packed, held_out, digest, aside)
    conversations, more = _conversations(section.rehearsal, None)
    wanted = round(section.rehearsal_share / (1 - section.rehearsal_share) * int(lengths.sum()))
    again = _repeated([learnt_of(conversation, tokenizer) for conversation in conversations], wanted, seed)
    lengths = np.concatenate([lengths, _lengths(again)])
    digest = hashlib.sha256(f"{digest}{more}".encode()).hexdigest()
    packed = PackedCorpus(
        Joined(documents, again), index(lengths, section.pack_tokens), section.pack_tokens, len(documents)
    )
    return Corpus(packed, held_out, digest, aside)


def _check(recipe: Recipe, tokenizer: Tokenizer) -> None:
    data = recipe.data
    if data.rows == "truncated" and (data.rehearsal or recipe.train.task != "text"):
        raise InputError(
            "data.rows: truncated is for plain texts.", "Here conversations are learnt too.", "Use rows: packed."
        )
    if recipe.train.task == "dpo" and (data.rehearsal or data.comprehension or is_prepared(Path(data.paths[0]))):
        raise InputError(
            "DPO learns from preference pairs alone.",
            "The recipe names rehearsal, comprehension or a prepared corpus beside them.",
            "Leave these keys out, and give files of pairs.",
        )
    if data.rehearsal or data.comprehension or recipe.train.task != "text":
        for warning in lint.check(tokenizer):
            logging.getLogger(__name__).warning("%s: %s", warning.rule, warning.text)


def _apart(rows: Sequence[Chat], held_out: float, seed: int) -> tuple[list[Chat], list[Chat]]:
    """`split`, and what repeats a row that is kept aside is not learnt either: chat data often hold a row twice."""
    learnt, aside = split(rows, held_out, seed)
    kept = {replace(row, id="") for row in aside}
    others = [row for row in learnt if replace(row, id="") not in kept]
    if gone := len(learnt) - len(others):
        logging.getLogger(__name__).info("%s left out, equal to a row that is kept aside", f"{gone:,}")
    return others, aside


def _pairs(recipe: Recipe, tokenizer: Tokenizer) -> Corpus:
    section = recipe.data
    preferences, tally = read_preferences(corpora.locate(section.paths), max_rows=section.max_documents)
    said(tally)
    digest = hashlib.sha256()
    for pair in preferences:
        digest.update(repr((pair.prompt, pair.chosen, pair.rejected)).encode())
    learnt, aside = _apart(preferences, section.held_out, recipe.train.seed)
    packed = pack_pairs(learnt, tokenizer, section.pack_tokens)
    for line in packed.lines():
        logging.getLogger(__name__).info(line)
    if not packed.tally.taken:
        raise InputError(
            "No pair can be learnt from.", packed.tally.lines()[0],
            f"Raise data.pack_tokens; a side has at most half of it, {packed.longest:,} tokens.",
        )  # fmt: skip
    return Corpus(packed.corpus, (), digest.hexdigest(), tuple(aside))


def _texts(recipe: Recipe) -> tuple[list[Document], tuple[Document, ...], str]:
    for name in recipe.data.paths:
        if name in corpora.SOURCES and not Path(name).exists():
            raise InputError(
                f"{name} is a corpus that is prepared once, and no folder of that name is here.",
                corpora.SOURCES[name].about,
                f"Run: stilnovo prepare {name} --model {recipe.model.name} --out prepared; then train with --data prepared",
            )
    documents = read_documents(recipe.data.paths, recipe.data.max_documents)
    learnt, aside = split(documents, recipe.data.held_out, recipe.train.seed)
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.text.encode())
    return learnt, tuple(aside), digest.hexdigest()


def _conversations(paths: Sequence[str], max_rows: int | None) -> tuple[list[Conversation], str]:
    conversations, tally = read_conversations(corpora.locate(paths), max_rows=max_rows)
    said(tally)
    digest = hashlib.sha256()
    for conversation in conversations:
        digest.update(repr(conversation.messages).encode())
    return conversations, digest.hexdigest()


def learnt_of(conversation: Conversation, tokenizer: Tokenizer) -> IntArray:
    """A conversation as a document in which the assistant's turns count."""
    return coded(*tokenizer.supervised(conversation.messages))


def said(tally: Tally) -> None:
    """Say what was left out, and why."""
    for line in tally.lines():
        logging.getLogger(__name__).info(line)


def _questions(texts: Sequence[Document], tokenizer: Tokenizer, share: float, seed: int) -> list[IntArray]:
    from stilnovo.data.comprehension import comprehension

    return [learnt_of(conversation, tokenizer) for conversation in comprehension(texts, seed, share)]


def _repeated(known: list[IntArray], tokens: int, seed: int) -> list[IntArray]:
    """Documents drawn in seeded passes over `known` until they hold `tokens`."""
    found: list[IntArray] = []
    for number in itertools.count():
        for at in np.random.default_rng((seed, number)).permutation(len(known)).tolist():
            if tokens <= 0:
                return found
            found.append(known[at])
            tokens -= len(known[at])
    raise AssertionError("unreachable")


def _lengths(documents: Sequence[IntArray]) -> LongArray:
    return np.array([len(document) for document in documents], dtype=np.int64)
