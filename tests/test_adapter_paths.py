"""An adapter whose modules differ in rank and scale, learnt with dropout: one function by every path that a command takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stilnovo.data.conversations import Conversation
from stilnovo.export.merged import export_model
from stilnovo.generate.generator import Generator, Sampling
from stilnovo.hub import base_reference, find_model
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_checkpoint, open_llama, open_model
from stilnovo.plan.adapter import module_path
from stilnovo.plan.shape import PROJECTIONS
from stilnovo.recipe import Recipe
from stilnovo.runlog import RunFolder
from stilnovo.scoring.chat_answers import score_conversations
from stilnovo.scoring.perplexity import score_texts
from stilnovo.spec import SCHEMES, ModelSpec, adapter_differences, scheme_for
from stilnovo.text.template import Message
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train.run import TrainingRun
from test_training_commands import logits

TEXTS = ["Il mare era calmo e il faro taceva.", "Una casa bianca, una porta chiusa; poi il vento."]
RANKS = {r"layers\.1\.mlp\.up_proj": 7, "q_proj": 2, "down_proj": 1}
ALPHAS = {"v_proj": 9, r"layers\.0\..*gate_proj": 0.5}


@pytest.fixture(scope="module")
def patterned(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As PEFT writes it, but for `o_proj` in the upper layer alone."""
    folder = tmp_path_factory.mktemp("patterned")
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "lora_dropout": 0.5, "use_rslora": True,
        "rank_pattern": RANKS, "alpha_pattern": ALPHAS, "base_model_name_or_path": str(tiny_folder),
        "target_modules": [*(name for name in PROJECTIONS if name != "o_proj"), "layers.1.self_attn.o_proj"],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    config = open_checkpoint(find_model(str(tiny_folder)))[0].config
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for layer in range(config.layers):
        for name, (outputs, inputs) in config.linear_shapes().items():
            rank = {"q_proj": 2, "down_proj": 1}.get(name, 7 if (layer, name) == (1, "up_proj") else 4)
            for which, shape in (("lora_A", (rank, inputs)), ("lora_B", (outputs, rank))):
                if name != "o_proj" or layer == 1:
                    drawn = 0.1 * torch.randn(shape, generator=generator)
                    tensors[f"base_model.model.{module_path(layer, name)}.{which}.weight"] = drawn
    save_file(tensors, folder / lora.WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def models(
    tiny_folder: Path, patterned: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Llama, Llama, Tokenizer, Path]:
    """The base with the adapter, left as if a training had stopped in it; the merged model, its tokenizer and its folder."""
    spec, folder = ModelSpec(str(tiny_folder), patterned, "none", "cpu"), tmp_path_factory.mktemp("merged") / "out"
    export_model(spec, folder, dtype=torch.float32)
    merged, tokenizer = open_model(replace(spec, model=str(folder), adapter=None))
    return open_llama(spec).train(), merged, tokenizer, folder


def test_each_module_has_its_own_rank_and_scale(models: tuple[Llama, Llama, Tokenizer, Path], patterned: Path) -> None:
    found = lora.stored(patterned, models[0].config)
    assert len(found) == 13
    scales = {path: (len(update.a), update.scale) for path, update in found.items()}
    assert scales["model.layers.0.self_attn.q_proj"] == (2, 6 / 2**0.5) and scales[
        "model.layers.0.self_attn.v_proj"
    ] == (4, 4.5)
    assert scales["model.layers.1.mlp.up_proj"] == (7, 6 / 7**0.5) and scales["model.layers.0.mlp.gate_proj"] == (
        4,
        0.25,
    )


def test_evaluation_and_writing_agree_with_the_merged_model(models: tuple[Llama, Llama, Tokenizer, Path]) -> None:
    adapted, merged, tokenizer, _ = models
    assert adapted.training  # whoever evaluates sees to it that nothing is dropped
    expected = score_texts(merged, tokenizer, TEXTS).nats
    assert score_texts(adapted, tokenizer, TEXTS).nats == pytest.approx(expected, rel=1e-5)
    talks = [Conversation(text, (Message("user", "Chi sei?"), Message("assistant", text))) for text in TEXTS]
    expected = score_conversations(merged, tokenizer, talks).nats
    assert score_conversations(adapted, tokenizer, talks).nats == pytest.approx(expected, rel=1e-5)
    prompts = [[Message("user", text)] for text in TEXTS]
    for way in ("fp32", "int8"):
        sampling = [Sampling(0.0, max_new_tokens=8)] * 2
        engine = Generator(adapted, tokenizer, products=way)  # type: ignore[arg-type]
        first, again = (engine.complete(prompts, sampling) for _ in range(2))
        assert first == again
        if way == "fp32":
            assert first == Generator(merged, tokenizer, products="fp32").complete(prompts, sampling)
        assert adapted.training
    adapted.eval()
    assert torch.allclose(logits(adapted), logits(merged), atol=1e-5)
    adapted.train()


@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["engine", "plain"])
def test_a_training_begins_at_it_and_stores_the_sum(
    models: tuple[Llama, Llama, Tokenizer, Path], patterned: Path, tiny_folder: Path, tmp_path: Path, dropout: float
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 3))
    losses = []
    for base, adapter in ((tiny_folder, str(patterned)), (models[3], None)):
        recipe = Recipe().changed({
            "model.name": str(base), "model.adapter": adapter, "model.quantization": "none", "model.device": "cpu",
            "data.paths": [str(rows)], "data.pack_tokens": 64, "train.steps": 1, "lora.r": 3, "lora.dropout": dropout,
            "lora.projections": ["q_proj", "o_proj", "up_proj"], "data.held_out": 0,
        })  # fmt: skip
        run = TrainingRun(recipe, tmp_path / base.name)
        run.train()
        losses += [row["loss"] for row in RunFolder(tmp_path / base.name).metrics()]
        expected = logits(run.model)
        run.close()
        again = open_llama(ModelSpec(str(base), tmp_path / base.name / "adapter", "none", "cpu"))
        assert torch.allclose(logits(again), expected, atol=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("asked", [None, *SCHEMES])
@pytest.mark.parametrize("noted", [None, *SCHEMES])
def test_what_is_asked_comes_before_the_training_and_that_before_all_else(
    patterned: Path, tmp_path: Path, asked: str | None, noted: str | None
) -> None:
    (tmp_path / "adapter").mkdir()
    metadata = {"format": "pt"} | ({"base_quantization": noted} if noted else {})
    save_file({"x": torch.ones(1)}, tmp_path / "adapter" / lora.WEIGHTS, metadata=metadata)
    assert scheme_for(tmp_path / "adapter", asked) == (asked or noted)
    assert scheme_for(None, asked) == asked


def test_a_base_in_the_hubs_cache_is_the_one_that_it_is_named_after(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/name"}))
    assert base_reference(str(snapshot))[0] == "owner/name"
    assert adapter_differences(ModelSpec(str(snapshot), tmp_path)) == []
    assert (
        len(
            adapter_differences(ModelSpec(str(tmp_path / "models--owner--other" / "snapshots" / ("ab" * 20)), tmp_path))
        )
        == 1
    )
