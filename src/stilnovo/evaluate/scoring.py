"""Multiple choice by log-likelihood: how probable each ending is after its context.

The numbers are those of lm-evaluation-harness (`_encode_pair`): context and ending are tokenised together, and the
ending is what follows the tokens of the context alone; trailing spaces of the context belong to the ending; the opening
token is prepended where the model has one. What is different is the work done for them. All endings of a question form
a tree (`tree.py`) in which their context is computed once, and many trees lie in one forward pass, packed without
padding up to a budget of tokens. The output head runs only on the rows that predict a token of an ending, in slices
that keep the (rows, vocabulary) matrix small. Log-softmax is fp32 and sums are fp64: bf16 sums flip close choices.

Shape letters: T tokens of a pass, R rows that predict, C hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stilnovo.evaluate.task import Metric, MultipleChoice
from stilnovo.evaluate.tree import TokenTree
from stilnovo.model.attention import Block, Blocks
from stilnovo.model.llama import Llama
from stilnovo.text.tokenizer import Tokenizer

TOKEN_BUDGET = 2048
LOGITS_BYTES = 64 * 2**20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ItemScore:
    """One answered question.

    `loglikelihoods` in nats, one an ending; `choice` is their argmax, `choice_norm` the argmax per character, the first
    of equals in both; all -1 or empty for a written answer, which is `text`. `values` are the item's metrics;
    `truncated` says that the context was cut on the left to fit the model.
    """

    id: str
    answer: int
    choice: int
    choice_norm: int
    loglikelihoods: tuple[float, ...]
    cluster: str = ""
    truncated: bool = False
    category: str = ""
    values: dict[Metric, float] = field(default_factory=dict)
    text: str = ""

    @property
    def correct(self) -> bool:
        """Right by the sum of log-likelihoods."""
        return self.choice == self.answer

    @property
    def correct_norm(self) -> bool:
        """Right by the log-likelihood per character."""
        return self.choice_norm == self.answer


@dataclass(frozen=True)
class _Encoded:
    """A question as a tree: for each ending the nodes that predict its tokens, and those tokens."""

    tree: TokenTree
    rows: tuple[list[int], ...]
    targets: tuple[list[int], ...]
    truncated: bool


def score(
    model: Llama,
    tokenizer: Tokenizer,
    items: Sequence[MultipleChoice],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Progress | None = None,
    finished: Callable[[Sequence[ItemScore]], None] | None = None,
) -> list[ItemScore]:
    """Score every item.

    Args:
        model: Any Llama, quantised or not, with or without adapter; dropout is off while it is scored.
        tokenizer: Its tokeniser.
        items: The questions.
        token_budget: Most tokens in one forward pass; an item with more gets a pass of its own.
        progress: Called with (items done, items in all) after every pass.
        finished: Called with the scores of every pass, so that they can be kept before the next one.
    """
    scores: list[ItemScore] = []
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for pack in _packs(items, tokenizer, model.config.max_positions, token_budget):
                likelihoods = _forward(model, [encoded for _, encoded in pack])
                new = [
                    _item_score(item, encoded, sums) for (item, encoded), sums in zip(pack, likelihoods, strict=True)
                ]
                scores += new
                if finished is not None:
                    finished(new)
                if progress is not None:
                    progress(len(scores), len(items))
    finally:
        model.train(training)
    return scores


def encode_endings(tokenizer: Tokenizer, context: str, endings: Sequence[str]) -> list[tuple[list[int], int]]:
    """For each ending: the tokens of context and ending together, and the index at which the ending begins.

    An empty context becomes the opening token, or the end-of-text token where the model has none. Tokenising both
    together may merge across the seam; the cut stays where the context alone would have ended, as in the reference.
    """
    stem = context.rstrip()
    seam = context[len(stem) :]
    opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if not stem and not opening:
        opening = [tokenizer.end_of_text_id]
    cut = len(tokenizer.encode(stem))
    wholes = [tokenizer.encode(stem + seam + ending) for ending in endings]
    return [(opening + whole, len(opening) + min(cut, len(whole) - 1)) for whole in wholes]


def _encode(tokenizer: Tokenizer, item: MultipleChoice, max_positions: int) -> _Encoded:
    pairs = encode_endings(tokenizer, item.context, item.endings)
    if item.contexts:
        pairs = [encode_endings(tokenizer, context, [ending])[0] for context, ending in item.pairs]
    # The last token is only predicted, never read. All endings lose the same tokens on the left: they still share.
    excess = max(0, max(len(tokens) - 1 for tokens, _ in pairs) - max_positions)
    tree = TokenTree()
    rows, targets = [], []
    for tokens, start in pairs:
        kept, first = tokens[excess:], max(start - excess, 1)
        path = tree.add(kept[:-1])
        rows.append(path[first - 1 :])
        targets.append(kept[first:])
    return _Encoded(tree, tuple(rows), tuple(targets), excess > 0)


def _packs(
    items: Sequence[MultipleChoice], tokenizer: Tokenizer, max_positions: int, token_budget: int
) -> Iterator[list[tuple[MultipleChoice, _Encoded]]]:
    """Items in their order, as many in a pass as the budget holds; only one pack is in memory."""
    pack: list[tuple[MultipleChoice, _Encoded]] = []
    size = 0
    for item in items:
        encoded = _encode(tokenizer, item, max_positions)
        if pack and size + len(encoded.tree) > token_budget:
            yield pack
            pack, size = [], 0
        pack.append((item, encoded))
        size += len(encoded.tree)
    if pack:
        yield pack


def _forward(model: Llama, pack: Sequence[_Encoded]) -> list[list[float]]:
    """Summed log-likelihood of every ending of every tree in one pass."""
    device = model.device
    tokens: list[int] = []
    positions: list[int] = []
    blocks: list[Block] = []
    rows: list[int] = []
    targets: list[int] = []
    for encoded in pack:
        offset, tree = len(tokens), encoded.tree
        tokens += tree.tokens
        positions += tree.positions
        blocks.append(Block(offset, offset + len(tree), None if tree.is_chain() else tree.mask().to(device)))
        rows += [offset + node for ending in encoded.rows for node in ending]
        targets += [token for ending in encoded.targets for token in ending]
    hidden = model.hidden(
        torch.tensor(tokens, device=device), torch.tensor(positions, device=device), Blocks(blocks)
    )  # (T, C)
    values = iter(token_loglikelihoods(model, hidden, rows, targets).tolist())
    return [[sum(next(values) for _ in ending) for ending in encoded.rows] for encoded in pack]


def token_loglikelihoods(model: Llama, hidden: Tensor, rows: Sequence[int], targets: Sequence[int]) -> Tensor:
    """log p(target | row) for R pairs, (R,) fp64 on the CPU.

    Args:
        model: Its head is applied.
        hidden: (T, C) final hidden states.
        rows: R indices into them; equal ones go through the head once.
        targets: R token ids.
    """
    distinct, inverse = torch.unique(torch.tensor(rows, device=hidden.device), return_inverse=True)  # sorted
    order = torch.argsort(inverse)
    wanted = torch.tensor(targets, device=hidden.device)[order]
    ends = torch.cumsum(torch.bincount(inverse, minlength=len(distinct)), 0).tolist()
    step = max(1, LOGITS_BYTES // (4 * model.config.vocab_size))
    parts: list[Tensor] = []
    for first in range(0, len(distinct), step):
        last = min(first + step, len(distinct))
        logits = model.logits(hidden[distinct[first:last]])  # (step, V)
        pairs = slice(ends[first - 1] if first else 0, ends[last - 1])
        local = inverse[order[pairs]] - first
        picked = logits[local, wanted[pairs]]
        peak = logits.amax(dim=-1, keepdim=True)
        # log-softmax in place: a second (step, V) matrix would cost more time than the arithmetic
        normaliser = logits.sub_(peak).exp_().sum(dim=-1).log() + peak[:, 0]
        parts.append(picked - normaliser[local])
    result = torch.empty(len(rows), dtype=torch.float64)
    result[order.cpu()] = torch.cat(parts).double().cpu()
    return result


def _item_score(item: MultipleChoice, encoded: _Encoded, sums: Sequence[float]) -> ItemScore:
    return ItemScore(
        id=item.id,
        answer=item.answer,
        choice=item.choice(sums),
        choice_norm=item.choice_norm(sums),
        loglikelihoods=tuple(sums),
        cluster=item.cluster,
        truncated=encoded.truncated,
        category=item.category,
        values=item.values(sums),
    )
