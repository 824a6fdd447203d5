"""Memory and arithmetic of the real 8B training step, without a card: predicted beside tracked, for every plan.

The step is the engine's own, under `FakeTensorMode`: shapes are computed, storage never exists (`tracking.py`). FLOPs are
counted by torch's `FlopCounterMode`; attention is counted as causal, half of what the counter says for it.
N is the number of weights in matrix products (projections and head). Nothing is timed.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from stilnovo.engine.loss import tiled_cross_entropy
from stilnovo.engine.stack import Engine
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import FourBitLinear
from stilnovo.plan.ledger import Ledger, Run, ledger
from stilnovo.plan.levers import Levers
from stilnovo.plan.shape import LlamaConfig, LoraConfig
from stilnovo.train.host import HostAdapter
from tracking import LiveBytes

CARD = torch.device("meta")
ADAPTER = LoraConfig(r=32)


def empty_model(config: LlamaConfig) -> Llama:
    """The shape in NF4 with its adapter, on the device that plays the card."""
    model = Llama(
        config,
        lambda _name, shape: torch.empty(shape, device=CARD, dtype=torch.bfloat16),
        lambda weight: FourBitLinear.of_shape(*weight.shape, "nf4", CARD),
    )
    model.rotary.frequencies = model.rotary.frequencies.to(CARD)
    lora.attach(model, ADAPTER)
    return model


def track(config: LlamaConfig, levers: Levers, tokens: int) -> dict[str, Any]:
    """One real step without storage: peak bytes of the card, FLOPs."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        model = empty_model(config)
        sink = HostAdapter(model) if levers.optimizer_place == "host" else None
        engine = Engine(model, levers, sink)
        gc.collect()
        states = [] if sink is not None else optimizer_states(model, levers)
        live.reset()
        fixed = live.now
        ids = torch.zeros(tokens, dtype=torch.int64, device=CARD)
        with FlopCounterMode(display=False) as counter:
            live.phase = "forward"
            hidden = engine.hidden(ids, (tokens,))
            live.phase = "loss"
            loss = tiled_cross_entropy(hidden, engine.head, ids, levers.loss_chunk)
            del hidden
            live.phase = "backward"
            loss.backward()  # type: ignore[no-untyped-call]
        counts = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
        attention = sum(count for name, count in counts.items() if "attention" in name)
        del states
        return {
            "tracked_bytes": live.peak, "tracked_fixed_bytes": fixed, "at": live.at,
            "flops_per_token": (counter.get_total_flops() - attention / 2) / tokens,
            "matrix_flops_per_token": (counter.get_total_flops() - attention) / tokens,
        }  # fmt: skip


def optimizer_states(model: Llama, levers: Levers) -> list[torch.Tensor]:
    """The moments, as the optimizer will hold them."""
    held = []
    for parameter in lora.parameters(model):
        for _ in range(2):
            if levers.optimizer == "adamw":
                held.append(torch.empty_like(parameter))
            else:
                held.append(torch.empty_like(parameter, dtype=torch.uint8))
                held.append(torch.empty(parameter.numel() // 256, device=CARD))
    return held


def row(name: str, levers: Levers, tokens: int, config: LlamaConfig) -> dict[str, Any]:
    """Predicted beside tracked."""
    predicted: Ledger = ledger(Run(config=config, lora=ADAPTER, tokens=tokens), levers)
    found = track(config, levers, tokens)
    weights = config.layers * config.layer_matrix() + config.vocab_size * config.hidden_size
    return {
        "plan": name, "tokens": tokens, "predicted_bytes": predicted.peak, "host_bytes": predicted.host,
        "moment": predicted.moment, **found, "times_n": found["flops_per_token"] / weights,
    }  # fmt: skip
