"""A command's account against this machine's memory: said, and refused, before a weight is read.

`stilnovo.plan.account` knows what a command needs, `stilnovo.model.memory` what is free. Here both meet, for every command alike:
which scheme a model is opened in where none was asked for, and how long a conversation may become.

What was admitted is measured from then on (`Admitted`), so that each command says what it held beside what was predicted. The
account of what was opened last is kept (`opened`): should memory run out all the same, it belongs into the message.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from stilnovo.errors import InputError
from stilnovo.model.load import ModelCheckpoint, choose_device, compute_dtype
from stilnovo.model.memory import PeakMemory, budget_of, resident, warm_up
from stilnovo.model.processor import CpuProducts, cpu_products
from stilnovo.plan.account import (
    COMMANDS,
    WRITES,
    Account,
    Command,
    ModelUse,
    account,
    needs_text,
    scoring_copies,
    truest_scheme,
    what_would,
    within,
    writing_use,
    writing_weights,
)
from stilnovo.plan.adapter import adapter_values
from stilnovo.plan.autograd import AutogradStep
from stilnovo.plan.choice import Budget, Plan
from stilnovo.plan.model_shape import config_of, stored_scheme, tables_of
from stilnovo.plan.shape import LlamaConfig
from stilnovo.recipe_sections import Scheme
from stilnovo.spec import ModelSpec, adapter_differences, scheme_for

log = logging.getLogger(__name__)
_opened: list[Account] = []


def opened() -> Account | None:
    """The account of the model that was opened last, whether it fitted or not; None before."""
    return _opened[-1] if _opened else None


def dense_copies_fit() -> bool:
    """Whether the model that was opened last may keep its quantized weights densely while it scores; yes before any was."""
    made = opened()
    return made is None or made.use.command in ("train", *WRITES) or made.use.copies > 0


class Admitted:
    """A command with a model, from its admission on: what it needs by its account, and the most that it really holds.

    Attributes:
        account: What was predicted.
        program: Bytes that the process held before, libraries included; they are no part of either figure.
    """

    def __init__(self, made: Account, device: torch.device) -> None:
        self.account = made
        warm_up(made.use.scheme)
        self.program = resident()
        self._peak = PeakMemory(device, self.program)

    @property
    def use(self) -> ModelUse:
        """What the command does with the model."""
        return self.account.use

    def figures(self) -> dict[str, int]:
        """Both figures in bytes, on the card where there is one, else on the host: for a command's JSON."""
        predicted = self.account.card if self.use.on_card else self.account.host
        return {"predicted_peak_bytes": predicted, "peak_memory_bytes": self._peak.bytes}


def use_of(
    command: Command, spec: ModelSpec, config: LlamaConfig, device: torch.device, tokens: int, cached: int = 0
) -> ModelUse:
    """What a command does with a model: passes of so many tokens, and so many whose keys and values are kept."""
    on_card, width = device.type == "cuda", compute_dtype(device).itemsize
    tables, mapped = (None, False) if on_card else tables_of(spec.model, config, width)
    copies = 0.0 if on_card or command in WRITES else scoring_copies(config, spec.quantization, width)
    return ModelUse(
        command=command, config=config, scheme=spec.quantization, on_card=on_card, value_bytes=width,
        table_bytes=tables, mapped=mapped,
        adapter=0 if spec.adapter is None else adapter_values(spec.adapter, config),
        tokens=tokens, cached=cached, copies=copies,
    )  # fmt: skip


def admit(
    use: ModelUse, spec: ModelSpec, budget: Budget | None = None, plan: Plan | AutogradStep | None = None
) -> Admitted:
    """Say what a command will need, before the model is opened, and measure what it holds from now on.

    Raises:
        InputError: when it does not fit, with what would.
    """
    device = choose_device(spec.device)
    budget = budget or budget_of(device)
    made = account(use if plan is not None else within(use, budget), plan)
    _opened[:] = [made]
    if not made.fits(budget):
        raise InputError(
            f"{spec.model} in {use.scheme} does not fit in memory for {COMMANDS[use.command]}.",
            f"It needs {needs_text(made, budget)}.",
            what_would(use, budget),
        )
    log.info(
        "Memory: %s with %s in %s needs %s.", COMMANDS[use.command], spec.model, use.scheme, needs_text(made, budget)
    )
    return Admitted(made, device)


def writing_room(
    checkpoint: ModelCheckpoint, command: Command, tokens: int, cached: int | None = None, *,
    products: CpuProducts | None = None,
) -> tuple[Admitted, CpuProducts | None]:  # fmt: skip
    """Admit a model that writes: passes of `tokens`, room for `cached` (None: a whole conversation of `tokens`).

    On a processor the fast form of its products is taken where there is memory for the copies, else none are kept. A whole
    conversation gets as many tokens as fit: those of the use that is returned, with the form of the products.

    Raises:
        InputError: see `admit`; a conversation is refused where not even a short one fits.
    """
    spec, device, config = checkpoint.spec, choose_device(checkpoint.spec.device), checkpoint.config
    budget = budget_of(device)
    plain = use_of(command, spec, config, device, tokens, tokens if cached is None else cached)
    fast: CpuProducts | None = None if plain.on_card else products or cpu_products(writing_weights(config))
    use, kept = writing_use(plain, budget, fast, whole=cached is None)
    if cached is None and use.cached < tokens:
        log.info("A conversation may have up to %s tokens: more do not fit in memory.", f"{use.cached:,}")
    return admit(use, spec, budget), fast if kept else "fp32"


def fitting_spec(command: Command, spec: ModelSpec, asked: Scheme | None, tokens: int) -> tuple[ModelSpec, str]:
    """The scheme in which a model is scored, and why, in a line (empty where nothing is to be said).

    What was asked for; else that of the adapter's training, whose weights make up for that rounding; else as it is stored;
    else the truest that fits. `spec.quantization` is not read.
    """
    if chosen := scheme_for(spec.adapter, asked):
        spec = replace(spec, quantization=chosen)  # type: ignore[arg-type]  # checked there
        how = [] if asked else [f"The base is opened in {chosen}, as in the adapter's training."]
        return spec, " ".join([*how, *adapter_differences(spec)])
    try:
        if stored := stored_scheme(spec.model):
            return replace(spec, quantization=stored), ""  # type: ignore[arg-type]
        config, device = config_of(spec.model), choose_device(spec.device)
    except InputError:  # what is wrong is told where the model is opened, after what is told before
        return replace(spec, quantization="none"), ""
    budget = budget_of(device)
    dense = use_of(command, replace(spec, quantization="none"), config, device, tokens)
    scheme = truest_scheme(dense, budget)
    why = f"Unquantized, {spec.model} needs {needs_text(account(dense), budget)}: it is opened in {scheme}."
    return replace(spec, quantization=scheme), "" if scheme == "none" else why  # type: ignore[arg-type]
