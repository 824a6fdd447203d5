"""An adapter scaled after training: the formula, the way back, what PEFT reads of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.lora import detach
from stilnovo.model.lora_linear import merged_weight
from stilnovo.model.scaling import Scaling, layer_of, parse, save_scaled, scaled
from stilnovo.plan.shape import LoraConfig
from test_lora import disturb, logits, pair, their_logits

__all__ = ["pair"]  # the fixture: the same random model, ours and transformers'

CONFIG = LoraConfig(r=4, alpha=6, projections=("q_proj", "v_proj", "down_proj"))


def adapted(model: Llama) -> Llama:
    lora.attach(model, CONFIG)
    disturb(model)
    return model


def test_factors_grow_with_depth() -> None:
    lines = Scaling(0.25, 1.0)
    assert [lines.factor(layer, 4) for layer in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [Scaling(0.7, 0.7).factor(layer, 30) for layer in (0, 11, 29)] == [0.7] * 3
    assert Scaling(0.25, 1.0).factor(0, 1) == 1.0
    assert layer_of("model.layers.17.mlp.up_proj") == 17


def test_words_and_back() -> None:
    for text, scaling in (
        ("0", Scaling(0, 0)),
        ("1", Scaling(1, 1)),
        ("0.25:1", Scaling(0.25, 1)),
        (" 1.25 ", Scaling(1.25, 1.25)),
    ):
        assert parse(text) == scaling
        assert parse(str(scaling)) == scaling
    near = Scaling(0.1234567, 0.1234567), Scaling(0.1234568, 0.1234568)
    assert len({str(one) for one in near}) == 2, "answers are told apart by it"
    for wrong in ("", "a", "0.5:", "0:1:1", "nan", "-0.1", "1.3", "0.5:2"):
        with pytest.raises(InputError):
            parse(wrong)


def test_a_scaled_layer_is_its_base_and_a_part_of_the_update(tiny: Llama) -> None:
    """Against merged weights: W + f · s · B·A in every layer."""
    adapted(tiny)
    scaling = Scaling(0.3, 0.9)
    whole = {path: merged_weight(module) for path, module in lora.adapters(tiny).items()}
    with scaled(tiny, scaling):
        for path, module in lora.adapters(tiny).items():
            base = module.base.dense(torch.float32)
            expected = base + (0.3, 0.9)[layer_of(path)] * (whole[path] - base)
            assert torch.allclose(merged_weight(module), expected, atol=1e-6)
            assert torch.allclose(module(torch.eye(base.shape[1])).T, expected, atol=1e-5)


def test_the_way_back_is_exact(tiny: Llama) -> None:
    base = logits(tiny)
    whole = logits(adapted(tiny))
    with scaled(tiny, Scaling(1, 1)):
        assert torch.equal(logits(tiny), whole)
    with scaled(tiny, Scaling(0, 0)):
        assert torch.equal(logits(tiny), base)
    with pytest.raises(KeyError), scaled(tiny, Scaling(0.1, 0.7)):
        raise KeyError
    assert torch.equal(logits(tiny), whole)
    detach(tiny)
    assert torch.equal(logits(tiny), base)
    with pytest.raises(InputError, match="no adapter"), scaled(tiny, Scaling(1, 1)):
        pass


@pytest.mark.parametrize("text", ["0.5", "0.25:1", "1.25"])
def test_peft_reads_the_scaled_adapter(pair: tuple[Llama, LlamaForCausalLM, Path], text: str) -> None:
    ours, theirs, folder = pair
    adapted(ours)
    whole = logits(ours)
    save_scaled(ours, CONFIG, parse(text), folder / "scaled", "base")
    assert torch.equal(logits(ours), whole), "saving leaves the model alone"
    found = their_logits(PeftModel.from_pretrained(theirs, folder / "scaled").eval())
    with scaled(ours, parse(text)):
        expected = logits(ours)
    assert (found - expected).abs().max() <= 1e-4
    assert (found - whole).abs().max() > 0.05
    detach(ours)
    read = lora.load(ours, folder / "scaled")
    assert read == replace(CONFIG, alpha=CONFIG.scale * CONFIG.r, rslora=False)  # the same strength, for every reader
    assert (logits(ours) - expected).abs().max() <= 1e-4
