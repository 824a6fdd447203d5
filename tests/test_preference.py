"""Preference pairs and their objective: against TRL's own trainer, against the formula, and against itself one by one."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import chat_tokenizer
from stilnovo.data.batches import Batch, BatchStream
from stilnovo.data.conversations import Preference, read_preferences
from stilnovo.data.pairs import EQUAL, NO_ROOM, pack_pairs, side
from stilnovo.engine.loss import chunked_losses, tiled_losses
from stilnovo.engine.stack import TrainingEngine
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_model
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.recipe import Recipe, load
from stilnovo.runlog import RunFolder
from stilnovo.spec import ModelSpec
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train.loop import Trainer
from stilnovo.train.objectives.dpo import DirectPreference, answers, dpo, log_ratios
from stilnovo.train.passes import Passes
from stilnovo.train.run import TrainingRun

SYSTEM = Message("system", "Rispondi in italiano.")
BETA = 0.3
ADAPTER = lora.LoraConfig(r=4, alpha=6.0)


def user(text: str) -> Message:
    return Message("user", text)


PAIRS = [
    Preference("a", (SYSTEM, user("Chi scrisse la Commedia?")), "Dante Alighieri, a Ravenna.", "Boh."),
    Preference("b", (SYSTEM, user("Due più due?")), "Quattro.", "Cinque, forse: chi può dirlo con certezza?"),
    Preference("c", (SYSTEM, user("Ciao"), Message("assistant", "Salve."), user("Come va?")), "Bene, grazie.", "Male"),
    Preference("d", (SYSTEM, user("Una rima con cuore?")), "Amore", "Gatto."),
]


@pytest.fixture(scope="module")
def model_and_tokenizer(tiny_folder: Path) -> tuple[Llama, Tokenizer]:
    model, tokenizer = open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))
    lora.attach(model, ADAPTER)
    generator = torch.Generator().manual_seed(5)
    for module in lora.adapters(model).values():
        module.lora_B.data = 0.1 * torch.randn(module.lora_B.shape, generator=generator)
    return model, tokenizer


@pytest.fixture
def model(model_and_tokenizer: tuple[Llama, Tokenizer]) -> Llama:
    return copy.deepcopy(model_and_tokenizer[0])


@pytest.fixture(scope="module")
def tokenizer(model_and_tokenizer: tuple[Llama, Tokenizer]) -> Tokenizer:
    return model_and_tokenizer[1]


def batch_of(pairs: Sequence[Preference], tokenizer: Tokenizer) -> Batch:
    """All pairs in one batch."""
    packed = pack_pairs(pairs, tokenizer, 4096).corpus
    assert len(packed.packs) == 1
    return next(iter(BatchStream(packed, 1, 0)))


def plain(model: Llama) -> Passes:
    return Passes(model, None, 16)


def engine(model: Llama, choice: Any) -> Passes:
    levers = Levers(layers=all_layers(choice, model.config.layers), loss_chunk=16, head_tile=50)
    return Passes(model, TrainingEngine(model, levers), 16)


def run(passes: Passes, batch: Batch) -> tuple[float, dict[str, tuple[float, int]], list[Tensor]]:
    """Mean loss over the pairs, what is reported, and the gradients of the mean."""
    loss, parts = DirectPreference(BETA)(passes, batch)
    (loss / DirectPreference(BETA).count(batch)).backward()
    found = [p.grad for p in lora.parameters(passes.model)]
    return loss.item() / parts["loss"][1], parts, [g for g in found if g is not None]


def assert_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> None:
    """Relative to each tensor's largest value."""
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0
        assert (mine - other).abs().max() <= tolerance * other.abs().max()


# — The losses of single rows —


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_losses_of_rows_are_torchs(chunk: int, model: Llama) -> None:
    torch.manual_seed(4)
    targets, weights = torch.randint(0, 259, (23,)), torch.randn(23)
    hidden = torch.randn(23, 64, requires_grad=True)
    theirs = F.cross_entropy(hidden @ model.head.T, targets, reduction="none")
    (expected,) = torch.autograd.grad((theirs * weights).sum(), hidden)
    tiled = TrainingEngine(model, Levers(layers=all_layers("keep", 2), head_tile=50)).head
    for ours in (
        chunked_losses(hidden, model.head, targets, chunk),
        tiled_losses(hidden, tiled, targets, chunk),
    ):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        (got,) = torch.autograd.grad((ours * weights).sum(), hidden)
        assert_close([got], [expected], 1e-5)


# — The objective —


def test_the_loss_is_the_papers_equation() -> None:
    policy, reference = torch.tensor([2.0, 1.0, 4.0, 0.5, 0.5]), torch.tensor([2.5, 1.5, 3.0, 0.5, 2.5])
    ratios = log_ratios(policy, reference, (2, 1, 1, 1))  # log π − log π_ref of chosen, rejected, chosen, rejected
    assert ratios.tolist() == [[1.0, -1.0], [0.0, 2.0]]
    losses, rewards = dpo(ratios, 0.1)
    expected = [-math.log(1 / (1 + math.exp(-0.1 * (1.0 + 1.0)))), -math.log(1 / (1 + math.exp(-0.1 * (0.0 - 2.0))))]
    assert losses.tolist() == pytest.approx(expected)
    assert torch.allclose(rewards, 0.1 * ratios)


def test_a_fresh_adapter_has_not_moved(model: Llama, tokenizer: Tokenizer) -> None:
    for module in lora.adapters(model).values():
        torch.nn.init.zeros_(module.lora_B)
    loss, parts, _ = run(plain(model), batch_of(PAIRS, tokenizer))
    assert loss == pytest.approx(math.log(2), rel=1e-6)
    assert parts["margin"] == (0.0, 4) and parts["accuracy"] == (0.0, 4)
    assert all(module.enabled for module in lora.adapters(model).values())


def test_a_reference_that_fails_leaves_the_adapter_on(
    model: Llama, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Tensor:
        assert not any(module.enabled for module in lora.adapters(model).values())
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Passes, "hidden", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(plain(model), batch_of(PAIRS, tokenizer))
    assert all(module.enabled for module in lora.adapters(model).values())


def test_packed_equals_one_by_one(model: Llama, tokenizer: Tokenizer) -> None:
    together, parts, gradients = run(plain(model), batch_of(PAIRS, tokenizer))
    model.zero_grad()
    total, sums = 0.0, dict.fromkeys(parts, 0.0)
    for pair in PAIRS:
        loss, alone = DirectPreference(BETA)(plain(model), batch_of([pair], tokenizer))
        (loss / len(PAIRS)).backward()
        total += loss.item()
        sums = {name: value + alone[name][0] for name, value in sums.items()}
    assert together == pytest.approx(total / len(PAIRS), rel=1e-5)
    assert {name: value for name, (value, _) in parts.items()} == pytest.approx(sums, rel=1e-4)
    assert_close([p.grad for p in lora.parameters(model)], gradients, 1e-4)  # type: ignore[misc]


@pytest.mark.parametrize("choice", ["keep", "recompute", "offload", "attention"])
def test_the_engine_equals_the_plain_path(choice: str, model: Llama, tokenizer: Tokenizer) -> None:
    other, batch = copy.deepcopy(model), batch_of(PAIRS, tokenizer)
    expected, told, theirs = run(plain(other), batch)
    found, parts, ours = run(engine(model, choice), batch)
    assert found == pytest.approx(expected, rel=1e-5)
    assert parts["margin"][0] == pytest.approx(told["margin"][0], rel=1e-4) and parts["accuracy"] == told["accuracy"]
    assert_close(ours, theirs, 1e-4)


# — TRL —


@pytest.fixture(scope="module")
def trl_trainer(
    tiny_folder: Path, model_and_tokenizer: tuple[Llama, Tokenizer], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """TRL's DPOTrainer on the same weights with the same adapter, which it switches off for its reference."""
    pytest.importorskip("trl", reason="needs TRL to compare with: pip install trl==1.16.0")
    from datasets import Dataset
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    def messages(turns: Sequence[Message]) -> list[dict[str, str]]:
        return [{"role": turn.role, "content": turn.content} for turn in turns]

    rows = [
        {
            "prompt": messages(pair.prompt),
            "chosen": messages([Message("assistant", pair.chosen)]),
            "rejected": messages([Message("assistant", pair.rejected)]),
        }
        for pair in PAIRS
    ]
    ours, _ = model_and_tokenizer
    folder = tmp_path_factory.mktemp("trl")
    lora.save(ours, ADAPTER, folder, "tiny")
    settings = DPOConfig(
        output_dir=str(folder / "out"), beta=BETA, max_length=None, bf16=False, use_cpu=True, report_to=[],
        activation_checkpointing=False, per_device_train_batch_size=len(PAIRS), disable_tqdm=True,
    )  # fmt: skip
    config = LoraConfig(
        r=ADAPTER.r,
        lora_alpha=ADAPTER.alpha,
        use_rslora=True,
        target_modules=list(ADAPTER.projections),
        task_type="CAUSAL_LM",
    )
    trainer = DPOTrainer(
        model=LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation="eager"),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny_folder),
        peft_config=config,
    )
    set_peft_model_state_dict(trainer.model, load_file(folder / "adapter_model.safetensors"))
    trainer.model.train()
    return trainer


def test_tokens_are_trls(trl_trainer: Any, tokenizer: Tokenizer) -> None:
    """But for the line break after the end of the turn, which no generation ever writes."""
    newline = tokenizer.encode("\n")
    for row, pair in zip(trl_trainer.train_dataset, PAIRS, strict=True):
        for answer, key in ((pair.chosen, "chosen_ids"), (pair.rejected, "rejected_ids")):
            ids, begin = side(tokenizer, pair.prompt, answer)
            assert ids[:begin] == row["prompt_ids"]
            assert [*ids[begin:], *newline] == row[key]


@pytest.mark.parametrize("way", ["plain", "engine"])
def test_loss_and_gradients_are_trls(way: str, trl_trainer: Any, model: Llama, tokenizer: Tokenizer) -> None:
    examples = []
    for pair in PAIRS:
        (chosen, begin), (rejected, _) = (side(tokenizer, pair.prompt, a) for a in (pair.chosen, pair.rejected))
        examples.append({"prompt_ids": chosen[:begin], "chosen_ids": chosen[begin:], "rejected_ids": rejected[begin:]})
    theirs = trl_trainer.model
    theirs.zero_grad()
    loss = trl_trainer.compute_loss(theirs, trl_trainer.data_collator(examples))
    loss.backward()
    found = dict(theirs.named_parameters())
    expected = [
        found[f"base_model.model.{path}.{which}.default.weight"].grad
        for path in lora.adapters(model)
        for which in ("lora_A", "lora_B")
    ]

    passes = plain(model) if way == "plain" else engine(model, "recompute")
    ours, parts, gradients = run(passes, batch_of(PAIRS, tokenizer))
    assert ours == pytest.approx(loss.item(), rel=1e-4)
    assert_close(gradients, expected, 1e-4)
    told = trl_trainer._metrics["train"]
    assert parts["margin"][0] / 4 == pytest.approx(told["rewards/margins"][-1], rel=1e-4)
    assert parts["accuracy"][0] / 4 == told["rewards/accuracies"][-1]
    assert abs(loss.item() - math.log(2)) > 0  # the adapter has moved: there is something to agree on


# — Pairs into packs —


def sides_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """(tokens, learnt targets) of each piece, put together again from the stream."""
    assert batch.learnt is not None
    parts = [torch.split(t, list(batch.lengths)) for t in (batch.tokens, batch.targets, batch.learnt)]
    return [([*t.tolist(), int(y[-1])], y[m].tolist()) for t, y, m in zip(*parts, strict=True)]


def random_pairs(count: int) -> list[Preference]:
    """Pairs of every length, each answer unlike all others."""
    draw = random.Random(7)
    words = ["uno", "due", "tre", "quattro"]

    def text(number: int, which: str) -> str:
        return f"{which}{number} " + " ".join(draw.choices(words, k=draw.randrange(1, 12)))

    return [
        Preference(str(n), (SYSTEM, user(text(n, "domanda"))), text(n, "meglio"), text(n, "peggio"))
        for n in range(count)
    ]


def test_both_sides_stay_together_and_only_the_answers_are_learnt(tokenizer: Tokenizer) -> None:
    pairs = random_pairs(60)
    found = pack_pairs(pairs, tokenizer, 512)
    assert found.tally.taken == 60 and found.cut == 0 and not found.lines()
    stream = BatchStream(found.corpus, 2, 3)
    seen = Counter[tuple[str, str]]()
    batches = iter(stream)
    for _ in range(stream.batches_per_epoch()):
        batch = next(batches)
        assert batch.targets.numel() <= 2 * 512
        pieces = sides_of(batch)
        rows, counts = answers(batch)
        assert counts == [len(learnt) for _, learnt in pieces] and sum(counts) == len(rows) == batch.predictions
        for (chosen, better), (rejected, worse) in zip(pieces[::2], pieces[1::2], strict=True):
            assert chosen[-len(better) :] == better and rejected[-len(worse) :] == worse  # nothing follows the answer
            assert chosen[: -len(better)] == rejected[: -len(worse)]  # the same prompt
            assert better[-1] == worse[-1] == tokenizer.eos_id
            seen[tokenizer.decode(better), tokenizer.decode(worse)] += 1
    assert seen == Counter((pair.chosen, pair.rejected) for pair in pairs)
    assert stream.state() == {"epoch": 1, "index": 0}
    assert len(found.corpus.packs) <= 1.15 * found.corpus.tokens / 512 + 1  # and the packs are full


def test_the_order_is_restored_exactly(tokenizer: Tokenizer) -> None:
    corpus = pack_pairs(random_pairs(40), tokenizer, 256).corpus
    one, other = BatchStream(corpus, 2, 3), BatchStream(corpus, 2, 3)
    batches = iter(one)
    for _ in range(one.batches_per_epoch() + 2):
        next(batches)
    other.restore(one.state())
    for ours, theirs in zip(itertools.islice(batches, 30), other, strict=False):
        assert torch.equal(ours.tokens, theirs.tokens) and ours.lengths == theirs.lengths


@pytest.mark.parametrize("template", ["chatml", "llama3", "plain"])
def test_earlier_answers_belong_to_the_prompt(template: str, tmp_path: Path) -> None:
    made = chat_tokenizer(tmp_path, template)
    prompt = (user("Ciao"), Message("assistant", "Salve."), user("Come va?"))
    ids, begin = side(made, prompt, "Bene.")
    assert made.decode(ids[begin:]) == "Bene." and ids[-1] == made.eos_id
    assert ids[:begin] == made.render(prompt, generation=True)


def test_what_is_too_long_loses_its_end_and_is_counted(tokenizer: Tokenizer) -> None:
    prompt = (SYSTEM, user("Domanda?"))
    room = 128 - side(tokenizer, prompt, "x")[1]  # a token a byte
    pairs = [
        Preference("whole", prompt, "a" * (room - 1), "b" * (room - 1)),
        Preference("cut", prompt, "a" * room, "b"),
        Preference("same", prompt, "c" * room + "d", "c" * room + "e"),
        Preference("full", (SYSTEM, user("?" * 200)), "a", "b"),
    ]
    found = pack_pairs(pairs, tokenizer, 256)
    assert found.longest == 128 and found.tally.taken == 2 and found.cut == 1
    assert found.tally.left == {EQUAL: 1, NO_ROOM: 1}
    assert found.tally.places[EQUAL][0].startswith("pair same:") and found.tally.places[NO_ROOM][0].startswith(
        "pair full:"
    )
    assert [line.split(" (")[0] for line in found.lines()] == [
        f"1 left out, {EQUAL}", f"1 left out, {NO_ROOM}", "1 pairs lost the end of an answer beyond 128 tokens",
    ]  # fmt: skip
    batches = iter(BatchStream(found.corpus, 1, 0))
    sides = [piece for _ in range(len(found.corpus.packs)) for piece in sides_of(next(batches))]
    by_learnt = {tokenizer.decode(learnt): (tokens, learnt) for tokens, learnt in sides}
    assert set(by_learnt) == {"a" * (room - 1), "b" * (room - 1), "a" * room, "b"}
    assert by_learnt["a" * (room - 1)][1][-1] == tokenizer.eos_id  # the end of the turn fits exactly
    tokens, learnt = by_learnt["a" * room]
    assert len(tokens) == 128 and tokenizer.eos_id not in learnt


# — A run —

GOOD = [
    {"prompt": f"Il numero {n}?", "chosen": f"Sì, {n}.", "rejected": f"No, {n + 1}."}
    for n in range(24)
]  # fmt: skip
BAD = [
    {"prompt": "Ciao", "chosen": "Salve.", "rejected": " Salve. "},
    {"chosen": "Salve.", "rejected": "Via."},
    {"prompt": "Ciao", "chosen": "", "rejected": "Via."},
    {"prompt": "?" * 600, "chosen": "Sì.", "rejected": "No."},
]


def pairs_file(path: Path, rows: Sequence[dict[str, str]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def recipe_of(tiny_folder: Path, data: str, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "model.name": str(tiny_folder), "model.device": "cpu", "model.quantization": "none", "lora.r": 8, "lora.alpha": 8,
        "data.paths": [data], "data.pack_tokens": 512, "train.steps": 14, "train.accumulation": 2, "train.learning_rate": 5e-3,
        "train.optimizer": "adamw", "train.checkpoint_every": 3, "train.beta": 0.1, "data.held_out": 0,
    }  # fmt: skip
    return load("anita-dpo").changed({**settings, **changes})


def numbers(folder: Path) -> list[tuple[float, float, float]]:
    """Loss, margin and accuracy of every step."""
    return [(row["loss"], row["margin"], row["accuracy"]) for row in RunFolder(folder).metrics()]


@pytest.mark.parametrize("way", ["auto", "plain"])
def test_a_training_prefers_and_is_resumed_exactly(
    way: str, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", logger="stilnovo")
    recipe = recipe_of(tiny_folder, pairs_file(tmp_path / "pairs.jsonl", [*GOOD, *BAD]), **{"train.engine": way})
    whole = TrainingRun(recipe, tmp_path / "whole")
    said = caplog.text
    for reason, place in (
        ("equal answers", "line 25"), ("missing columns", "line 26"), ("empty answer", "line 27"), (NO_ROOM, "pair 28"),
    ):  # fmt: skip
        assert f"1 left out, {reason} (first:" in said and place in said
    assert len(whole.corpus.packed.documents) == 2 * len(GOOD)
    result, _ = whole.train()
    rows = numbers(tmp_path / "whole")
    assert rows[0][0] == pytest.approx(math.log(2), rel=1e-5) and rows[0][1] == pytest.approx(0, abs=1e-5)
    assert rows[-1][0] < 0.5 and rows[-1][1] > 0.5 and rows[-1][2] == 1.0
    assert result.first_loss == rows[0][0] and result.tokens > 0

    with monkeypatch.context() as patch:
        step = Trainer.train_step

        def stopped(self: Trainer, batches: list[Batch]) -> dict[str, Any]:
            if self.step == 8:
                raise KeyboardInterrupt
            return step(self, batches)

        patch.setattr(Trainer, "train_step", stopped)
        with pytest.raises(KeyboardInterrupt, match="Continue from step 6"):
            TrainingRun(recipe, tmp_path / "cut").train()
    again = TrainingRun(recipe, tmp_path / "cut", resume=True)
    assert again.trainer.step == 6
    again.train()
    assert numbers(tmp_path / "cut") == rows
    for ours, theirs in zip(lora.parameters(again.model), lora.parameters(whole.model), strict=True):
        assert torch.equal(ours, theirs)


def test_nothing_to_prefer_is_an_error(tiny_folder: Path, tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "long.jsonl", [BAD[3]])
    with pytest.raises(InputError, match=r"(?s)No pair.*no room.*data\.pack_tokens.*256 tokens"):
        TrainingRun(recipe_of(tiny_folder, data), tmp_path / "run")


@pytest.mark.parametrize("key", ["data.rehearsal", "data.comprehension"])
def test_pairs_stand_alone(key: str, tiny_folder: Path, tmp_path: Path) -> None:
    data = pairs_file(tmp_path / "pairs.jsonl", GOOD)
    changes = {key: [data] if key == "data.rehearsal" else 0.5}
    with pytest.raises(InputError, match=f"{key} needs train.task: "):
        TrainingRun(recipe_of(tiny_folder, data, **changes), tmp_path / "run")


def test_the_recipe_is_anitas_and_runs(tiny_folder: Path, tmp_path: Path) -> None:
    recipe = load("anita-dpo")
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.rslora) == (64, 16, True)
    assert (recipe.train.task, recipe.train.beta, recipe.train.learning_rate) == ("dpo", 0.1, 5e-5)
    assert recipe.data.pack_tokens // 2 == 1024  # tokens of a side
    data = pairs_file(tmp_path / "pairs.jsonl", GOOD)
    small = {"model.name": str(tiny_folder), "model.device": "cpu", "data.paths": [data], "data.pack_tokens": 256}
    TrainingRun(
        recipe.changed({**small, "train.steps": 2, "train.accumulation": 2, "train.optimizer": "auto"}),
        tmp_path / "run",
    ).train()
    assert len(numbers(tmp_path / "run")) == 2
    assert lora.read_config(tmp_path / "run" / "adapter").r == 64


def test_real_pairs(shared_data: Path, tokenizer: Tokenizer) -> None:
    """300 pairs as they lie there; with a token a byte most of them are longer than 1,024."""
    pairs, tally = read_preferences([shared_data / "chat" / "dpo_en_demo.json"])
    assert tally.taken == len(pairs) == 300
    found = pack_pairs(pairs, tokenizer, 2048)
    assert found.tally.taken + sum(found.tally.left.values()) == 300
    assert found.tally.taken > 100 and found.cut > 0 and found.tally.left[NO_ROOM] > 0
    assert max(len(document) for document in found.corpus.documents) == 1024
