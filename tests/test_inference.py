"""Reading without a backward gives what the model's own pass gives, whatever its projections are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conftest import TINY
from stilnovo.model import inference, lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.inference import hidden_states
from stilnovo.model.llama import Llama, random_source
from stilnovo.model.qat import make_aware
from stilnovo.model.quantize import Scheme, quantized_linear
from stilnovo.plan.shape import LoraConfig
from stilnovo.text.tokenizer import Tokenizer

LENGTHS = [7, 1, 12, 30]


def stream(vocabulary: int) -> tuple[Tensor, Tensor, Blocks]:
    tokens = torch.randint(vocabulary, (sum(LENGTHS),), generator=torch.Generator().manual_seed(3))
    return tokens, positions_of(LENGTHS), Blocks.documents(LENGTHS)


def adapted(model: Llama) -> Llama:
    lora.attach(model, LoraConfig(r=4, alpha=8, projections=("q_proj", "o_proj", "up_proj", "down_proj")))
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.mark.parametrize("block_rows", [1024, 16, 7])
@pytest.mark.parametrize("scheme", ["none", "nf4", "int8"])
@pytest.mark.parametrize("adapter", [False, True])
def test_same_hidden_states(scheme: Scheme, adapter: bool, block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BLOCK_ROWS", block_rows)
    model = Llama(TINY, random_source(5, std=0.2), lambda weight: quantized_linear(weight, scheme)).eval()
    if adapter:
        adapted(model)
    with torch.no_grad():
        expected = model.hidden(*stream(TINY.vocab_size))
    rows = torch.tensor([0, 7, 8, 19, 49])
    assert torch.allclose(hidden_states(model, *stream(TINY.vocab_size)), expected, atol=2e-6)
    assert torch.allclose(hidden_states(model, *stream(TINY.vocab_size), rows), expected[rows], atol=2e-6)


def test_adapter_switched_off() -> None:
    model = Llama(TINY, random_source(5, std=0.2)).eval()
    base = hidden_states(model, *stream(TINY.vocab_size))
    adapted(model)
    assert not torch.allclose(hidden_states(model, *stream(TINY.vocab_size)), base, atol=1e-2)
    lora.set_enabled(model, False)
    assert torch.equal(hidden_states(model, *stream(TINY.vocab_size)), base)


def test_other_types_and_dropout_take_the_models_own_pass() -> None:
    model = Llama(TINY, random_source(5, std=0.2)).to(torch.bfloat16).eval()
    with torch.no_grad():
        expected = model.hidden(*stream(TINY.vocab_size))
    assert torch.equal(hidden_states(model, *stream(TINY.vocab_size), torch.arange(4)), expected[:4])


def test_quantisation_aware_projections(tiny: Llama) -> None:
    make_aware(adapted(tiny), 8)
    tiny.eval()
    with torch.no_grad():
        expected = tiny.hidden(*stream(TINY.vocab_size))
    assert torch.allclose(hidden_states(tiny, *stream(TINY.vocab_size)), expected, atol=2e-6)


def test_real_model(smollm2: tuple[Llama, Tokenizer]) -> None:
    model = smollm2[0]
    model.eval()
    with torch.no_grad():
        expected = model.hidden(*stream(model.config.vocab_size))
    found = hidden_states(model, *stream(model.config.vocab_size))
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
