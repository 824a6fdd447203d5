"""What many questions share is computed once and changes nothing: headers, windows, batches of trees, kept weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stilnovo.benchmarks.task import Draw, MultipleChoice
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, grouped_attention
from stilnovo.model.forest import Forest, Recorder
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FrozenLinear, quantized_linear
from stilnovo.plan.shape import LoraConfig
from stilnovo.scoring import packed
from stilnovo.scoring.encode import TokenTree, encode
from stilnovo.scoring.likelihood import token_scores
from stilnovo.scoring.packed import answers, score
from test_evaluate_scoring import ITEMS, byte_tokenizer, plain_loglikelihood, tiny_llama

HEADER = "Domanda: quanto fa due più due?\nRisposta: B\n\nDomanda: e tre?\nRisposta: gatt"
LETTERS = (" A", " B", " C", " D")


def headed(count: int, header: str = HEADER) -> list[MultipleChoice]:
    """Questions after one header; `o` at once after it merges across the seam of some tokenisers."""
    texts = [
        f"{'o ' if number % 3 == 0 else ' '}domanda {'molto ' * (number % 5)}{number}?\nRisposta:"
        for number in range(count)
    ]
    return [MultipleChoice(f"h{number}", header + text, LETTERS, 0, header=header) for number, text in enumerate(texts)]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("token_budget", [1, 150, 2048])
def test_a_header_read_once_gives_what_reading_it_every_time_gives(bos: bool, token_budget: int) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos)
    other = headed(4, "Un'altra intestazione, che è abbastanza lunga: ")
    items = [
        item
        for pair in zip(headed(8)[:4], (replace(one, id=f"o{one.id}") for one in other), strict=True)
        for item in pair
    ]
    items += [*headed(8)[4:], *ITEMS]
    opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    for item in items[: -len(ITEMS)]:
        assert encode(tokenizer, item, 512, opening + tokenizer.encode(item.header)).shared > 30, item.id
    for item, found in zip(items, score(model, tokenizer, items, token_budget=token_budget), strict=True):
        expected = [plain_loglikelihood(model, tokenizer, item.context, ending) for ending in item.endings]
        assert found.id == item.id
        assert found.loglikelihoods == pytest.approx(expected, abs=1e-5), item.id


def test_headers_are_read_once_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    items = headed(12)
    read = []
    hidden = Llama.hidden

    def counted(self: Llama, tokens: torch.Tensor, positions: torch.Tensor, attention: object) -> torch.Tensor:
        read.append((len(tokens), isinstance(attention, Recorder)))
        return hidden(self, tokens, positions, attention)  # type: ignore[arg-type]

    monkeypatch.setattr(Llama, "hidden", counted)
    score(model, tokenizer, items, token_budget=100)
    header = 1 + len(tokenizer.encode(HEADER))
    assert [count for count, recorded in read if recorded] == [header]
    longest = max(len(tokenizer.encode(item.context)) for item in items)
    # the last letters of a header may be tokenised with what follows; the rest is never read again
    assert max(count for count, recorded in read if not recorded) <= max(100, longest - header + 4)


def test_a_header_in_a_cut_context_is_not_reused() -> None:
    model, tokenizer = tiny_llama(max_positions=90), byte_tokenizer(True)
    items = headed(6)
    long = replace(items[0], id="long", context=items[0].context + " parola" * 10 + ":")
    found = {one.id: one for one in score(model, tokenizer, [*items, long])}
    alone = score(model, tokenizer, [replace(long, header="")])[0]
    assert found["long"].truncated
    assert found["long"].loglikelihoods == pytest.approx(alone.loglikelihoods, abs=1e-5)


def test_windows_bound_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    monkeypatch.setattr(packed, "WINDOW_PASSES", 2)
    items = [replace(item, id=f"{item.id}{round}") for round in range(5) for item in ITEMS]
    seen: list[int] = []
    asked = []

    class Counted(list[MultipleChoice]):
        def __iter__(self) -> Iterator[MultipleChoice]:
            for item in list.__iter__(self):
                asked.append(item.id)
                yield item

    for found in answers(model, tokenizer, Counted(items), token_budget=60):
        seen += [index for index, _ in found]
        assert len(asked) - len(seen) < 2 * len(ITEMS), "questions are encoded only when their turn comes"
    assert sorted(seen) == list(range(len(items)))


def test_contexts_that_differ_before_one_ending() -> None:
    """Winogrande: the same ending after two contexts, which share their beginning."""
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    stem = "Il trofeo non entra nella valigia perché "
    contexts = (stem + "il trofeo", stem + "la valigia")
    item = MultipleChoice("w", stem, (" è troppo grande.",) * 2, 0, contexts=contexts)
    (found,) = score(model, tokenizer, [item])
    expected = [plain_loglikelihood(model, tokenizer, context, item.endings[0]) for context in contexts]
    assert found.loglikelihoods == pytest.approx(expected, abs=1e-5)


def test_letters_need_one_row_of_the_head() -> None:
    item = headed(1)[0]
    found = encode(byte_tokenizer(True), MultipleChoice("x", item.context, ("A", "B", "C", "D"), 0), 512)
    assert len({row for ending in found.rows for row in ending}) == 1
    assert found.trees[0].parents == list(range(-1, found.size - 1))  # one sequence without branches


def test_greedy_says_what_greedy_decoding_would_write() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    tokens = torch.tensor([tokenizer.bos_id, *tokenizer.encode("La luna è")])
    with torch.no_grad():
        logits = model(tokens, torch.arange(len(tokens)), Blocks([len(tokens)]))
        hidden = model.hidden(tokens, torch.arange(len(tokens)), Blocks([len(tokens)]))
        rows = [0, 3, 3, len(tokens) - 1]
        best = logits.argmax(dim=-1).tolist()
        targets = [best[0], best[3], (best[3] + 1) % 300, best[-1]]
        values, greedy = token_scores(model, hidden, rows, targets)
    assert greedy.tolist() == [True, True, False, True]
    expected = torch.log_softmax(logits.double(), dim=-1)[rows, targets]
    assert torch.allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_quantised_with_adapter(scheme: str) -> None:
    """The packed numbers are those of one pass an ending on the same quantised model; nothing dense is left behind."""
    model, tokenizer = tiny_llama(), byte_tokenizer(False)
    for layer in model.layers:
        for part, names in ((layer.self_attn, ("q_proj", "v_proj")), (layer.mlp, ("down_proj",))):
            for name in names:
                setattr(part, name, quantized_linear(getattr(part, name).weight, scheme))  # type: ignore[arg-type]
    torch.manual_seed(1)
    lora.attach(model, LoraConfig(r=4, alpha=8, projections=("q_proj", "down_proj")))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1)
        assert parameter.requires_grad, name
    items = headed(3)
    for item, found in zip(items, score(model, tokenizer, items), strict=True):
        expected = [plain_loglikelihood(model, tokenizer, item.context, ending) for ending in item.endings]
        assert found.loglikelihoods == pytest.approx(expected, abs=1e-5)
    assert all(module._kept is None for module in model.modules() if isinstance(module, FrozenLinear))


def test_a_head_kept_elsewhere() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    expected = score(model, tokenizer, ITEMS)
    head = model.head.clone()
    model.replace_head(lambda hidden: hidden @ head.T)
    for found, one in zip(score(model, tokenizer, ITEMS), expected, strict=True):
        assert found.loglikelihoods == pytest.approx(one.loglikelihoods, abs=1e-5)


@pytest.mark.parametrize("shared", [0, 5])
def test_a_forest_is_each_tree_alone(shared: int) -> None:
    """Trees of several sizes, a chain among them, against one masked attention a tree over prefix and own tokens."""
    torch.manual_seed(0)
    trees = []
    for paths in ([[1, 2, 3], [1, 2, 4, 5]], [[1, 2, 3, 4, 5]], [[7], [8], [9, 1]], [[1] * 30, [1] * 20 + [2] * 9]):
        tree = TokenTree()
        for path in paths:
            tree.add(path)
        trees.append(tree)
    count = sum(map(len, trees))
    q, k, v = torch.randn(count, 6, 8), torch.randn(count, 2, 8), torch.randn(count, 2, 8)
    before_k, before_v, before_q = torch.randn(7, 2, 8), torch.randn(7, 2, 8), torch.randn(7, 6, 8)
    recorder = Recorder()
    recorder.attend(before_q, before_k, before_v, 0)
    masks = [tree.mask() for tree in trees]
    found = Forest(masks, q.device, q.dtype, recorder.prefix if shared else None, shared).attend(q, k, v, 0)
    start = 0
    for mask in masks:
        own = slice(start, start + len(mask))
        start += len(mask)
        seen = torch.cat([torch.ones(len(mask), shared, dtype=torch.bool), mask], dim=1)
        keys, values = torch.cat([before_k[:shared], k[own]]), torch.cat([before_v[:shared], v[own]])
        assert torch.allclose(found[own], grouped_attention(q[own], keys, values, seen, causal=False), atol=1e-5)


def test_a_real_header(shared_data: Path, smollm2: tuple[Llama, object]) -> None:
    """MMLU-it with five shots on the real model: the header shared against every question read whole."""
    from stilnovo.benchmarks.task import select
    from stilnovo.benchmarks.tasks import find_tasks

    items = select(find_tasks(["mmlu_it"])[0], shared_data / "benchmarks", "validation", Draw(2), shots=1).items
    assert all(isinstance(item, MultipleChoice) and item.header for item in items)
    whole = [replace(item, header="") for item in items]
    shared, unshared = (score(*smollm2, some) for some in (items, whole))  # type: ignore[arg-type]
    for one, other in zip(shared, unshared, strict=True):
        assert one.loglikelihoods == pytest.approx(other.loglikelihoods, abs=1e-3)
        assert one.choice == other.choice
