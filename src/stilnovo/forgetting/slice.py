"""The slice that a guard evaluates again and again: some benchmark items, some documents, some conversations.

It is drawn once by seed, before a training begins, and never changes; each evaluation costs the same. Documents and
conversations are cut to their first tokens: many short ones say more than a few long ones in the same time. Of a
conversation only the assistant's words count, after everything that stands before them under the model's template.

Shape letters: N items, D documents of one text, E endings of an item.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from stilnovo.benchmarks.task import Draw, MultipleChoice, Selection, items_sha256, select
from stilnovo.benchmarks.tasks import find_tasks
from stilnovo.data.conversations import Conversation, read_conversations, shape_of
from stilnovo.errors import InputError
from stilnovo.io.rows import iter_rows
from stilnovo.model.llama import Llama
from stilnovo.scoring import reading
from stilnovo.scoring.packed import TOKEN_BUDGET, score
from stilnovo.scoring.perplexity import HeldOutTexts, held_out_texts
from stilnovo.scoring.reading import Reading, ReadOptions
from stilnovo.text.tokenizer import Tokenizer

DOCUMENT_TOKENS = 512
GAIN = "gain"  # the name of the held-out documents of what is learnt
_CHARACTERS_A_TOKEN = 8  # at most, nearly always: more of a document need not be tokenised

SliceDocument = str | Conversation


@dataclass(frozen=True)
class Slice:
    """Items of benchmarks, documents of each protected text, and those that measure the gain.

    `groups` name what the documents of a text are pieces of, (D,); a text that is not there has independent documents.
    """

    selections: tuple[Selection, ...]
    texts: dict[str, tuple[SliceDocument, ...]]
    gain: tuple[SliceDocument, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def units(self, name: str) -> int:
        """How many independent documents a protected text has: the pieces of one source are one."""
        return len(set(self.groups.get(name, range(len(self.texts[name])))))

    @property
    def items(self) -> list[MultipleChoice]:
        """The items of all benchmarks, one after another."""
        return [item for selection in self.selections for item in selection.items if isinstance(item, MultipleChoice)]

    @property
    def documents(self) -> dict[str, tuple[SliceDocument, ...]]:
        """Every text with its documents, the gain's last."""
        return {**self.texts, **({GAIN: self.gain} if self.gain else {})}

    def sha256(self) -> str:
        """Hex sha256 of all items and documents, in order."""
        digest = hashlib.sha256(items_sha256(self.items).encode())
        for name, documents in self.documents.items():
            turns = [
                [document] if isinstance(document, str) else [[turn.role, turn.content] for turn in document.messages]
                for document in documents
            ]
            digest.update(json.dumps([name, *turns], ensure_ascii=True).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Answers:
    """A model's answers to a slice.

    `loglikelihoods` in nats, for each benchmark N rows of E; `nats` what each document of a text cost, (D,); `sizes` the UTF-8 bytes of
    what was counted, (D,).
    """

    loglikelihoods: Sequence[Sequence[Sequence[float]]]
    nats: Mapping[str, Sequence[float]]
    sizes: Mapping[str, Sequence[int]]


def read_slice(
    tasks: Sequence[str], items: int, texts: Sequence[str], documents: int, data_dir: Path | None, seed: int
) -> Slice:
    """Draw the slice; nothing of it needs a model. The gain's documents come later (`sample`).

    Raises:
        InputError: nothing to protect, an unknown task, one with generated answers, missing or unusable files.
    """
    if not tasks and not texts:
        raise InputError(
            "The guard has nothing to protect.", next="Name benchmarks (guard.tasks) or texts (guard.texts)."
        )
    selections = [select(task, data_dir, draw=Draw(items, seed)) for task in (find_tasks(tasks) if tasks else ())]
    generated = [
        selection.task.name
        for selection in selections
        if not all(isinstance(item, MultipleChoice) for item in selection.items)
    ]
    if generated:
        raise InputError(
            f"The guard cannot use {generated[0]}.", "Its answers are generated, which takes too long.",
            "Choose multiple-choice tasks.",
        )  # fmt: skip
    drawn = {_name(path, texts): _drawn(read(path), Draw(documents, seed)) for path in texts}
    groups = {name: part.groups for name, part in drawn.items() if isinstance(part, HeldOutTexts)}
    return Slice(tuple(selections), {name: tuple(part) for name, part in drawn.items()}, groups=groups)


def read(path: str) -> HeldOutTexts | list[Conversation]:
    """Read the documents of a file or folder, or its conversations where the first row holds one.

    Raises:
        InputError: it cannot be read, or holds nothing.
    """
    first = next(iter_rows(path, lambda _place, _bad: None), None)
    conversations = first is not None and shape_of(list(first)) is not None
    if not conversations:
        return held_out_texts([path])
    talks, tally = read_conversations([path])
    tally.warn()
    return list(talks)


def _drawn(documents: HeldOutTexts | list[Conversation], draw: Draw) -> HeldOutTexts | list[Conversation]:
    return documents.sample(draw) if isinstance(documents, HeldOutTexts) else draw.sample(documents)


def check_answers(what: Slice, tokenizer: Tokenizer, max_positions: int) -> None:
    """Check that something of every protected text is scored, without the model.

    Raises:
        InputError: for conversations whose answers lie beyond what is read of them.
    """
    longest = min(DOCUMENT_TOKENS, max_positions)
    for name, documents in what.texts.items():
        if not any(_reading(index, document, tokenizer, longest).targets for index, document in enumerate(documents)):
            raise InputError(
                f"Protected text {name} has no assistant tokens within the first {longest} tokens.",
                next="Give guard.texts shorter conversations.",
            )


def measure(model: Llama, tokenizer: Tokenizer, what: Slice, *, token_budget: int = TOKEN_BUDGET) -> Answers:
    """Evaluate the current model on the whole slice.

    Raises:
        NonFiniteScore: an item or a document got no finite number.
    """
    scores = iter(score(model, tokenizer, what.items, token_budget=token_budget) if what.selections else ())
    loglikelihoods = [
        [list(item.loglikelihoods) for item in islice(scores, len(part.items))] for part in what.selections
    ]
    longest, options = min(DOCUMENT_TOKENS, model.config.max_positions), ReadOptions(token_budget)

    def read_all(name: str, documents: Sequence[SliceDocument]) -> list[dict[str, Any]]:
        readings = [_reading(index, document, tokenizer, longest) for index, document in enumerate(documents)]
        sizes = [{"size": len(tokenizer.decode(document.targets).encode())} for document in readings]
        rows = reading.read_documents(
            model, f"text {name}", "", [""] * len(readings), lambda index: [readings[index]],
            lambda parts: {"nats": -float(parts[0].sum())}, options,
        )  # fmt: skip
        return [row | size for row, size in zip(rows, sizes, strict=True)]

    rows = {name: read_all(name, documents) for name, documents in what.documents.items()}
    nats, sizes = ({name: [row[key] for row in rows[name]] for name in rows} for key in ("nats", "size"))
    return Answers(loglikelihoods, nats, sizes)


def _reading(index: int, document: SliceDocument, tokenizer: Tokenizer, longest: int) -> Reading:
    if isinstance(document, Conversation):
        return reading.of_answers(index, document, tokenizer, longest)
    return reading.of_text(index, document[: _CHARACTERS_A_TOKEN * longest], tokenizer, longest)


def _name(path: str, paths: Sequence[str]) -> str:
    """Short name of a protected text: the file's name, or the whole path where two share it or the gain's text does."""
    stem = Path(path).stem
    return path if [Path(other).stem for other in paths].count(stem) > 1 or stem == GAIN else stem
