"""Large embeddings and heads that stay in 16 bits beside products in fp32: the same numbers, a tile at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import TINY, write_weights
from stilnovo.engine.link import Link
from stilnovo.engine.loss import Head, tiled_divergence, tiled_losses
from stilnovo.model import llama, load, lora
from stilnovo.model.attention import Blocks
from stilnovo.model.llama import Llama, narrow_rows
from stilnovo.model.load import open_llama
from stilnovo.plan.shape import LoraConfig
from stilnovo.scoring.likelihood import token_scores
from stilnovo.spec import ModelSpec
from stilnovo.train.passes import Passes

TOKENS = torch.arange(40) * 7 % 97


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "HEAD_TILE_BYTES", 4 * 64 * 10)  # ten rows


def both(folder: Path, dtype: torch.dtype, tied: bool) -> tuple[Llama, Llama]:
    """A model with its tables in 16 bits, and with tables in fp32."""
    write_weights(folder, replace(TINY, tie_embeddings=tied), dtype)
    spec, models = ModelSpec(str(folder), quantization="nf4", device="cpu"), list[Llama]()
    for bound in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(load, "TABLE_BYTES", bound)
            models.append(open_llama(spec))
    return models[0], models[1]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_everything_that_reads_a_table_computes_the_same(dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    narrow, wide = both(tmp_path, dtype, tied)
    assert narrow.embed_tokens.dtype == narrow.head.dtype == dtype
    assert wide.head.dtype == narrow.dtype == narrow.layers[0].input_layernorm.dtype == torch.float32
    assert torch.equal(narrow.embed(TOKENS), wide.embed(TOKENS))
    found = list[list[Tensor]]()
    for model in (narrow, wide):
        lora.attach(model, LoraConfig(r=4), seed=3)
        for parameter in lora.parameters(model):
            parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(5))
        passes = Passes(model, None, 16)
        hidden = passes.hidden(TOKENS, [40])
        losses = passes.losses(hidden, TOKENS.roll(-1))
        with passes.base():
            teacher = passes.hidden(TOKENS, [40])
        divergence = passes.divergence(hidden, teacher)
        (losses.sum() + divergence).backward()
        with torch.no_grad():
            logits = model(TOKENS, torch.arange(40), Blocks([40]))
            scores, greedy = token_scores(model, hidden.detach(), range(39), TOKENS[1:].tolist())
        gradients = [parameter.grad for parameter in lora.parameters(model)]
        found.append([losses, divergence, logits, scores, greedy.float(), *(g for g in gradients if g is not None)])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(other.detach().abs().max()))


def test_a_table_of_the_models_own_type_is_one_tile() -> None:
    table = torch.empty(1000, 64, dtype=torch.bfloat16, device="meta")
    assert narrow_rows(table, torch.bfloat16) == 1000
    assert narrow_rows(table, torch.bfloat16, 300) == 300
    big = torch.empty(128_256, 4096, dtype=torch.bfloat16, device="meta")
    assert narrow_rows(big, torch.float32) * 4096 * 4 == llama.HEAD_TILE_BYTES
    assert narrow_rows(big, torch.float32, 256) == 256


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", ["dense", "int8", "nf4", "streamed"])
def test_every_head_of_the_engine(kind: str) -> None:
    weight = (torch.randn(97, 64, generator=torch.Generator().manual_seed(1)) * 0.1).bfloat16()
    hidden, teacher = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(2))
    heads = [Head(weight, kind, 32, Link(torch.device("cpu")), torch.float32)]  # type: ignore[arg-type]
    heads.append(Head(weight.float(), kind, heads[0].spans[0][1], Link(torch.device("cpu"))))  # type: ignore[arg-type]
    for made in (
        lambda head: tiled_losses(hidden, head, TOKENS[:12], 5),
        lambda head: tiled_divergence(hidden, teacher, head, 5),
    ):
        one, other = (made(head) for head in heads)
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(other.detach().abs().max()))


def test_small_tables_and_other_devices_types_are_as_ever(tmp_path: Path) -> None:
    write_weights(tmp_path, TINY, torch.bfloat16)
    spec = ModelSpec(str(tmp_path), quantization="nf4", device="cpu")
    assert open_llama(spec).head.dtype == torch.float32
    assert open_llama(spec, dtype=torch.bfloat16).head.dtype == torch.bfloat16
