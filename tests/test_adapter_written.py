"""What an adapter's folder says to other programs: its strength, its base, its card; and that it opens here as it was."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors import safe_open
from transformers import LlamaForCausalLM

from conftest import TINY, write_weights
from stilnovo import hub
from stilnovo.hub import base_reference
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama
from stilnovo.model.lora_linear import merged_weight
from stilnovo.model.scaling import parse, save_scaled
from stilnovo.modelcard.readme import write_readme
from stilnovo.modelcard.terms import folder_card
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe import Recipe
from stilnovo.spec import ModelSpec
from stilnovo.train.run import TrainingRun
from test_lora import disturb, logits, their_logits


def settings(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "adapter_config.json").read_text())
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_weights(folder, TINY)
    return folder


def opened(base: Path) -> Llama:
    return open_llama(ModelSpec(str(base), quantization="none", device="cpu"))


def test_alpha_over_r_is_the_trained_strength_to_the_last_bit(tmp_path: Path) -> None:
    """llama.cpp knows α/r alone; an older adapter, written with `use_rslora`, still opens."""
    draw = random.Random(5)
    for _ in range(12):
        config = LoraConfig(
            draw.randint(1, 70), draw.choice([1, 8, 12.5, 32, draw.uniform(0.1, 99)]), 0.0, True, ("q_proj",)
        )
        model = Llama(TINY)
        lora.attach(model, config)
        disturb(model)
        expected = logits(model)
        lora.save(model, config, tmp_path, "tiny")
        written = settings(tmp_path)
        assert written["use_rslora"] is False and written["r"] == config.r
        assert written["lora_alpha"] / config.r == pytest.approx(config.scale, rel=2e-16, abs=0)  # type: ignore[operator]
        with safe_open(tmp_path / lora.WEIGHTS, "pt") as file:
            assert file.metadata()["trained_as"] == f"r={config.r}, lora_alpha={config.alpha:g}, use_rslora=true"
        lora.detach(model)
        lora.load(model, tmp_path)
        assert torch.equal(logits(model), expected)
        (tmp_path / "adapter_config.json").write_text(
            json.dumps(written | {"lora_alpha": config.alpha, "use_rslora": True})
        )
        lora.detach(model)
        lora.load(model, tmp_path)
        assert torch.equal(logits(model), expected)


def test_a_rule_that_alpha_tells_is_not_said_twice(tmp_path: Path) -> None:
    model, config = Llama(TINY), LoraConfig(4, 8, 0.0, False)
    lora.attach(model, config)
    lora.save(model, config, tmp_path / "plain", "tiny")
    save_scaled(model, config, parse("0.5"), tmp_path / "half", "tiny")
    for folder in (tmp_path / "plain", tmp_path / "half"):
        assert (settings(folder)["r"], settings(folder)["lora_alpha"]) == (4, 8)
        with safe_open(folder / lora.WEIGHTS, "pt") as file:
            assert "trained_as" not in file.metadata()


def test_an_adapter_whose_common_alpha_is_zero_is_written_whole(tmp_path: Path) -> None:
    model, config = Llama(TINY), LoraConfig(4, 8)
    lora.attach(model, config)
    disturb(model)
    lora.save(model, config, tmp_path / "first", "tiny")
    (tmp_path / "first" / "adapter_config.json").write_text(
        json.dumps(settings(tmp_path / "first") | {"lora_alpha": 0, "alpha_pattern": {"q_proj": 8}})
    )
    lora.detach(model)
    read = lora.load(model, tmp_path / "first")
    expected = logits(model)
    lora.save(model, read, tmp_path / "again", "tiny")
    lora.detach(model)
    lora.load(model, tmp_path / "again")
    assert torch.allclose(logits(model), expected, atol=1e-6)


def test_peft_finds_the_base_and_merges_what_we_merge(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    ours, config = opened(base), LoraConfig(r=5, alpha=7)
    lora.attach(ours, config)
    disturb(ours)
    lora.save(ours, config, tmp_path, base.name)  # relative, as it was given: other programs run elsewhere
    monkeypatch.chdir(tmp_path)
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(theirs, PeftModel)
    assert (logits(ours) - their_logits(theirs)).abs().max() <= 1e-5 * logits(ours).abs().max()
    transformed = LlamaForCausalLM.from_pretrained(base)
    transformed.load_adapter(str(tmp_path))  # as transformers itself opens it
    assert (logits(ours) - their_logits(transformed.eval())).abs().max() <= 1e-5 * logits(ours).abs().max()
    merged = theirs.merge_and_unload()
    assert isinstance(merged, LlamaForCausalLM)
    for path, module in lora.adapters(ours).items():
        ours_merged = merged_weight(module)
        assert torch.allclose(merged.get_submodule(path).weight, ours_merged, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["smollm2", "anita", "anita-4bit", "owner/name"])
def test_a_base_goes_by_its_hub_id(name: str, tmp_path: Path) -> None:
    model, config = Llama(TINY), LoraConfig(r=2)
    lora.attach(model, config)
    lora.save(model, config, tmp_path, name)
    named = settings(tmp_path)["base_model_name_or_path"]
    assert named == hub.hub_id(name) and str(named).count("/") == 1


def test_what_the_hub_keeps_has_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    kept = tmp_path / "models--owner--a-name"
    snapshot = kept / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(revision)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert base_reference("owner/a-name") == ("owner/a-name", revision)
    assert base_reference(str(snapshot)) == ("owner/a-name", revision)
    assert base_reference("owner/other") == ("owner/other", None)
    assert base_reference("anita-4bit") == (hub.hub_id("anita"), None)  # a file of another repository


def test_a_card_of_somebody_else_stays(tmp_path: Path) -> None:
    ours = "---\ntags:\n- lora\n- stilnovo\n---\n\n# one\n"
    for before, after in (
        (None, ours),
        (ours.replace("one", "old"), ours),
        ("# My project\n- stilnovo\n", None),
        ("---\n: [", None),
    ):
        if before is not None:
            (tmp_path / "README.md").write_text(before)
        assert write_readme(tmp_path, ours) is (after is not None)
        assert (tmp_path / "README.md").read_text() == (after or before)


def test_every_adapter_has_a_card(tmp_path: Path, tiny_folder: Path) -> None:
    """Of a training, of one on a frozen adapter, and of a scaled adapter; each with what is known of base, data and strength."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"Una riga di prova, la numero {n}."}) + "\n" for n in range(6)))
    recipe = Recipe().changed({
        "model.name": str(tiny_folder), "model.quantization": "none", "model.device": "cpu", "data.paths": [str(rows)],
        "data.pack_tokens": 64, "train.steps": 1, "lora.r": 3, "data.held_out": 0,
    })  # fmt: skip
    first, second = tmp_path / "first", tmp_path / "second"
    TrainingRun(recipe, first).train()
    TrainingRun(recipe.changed({"model.adapter": str(first / "adapter")}), second).train()
    assert (second / "frozen_adapter" / "README.md").read_bytes() == (first / "adapter" / "README.md").read_bytes()
    for folder in (first / "adapter", second / "adapter"):
        card = folder_card(folder)
        assert card["library_name"] == "peft" and {"lora", "peft", "stilnovo"} <= set(card["tags"])
        assert "base_model" not in card  # a folder of this machine: the hub knows none
        text = (folder / "README.md").read_text()
        strength = f"{settings(folder)['lora_alpha']:.6g}"
        assert (
            f"Stored with lora_alpha {strength} and use_rslora false" in text and "rsLoRA" in text and rows.name in text
        )
        assert str(tmp_path) not in text.replace(str(rows), "")
