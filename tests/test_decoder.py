"""Writing on a processor against the model's own passes: same numbers within the form's error, same copies while the model is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stilnovo.errors import InputError
from stilnovo.generate import generator
from stilnovo.generate.decoder import Decoder
from stilnovo.generate.generator import Generator, Sampling
from stilnovo.generate.kv_cache import KVCache
from stilnovo.model import lora, qat
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.processor import VARIABLE, CpuProducts, instruction_sets
from stilnovo.plan.account import writing_weights
from stilnovo.plan.shape import LlamaConfig, LoraConfig
from stilnovo.spec import ModelSpec

HAS_AVX2 = "avx2" in instruction_sets()
ERROR = {"fp32": 1e-5, "fp16": 2e-3, "int8": 5e-2, "bf16": 5e-2}  # through all layers
WAYS: list[CpuProducts] = [
    "int8",
    *(["fp16"] if HAS_AVX2 else []),
    *(["bf16"] if "avx512_bf16" in instruction_sets() else []),
]  # type: ignore[list-item]
CONFIG = LlamaConfig(
    vocab_size=97, hidden_size=128, intermediate_size=192, layers=3, heads=4, kv_heads=2, head_dim=32, max_positions=128,
    rms_eps=1e-5, rope_theta=10000.0, rope_scaling=None, tie_embeddings=False,
)  # fmt: skip


def made(scheme: str = "nf4") -> Llama:
    from stilnovo.model.quantize import quantized_linear

    return Llama(CONFIG, linear=lambda weight: quantized_linear(weight, scheme)).requires_grad_(False).eval()  # type: ignore[arg-type]


def run(decoder: Llama | Decoder, parts: list[list[torch.Tensor]], texts: int) -> torch.Tensor:
    """Logits of all tokens, in passes of several texts at once."""
    cache = KVCache(CONFIG, texts, 40, torch.device("cpu"), torch.float32)
    rows = []
    with torch.inference_mode():
        for step in parts:
            hidden = decoder.hidden(torch.cat(step), cache.expect([len(part) for part in step]), cache)
            cache.advance()
            rows.append(decoder.logits(hidden))
    return torch.cat(rows)


def steps(texts: int) -> list[list[torch.Tensor]]:
    numbers = torch.Generator().manual_seed(texts)
    first = [torch.randint(0, 97, (3 + 2 * text,), generator=numbers) for text in range(texts)]
    return [first, *([torch.randint(0, 97, (1,), generator=numbers) for _ in range(texts)] for _ in range(5))]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheme", ["nf4", "int4", "none"])
@pytest.mark.parametrize("texts", [1, 3])
def test_a_decoder_computes_what_the_model_does(way: CpuProducts, scheme: str, texts: int) -> None:
    model = made(scheme)
    assert error(run(Decoder(model, way), steps(texts), texts), run(model, steps(texts), texts)) < ERROR[way]


@pytest.mark.parametrize("way", WAYS)
def test_with_adapters_and_behind_a_rounding(way: CpuProducts) -> None:
    model = made()
    lora.attach(model, LoraConfig(r=4, projections=("q_proj", "down_proj"), first_layer=1))
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.2, generator=torch.Generator().manual_seed(8))
    decoder = Decoder(model, way)
    expected = run(model, steps(2), 2)
    assert error(run(decoder, steps(2), 2), expected) < ERROR[way]
    with lora.disabled(model):
        base = run(model, steps(2), 2)
        assert error(base, expected) > 0.05
        assert error(run(decoder, steps(2), 2), base) < ERROR[way]
    qat.make_aware(model, 4)
    assert not decoder.made_of(model, way)
    assert error(run(Decoder(model, way), steps(2), 2), run(model, steps(2), 2)) < ERROR[way]


def test_copies_are_made_once_and_again_when_the_model_has_other_projections(
    bytewise: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in: list[str] = []
    first = Decoder.__init__

    def counted(self: Decoder, model: Llama, way: CpuProducts) -> None:
        made_in.append(way)
        first(self, model, way)

    monkeypatch.setattr(Decoder, "__init__", counted)
    monkeypatch.setenv(VARIABLE, "int8")
    engine, two = Generator(bytewise.model, bytewise.tokenizer), [Sampling(max_new_tokens=2)]
    for _ in range(2):
        engine.continue_tokens([[1, 2, 3]], two)
    assert made_in == ["int8"]
    lora.attach(bytewise.model, LoraConfig(r=2))
    engine.continue_tokens([[1, 2, 3]], two)
    lora.detach(bytewise.model)
    monkeypatch.setenv(VARIABLE, "fp32")
    engine.continue_tokens([[1, 2, 3]], two)
    assert made_in == ["int8", "int8"]
    Generator(bytewise.model, bytewise.tokenizer, products="fp32").continue_tokens([[1, 2, 3]], two)
    assert made_in == ["int8", "int8"]


def test_a_trainings_samples_make_no_copies_of_a_large_model(
    bytewise: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "int8")
    sample = lambda: generator.sample_answers(bytewise.model, bytewise.tokenizer, ["Ciao"], 2)  # noqa: E731
    assert sample()
    monkeypatch.setattr(generator, "SMALL_BYTES", 1000)
    monkeypatch.setattr(Decoder, "__init__", lambda *_: pytest.fail("copies were made"))
    assert sample()


def test_a_way_that_the_processor_has_not_is_refused_before_the_weights(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator.ModelCheckpoint, "load", lambda *_: pytest.fail("the weights were read"))
    monkeypatch.setenv(VARIABLE, "int7")
    with pytest.raises(InputError, match="Did you mean int8"):
        generator.open_engine(ModelSpec(str(tiny_folder), device="cpu"))
    monkeypatch.setenv(VARIABLE, "int8")
    generator.open_engine(ModelSpec(str(tiny_folder), device="cpu"))


def test_what_is_counted_as_weights() -> None:
    per_layer = 128 * (128 + 64 + 64 + 128) + 3 * 128 * 192
    assert writing_weights(made().config) == 3 * per_layer + 97 * 128


def test_positions_are_the_models_own() -> None:
    """A whole text at once equals the full pass of the model, which knows no cache."""
    model, text = made("none"), torch.arange(30)
    with torch.inference_mode():
        expected = model(text, positions_of([30]), Blocks([30]))
    for way in WAYS:
        assert error(run(Decoder(model, way), [[text]], 1), expected) < ERROR[way]
