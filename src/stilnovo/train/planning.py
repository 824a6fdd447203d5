"""The plan at work: a recipe and this machine's memory become the engine's levers, before anything is loaded.

On a card the budget is what is free on it now, other programs' share taken off, and the host's free memory. On a CPU
there is one memory: the fastest setting that leaves a third of it free is taken.
"""

from __future__ import annotations

from dataclasses import replace

import psutil
import torch

from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.quantize import AffineLinear, DenseLinear, FourBitLinear, FrozenLinear
from stilnovo.plan import cards, choice
from stilnovo.plan.cards import GIB, Card
from stilnovo.plan.choice import Budget, Plan, Wishes, plan_for
from stilnovo.plan.ledger import CONTEXT_BYTES, Run
from stilnovo.plan.levers import Levers, OptimizerKind, all_layers
from stilnovo.plan.shape import LlamaConfig, LoraConfig
from stilnovo.progress import bytes_text
from stilnovo.recipe import TrainSection

CPU_SHARE = 0.67  # of the free memory, at most
CPU = Card("this CPU", 1e11, 0, 2e10, 1e10)


def run_of(model: Llama, tokens: int) -> Run:
    """What the ledger needs to know of a loaded model with its adapter."""
    modules = list(lora.adapters(model).values())
    paths = list(lora.adapters(model))
    names = tuple({path.rsplit(".", 1)[-1] for path in paths})
    config = LoraConfig()
    if modules:
        first = int(paths[0].split(".")[2])  # model.layers.N.…
        config = LoraConfig(r=modules[0].lora_A.shape[0], projections=names, first_layer=first)
    linear = next(module for module in model.modules() if isinstance(module, FrozenLinear))
    value_bytes, flash = model.dtype.itemsize, model.device.type == "cuda"
    return Run(
        config=model.config, lora=config, scheme=_scheme(linear), tokens=tokens, value_bytes=value_bytes, flash=flash
    )


def _scheme(linear: FrozenLinear) -> str:
    if isinstance(linear, FourBitLinear):
        return linear.scheme
    if isinstance(linear, AffineLinear):
        return f"int{linear.bits}"
    assert isinstance(linear, DenseLinear)
    return "none"


def optimizer_of(recipe: TrainSection, device: torch.device) -> OptimizerKind:
    """8-bit moments on a card, where memory counts; fp32 on a CPU, where they are thirty times faster."""
    if recipe.optimizer != "auto":
        return "adamw" if recipe.optimizer == "adamw" else "adamw8bit"
    return "adamw8bit" if device.type == "cuda" else "adamw"


def card_of(device: torch.device) -> Card:
    """The card's own figures where its name is known, else those of the default."""
    if device.type != "cuda":
        return CPU
    properties = torch.cuda.get_device_properties(device)
    name = properties.name.lower().replace(" ", "-")
    known = next((card for key, card in cards.CARDS.items() if key in name), cards.CARDS[cards.DEFAULT])
    return replace(known, memory=properties.total_memory)


def budget_of(device: torch.device) -> Budget:
    """Memory that is free now, on the card and on the host; what this process holds already counts as free."""
    free_host = psutil.virtual_memory().available
    if device.type != "cuda":
        return Budget(round(CPU_SHARE * free_host), free_host, context=0, reserve=0)
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    capped = round(torch.cuda.get_per_process_memory_fraction(device) * total)
    # The context exists by now: what is free is for the allocator alone.
    return Budget(min(free + held, capped) + CONTEXT_BYTES, free_host)


def choose_plan(run: Run, recipe: TrainSection, device: torch.device, budget: Budget | None = None) -> Plan:
    """The plan for one pass of `run.tokens`.

    Raises:
        InputError: when nothing fits, with what would.
    """
    budget = budget or budget_of(device)
    card, wishes = card_of(device), Wishes(optimizer=optimizer_of(recipe, device))
    plan = _on_cpu(run, recipe, budget, wishes) if device.type == "cpu" else choice.best(run, budget, card, wishes)
    if plan is not None:
        return plan
    raise InputError(
        f"A pass of {run.tokens:,} tokens does not fit.",
        f"Free: {bytes_text(budget.allocator)} on {device.type}, {bytes_text(budget.host)} on the host.",
        _what_would(run, budget, card, wishes),
    )


def _what_would(run: Run, budget: Budget, card: Card, wishes: Wishes) -> str:
    tokens = choice.longest(run, budget, card, wishes)
    if tokens:
        return f"At most {tokens:,} tokens fit: lower data.pack_tokens or train.batch_packs."
    for more in range(1, 512):
        larger = Budget(budget.card + more * GIB // 2, budget.host + more * GIB // 2, budget.context, budget.reserve)
        if choice.longest(run, larger, card, wishes):
            return f"Even the shortest context needs {more / 2:.1f} GiB more: close other programs, or use a smaller model."
    return "Use a smaller model."


def _on_cpu(run: Run, recipe: TrainSection, budget: Budget, wishes: Wishes) -> Plan | None:
    layers, tokens = run.config.layers, run.tokens
    dense = run.scheme != "none"
    settings = [("keep", dense), ("keep", False), ("recompute", False)]
    if recipe.gradient_checkpointing:
        settings = [("recompute", dense), ("recompute", False)]
    for keeping, keep_dense in settings:
        levers = Levers(
            layers=all_layers(keeping, layers), keep_dense=keep_dense, optimizer=wishes.optimizer,  # type: ignore[arg-type]
            loss_chunk=min(recipe.loss_chunk, tokens),
        )  # fmt: skip
        plan = plan_for(run, levers, CPU)
        if plan.peak <= budget.allocator:
            return plan
    return None


def leaner(plan: Plan, recipe: TrainSection, device: torch.device, budget: Budget | None = None) -> Plan | None:
    """The next plan after the machine ran out of memory under this one; None where there is none."""
    budget = budget or budget_of(device)
    wishes = Wishes(optimizer=optimizer_of(recipe, device))
    if device.type == "cuda":
        return choice.leaner(plan, budget, card_of(device), wishes)
    cut = Budget(min(budget.card, plan.peak) * 7 // 8, budget.host, context=0, reserve=0)
    return _on_cpu(plan.run, recipe, cut, wishes)


def shape_of_recipe(config: LlamaConfig, adapter: LoraConfig, scheme: str, tokens: int, device: torch.device) -> Run:
    """What the ledger needs to know of a model that is not loaded yet."""
    return Run(
        config=config, lora=adapter, scheme=scheme, tokens=tokens, value_bytes=2 if device.type == "cuda" else 4,
        flash=device.type == "cuda",
    )  # fmt: skip
