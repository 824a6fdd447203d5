"""The type in which a training step computes on a processor: chosen in one place, forced by a setting, kept by a run.

A step in bf16 is another rounding of the same training: the model that others evaluate meanwhile stays as it is.
"""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest
import torch

from conftest import TINY
from stilnovo.engine import query_blocks
from stilnovo.engine.query_blocks import QueryBlocks
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import lora, processor
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.load import compute_dtype, step_dtype
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.candidates import Wishes
from stilnovo.plan.choice import best as best_plan
from stilnovo.plan.ledger import ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import SMOLLM2_135M, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import Scheme
from stilnovo.runlog import RunFolder
from stilnovo.train import planning
from stilnovo.train.passes import Passes
from stilnovo.train.run import TrainingRun

CPU = torch.device("cpu")
WITH_BF16 = ("avx2", "avx512", "avx512_bf16")


def a_processor(monkeypatch: pytest.MonkeyPatch, *has: str, asked: str | None = None) -> None:
    """Stand on a processor with these instruction sets, with `STILNOVO_CPU` as asked."""
    monkeypatch.setattr(processor, "instruction_sets", lambda: has)
    monkeypatch.delenv(processor.VARIABLE, raising=False)
    if asked is not None:
        monkeypatch.setenv(processor.VARIABLE, asked)


@pytest.mark.parametrize(
    ("has", "asked", "dtype"),
    [
        (WITH_BF16, None, torch.bfloat16), (WITH_BF16, "bf16", torch.bfloat16), (WITH_BF16, "fp32", torch.float32),
        (WITH_BF16, "int8", torch.float32), (WITH_BF16, "fp16", torch.float32), (("avx2",), None, torch.float32),
        (("avx2", "avx512"), None, torch.float32), ((), None, torch.float32),
    ],
)  # fmt: skip
def test_the_step_computes_in_bf16_where_the_processor_does(
    has: tuple[str, ...], asked: str | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    a_processor(monkeypatch, *has, asked=asked)
    assert step_dtype(CPU) == dtype
    assert compute_dtype(CPU) == torch.float32  # of the model, and so of every evaluation
    run = planning.run_of(Recipe().changed({"model.name": str(tiny_folder)}), CPU)
    assert (run.value_bytes, run.own_bytes) == (dtype.itemsize, 4)


@pytest.mark.parametrize("scheme", ["nf4", "int8", "none"])
def test_a_step_in_bf16_has_nearly_the_gradients_of_one_in_fp32(scheme: Scheme) -> None:
    generator, found = random.Random(1), {}
    lengths = [generator.randrange(2, 150) for _ in range(3)]
    tokens = torch.randint(TINY.vocab_size, (sum(lengths),), generator=torch.Generator().manual_seed(2))
    for dtype in (torch.float32, torch.bfloat16):
        model = Llama(TINY, random_source(3, std=0.1), lambda weight: quantized_linear(weight, scheme))
        lora.attach(model, LoraConfig(r=4))
        for parameter in lora.parameters(model):
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(parameter.numel()))
        before = model(tokens[:9], torch.arange(9), _one_document()).detach()
        engine = TrainingEngine(model, Levers(layers=all_layers("keep", 2), keep_dense=True), dtype=dtype)
        hidden = engine.hidden(tokens[:-1], [*lengths[:-1], lengths[-1] - 1])
        assert hidden.dtype == dtype
        losses = Passes(model, engine, 64).losses(hidden, tokens[1:])
        assert losses.dtype == torch.float32
        losses.mean().backward()
        gradients = [parameter.grad for parameter in lora.parameters(model)]
        assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)
        found[dtype] = (losses.detach(), gradients, engine.saved_bytes)
        assert torch.equal(model(tokens[:9], torch.arange(9), _one_document()), before)  # the model is as it was
    wide, narrow = found[torch.float32], found[torch.bfloat16]
    assert narrow[0].mean().item() == pytest.approx(wide[0].mean().item(), rel=5e-3)
    assert narrow[2] < 0.6 * wide[2]
    for one, other in zip(wide[1], narrow[1], strict=True):
        assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.99


def _one_document() -> object:
    from stilnovo.model.attention import Blocks

    return Blocks([9])


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.02), (torch.float32, 1e-5)])
@pytest.mark.parametrize("seed", range(12))
def test_attention_in_blocks_is_exact_attention_with_its_gradients(
    seed: int, dtype: torch.dtype, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(processor.VARIABLE, raising=False)
    monkeypatch.setattr(query_blocks, "_CACHED", 2 ** (8 + seed))  # heads together, or one by one
    generator = random.Random(seed)
    lengths = [generator.randrange(1, 300) for _ in range(generator.randrange(1, 4))]
    groups, shared, width = generator.randrange(1, 4), generator.randrange(1, 4), generator.choice([16, 64, 80])
    rows = torch.Generator().manual_seed(seed)
    sizes = (groups * shared, groups, groups, groups * shared)
    q, k, v, slope = (torch.randn(sum(lengths), n, width, generator=rows).to(dtype) for n in sizes)
    kernel = QueryBlocks(lengths)
    out, saved = kernel.forward(q, k, v)
    found = (out, *kernel.backward(slope, q, k, v, out, saved))
    wanted = torch.empty(out.shape, dtype=torch.float64)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    ends = torch.tensor(lengths).cumsum(0).tolist()
    for end, length in zip(ends, lengths, strict=True):
        part = slice(end - length, end)
        one, two, three = (x[part].transpose(0, 1) for x in exact)
        two, three = (x.repeat_interleave(shared, 0) for x in (two, three))
        scores = one @ two.transpose(1, 2) * width**-0.5
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        wanted[part] = (scores.softmax(-1) @ three).transpose(0, 1)
        (wanted[part] * slope[part].double()).sum().backward()
        wanted = wanted.detach()
    for ours, theirs in zip(found, (wanted, *(x.grad for x in exact)), strict=True):
        assert ours.dtype == dtype and theirs is not None
        assert (ours.double() - theirs).norm() / theirs.norm().clamp(min=1e-3 * len(q)) < most


@pytest.mark.parametrize("scheme", ["nf4", "none"])
def test_the_ledger_counts_both_types(scheme: str) -> None:
    table, matrix = 49152 * 576, SMOLLM2_135M.layers * SMOLLM2_135M.layer_matrix()
    levers = Levers(layers=all_layers("keep", SMOLLM2_135M.layers), keep_dense=True)
    sizes = {}
    for step in (4, 2):
        run = Run(
            config=SMOLLM2_135M,
            lora=LoraConfig(r=8),
            scheme=scheme,
            tokens=512,
            value_bytes=step,
            weight_bytes=4,
            flash=False,
        )
        sizes[step] = {item.name: item.size for item in ledger(run, levers).items}
    assert sizes[2]["embedding"] == sizes[4]["embedding"] == 4 * table
    assert sizes[2]["norms"] == sizes[4]["norms"]
    assert sizes[2]["head"] == 2 * table and "head" not in sizes[4]  # tied: a copy only where the types differ
    assert sizes[2]["dense copies"] == 2 * matrix
    joined = (
        SMOLLM2_135M.layers * 576 * (576 + 2 * 192 + 2 * 1536)
    )  # q, k and v; gate and up: one matrix each for a product
    assert sizes[4]["dense copies"] == 4 * (matrix if scheme == "nf4" else joined)
    assert sizes[2]["saved for backward"] < 0.6 * sizes[4]["saved for backward"]


def test_copies_are_kept_of_plain_weights_in_another_type() -> None:
    from stilnovo.plan import cards
    from stilnovo.plan.choice import Budget

    room = Budget(16 * cards.GIB, 16 * cards.GIB, context=0, reserve=0)
    for step, kept in ((4, False), (2, True)):
        run = Run(
            config=SMOLLM2_135M,
            lora=LoraConfig(r=8),
            scheme="none",
            tokens=512,
            value_bytes=step,
            weight_bytes=4,
            flash=False,
        )
        plan = best_plan(run, room, cards.CPU, Wishes())
        assert plan is not None and plan.levers.keep_dense is kept


@pytest.fixture
def recipe(tiny_folder: Path, tmp_path: Path) -> Recipe:
    rows = [{"text": f"Testo numero {i}: " + "parola " * (3 + i % 7)} for i in range(30)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return Recipe.model_validate(
        {
            "model": {"name": str(tiny_folder), "device": "cpu"}, "lora": {"r": 4},
            "data": {"paths": [str(tmp_path / "data.jsonl")], "pack_tokens": 64},
            "train": {"steps": 4, "checkpoint_every": 2, "learning_rate": 1e-2},
        }
    )  # fmt: skip


def _losses(folder: Path) -> list[float]:
    return [row["loss"] for row in RunFolder(folder).metrics()]


def _cut(recipe: Recipe, folder: Path) -> None:
    """A run that is killed after its second step's checkpoint."""
    run = TrainingRun(recipe, folder)
    save = run.trainer.save

    def killed() -> None:
        save()
        if run.trainer.step == 2:
            raise SystemExit

    run.trainer.save = killed  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        run.train()


def _computes_in(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text())["computes_in"])


@pytest.mark.parametrize(("begun", "goes_on"), [(WITH_BF16, WITH_BF16), (("avx2",), WITH_BF16)])
def test_a_run_goes_on_in_the_type_in_which_it_began(
    begun: tuple[str, ...], goes_on: tuple[str, ...], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_processor(monkeypatch, *begun)
    TrainingRun(recipe, tmp_path / "whole").train()
    _cut(recipe, tmp_path / "cut")
    a_processor(monkeypatch, *goes_on)
    TrainingRun(recipe, tmp_path / "cut", resume=True).train()
    assert _losses(tmp_path / "cut") == _losses(tmp_path / "whole")
    assert _computes_in(tmp_path / "cut") == ("bfloat16" if "avx512_bf16" in begun else "float32")


def test_a_run_of_a_version_that_noted_no_type_goes_on_in_the_models(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_processor(monkeypatch, "avx2")
    _cut(recipe, tmp_path / "cut")
    path = tmp_path / "cut" / "manifest.json"
    noted = json.loads(path.read_text())
    del noted["computes_in"]
    path.write_text(json.dumps(noted))
    a_processor(monkeypatch, *WITH_BF16)
    run = TrainingRun(recipe, tmp_path / "cut", resume=True)
    assert run.trainer.dtype == torch.float32
    run.train()


def test_a_run_in_bf16_goes_on_elsewhere_and_says_so(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a_processor(monkeypatch, *WITH_BF16)
    TrainingRun(recipe, tmp_path / "whole").train()
    _cut(recipe, tmp_path / "cut")
    a_processor(monkeypatch, *WITH_BF16, asked="fp32")
    with caplog.at_level(logging.WARNING):
        TrainingRun(recipe, tmp_path / "cut", resume=True).train()
    assert "began in bf16 and goes on in float32" in caplog.text
    assert _losses(tmp_path / "cut") == pytest.approx(_losses(tmp_path / "whole"), rel=2e-2)
