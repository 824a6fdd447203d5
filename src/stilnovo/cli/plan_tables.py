"""What `stilnovo plan` prints: a training's items and levers, and the accounts of all commands for a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.model.processor import planned_products
from stilnovo.plan.account import (
    COMMANDS,
    SCORED_TOKENS,
    WRITES,
    Account,
    Command,
    ModelUse,
    account,
    in_scheme,
    needs_text,
    truest_scheme,
    what_would,
    within,
    writing_use,
    writing_weights,
)
from stilnovo.plan.adapter import adapter_values
from stilnovo.plan.choice import Budget, Plan
from stilnovo.plan.model_shape import tables_of
from stilnovo.plan.shape import LlamaConfig
from stilnovo.spec import scheme_for

GENERATED = 1024  # tokens of prompt and answer that `generate` is planned for


def gib(size: float) -> str:
    """Format a size in GiB."""
    return f"{size / 2**30:.2f} GiB"


def size_text(size: int) -> str:
    """Format a size in MiB."""
    return f"{size / 2**20:,.1f} MiB"


def print_plan(setting: Plan, budget: Budget) -> None:
    """Print a training's memory item by item, and its levers."""
    on_card = setting.run.flash
    totals = {
        "card": [
            ("fragmentation", setting.fragmentation, "3 % of what is allocated and freed"),
            ("= peak of the allocator", setting.peak, f"of {size_text(budget.allocator)}"),
            ("while the model is opened", setting.load, "before the step; of the same memory"),
            *([("CUDA context, libraries", budget.context, "outside the allocator")] if on_card else []),
        ],
        "host": [
            (
                "= host",
                setting.ledger.host,
                f"of {size_text(budget.host_room)}; 3 GiB left for the system; pinned while 2 GiB stay free",
            )
        ],
    }
    for place, title in (("card", "GPU memory" if on_card else "Memory"), ("host", "Host memory")):
        if items := [(item.name, item.size, item.note) for item in setting.ledger.items if item.place == place]:
            print(f"{title}:")
            for name, size, why in items + totals[place]:
                print(f"  {name:<28}{size_text(size):>14}  {why}")
    moments = sorted(((size, name) for name, size in setting.ledger.moments.items()), reverse=True)
    others = [f"{name} {size_text(size)}" for size, name in moments if name != setting.ledger.moment]
    print("  other moments: " + ", ".join(others))
    for name, value, why in lever_rows(setting):
        print(f"  {name:<20}{value:<26}{why}")


def lever_rows(setting: Plan) -> list[tuple[str, str, str]]:
    """(lever, its setting, why) in plain words."""
    levers, layers = setting.levers, setting.run.config.layers
    counts = {name: levers.layers.count(name) for name in dict.fromkeys(levers.layers)}
    saved = ", ".join(f"{count} {name}" for name, count in counts.items())
    again = [name for name in ("attention", "recompute") if name in counts]
    streamed = levers.streamed_layers
    return [
        ("lever", "setting", "why"),
        ("layers", saved, "nothing is computed twice" if not again else "recomputed in backward, to save memory"),
        ("saved inputs", levers.inputs, "they leave while the layer computes" if levers.inputs == "host" else "there is room"),
        ("frozen layers", f"{layers - streamed} here, {streamed} streamed",
         "all fit" if not streamed else f"{levers.slots} slots; the next comes while one computes"),
        ("embedding", levers.embedding, "looked up on the host, rows sent" if levers.embedding == "host" else "there is room"),
        ("head", levers.head, {"dense": "there is room", "streamed": "comes tile by tile, exact"}.get(
            levers.head, "another matrix: the loss is that of the model with this head")),
        ("tile", "whole stream" if levers.tile is None else f"{levers.tile:,} tokens", "token-wise parts at once"),
        ("attention groups", str(levers.attention_groups),
         "all heads at once" if levers.attention_groups == 1 else "backward one group of heads at a time"),
        ("optimizer", f"{levers.optimizer}, {levers.optimizer_place}",
         "there is room" if levers.optimizer_place == "card" else "masters and moments on the host"),
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What accounts are made for: a model by name and shape, a scheme (None: each command's default), a memory."""

    model: str | None
    config: LlamaConfig
    scheme: str | None
    adapter: Path | None
    budget: Budget
    on_card: bool

    def use(self, command: Command) -> ModelUse:
        """What a command does with the model, as it would open it on this memory."""
        config, width = self.config, 2 if self.on_card else 4
        scheme = scheme_for(self.adapter, self.scheme)
        dense = self.on_card or self.model is None
        tables, mapped = (None, False) if dense else tables_of(self.model or "", config, width)
        use = ModelUse(
            command=command, config=config, scheme=scheme or "nf4", on_card=self.on_card, value_bytes=width,
            table_bytes=tables, mapped=mapped,
            adapter=adapter_values(self.adapter, config) if self.adapter else 0,
        )  # fmt: skip
        if command == "train":  # its account is its plan's
            return use
        if command == "export":
            return replace(use, on_card=False, scheme=scheme or "none", value_bytes=4)
        if command in WRITES:
            tokens = min(GENERATED, config.max_positions) if command == "generate" else config.max_positions
            plain = replace(use, tokens=tokens, cached=tokens)
            way = None if self.on_card else planned_products(writing_weights(config))
            return writing_use(plain, self.budget, way, whole=command != "generate")[0]
        use = in_scheme(replace(use, tokens=SCORED_TOKENS), scheme or "none")
        return use if scheme else in_scheme(use, truest_scheme(use, self.budget))


def print_account(made: Account, budget: Budget) -> None:
    """Print one command's account, item by item; `account_figures` has the same."""
    for item in made.items:
        print(f"  {item.name:<28}{size_text(item.size):>14}  {item.place if made.use.on_card else ''}  {item.note}")
    for phase, sizes in made.phases.items():
        held = ", ".join(f"{size_text(size)} on the {place}" for place, size in sizes.items() if size)
        print(f"  = {'held in the ' + phase:<32}{held}")
    print(f"  Needs {needs_text(made, budget)}.")


def account_figures(made: Account, budget: Budget) -> dict[str, Any]:
    """An account as plain data."""
    use = made.use
    return {
        "command": use.command, "quantization": use.scheme, "tokens": use.tokens, "card_bytes": made.card,
        "host_bytes": made.host, "fits": made.fits(budget),
        "items": [{"name": item.name, "place": item.place, "bytes": item.size, "note": item.note} for item in made.items],
        "phases": made.phases,
    }  # fmt: skip


def print_commands(planned: Planned) -> list[dict[str, Any]]:
    """Print what every other command needs on this memory, a line each; returns the accounts as plain data."""
    print("\nOther commands with this model, on the same memory:")
    figures = []
    for command in (name for name in COMMANDS if name != "train"):
        made = account(within(planned.use(command), planned.budget))
        use, fits = made.use, made.fits(planned.budget)
        what = f"{use.scheme}, {use.tokens:,} tokens" if command != "export" else "one weight at a time"
        where = f"{gib(made.card)} GPU, {gib(made.host)} host" if use.on_card else gib(made.host)
        print(f"  {command:<10}{what:<24}{where:<32}{'fits' if fits else what_would(use, planned.budget)}")
        figures.append(account_figures(made, planned.budget))
    print(f"  {'compare':<10}opens no model: it reads two results")
    return figures


def plan_command(planned: Planned, command: Command) -> dict[str, Any]:
    """Print the account of one command; returns it as plain data.

    Raises:
        InputError: when it does not fit, with what would.
    """
    made = account(within(planned.use(command), planned.budget))
    use, budget = made.use, planned.budget
    if not made.fits(budget):
        raise InputError(
            f"{COMMANDS[command].capitalize()} in {use.scheme} does not fit in memory.",
            f"It needs {needs_text(made, budget)}.",
            what_would(use, budget),
        )
    print(f"{COMMANDS[command].capitalize()} in {use.scheme}, {use.tokens:,} tokens in one pass:")
    print_account(made, budget)
    return account_figures(made, budget)
