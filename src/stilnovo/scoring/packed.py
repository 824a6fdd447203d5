"""Score questions by log-likelihood, many in a forward pass: shared prefixes computed once, constant memory.

The numbers are those of lm-evaluation-harness (`encode.py`); what is different is the work done for them. All endings
of a question form a tree in which their context is computed once, and the output head runs only on the rows that
predict a token of an ending (`likelihood.py`).

Questions are taken a window at a time, as many as make some passes; inside a window they are sorted by header and
length, so that a pass holds trees of nearly one size (`model/forest.py`). A header that questions share is read once,
its keys and values kept until another header comes. Numbers do not depend on any of this beyond rounding: every row
sees what it would see alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, chain, islice

import torch

from stilnovo.benchmarks.corpus_metrics import is_corpus_metric, table_row
from stilnovo.benchmarks.task import Generation, Item, Metric, MultipleChoice, Task
from stilnovo.generate.generator import dense_weights
from stilnovo.model.forest import Forest, Prefix, Recorder
from stilnovo.model.llama import Llama, evaluating
from stilnovo.scoring.boundary import check_finite
from stilnovo.scoring.encode import Context, Encoded, Endings, encode, filled
from stilnovo.scoring.likelihood import token_scores
from stilnovo.text.tokenizer import Tokenizer

TOKEN_BUDGET = 2048
WINDOW_PASSES = 16  # passes' worth of questions that are sorted together


@dataclass(frozen=True)
class ModelAnswer:
    """A model's answer to one item, as cached.

    `loglikelihoods` in nats, one an ending, and whether each ending is what `greedy` decoding would have written; or the
    `text` that was written. `truncated` says that the context was cut on the left to fit the model. What follows from it
    (choice, metrics, grades) is computed anew from the item and its task. `remark` is what a server's answer needs said of it
    (`server_answers.REMARKS`).
    """

    loglikelihoods: tuple[float, ...] = ()
    truncated: bool = False
    text: str = ""
    greedy: tuple[bool, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class ItemScore:
    """Score of one item.

    `loglikelihoods` in nats, one an ending; `choice` is their argmax, `choice_norm` the argmax per character, the first
    of equals in both; all -1 or empty for a written answer, which is `text`. `values` are the item's metrics;
    `truncated` says that the context was cut on the left to fit the model; `remark` as in `ModelAnswer`. `counts` is what
    the item adds to the sums that corpus metrics are computed from, one row for every time that it was asked.

    Raises:
        NonFiniteScore: a log-likelihood or a value is no finite number.
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
    remark: str = ""
    counts: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        check_finite(item_place(self.id), [self.loglikelihoods, self.values, self.counts])


def item_place(id: str, task: str = "") -> str:
    """How an error calls an item."""
    return f"item {id} of task {task}" if task else f"item {id}"


def item_score(item: Item, answer: ModelAnswer, task: Task | None = None) -> ItemScore:
    """Score an item from the model's answer; `task` grades written answers."""
    sums = answer.loglikelihoods
    check_finite(item_place(item.id, task.name if task else ""), sums)
    if isinstance(item, Generation):
        assert task is not None and task.grade is not None, "a task with written answers grades them"
        values, picks = dict(task.grade(answer.text, item)), (-1, -1, -1)
        row = task.count(answer.text, item) if task.count is not None else ()
    else:
        values, picks = item.values(sums), (item.answer, item.choice(sums), item.choice_norm(sums))
        counted = task is not None and any(map(is_corpus_metric, task.metrics))
        row = table_row(item.answer, item.choice(sums), len(sums)) if counted else ()
    return ItemScore(
        item.id, *picks, sums, item.cluster, answer.truncated, item.category, values, answer.text,
        answer.remark, (row,) if row else (),
    )  # fmt: skip


def score(
    model: Llama,
    tokenizer: Tokenizer,
    items: Sequence[MultipleChoice],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Callable[[int, int], None] | None = None,
) -> list[ItemScore]:
    """Score every item.

    Args:
        model: Any Llama, quantised or not, with or without adapter; dropout is off while it is scored.
        tokenizer: Its tokeniser.
        items: The questions.
        token_budget: Most tokens in one forward pass; an item with more gets a pass of its own.
        progress: Called with (items done, items in all) after every pass.
    """
    scores: dict[int, ItemScore] = {}
    for batch in answers(model, tokenizer, items, token_budget=token_budget):
        scores |= {index: item_score(items[index], answer) for index, answer in batch}
        if progress is not None:
            progress(len(scores), len(items))
    return [scores[index] for index in range(len(items))]


def answers(
    model: Llama,
    tokenizer: Tokenizer,
    questions: Iterable[MultipleChoice | Endings],
    *,
    token_budget: int = TOKEN_BUDGET,
) -> Iterator[list[tuple[int, ModelAnswer]]]:
    """Score questions; yields (index, answer) lists after every forward pass, not in order.

    Args:
        model: Any Llama; dropout is off while this runs. On a CPU, quantised weights are kept densely meanwhile where
            they fit (`generate.engine.dense_weights`).
        tokenizer: Its tokeniser.
        questions: What is asked; `header` is only a hint, the tokens decide what is shared.
        token_budget: Most tokens in one forward pass; a question with more gets a pass of its own.
    """
    headers = _Headers(model, tokenizer)
    source = iter(enumerate(questions))
    with evaluating(model), dense_weights(model):
        while window := _window(source, headers, WINDOW_PASSES * token_budget):
            for pack in _packs(window, token_budget):
                scores = _forward(model, [encoded for _, _, encoded in pack], headers.prefix(pack[0][0]))
                yield [(index, answer) for (_, index, _), answer in zip(pack, scores, strict=True)]


class _Headers:
    """Cache of header tokens, and of the last header's keys and values."""

    def __init__(self, model: Llama, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.tokens = lru_cache(256)(self._tokenise)
        self._current: tuple[Context, Prefix] | None = None

    def _tokenise(self, header: Context) -> list[int]:
        if not header:
            return []
        if isinstance(header, str):
            tokens = self.tokenizer.opening + self.tokenizer.encode(header)
        else:
            tokens = self.tokenizer.encode_rendered(header)
        return tokens[: self.model.config.max_positions]

    @torch.inference_mode()
    def prefix(self, header: Context) -> Prefix | None:
        """Keys and values of a header, computed unless it was the last one used."""
        if not header:
            return None
        if self._current is None or self._current[0] != header:
            self._current = None  # two at once would be twice the memory
            tokens, recorder = torch.tensor(self.tokens(header), device=self.model.device), Recorder()
            self.model.hidden(tokens, torch.arange(len(tokens), device=tokens.device), recorder)
            self._current = header, recorder.prefix
        return self._current[1]


Pack = list[tuple[Context, int, Encoded]]  # the header that the questions share, each one's index, the question


def _window(source: Iterator[tuple[int, MultipleChoice | Endings]], headers: _Headers, tokens: int) -> Pack:
    """Take the next questions of at least `tokens` tokens, sorted by header, shared tokens and length."""
    window: Pack = []
    size = 0
    for index, question in source:
        max_positions, header = headers.model.config.max_positions, headers.tokens(question.header)
        encoded = encode(headers.tokenizer, question, max_positions, header)
        window.append((question.header if encoded.shared else "", index, encoded))
        size += encoded.size
        if size >= tokens:
            break
    return sorted(window, key=lambda entry: (_text(entry[0]), entry[2].shared, -entry[2].size))


def _text(header: Context) -> str:
    return header if isinstance(header, str) else header.text


def _packs(window: Pack, token_budget: int) -> Iterator[Pack]:
    """Split a window into passes that fit the token budget, one header each."""

    def fits(pack: Sequence[tuple[Context, int, Encoded]], entry: tuple[Context, int, Encoded]) -> bool:
        alike = (pack[0][0], pack[0][2].shared) == (entry[0], entry[2].shared)
        return alike and sum(encoded.size for _, _, encoded in (*pack, entry)) <= token_budget

    return filled(window, fits)


@torch.inference_mode()
def _forward(model: Llama, pack: Sequence[Encoded], prefix: Prefix | None) -> list[ModelAnswer]:
    """Forward pass over several trees that follow the same part of one header."""
    device, trees = model.device, [tree for encoded in pack for tree in encoded.trees]
    tokens = torch.tensor([token for tree in trees for token in tree.tokens], device=device)
    positions = torch.tensor([position for tree in trees for position in tree.positions], device=device)
    begins = accumulate((encoded.size for encoded in pack), initial=0)
    rows = [first + node for first, encoded in zip(begins, pack, strict=False) for node in chain(*encoded.rows)]
    targets = [token for encoded in pack for token in chain(*encoded.targets)]
    forest = Forest([tree.mask() for tree in trees], device, model.dtype, prefix, pack[0].shared)
    hidden = model.hidden(tokens, positions, forest)  # (T, C)
    values, greedy = token_scores(model, hidden, rows, targets)
    logs, firsts = iter(values.tolist()), iter(greedy.tolist())
    return [
        ModelAnswer(
            tuple(sum(islice(logs, len(ending))) for ending in encoded.targets),
            encoded.truncated,
            greedy=tuple(all(list(islice(firsts, len(ending)))) for ending in encoded.targets),  # lists: all are taken
        )
        for encoded in pack
    ]
