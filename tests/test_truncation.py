"""Questions longer than the model: each ending is cut alone, as lm-evaluation-harness cuts it, and counted with all its tokens; ties."""

from __future__ import annotations

import random

import pytest
import torch

from stilnovo.benchmarks.task import MultipleChoice, Selection, Task
from stilnovo.benchmarks.tasks.arc_it import make_item
from stilnovo.model.attention import Blocks
from stilnovo.model.llama import Llama
from stilnovo.scoring.encode import encode, encode_endings
from stilnovo.scoring.evaluate import evaluate, expectation
from stilnovo.scoring.packed import score
from stilnovo.text.tokenizer import Tokenizer
from test_evaluate_scoring import byte_tokenizer, tiny_llama

LIMIT = 48
LONG = " perché la luce e il vento " * 4  # more tokens than the model reads


def harness_loglikelihood(model: Llama, tokenizer: Tokenizer, context: str, ending: str) -> float:
    """Its rule on one ending alone: the last LIMIT + 1 tokens of both, of which the last is only predicted."""
    ((whole, start),) = encode_endings(tokenizer, context, (ending,))
    count = len(whole) - start
    assert count <= LIMIT, "the harness refuses longer ones"
    return sum_of(model, whole[-(LIMIT + 1) :][:-1], whole[-count:])


def sum_of(model: Llama, read: list[int], targets: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor(read), torch.arange(len(read)), Blocks([len(read)]))
    logs = torch.log_softmax(logits.double(), dim=-1)[-len(targets) :]
    return float(logs.gather(1, torch.tensor(targets)[:, None]).sum())


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("token_budget", [1, 512])
def test_every_ending_is_scored_as_if_it_were_alone(bos: bool, token_budget: int) -> None:
    """Contexts and endings of all lengths around the limit, together and in any order."""
    model, tokenizer, rng = tiny_llama(max_positions=LIMIT), byte_tokenizer(bos), random.Random(7)
    items = []
    for number in range(24):
        context = "".join(rng.choices("abcdeil ", k=rng.choice((0, 5, 20, 47, 48, 49, 60, 90)))).strip()
        endings = tuple(
            " " + "".join(rng.choices("aeiout", k=rng.choice((1, 3, 20, 46, 47)))) for _ in range(rng.randint(2, 4))
        )
        items.append(MultipleChoice(f"i{number}", context, endings, 0, header=context[: rng.choice((0, 18))]))
    for item, found in zip(items, score(model, tokenizer, items, token_budget=token_budget), strict=True):
        expected = [harness_loglikelihood(model, tokenizer, item.context, ending) for ending in item.endings]
        assert found.loglikelihoods == pytest.approx(expected, abs=1e-4), item.id
        lengths = [len(whole) - 1 for whole, _ in encode_endings(tokenizer, item.context, item.endings)]
        assert found.truncated == (max(lengths) > LIMIT)
        assert all(value < 0 for value in found.loglikelihoods)


def test_an_ending_longer_than_the_model_takes_nothing_from_its_rivals() -> None:
    model, tokenizer = tiny_llama(max_positions=LIMIT), byte_tokenizer(True)
    context = "Domanda: di che colore è?\nRisposta:"
    alone, beside = (MultipleChoice("x", context, (" blu", *others, " rosso"), 0) for others in ((), (LONG,)))
    (short,), (found,) = score(model, tokenizer, [alone]), score(model, tokenizer, [beside])
    assert (found.loglikelihoods[0], found.loglikelihoods[2]) == pytest.approx(short.loglikelihoods, abs=1e-4)
    ((whole, start),) = encode_endings(tokenizer, context, (LONG,))
    assert len(whole) - start > LIMIT and found.truncated
    halves = range(start, len(whole), LIMIT // 2)
    stops = [min(first + LIMIT // 2, len(whole)) for first in halves]
    expected = sum(
        sum_of(model, whole[max(0, stop - 1 - LIMIT) : stop - 1], whole[first:stop])
        for first, stop in zip(halves, stops, strict=True)
    )
    assert found.loglikelihoods[1] == pytest.approx(expected, abs=1e-4)


def test_every_token_of_an_ending_is_predicted_once_after_half_a_context() -> None:
    tokenizer, rng = byte_tokenizer(True), random.Random(3)
    for _ in range(60):
        limit = rng.randint(2, 40)
        item = MultipleChoice("x", "a" * rng.randint(0, 60), ("e" * rng.randint(1, 120), "i" * rng.randint(1, 9)), 0)
        found = encode(tokenizer, item, limit)
        nodes = [token for tree in found.trees for token in tree.tokens]
        depths = [place for tree in found.trees for place in tree.positions]
        assert all(len(tree) and max(tree.positions) < limit for tree in found.trees)
        for rows, targets, (whole, start) in zip(
            found.rows, found.targets, encode_endings(tokenizer, item.context, item.endings), strict=True
        ):
            assert targets == whole[max(start, 1) :] and len(rows) == len(targets)
            assert [nodes[row] for row in rows] == whole[max(start, 1) - 1 : -1]
            for place, row in enumerate(rows, max(start, 1)):
                whole_window = len(targets) <= limit
                assert depths[row] + 1 >= (1 if whole_window else min(place, limit - limit // 2, limit // 2))


def test_the_first_of_equals_is_chosen_as_the_reference_does() -> None:
    rng = random.Random(11)
    for _ in range(200):
        count = rng.randint(2, 5)
        endings = tuple(f" {'x' * rng.randint(1, 3)}" for _ in range(count))
        values = [rng.choice((-1.0, -2.0, -2.5)) for _ in range(count)]
        item = MultipleChoice("t", "c", endings, rng.randrange(count))
        normed = [value / (len(ending) - 1) for value, ending in zip(values, endings, strict=True)]
        assert item.choice(values) == values.index(max(values))
        assert item.choice_norm(values) == normed.index(max(normed))


def test_an_answer_that_repeats_an_option_cannot_be_right_and_is_said() -> None:
    """As in the reference: of equal options the first is chosen. Equal ones get exactly equal scores."""
    row = {"id": "1", "instruction": "Com'era?", "option_a": "costante", "option_b": "costante", "option_c": "cambiava",
           "option_d": "cambiava", "answer": "D"}  # fmt: skip
    item, other = make_item(row, "1"), make_item({**row, "id": "2", "answer": "C"}, "2")
    assert item.repeats_an_option and not other.repeats_an_option
    for budget in (1, 512):
        (found,) = score(tiny_llama(), byte_tokenizer(True), [item], token_budget=budget)
        assert found.loglikelihoods[2] == found.loglikelihoods[3] and found.choice != item.answer
    task = Task("domande", "1", "", "", ("acc",), ("test",), lambda _: [item, other])
    said = expectation(Selection(task, "test", (item, other), 2, 42))
    assert "1 item can never be right: the answer repeats an option before it" in said
    assert "can never be right" not in expectation(Selection(task, "test", (other,), 1, 42))


def test_categories_stand_in_the_order_of_their_numbers() -> None:
    names = ("grade 10", "grade 2", "grade 13", "grade 2", "grade 5")
    items = [MultipleChoice(f"i{n}", "Uno", (" due", " tre"), 0, category=name) for n, name in enumerate(names)]
    task = Task("gradi", "1", "", "", ("acc",), ("test",), lambda _: items)
    result = evaluate(
        tiny_llama(), byte_tokenizer(True), [Selection(task, "test", tuple(items), 5, 42)], model_name="m"
    )
    assert list(result.tasks["gradi"].by_category()) == ["grade 2", "grade 5", "grade 10", "grade 13"]
