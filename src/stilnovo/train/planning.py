"""Plan a training: a recipe and this machine's free memory become the engine's settings, before anything is loaded.

The budget is what is free before the model is opened (`stilnovo.model.memory.budget_of`), asked once: what this run holds
later is its own. Only a leaner plan after an out-of-memory error is measured by what is free then, when the model is closed.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stilnovo.data.packing import PackedCorpus
from stilnovo.errors import InputError, any_of
from stilnovo.model import kernels
from stilnovo.model.load import compute_dtype, step_dtype
from stilnovo.model.memory import budget_of
from stilnovo.plan import cards, choice
from stilnovo.plan.adapter import frozen_ranks
from stilnovo.plan.autograd import AutogradStep
from stilnovo.plan.candidates import LOSS_CHUNK, Wishes
from stilnovo.plan.levers import Levers, OptimizerKind, all_layers, optimizer_kind
from stilnovo.plan.model_shape import config_of, tables_of
from stilnovo.plan.shape import LlamaConfig, adapter_of, lora_parameters, moment_bytes
from stilnovo.plan.sizes import Run
from stilnovo.progress import bytes_text
from stilnovo.recipe import Recipe, anchors, learns_parts, plain_reason
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import check_room

log = logging.getLogger(__name__)


def run_of(
    recipe: Recipe, device: torch.device, adapter: Path | None = None, dtype: torch.dtype | None = None
) -> Run:  # fmt: skip
    """Collect what the ledger needs to know of a training, from files and recipe alone.

    Args:
        recipe: The training.
        device: Where it runs.
        adapter: The frozen one under the one that learns.
        dtype: The type of its step; None: as this machine chooses (`step_dtype`).
    """
    config = config_of(recipe.model.name)
    own, step, on_card = compute_dtype(device), dtype or step_dtype(device), device.type == "cuda"
    tables, mapped = (None, False) if on_card else tables_of(recipe.model.name, config, own.itemsize)
    return Run(
        config=config, lora=adapter_of(recipe.lora, config.layers), scheme=recipe.model.quantization,
        tokens=recipe.data.pack_tokens * recipe.train.batch_packs, value_bytes=step.itemsize, weight_bytes=own.itemsize,
        table_bytes=tables, mapped=mapped, flash=on_card, kernels=kernels.wanted(device),
        frozen=() if adapter is None else frozen_ranks(adapter, config),
        gathered=learns_parts(recipe), anchored=anchors(recipe),
        capability=card_of(device).capability, accumulation=recipe.train.accumulation,
        multiprocessors=torch.cuda.get_device_properties(device).multi_processor_count
        if on_card and recipe.train.deterministic else 0,
    )  # fmt: skip


def resumed_dtype(manifest: Mapping[str, Any], device: torch.device) -> torch.dtype:
    """The type in which a run goes on: that in which it began, if this machine computes in it."""
    own, chosen = compute_dtype(device), step_dtype(device)
    if (
        manifest.get("computes_in", type_name(own)) != "bfloat16"
    ):  # versions before this entry computed in the model's type
        return own
    if chosen != torch.bfloat16:
        log.warning(
            "The run began in bf16 and goes on in %s here: its losses differ a little from what they would have been.",
            type_name(chosen),
        )
    return chosen


def type_name(dtype: torch.dtype) -> str:
    """A type's name as the manifest has it: `bfloat16`, `float32`."""
    return str(dtype).removeprefix("torch.")


def card_of(device: torch.device) -> cards.Card:
    """The GPU's speeds: by its name where the table knows it, else derived from what its driver says."""
    if device.type != "cuda":
        return cards.CPU
    properties = torch.cuda.get_device_properties(device)
    card = cards.find(properties.name, properties.total_memory)
    if card is None and hasattr(properties, "multi_processor_count"):
        # Clocks in kHz and the bus in bits, where this torch says them; memory moves twice a clock.
        memory_clock, bus = (getattr(properties, name, 0) for name in ("memory_clock_rate", "memory_bus_width"))
        card = cards.derived(
            properties.name, (properties.major, properties.minor), properties.multi_processor_count,
            properties.total_memory, getattr(properties, "clock_rate", 0) * 1e3, 2e3 * memory_clock * bus / 8,
        )  # fmt: skip
    card = card or cards.find(properties.name) or cards.CARDS[cards.DEFAULT]
    return replace(card, memory=properties.total_memory)


def choose_plan(
    run: Run, settings: TrainSection, device: torch.device, budget: choice.Budget | None = None
) -> choice.Plan:
    """Choose the plan for one pass of `run.tokens`.

    Raises:
        InputError: when nothing fits, with what would.
    """
    budget = budget or budget_of(device)
    card, wishes = card_of(device), choice.wishes_of(settings)
    if card.derived:
        log.info(
            "%s is not in the table of cards: its speeds are derived, %.0f TFLOP/s and %.0f GB/s (`make bench-gpu` measures them).",
            card.name, card.flops / 1e12, card.memory_speed / cards.GB,
        )  # fmt: skip
    plan = choice.best(run, budget, card, wishes)
    if plan is None:
        raise InputError(
            f"A pass of {run.tokens:,} tokens does not fit.",
            f"Free: {bytes_text(budget.allocator)} on {device.type}, {bytes_text(budget.host)} on the host.",
            _what_would(run, budget, card, wishes),
        )
    return plan


def autograd_levers(config: LlamaConfig, settings: TrainSection, *, on_card: bool) -> Levers:
    """What is to be chosen where torch's autograd does the step: tokens of a chunk of logits, and the optimizer."""
    return Levers(
        layers=all_layers("keep", config.layers), loss_chunk=settings.loss_chunk or LOSS_CHUNK,
        optimizer=optimizer_kind(settings.optimizer, on_card=on_card),
    )  # fmt: skip


def autograd_step(run: Run, recipe: Recipe, budget: choice.Budget) -> AutogradStep:
    """The step of a training that torch's autograd does, for one pass of `run.tokens`.

    Raises:
        InputError: when it does not fit, with what would.
    """
    aware, settings = recipe.lora.quantization_aware, recipe.train
    step = AutogradStep(
        run=replace(run, value_bytes=run.own_bytes), levers=autograd_levers(run.config, settings, on_card=run.flash),
        aware="" if aware == "none" else aware, dropout=recipe.lora.dropout > 0,
        checkpointing=settings.gradient_checkpointing,
    )  # fmt: skip
    if not step.fits(budget):
        kept = f" ({bytes_text(budget.reserve)} are left for the system and this program)" if budget.reserve else ""
        raise InputError(
            f"A pass of {run.tokens:,} tokens does not fit, by torch's autograd ({plain_reason(recipe)}).",
            f"It needs {bytes_text(max(step.peak, step.load))}, and {bytes_text(budget.allocator)} are free{kept}.",
            step.what_would(budget),
        )
    return step


def disk_bytes(run: Run, settings: TrainSection, kind: OptimizerKind, *, resume: bool = False) -> int:
    """Bytes that a run writes at most at one time: its checkpoints, the one that is being written, and the adapter.

    At a resume the older checkpoints lie there already.
    """
    trained = lora_parameters(run.config, run.lora)
    frozen = lora_parameters(run.config, replace(run.lora, r=1)) * max(map(max, run.frozen), default=0)
    count = 1 if resume else settings.keep_checkpoints + 1
    state = 4 * trained + moment_bytes(run.config, run.lora, kind)  # parameters are kept in fp32
    return count * state + 4 * (trained + frozen)


def check_disk(run: Run, settings: TrainSection, folder: Path, kind: OptimizerKind, *, resume: bool = False) -> None:
    """Check that the disk has room for what the run writes.

    Raises:
        StilnovoError: when it has not, with both numbers.
    """
    check_room(
        folder, disk_bytes(run, settings, kind, resume=resume),
        "Free some space, choose another --out, or keep fewer checkpoints: --set train.keep_checkpoints=1.",
    )  # fmt: skip


def for_corpus(
    plan: choice.Plan, corpus: PackedCorpus, settings: TrainSection, device: torch.device, budget: choice.Budget
) -> choice.Plan:  # fmt: skip
    """The plan for the passes that a corpus really has: perhaps fewer tokens than a whole one, and so many documents.

    Raises:
        InputError: when it does not fit: short documents take more memory than long ones.
    """
    run = run_for(plan.run, corpus, settings)
    same = choice.plan_for(run, plan.levers, card_of(device))
    return same if choice.fits(same, budget) else choose_plan(run, settings, device, budget)


def run_for(run: Run, corpus: PackedCorpus, settings: TrainSection) -> Run:
    """The largest pass that a corpus really has."""
    pieces = np.sort(np.diff(corpus.packs.offsets))[::-1]  # of the packs with most pieces first
    tokens = min(run.tokens, corpus.tokens) or run.tokens
    return replace(run, tokens=tokens, documents=max(1, int(pieces[: settings.batch_packs].sum())))


def _what_would(run: Run, budget: choice.Budget, card: cards.Card, wishes: Wishes) -> str:
    """What makes a training fit that does not, by the rule that refuses it: fewer tokens, a leaner scheme, more memory."""
    ways = []
    if tokens := choice.longest(run, budget, card, wishes):
        ways.append(f"at most {tokens:,} tokens fit: lower data.pack_tokens or train.batch_packs")
    leaner_run = replace(run, scheme="nf4")
    if run.scheme not in ("nf4", "fp4") and choice.best(leaner_run, budget, card, wishes):
        ways.append("in nf4 it fits: use --quantization nf4")
    if not ways:
        ways.append("use a smaller model")

        def enough(halves: int) -> bool:
            extra = halves * cards.GIB // 2
            return (
                choice.longest(run, replace(budget, card=budget.card + extra, host=budget.host + extra), card, wishes)
                > 0
            )

        more = 1 + bisect.bisect(range(1, 512), False, key=enough)
        if more < 512:
            ways = [
                f"even the shortest context needs {more / 2:.1f} GiB more: close other programs, or use a smaller model"
            ]
    return any_of(ways)


def leaner(
    plan: choice.Plan, settings: TrainSection, device: torch.device, budget: choice.Budget
) -> choice.Plan | None:
    """Choose the next plan after an out-of-memory error, once the model is closed.

    Its memory is what was free before the model was opened, or what is free now where that is less: another program may have
    taken some.
    """
    now = budget_of(device)
    least = replace(budget, card=min(budget.card, now.card), host=min(budget.host, now.host))
    return choice.leaner(plan, least, card_of(device), choice.wishes_of(settings))
