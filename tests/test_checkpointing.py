"""Gradient checkpointing changes the memory of a step and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import short_smollm2
from stilnovo.data.batches import Batch
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from training import batch_loss


def prepared(model: Llama, dropout: float = 0.0) -> Llama:
    """With an adapter whose B is not zero, so that every gradient flows."""
    lora.attach(model, lora.LoraConfig(r=4, dropout=dropout))
    generator = torch.Generator().manual_seed(1)
    for module in lora.adapters(model).values():
        torch.nn.init.normal_(module.lora_B, std=0.05, generator=generator)
    return model.train()


def batch(vocabulary: int, lengths: tuple[int, ...]) -> Batch:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, vocabulary, (2, sum(lengths)), generator=generator)
    return Batch(tokens[0], tokens[1], lengths)


def step(model: Llama, one: Batch, checkpointing: bool) -> tuple[float, list[Tensor]]:
    model.checkpointing = checkpointing
    torch.manual_seed(3)  # dropout
    loss = batch_loss(model, one, 16)
    gradients = torch.autograd.grad(loss, lora.parameters(model))
    return loss.item(), list(gradients)


def saved_bytes(model: Llama, one: Batch, checkpointing: bool) -> int:
    """Bytes of the distinct storages that torch is asked to keep, found with torch's own hooks."""
    model.checkpointing = checkpointing
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        batch_loss(model, one, 16)
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_same_loss_and_gradients_on_a_tiny_model(tiny: Llama, dropout: float) -> None:
    model, one = prepared(tiny, dropout), batch(97, (40, 24))
    plain_loss, plain = step(model, one, checkpointing=False)
    loss, recomputed = step(model, one, checkpointing=True)
    assert loss == plain_loss
    assert len(plain) == 2 * 14
    assert all(gradient.abs().max() > 0 for gradient in plain)
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


def test_same_loss_and_gradients_on_real_weights(smollm2_gguf: Path) -> None:
    model = prepared(short_smollm2(smollm2_gguf, 3, "nf4"))
    one = batch(model.config.vocab_size, (70, 30))
    plain_loss, plain = step(model, one, checkpointing=False)
    loss, recomputed = step(model, one, checkpointing=True)
    assert loss == plain_loss
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    kept, kept_checkpointed = (saved_bytes(model, one, checkpointing) for checkpointing in (False, True))
    assert kept_checkpointed < kept / 5
    # What is left: the input of each layer, the last norm's input and the gradient that the loss keeps.
    rows = 100 * model.config.hidden_size * 4
    assert 5 * rows <= kept_checkpointed < 7 * rows


def test_less_is_kept(tiny: Llama) -> None:
    model, one = prepared(tiny), batch(97, (64,))
    assert saved_bytes(model, one, True) < saved_bytes(model, one, False) / 3


def test_without_gradients_nothing_is_recomputed(tiny: Llama) -> None:
    model, one = prepared(tiny), batch(97, (64,))
    model.checkpointing = True
    with torch.no_grad():
        assert not batch_loss(model, one, 16).requires_grad
