"""LoRA: its start, its gradients, and PEFT reading what we write and we what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaForCausalLM

from conftest import TINY
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import build
from stilnovo.model.weights import SafetensorsReader
from stilnovo.plan.shape import PROJECTIONS

THEIRS = TheirConfig(
    vocab_size=97,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
TOKENS = torch.arange(50) % 97


def logits(model: Llama) -> Tensor:
    with torch.no_grad():
        return model(TOKENS, positions_of([50]), Blocks([50]))


def their_logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(TOKENS[None], use_cache=False).logits[0]
    return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Llama, LlamaForCausalLM, Path]:
    torch.manual_seed(2)
    theirs = LlamaForCausalLM(THEIRS).eval()
    theirs.save_pretrained(tmp_path / "base")
    return build(SafetensorsReader(tmp_path / "base"), "none", torch.device("cpu"), torch.float32), theirs, tmp_path


def disturb(model: Llama) -> None:
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.2)


def test_a_fresh_adapter_is_the_base(tiny: Llama) -> None:
    before = logits(tiny)
    lora.attach(tiny, lora.LoraConfig(r=8))
    assert torch.equal(logits(tiny), before)


@pytest.mark.parametrize("rslora", [True, False])
def test_peft_reads_ours(pair: tuple[Llama, LlamaForCausalLM, Path], rslora: bool) -> None:
    ours, theirs, folder = pair
    base = logits(ours)
    config = lora.LoraConfig(r=8, alpha=12, rslora=rslora, projections=("q_proj", "v_proj", "down_proj"))
    lora.attach(ours, config)
    disturb(ours)
    lora.save(ours, config, folder / "adapter", "base")
    adapted = their_logits(PeftModel.from_pretrained(theirs, folder / "adapter").eval())
    assert (logits(ours) - adapted).abs().max() <= 1e-4
    lora.set_enabled(ours, False)
    assert (logits(ours) - adapted).abs().max() > 0.1
    assert torch.equal(logits(ours), base)
    lora.set_enabled(ours, True)
    assert (logits(ours) - adapted).abs().max() <= 1e-4


def test_we_read_peft(pair: tuple[Llama, LlamaForCausalLM, Path]) -> None:
    ours, theirs, folder = pair
    config = PeftConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=list(PROJECTIONS), init_lora_weights=False)
    adapted = get_peft_model(theirs, config).eval()
    adapted.save_pretrained(folder / "adapter")
    read = lora.load(ours, folder / "adapter")
    assert (read.r, read.alpha, read.rslora) == (4, 8, True)
    assert (logits(ours) - their_logits(adapted)).abs().max() <= 1e-4


def test_gradients_equal_plain_autograd(tiny: Llama) -> None:
    tiny = tiny.double()
    lora.attach(tiny, lora.LoraConfig(r=4, alpha=6))
    module = next(iter(lora.adapters(tiny).values())).double()
    torch.nn.init.normal_(module.lora_B)
    x = torch.randn(9, 64, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(9, module.base.out_features, dtype=torch.float64)
    (module(x) * upstream).sum().backward()
    fused = [t.grad.clone() for t in (x, module.lora_A, module.lora_B) if t.grad is not None]
    for tensor in (x, module.lora_A, module.lora_B):
        tensor.grad = None
    plain = x @ module.base.dense(torch.float64).T + module.scale * (x @ module.lora_A.T) @ module.lora_B.T
    (plain * upstream).sum().backward()
    for got, tensor in zip(fused, (x, module.lora_A, module.lora_B), strict=True):
        # A's and B's gradients pass through fp32, in which adapters are kept.
        assert tensor.grad is not None
        assert torch.allclose(got, tensor.grad, rtol=1e-5, atol=1e-6)


def test_dropout_falls_on_the_adapter_alone(tiny: Llama) -> None:
    base = logits(tiny)
    lora.attach(tiny, lora.LoraConfig(r=4, dropout=0.9))
    tiny.train()
    assert torch.allclose(logits(tiny), base, atol=1e-5)  # B = 0: dropout cannot show
    disturb(tiny)
    assert not torch.equal(logits(tiny), logits(tiny))
    tiny.eval()
    assert torch.equal(logits(tiny), logits(tiny))


def test_an_adapter_of_another_model_is_refused(tiny: Llama, tmp_path: Path) -> None:
    config = lora.LoraConfig(r=4)
    lora.attach(tiny, config)
    lora.save(tiny, config, tmp_path, "tiny")
    other = Llama(replace(TINY, hidden_size=32, head_dim=8))
    with pytest.raises(InputError, match=r"(?s)does not fit.*made for: tiny"):
        lora.load(other, tmp_path)
    with pytest.raises(InputError, match="no adapter"):
        lora.load(other, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": 8}, "does not fit"),
        ({"r": 8, "base_model_name_or_path": None}, "a model it does not name"),
        ({"r": 0}, "r is 0"),
        ({"r": None}, "does not describe"),
        ({"lora_alpha": None}, "does not describe"),
        ({"target_modules": None}, "does not describe"),
        ({"target_modules": "(q|k)_proj"}, "No such LoRA target module"),
        ({"target_modules": ["q_proj"]}, "no place for"),
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"layers_to_transform": [0], "target_modules": ".*_proj"}, "layers_to_transform"),
        ({"peft_type": "IA3"}, "peft_type"),
        ("{", "not valid JSON"),
        ("[]", "not valid JSON"),
    ],
)
def test_odd_settings_are_refused_and_leave_the_base(
    tiny: Llama, tmp_path: Path, changes: str | dict[str, object], words: str
) -> None:
    before, other = logits(tiny), Llama(TINY)
    config = lora.LoraConfig(r=4)
    lora.attach(other, config)
    lora.save(other, config, tmp_path, "tiny")
    path = tmp_path / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(changes if isinstance(changes, str) else json.dumps({**settings, **changes}))
    with pytest.raises(InputError, match=words):
        lora.load(tiny, tmp_path)
    assert lora.adapters(tiny) == {}
    assert torch.equal(logits(tiny), before)
    path.write_text(json.dumps(settings))
    lora.load(tiny, tmp_path)  # nothing of the refused one is in the way


def test_damaged_weights_are_refused(tiny: Llama, tmp_path: Path) -> None:
    other, config = Llama(TINY), lora.LoraConfig(r=4)
    lora.attach(other, config)
    lora.save(other, config, tmp_path, "tiny")
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(InputError, match="cannot be read"):
        lora.load(tiny, tmp_path)


def test_the_scale_is_alpha_over_r_or_its_root() -> None:
    assert lora.LoraConfig(r=16, alpha=8, rslora=False).scale == 0.5
    assert lora.LoraConfig(r=16, alpha=8, rslora=True).scale == 2.0


def test_a_start_depends_on_its_seed_alone() -> None:
    starts = []
    for seed in (1, 1, 2):
        model = Llama(TINY)
        lora.attach(model, lora.LoraConfig(r=4), seed)
        starts.append(lora.parameters(model)[0].detach())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert starts[0].abs().max() <= 1 / 8  # ±1/√in, in = 64


def test_unknown_projection(tiny: Llama) -> None:
    with pytest.raises(InputError, match="w_proj"):
        lora.attach(tiny, lora.LoraConfig(projections=("w_proj",)))
