"""Packing of preference pairs: both sides in one pack, with a loss on the last answer only.

A side is the prompt and one answer under the model's template, up to the end of the answer's turn. It may have as many
tokens as half a pack, so that a pair always fits. What is longer loses its end, as in TRL (`keep_start`): the prompt is
what an answer is judged by, and the beginnings of two answers are still compared fairly. What cannot be compared then
is left out and counted: a prompt that leaves no room for an answer, answers that differ only beyond the cut.

Packs are best-fit-decreasing as elsewhere, but a pair is one unit: its pieces follow each other, chosen first. So an
ordinary stream of batches (`stilnovo.data.batches`) serves, whose pieces are chosen_0, rejected_0, chosen_1, rejected_1 …
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stilnovo.data.conversations import Preference
from stilnovo.data.packing import IntArray, PackedCorpus, PackIndex, best_fit_order, coded
from stilnovo.io.bad_rows import BadRow, Tally
from stilnovo.progress import Progress
from stilnovo.text.chat_template import REFUSED, TemplateRefusal
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer

NO_ROOM = "the prompt leaves no room for an answer"
EQUAL = "answers equal up to the cut"
OTHER_PROMPT = "the chat template writes another prompt before each answer"


@dataclass
class PackedPairs:
    """Pairs ready to be learnt.

    Attributes:
        corpus: Its documents 2 i and 2 i + 1 are the chosen and the rejected side of a pair.
        tally: Pairs taken, and those left out by reason.
        cut: Pairs among those taken of which a side lost its end.
        longest: Most tokens of a side.
    """

    corpus: PackedCorpus
    longest: int
    cut: int = 0
    tally: Tally = field(default_factory=Tally)

    def lines(self) -> list[str]:
        """Summary lines for the user."""
        shortened = f"{self.cut:,} pairs lost the end of an answer beyond {self.longest:,} tokens"
        return self.tally.lines() + ([shortened] if self.cut else [])


def side(tokenizer: Tokenizer, prompt: Sequence[Message], answer: str) -> tuple[list[int], int]:
    """Encode a prompt and an answer up to the end of its turn; also returns where the answer begins."""
    ids, learnt = tokenizer.supervised([*prompt, Message("assistant", answer)])
    if True not in learnt:
        raise TemplateRefusal("The model's chat template leaves the answer out.")
    stop = len(learnt) - learnt[::-1].index(True)
    return ids[:stop], stop - learnt[stop - 1 :: -1].index(False)  # earlier answers belong to the prompt


def pack_pairs(pairs: Sequence[Preference], tokenizer: Tokenizer, pack_tokens: int) -> PackedPairs:
    """Tokenise preference pairs and pack them, both sides of a pair together.

    Args:
        pairs: As `stilnovo.data.conversations.read_preferences` gives them.
        tokenizer: The model's.
        pack_tokens: Tokens of a pack; a side has at most half of them.
    """
    documents, longest, tally, cut = list[IntArray](), pack_tokens // 2, Tally(), 0
    with Progress("pairs", len(pairs)) as progress:
        for count, pair in enumerate(pairs, 1):
            place = f"pair {pair.id}"
            try:
                (chosen, begin), (rejected, other) = (
                    side(tokenizer, pair.prompt, a) for a in (pair.chosen, pair.rejected)
                )
            except TemplateRefusal as refusal:
                tally.leave(place, BadRow(REFUSED, refusal.found))
                continue
            sizes = f"prompt {begin:,} tokens, sides {len(chosen):,} and {len(rejected):,}"
            if begin != other:
                tally.leave(place, BadRow(OTHER_PROMPT, sizes))
            elif begin >= longest:
                tally.leave(place, BadRow(NO_ROOM, sizes))
            elif chosen[:longest] == rejected[:longest]:
                tally.leave(place, BadRow(EQUAL, sizes))
            else:
                tally.taken += 1
                cut += max(len(chosen), len(rejected)) > longest
                sides = (chosen[:longest], rejected[:longest])
                documents += [coded(ids, [at >= begin for at in range(len(ids))]) for ids in sides]
            progress.update(count, f"{count:,} of {len(pairs):,} pairs")
    return PackedPairs(PackedCorpus(tuple(documents), _index(documents, pack_tokens), pack_tokens), longest, cut, tally)


def _index(documents: Sequence[IntArray], pack_tokens: int) -> PackIndex:
    """Packs of documents 2 i and 2 i + 1, which stay together."""
    inputs = np.array([len(document) - 1 for document in documents], dtype=np.int64)
    order, offsets = best_fit_order(inputs.reshape(-1, 2).sum(1).astype(np.int32), pack_tokens)
    sides = (2 * order[:, None] + np.arange(2)).reshape(-1)
    lengths = inputs[sides].astype(np.int32)
    return PackIndex(sides.astype(np.int32), np.zeros(len(sides), np.int64), lengths, 2 * offsets)
