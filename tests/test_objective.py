"""What a batch's losses are: rehearsal, the divergence from the base, rows that are cut; against torch's own arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import TINY
from stilnovo.data.batches import Batch, BatchStream
from stilnovo.data.packing import PackedCorpus, beginnings, coded, pack_index
from stilnovo.engine.link import Link
from stilnovo.engine.loss import Head, tiled_divergence
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.attention import Blocks
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.load import open_model
from stilnovo.plan.ledger import ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, LoraConfig, adapter_of, lora_parameters
from stilnovo.plan.sizes import Run
from stilnovo.recipe import Recipe, load, shipped
from stilnovo.recipe_sections import LoraSection, TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.spec import ModelSpec
from stilnovo.train.corpus import Joined
from stilnovo.train.loop import Trainer
from stilnovo.train.objectives.base import objective_of
from stilnovo.train.objectives.text import NextToken
from stilnovo.train.passes import Passes
from stilnovo.train.run import TrainingRun
from training import planned

CPU = torch.device("cpu")


def adapted(config: LoraConfig | None = None) -> Llama:
    model = Llama(TINY, random_source(3, std=0.1))
    lora.attach(model, config or LoraConfig(r=4))
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.2, generator=torch.Generator().manual_seed(8))
    return model.train()


@pytest.mark.parametrize("tile", [None, 40, 7])
@pytest.mark.parametrize("chunk", [3, 64])
def test_divergence_equals_torch(tile: int | None, chunk: int) -> None:
    torch.manual_seed(1)
    weight = torch.randn(97, 16, dtype=torch.float64)
    teacher, ours = torch.randn(11, 16, dtype=torch.float64), torch.randn(11, 16, dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    ours.requires_grad_()
    expected = F.kl_div(
        F.log_softmax(theirs @ weight.T, 1), F.log_softmax(teacher @ weight.T, 1), reduction="sum", log_target=True
    )
    found = tiled_divergence(ours, teacher, Head(weight, "dense", tile, Link(CPU)), chunk)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    (3 * expected).backward()  # type: ignore[no-untyped-call]
    (3 * found).backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_divergence_in_tiles_is_true_near_the_base_too(seed: int, dtype: torch.dtype) -> None:
    """However near the model is to its base, whatever all logits of a row have in common: nothing large is taken from a large."""
    generator = torch.Generator().manual_seed(seed)
    apart, vocabulary, tile = 10.0 ** -(seed % 3), 90 + 7 * seed, 11 + 5 * seed
    weight = torch.randn(vocabulary, 24, generator=generator) + 0.5  # with a direction along which all logits move
    teacher = torch.randn(9, 24, generator=generator).to(dtype)
    moved = (teacher.float() * (1 + apart) + apart * torch.rand(9, 1, generator=generator)).to(dtype)
    found = {}
    for how, width in (("tiled", tile), ("whole", None), ("exact", None)):
        exact = how == "exact"
        head = Head((weight.to(dtype).double() if exact else weight.to(dtype)), "dense", width, Link(CPU))
        ours, base = (rows.double() if exact else rows for rows in (moved, teacher))
        ours = ours.clone().requires_grad_()
        loss = tiled_divergence(ours, base, head, 4)
        loss.backward()  # type: ignore[no-untyped-call]
        assert ours.grad is not None
        found[how] = (loss.item(), ours.grad.double())
    assert found["tiled"][0] == pytest.approx(found["whole"][0], rel=1e-3, abs=1e-5)  # the logits are rounded alike
    tiled, whole = ((found[how][1] - found["exact"][1]).norm() / found["exact"][1].norm() for how in ("tiled", "whole"))
    assert tiled < 1.3 * whole + 3e-3


@pytest.mark.parametrize("rows", [None, 8])
def test_each_tile_is_visited_once(rows: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    head, visits = Head(torch.randn(40, 16), "dense", rows, Link(CPU)), [0]
    real = Head.tiles

    def counted(self: Head) -> object:
        visits[0] += 1
        return real(self)

    monkeypatch.setattr(Head, "tiles", counted)
    tiled_divergence(torch.randn(5, 16, requires_grad=True), torch.randn(5, 16), head, 5).backward()  # type: ignore[no-untyped-call]
    assert visits[0] == 1


def test_no_divergence_from_oneself() -> None:
    hidden = torch.randn(5, 16, requires_grad=True)
    found = tiled_divergence(hidden, hidden.detach(), Head(torch.randn(97, 16), "dense", 30, Link(CPU)), 2)
    found.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert abs(found.item()) < 1e-5 and hidden.grad.abs().max() < 1e-6


def stream_batch() -> Batch:
    """Three pieces; the middle one is a conversation that is rehearsed, its first half not learnt."""
    generator = torch.Generator().manual_seed(4)
    tokens, targets = (torch.randint(0, 97, (30,), generator=generator) for _ in range(2))
    learnt = torch.ones(30, dtype=torch.bool)
    learnt[10:16] = False
    return Batch(tokens, targets, (10, 12, 8), learnt, (1,))


@pytest.mark.parametrize("engine", ["auto", "plain"])
@pytest.mark.parametrize("by", ["learn", "anchor", "both"])
def test_rehearsal_is_learnt_or_anchored(by: Any, engine: str, tmp_path: Path) -> None:
    """Loss and gradients by autograd over whole logits, the teacher being the same model without its adapter."""
    batch, weight = stream_batch(), 0.7
    reference = adapted()
    hidden = Passes(reference, None, 64).hidden(batch.tokens, batch.lengths)
    logs = F.log_softmax(hidden @ reference.head.T, 1)
    assert batch.learnt is not None
    middle = torch.zeros(30, dtype=torch.bool)
    middle[10:22] = True
    counts = batch.learnt & ~middle if by == "anchor" else batch.learnt
    expected = F.nll_loss(logs[counts], batch.targets[counts], reduction="sum")
    if by != "learn":
        base = Llama(TINY, random_source(3, std=0.1)).eval()
        with torch.no_grad():
            teacher = F.log_softmax(Passes(base, None, 64).hidden(batch.tokens, batch.lengths) @ base.head.T, 1)
        expected = expected + weight * F.kl_div(logs[middle], teacher[middle], reduction="sum", log_target=True)
    expected.backward()  # type: ignore[no-untyped-call]

    model = adapted()
    corpus = PackedCorpus([np.arange(40, dtype=np.int32)], pack_index(np.array([40]), 64), 64)
    settings = TrainSection(steps=1, optimizer="adamw")
    plan = planned(model, LoraConfig(r=4), settings) if engine == "auto" else None
    trainer = Trainer(model, corpus, settings, RunFolder(tmp_path), loss=NextToken(by, weight), plan=plan)
    loss, parts = trainer.batch_loss(trainer.passes, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert trainer.batch_loss.count(batch) == parts["loss"][1] == int(counts.sum())
    assert ("kl" in parts) == (by != "learn")
    assert all(module.enabled for module in lora.adapters(model).values())
    for ours, theirs in zip(lora.parameters(model), lora.parameters(reference), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_the_adapter_comes_back_when_the_teacher_fails() -> None:
    model = adapted()
    with pytest.raises(IndexError), Passes(model, None, 8).base():
        model.hidden(torch.tensor([TINY.vocab_size]), torch.tensor([0]), Blocks([1]))
    assert all(module.enabled for module in lora.adapters(model).values()) and model.training


def test_a_batch_knows_its_rehearsal() -> None:
    texts = [np.arange(20, dtype=np.int32), np.arange(9, dtype=np.int32)]
    again = [coded(range(12), [False] * 6 + [True] * 6)] * 2
    joined = Joined(texts, again)
    assert [len(d) for d in joined] == [20, 9, 12, 12] and joined[-1] is again[1] and len(joined[1:3]) == 2
    lengths = np.array([len(d) for d in joined])
    corpus = PackedCorpus(joined, pack_index(lengths, 64), 64, len(texts))
    batch = next(iter(BatchStream(corpus, 4, 1)))
    rehearsed = [batch.lengths[piece] for piece in batch.anchored]
    assert rehearsed == [11, 11] and sum(batch.lengths) == 19 + 8 + 11 + 11
    assert batch.learnt is not None and int(batch.learnt.sum()) == 19 + 8 + 6 + 6
    only = PackedCorpus(texts, pack_index(lengths[:2], 64), 64)
    assert next(iter(BatchStream(only, 4, 1))).anchored == ()


def test_truncated_rows_hold_the_beginning_alone() -> None:
    """As TRL cuts rows without packing: at most 32 tokens in, 31 of them predicted, one document a row."""
    lengths = np.array([100, 32, 5, 1, 0, 33])
    index = beginnings(lengths, 32).rows()
    assert [index.pieces([row]) for row in range(len(index))] == [
        [(0, 0, 31)],
        [(1, 0, 31)],
        [(2, 0, 4)],
        [(5, 0, 31)],
    ]
    assert index.length.sum() == 97


def test_upper_layers_alone_learn(tmp_path: Path) -> None:
    section = LoraSection(r=4, upper_share=0.5)
    config = adapter_of(section, TINY.layers)
    assert config.first_layer == 1 and adapter_of(LoraSection(upper_share=0.01), 32).first_layer == 31
    model = adapted(config)
    assert {path.split(".")[2] for path in lora.adapters(model)} == {"1"}
    assert sum(p.numel() for p in lora.parameters(model)) == lora_parameters(TINY, config)
    lora.save(model, config, tmp_path, "tiny")
    again = Llama(TINY, random_source(3, std=0.1))
    assert lora.load(again, tmp_path) == replace(config, alpha=config.scale * config.r, rslora=False)
    batch = stream_batch()
    with torch.no_grad():
        both = [NextToken()(Passes(m.eval(), None, 8), batch)[0].item() for m in (model, again)]
    assert both[0] == both[1]
    peft = pytest.importorskip("peft")
    assert peft.LoraConfig.from_pretrained(str(tmp_path)).layers_to_transform == [1]


def test_upper_layers_save_memory_and_the_engine_agrees(tmp_path: Path) -> None:
    whole = ledger(Run(config=LLAMA_3_8B, lora=LoraConfig(), tokens=2048), Levers(layers=all_layers("keep", 32)))
    upper = ledger(
        Run(config=LLAMA_3_8B, lora=LoraConfig(first_layer=16), tokens=2048), Levers(layers=all_layers("keep", 32))
    )
    kept = [next(i.size for i in one.items if i.name == "saved for backward") for one in (whole, upper)]
    assert kept[1] == pytest.approx(kept[0] / 2, rel=0.01)
    batch, found = stream_batch(), []
    for engine in ("auto", "plain"):
        model, settings = adapted(adapter := LoraConfig(r=4, first_layer=1)), TrainSection(steps=1)
        corpus = PackedCorpus([np.arange(40, dtype=np.int32)], pack_index(np.array([40]), 64), 64)
        plan = planned(model, adapter, settings) if engine == "auto" else None
        trainer = Trainer(model, corpus, settings, RunFolder(tmp_path / engine), plan=plan)
        trainer.batch_loss(trainer.passes, batch)[0].backward()  # type: ignore[no-untyped-call]
        found.append([p.grad for p in lora.parameters(model)])
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*found, strict=True))  # type: ignore[arg-type]


def test_an_adapter_of_other_layers_than_its_config_says_is_refused(tmp_path: Path) -> None:
    lora.save(adapted(), LoraConfig(r=4), tmp_path, "tiny")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_to_transform": [0, 2]}))
    with pytest.raises(InputError, match="no place for"):
        lora.load(Llama(TINY), tmp_path)


def rows(path: Path, count: int) -> str:
    lines = [
        json.dumps({"instruction": f"Conta fino a {n}.", "output": "uno due tre " * (n % 3 + 1)}) for n in range(count)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_rehearsal_takes_its_share(tiny_folder: Path, tmp_path: Path) -> None:
    _, tokenizer = open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))
    chat = rows(tmp_path / "chat.jsonl", 5)
    recipe = Recipe().changed({"data.rehearsal": [chat], "data.rehearsal_share": 0.25, "data.pack_tokens": 128})
    corpus, plain = (
        objective_of(recipe).read(tokenizer),
        objective_of(recipe.changed({"data.rehearsal": []})).read(tokenizer),
    )
    first = corpus.packed.anchored
    assert first == len(plain.packed.documents) and plain.packed.anchored is None
    sizes = [len(document) for document in corpus.packed.documents]
    assert sum(sizes[first:]) / sum(sizes) == pytest.approx(0.25, abs=0.01)
    assert corpus.sha256 != plain.sha256 and corpus.held_out == plain.held_out
    assert all((document < 0).any() for document in corpus.packed.documents[first:])


@pytest.mark.parametrize(("task", "needs"), [("text", "no data.rehearsal"), ("sft", "train.task: text")])
def test_what_does_not_go_together(task: str, needs: str, tiny_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe().changed(
        {"data.rows": "truncated", "train.task": task, "data.rehearsal": [rows(tmp_path / "c.jsonl", 3)]}
    )
    with pytest.raises(InputError, match=f"data.rows needs {needs}"):
        TrainingRun(recipe, tmp_path / "run")


def test_a_corpus_of_the_catalogue_is_prepared_first(tiny_folder: Path) -> None:
    _, tokenizer = open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))
    with pytest.raises(InputError, match=r"(?s)prepared once.*stilnovo prepare wikipedia-it"):
        objective_of(load("wikipedia-it")).read(tokenizer)


@pytest.mark.parametrize("name", [name for name in shipped() if load(name).train.task != "dpo"])
def test_every_recipe_runs(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Two steps of each on a tiny model: its own keys, with rows that fit there."""
    recipe = load(name)
    chat = rows(tmp_path / "chat.jsonl", 40)
    changes: dict[str, Any] = {
        "model.name": str(tiny_folder), "model.device": "cpu", "train.steps": 2, "train.accumulation": 2,
        "data.pack_tokens": min(recipe.data.pack_tokens, 128), "train.warmup_steps": 1, "data.paths": ["sample"],
        "train.optimizer": "auto",
    }  # fmt: skip
    if recipe.train.task == "sft":
        changes["data.paths"] = [chat]
    if recipe.data.rehearsal:
        changes["data.rehearsal"] = [chat]
    run = TrainingRun(recipe.changed(changes), tmp_path / "run")
    result, _ = run.train()
    assert result.steps == 2 and np.isfinite(result.last_loss)
    assert lora.read_config(tmp_path / "run" / "adapter").r == recipe.lora.r
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ("kl" in logged[-1]) == bool(recipe.data.rehearsal)


def test_the_reports_recipe_is_the_reports() -> None:
    """The figures of the 2024 report, §3: anyone may compare them here."""
    recipe = load("report2024-wikipedia")
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.rslora) == (32, 8, True)
    assert (recipe.data.rows, recipe.data.pack_tokens) == ("truncated", 32)
    train = recipe.train
    assert (train.learning_rate, train.batch_packs, train.accumulation, train.schedule) == (2e-4, 8, 4, "linear")
    assert (train.optimizer, train.seed, train.epochs, train.final_ratio) == ("paged_adamw8bit", 42, 1, 0)
    assert replace(adapter_of(recipe.lora, 32), first_layer=0).scale == pytest.approx(8 / 32**0.5)


def test_a_step_of_rehearsal_alone_takes_the_mean_over_its_tokens(tmp_path: Path) -> None:
    """Anchored rehearsal has no loss token; its gradient must not be the sum, hundreds of times the usual one."""
    document = np.arange(40, dtype=np.int32)
    packed = PackedCorpus([document], pack_index(np.array([40]), 64), 64, anchored=0)
    norms = []
    for seed, weight in enumerate((1.0, 39.0)):
        trainer = Trainer(
            adapted(), packed, TrainSection(steps=1, optimizer="adamw", clip_norm=1e9), RunFolder(tmp_path / str(seed)),
            loss=NextToken("anchor", weight),
        )  # fmt: skip
        batch = next(iter(trainer.stream))
        assert trainer.batch_loss.count(batch) == 0 and batch.targets.numel() == 39
        trainer.batch_loss(trainer.passes, batch)[0].backward()  # type: ignore[no-untyped-call]
        whole = torch.stack([p.grad.norm() for p in trainer.parameters if p.grad is not None]).norm()
        trainer.optimizer.zero_grad(set_to_none=True)
        norms.append((trainer.train_step([batch])["gradient_norm"], float(whole)))
    assert all(step == pytest.approx(whole / 39, rel=1e-5) for step, whole in norms)
    assert norms[1][0] == pytest.approx(39 * norms[0][0], rel=1e-5) and norms[0][0] > 0
