"""An adapter learnt on a frozen adapter: the same model by every path, and one adapter of both at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import test_engine
from conftest import TINY
from stilnovo.engine.product import HostAdapter
from stilnovo.engine.stack import TrainingEngine, supports
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.load import open_llama
from stilnovo.model.lora_linear import merged_weight
from stilnovo.model.qat import make_aware
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe import Recipe
from stilnovo.spec import ModelSpec
from stilnovo.train.run import TrainingRun

EARLIER = LoraConfig(r=3, alpha=5, projections=("q_proj", "v_proj", "up_proj", "down_proj"), first_layer=1)
LATER = LoraConfig(r=4, alpha=6, rslora=False, projections=("q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"))


def disturb(model: Llama, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in lora.adapters(model).values():
        module.lora_B.data = torch.randn(module.lora_B.shape, generator=generator).to(module.lora_B.dtype) * 0.1


def base(scheme: str = "nf4", shape: Any = test_engine.SHAPE) -> Llama:
    source = random_source(3, std=0.1)
    return Llama(shape, source, lambda w: quantized_linear(w, scheme)).requires_grad_(False)  # type: ignore[arg-type]


def earlier(folder: Path, config: LoraConfig = EARLIER, shape: Any = test_engine.SHAPE, seed: int = 1) -> Path:
    model = base("none", shape)
    lora.attach(model, config)
    disturb(model, seed)
    lora.save(model, config, folder, "tiny")
    if config is EARLIER:
        own_ranks(folder)
    return folder


def own_ranks(folder: Path) -> None:
    """Give an adapter's modules ranks and scales of their own, as PEFT's `rank_pattern` and `alpha_pattern` say them."""
    tensors = load_file(folder / lora.WEIGHTS)
    for name in tensors:
        if (rank := 2 if "q_proj" in name else 1 if ".3.mlp.up_proj" in name else 3) < 3:
            whole = tensors[name]
            tensors[name] = whole[:rank] if "lora_A" in name else whole[:, :rank].contiguous()
    save_file(tensors, folder / lora.WEIGHTS)
    path = folder / "adapter_config.json"
    own = {"rank_pattern": {"q_proj": 2, r"layers\.3\.mlp\.up_proj": 1}, "alpha_pattern": {"down_proj": 9}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))


def two_stages(folder: Path, scheme: str = "nf4", dtype: torch.dtype = torch.float64) -> Llama:
    """The engine tests' model with a frozen adapter and one that learns; other modules, ranks, scales and layers."""
    model = base(scheme).to(dtype)
    lora.attach_frozen(model, earlier(folder))
    lora.attach(model, LATER)
    disturb(model, 2)
    for module in lora.adapters(model).values():
        module.lora_A.data, module.lora_B.data = module.lora_A.data.to(dtype), module.lora_B.data.to(dtype)
    return model


@pytest.mark.parametrize("name", list(test_engine.CHANGES))
def test_every_lever_of_the_engine_agrees_with_autograd(tmp_path: Path, name: str) -> None:
    reference = two_stages(tmp_path)
    expected = test_engine.plain(reference)
    found = test_engine.engine(two_stages(tmp_path), replace(test_engine.PLAIN, **test_engine.CHANGES[name]))
    test_engine.same(found, expected)


@pytest.mark.parametrize("groups", [1, 4])
def test_the_adapter_switched_off_leaves_the_frozen_one(tmp_path: Path, groups: int) -> None:
    model = two_stages(tmp_path)
    tokens, _ = test_engine.batch()
    reference = base().double()
    lora.attach_frozen(reference, tmp_path)
    positions, blocks = positions_of(test_engine.LENGTHS), Blocks(test_engine.LENGTHS)
    with torch.no_grad(), lora.disabled(model):
        expected = reference.hidden(tokens, positions, blocks)
        engine = TrainingEngine(model, replace(test_engine.PLAIN, attention_groups=groups))
        assert torch.allclose(model.hidden(tokens, positions, blocks), expected, atol=1e-12)
        assert torch.allclose(engine.hidden(tokens, test_engine.LENGTHS), expected, atol=1e-12)
        bare = base().double().hidden(tokens, positions, blocks)
    assert not torch.allclose(expected, bare, atol=1e-3)
    assert len(lora.parameters(model)) == 2 * len(lora.adapters(model)) == 2 * 5 * 4
    assert supports(model)


def test_masters_on_the_host_are_those_that_learn(tmp_path: Path) -> None:
    model = two_stages(tmp_path, dtype=torch.float32)
    host = HostAdapter(model)
    assert len(host.masters) == len(lora.parameters(model))


def product(module: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """What a projection's adapters add to its weight, exactly, and the sum of their absolute parts."""
    total, size = torch.zeros(()), torch.zeros(())
    while not isinstance(module, type(None)) and isinstance(module, lora.LoraLinear | lora.FrozenLoraLinear):
        part = module.scale * module.lora_B.detach().double() @ module.lora_A.detach().double()
        total, size, module = total + part, size + part.abs(), module.base
    return total, size


def test_what_is_stored_is_one_adapter_of_both(tmp_path: Path) -> None:
    """Other modules, layers, ranks, and scales that are no powers of two apart: exact but for one rounding to fp32."""
    model = two_stages(tmp_path / "first", dtype=torch.float32)
    lora.save(model, LATER, tmp_path / "both", "tiny", frozen=tmp_path / "first")
    settings = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    assert (settings["r"], settings["base_model_name_or_path"]) == (7, "tiny")
    again = base()
    lora.load(again, tmp_path / "both")
    for path in (
        f"layers.{n}.{part}" for n in range(4) for part in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")
    ):
        expected, _ = product(model.get_submodule(path))
        found, size = product(again.get_submodule(path))
        assert (found - expected).abs().max() <= 2**-23 * size.max(), path
    tokens, _ = test_engine.batch()
    both = [
        one.hidden(tokens, positions_of(test_engine.LENGTHS), Blocks(test_engine.LENGTHS)) for one in (model, again)
    ]
    assert torch.allclose(*both, atol=1e-4)


def test_ranks_of_one_scale_add_up_exactly(tmp_path: Path) -> None:
    model = base()
    config = LoraConfig(r=4, alpha=6)
    lora.attach_frozen(model, earlier(tmp_path / "first", config))
    lora.attach(model, config)
    disturb(model, 2)
    lora.save(model, config, tmp_path / "both", "tiny", frozen=tmp_path / "first")
    again = base()
    lora.load(again, tmp_path / "both")
    for path in lora.adapters(model):
        difference = product(_at(model, path))[0] - product(_at(again, path))[0]
        assert difference.abs().max() <= 1e-15
        assert not isinstance(_at(again, path).base, lora.FrozenLoraLinear)


def _at(model: Llama, path: str) -> Any:
    return model.get_submodule(path.removeprefix("model."))


def test_quantisation_aware_training_rounds_the_sum_of_all(tmp_path: Path) -> None:
    model = two_stages(tmp_path / "first", dtype=torch.float32)
    lora.save(model, LATER, tmp_path / "both", "tiny", frozen=tmp_path / "first")
    again = base()
    lora.load(again, tmp_path / "both")
    for path in lora.adapters(model):
        assert torch.allclose(merged_weight(_at(model, path)), merged_weight(_at(again, path)), atol=1e-6)
    make_aware(model, 8)
    make_aware(again, 8)
    module, same = (_at(one, "model.layers.3.mlp.down_proj") for one in (model, again))
    assert (module.effective(torch.float32) - same.effective(torch.float32)).abs().max() <= 0.01


def test_a_frozen_adapter_is_no_copy_in_full_precision(tmp_path: Path) -> None:
    model = base().to(torch.bfloat16)
    lora.attach_frozen(model, earlier(tmp_path))
    frozen = [m for m in model.modules() if isinstance(m, lora.FrozenLoraLinear)]
    assert len(frozen) == 3 * 4
    assert {t.dtype for m in frozen for t in (m.lora_A, m.lora_B)} == {torch.bfloat16}


def test_another_shape_is_refused_before_the_model_is_read(tmp_path: Path, tiny_folder: Path) -> None:
    folder = earlier(tmp_path / "first", LoraConfig(r=2), replace(TINY, hidden_size=32))
    recipe = recipe_of(tiny_folder, folder)
    with pytest.raises(InputError, match="does not fit this model"):
        TrainingRun(recipe, tmp_path / "run")
    with pytest.raises(InputError, match="no adapter"):
        TrainingRun(recipe.changed({"model.adapter": str(tmp_path / "none")}), tmp_path / "run")
    assert not (tmp_path / "run" / "frozen_adapter").exists()


def recipe_of(model: Path, adapter: Path | None = None, **changes: Any) -> Recipe:
    given = {
        "model.name": str(model), "model.quantization": "nf4", "model.device": "cpu", "lora.r": 4, "lora.alpha": 8, "data.pack_tokens": 64,
        "data.held_out": 0.2, "data.max_documents": 12, "train.steps": 4, "train.batch_packs": 1, "train.learning_rate": 0.01,
        "train.checkpoint_every": 2, "model.adapter": None if adapter is None else str(adapter),
    }  # fmt: skip
    return Recipe().changed(given | changes)


def test_three_stages_equal_their_exact_merge(tmp_path: Path, tiny_folder: Path) -> None:
    """Three trainings on one NF4 base, ranks growing; the last adapter is the sum of what each learnt."""
    folder, learnt = None, []
    for stage, (rank, rslora) in enumerate([(2, True), (4, True), (4, False)]):
        out = tmp_path / f"stage{stage}"
        run = TrainingRun(recipe_of(tiny_folder, folder, **{"lora.r": rank, "lora.rslora": rslora}), out)
        run.train()
        learnt.append({path: product_alone(module) for path, module in lora.adapters(run.model).items()})
        folder = out / "adapter"
    assert lora.read_config(folder).r == 10
    merged = open_llama(ModelSpec(str(tiny_folder), folder, "nf4", "cpu"))
    for path, module in lora.adapters(merged).items():
        expected = sum(stage[path] for stage in learnt)
        assert (product(module)[0] - expected).abs().max() <= 2**-22 * sum(stage[path].abs().max() for stage in learnt)
        assert all(stage[path].abs().max() > 1e-5 for stage in learnt), "each stage learnt something"
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_folder)


def product_alone(module: lora.LoraLinear) -> Tensor:
    return module.scale * module.lora_B.detach().double() @ module.lora_A.detach().double()


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_a_killed_second_stage_goes_on_without_the_first_folder(tmp_path: Path, tiny_folder: Path, engine: str) -> None:
    folder = earlier(tmp_path / "first", LoraConfig(r=2), shape_of(tiny_folder))
    recipe = recipe_of(tiny_folder, folder, **{"train.engine": engine})
    whole = TrainingRun(recipe, tmp_path / "whole")
    whole.train()
    broken = TrainingRun(recipe, tmp_path / "broken")
    steps = iter(range(10))
    original = broken.trainer.train_step

    def interrupted(batches: Any) -> Any:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return original(batches)

    broken.trainer.train_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    for file in folder.iterdir():
        file.unlink()
    TrainingRun(recipe, tmp_path / "broken", resume=True).train()
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "broken")
    ]
    assert losses[0] == losses[1]
    weights = [(tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def shape_of(folder: Path) -> Any:
    from stilnovo.plan.shape import config_from_json

    return config_from_json(folder / "config.json")


def test_both_paths_learn_the_same_on_a_frozen_adapter(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILNOVO_CPU", "fp32")
    folder = earlier(tmp_path / "first", LoraConfig(r=2), shape_of(tiny_folder))
    losses = []
    for engine in ("auto", "plain"):
        TrainingRun(recipe_of(tiny_folder, folder, **{"train.engine": engine}), tmp_path / engine).train()
        rows = (tmp_path / engine / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
