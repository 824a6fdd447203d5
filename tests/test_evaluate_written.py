"""Written answers: each as if alone, cut where they must be, graded and put in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stilnovo.benchmarks.task import Decoding, Generation, Metric, MultipleChoice, Selection, Task
from stilnovo.errors import InputError
from stilnovo.model.attention import Blocks
from stilnovo.model.llama import Llama
from stilnovo.scoring.evaluate import evaluate
from stilnovo.scoring.packed import ItemScore, item_score
from stilnovo.scoring.written import encode_prompt, write
from stilnovo.text.tokenizer import Tokenizer
from test_evaluate_scoring import byte_tokenizer, tiny_llama

PROMPTS = ("Nel mezzo", "sì", "mi ritrovai per una selva oscura", "ché la diritta via")


def items(decoding: Decoding) -> list[Generation]:
    return [Generation(f"i{number}", prompt, ("x",), decoding, "c", "k") for number, prompt in enumerate(PROMPTS)]


def written(
    model: Llama, tokenizer: Tokenizer, asked: list[Generation], *, seed: int = 42, token_budget: int = 2048
) -> list[ItemScore]:
    task = Task("scritte", "1", "", "", ("exact_match",), ("test",), lambda _: asked, grade=grade)
    batches = write(model, tokenizer, asked, seed=seed, token_budget=token_budget)
    return [item_score(asked[index], answer, task) for batch in batches for index, answer in batch]


def grade(text: str, item: Generation) -> dict[Metric, float]:
    return {"exact_match": float(len(text))}


def greedy(model: Llama, tokenizer: Tokenizer, prompt: str, count: int) -> str:
    """The most probable token again and again, the whole text read anew each time."""
    tokens = ([] if tokenizer.bos_id is None else [tokenizer.bos_id]) + tokenizer.encode(prompt)
    start = len(tokens)
    for _ in range(count):
        stream = torch.tensor(tokens)
        with torch.no_grad():
            logits = model(stream, torch.arange(len(tokens)), Blocks([len(tokens)]))
        tokens.append(int(logits[-1].argmax()))
        if tokens[-1] in tokenizer.turn_end_ids:
            return tokenizer.decode(tokens[start:-1])
    return tokenizer.decode(tokens[start:])


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("token_budget", [8, 2048])
def test_greedy_answers_are_the_most_probable_tokens(bos: bool, token_budget: int) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos)
    found = written(model, tokenizer, items(Decoding(12)), token_budget=token_budget)
    expected = [greedy(model, tokenizer, prompt, 12).rstrip("\ufffd") for prompt in PROMPTS]
    assert [score.text for score in found] == expected
    assert [score.values for score in found] == [{"exact_match": float(len(text))} for text in expected]
    assert [(score.id, score.cluster, score.category) for score in found] == [(f"i{n}", "c", "k") for n in range(4)]
    assert all(score.loglikelihoods == () and score.choice == -1 for score in found)


def test_drawn_answers_depend_on_seed_and_item_alone() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    asked = items(Decoding(10, temperature=1.0))
    together = written(model, tokenizer, asked, seed=1)
    alone = [written(model, tokenizer, [item], seed=1)[0] for item in reversed(asked)]
    assert together == alone[::-1]
    assert [score.text for score in written(model, tokenizer, asked, seed=2)] != [score.text for score in together]


def test_stop_strings_end_an_answer_and_are_not_part_of_it() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    whole = written(model, tokenizer, items(Decoding(12)))[0].text
    stop = whole[4]
    assert written(model, tokenizer, items(Decoding(12, (stop,))))[0].text == whole[: whole.index(stop)]


def test_a_long_prompt_is_cut_on_the_left_and_counted() -> None:
    model, tokenizer = tiny_llama(max_positions=24), byte_tokenizer(True)
    long = Generation("long", "a" * 40 + " fine:", ("x",), Decoding(8))
    tokens, cut = encode_prompt(tokenizer, long, 24)
    assert cut and len(tokens) == 16
    assert tokens[0] == tokenizer.bos_id
    assert tokenizer.decode(tokens[1:]).endswith(" fine:")
    found = written(model, tokenizer, [long, items(Decoding(8))[1]])
    assert [score.truncated for score in found] == [True, False]
    with pytest.raises(InputError, match="longer than the model's context"):
        written(model, tokenizer, items(Decoding(24)))


def test_every_batch_is_handed_over_and_the_model_is_left_as_it_was() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(True)
    model.train()
    batches = list(write(model, tokenizer, items(Decoding(4)), token_budget=8))
    assert len(batches) > 1
    assert [index for batch in batches for index, _ in batch] == [0, 1, 2, 3]
    assert model.training


def test_a_task_may_ask_for_both_kinds(tmp_path: Path) -> None:
    """As INVALSI does: letters by log-likelihood, open questions in writing, one score."""

    def right(text: str, item: Generation) -> dict[Metric, float]:
        return {"acc": 1.0, "acc_norm": 1.0}

    asked = [items(Decoding(3))[0], MultipleChoice("m", "Uno", (" due", " tre"), 0), items(Decoding(3))[1]]
    task = Task("both", "1", "s", "l", ("acc", "acc_norm"), ("test",), lambda _: asked, grade=right)
    result = evaluate(
        tiny_llama(), byte_tokenizer(True), [Selection(task, "test", tuple(asked), 3, 42)], model_name="tiny"
    )
    found = result.tasks["both"]
    assert [score.id for score in found.items] == ["i0", "m", "i1"]
    assert [bool(score.loglikelihoods) for score in found.items] == [False, True, False]
    assert found.chance == pytest.approx(1 / 6)
    assert result.summary()["tasks"]["both"]["n"] == 3
