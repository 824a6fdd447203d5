"""What tests of the training share: a plan for a tiny model, and the plain loss."""

from __future__ import annotations

import torch

from stilnovo.data.batches import Batch
from stilnovo.model.llama import Llama
from stilnovo.plan.choice import Plan
from stilnovo.plan.shape import LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.recipe_sections import TrainSection
from stilnovo.train import planning
from stilnovo.train.objectives.text import NextToken
from stilnovo.train.passes import Passes


def batch_loss(model: Llama, batch: Batch, chunk: int) -> torch.Tensor:
    """Sum of −log p over a batch's targets, in nats, by torch's autograd: the plain path that the engine equals."""
    return NextToken()(Passes(model, None, chunk), batch)[0]


def planned(model: Llama, adapter: LoraConfig, settings: TrainSection, tokens: int = 128) -> Plan:
    """The plan of a training of a tiny dense model on a CPU."""
    width = model.dtype.itemsize
    run = Run(config=model.config, lora=adapter, scheme="none", tokens=tokens, value_bytes=width, flash=False)
    return planning.choose_plan(run, settings, torch.device("cpu"))
