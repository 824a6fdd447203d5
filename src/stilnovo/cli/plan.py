"""`stilnovo plan`: what a training run will need, before anything is loaded; torch is not even imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stilnovo.cli.options import ADVANCED, AsJson, RecipeName
from stilnovo.cli.output import emit

if TYPE_CHECKING:
    from stilnovo.plan.choice import Budget, Plan
    from stilnovo.plan.shape import LlamaConfig
    from stilnovo.plan.speed import ObjectiveCost


def plan(
    recipe: RecipeName = "wikipedia-it",
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A known model (anita, smollm2) or a folder with a config.json.")
    ] = "anita",
    vram: Annotated[str, typer.Option(metavar="SIZE", help="GPU memory.")] = "8GB",
    ram: Annotated[str, typer.Option(metavar="SIZE", help="Host memory.")] = "32GB",
    tokens: Annotated[int | None, typer.Option(help="Tokens per forward pass (default: the recipe's).")] = None,
    card: Annotated[str, typer.Option(metavar="NAME", help="GPU for the time estimate.")] = "rtx-4060",
    epoch_tokens: Annotated[float, typer.Option(help="Tokens of one epoch, for the hours.")] = 1e8,
    as_json: AsJson = False,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            rich_help_panel=ADVANCED,
            help="Model shape: hidden=4096,layers=32,heads=32,kv_heads=8,ffn=14336,vocab=128256.",
        ),
    ] = None,
    document: Annotated[
        int | None,
        typer.Option(help="Document length in tokens (default: one fills the pass).", rich_help_panel=ADVANCED),
    ] = None,
    learnt: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of tokens with loss (answers).", rich_help_panel=ADVANCED)
    ] = 1.0,
    measured: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="GPU figures measured by `make bench-gpu`.", rich_help_panel=ADVANCED),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            rich_help_panel=ADVANCED,
            help="Output head: dense, streamed, int8 or nf4 (the last two change the model).",
        ),
    ] = None,
) -> None:
    """Plan a training run: memory, hours, longest context.

    Says GPU and host memory line by line, compute and hours, before anything is loaded.
    """
    from dataclasses import asdict, replace
    from typing import get_args

    from stilnovo import recipe as recipes
    from stilnovo.errors import InputError
    from stilnovo.plan import cards
    from stilnovo.plan.choice import Budget, best, longest, wishes_of
    from stilnovo.plan.keys import plain_reason, refuse_ignored_keys
    from stilnovo.plan.ledger import Run
    from stilnovo.plan.levers import HeadKind
    from stilnovo.plan.shape import adapter_of
    from stilnovo.plan.sizes import bytes_of
    from stilnovo.plan.speed import speed
    from stilnovo.train.objectives.base import objective_of

    chosen = recipes.load(recipe)
    refuse_ignored_keys(chosen, on_card=True)
    if reason := plain_reason(chosen):
        raise InputError(
            f"{reason} is trained by torch's autograd, which has no plan.", next="Plan it without this key."
        )
    config = _shape(model, shape)
    adapter = adapter_of(chosen.lora, config.layers)
    kinds = get_args(HeadKind)
    if head is not None and head not in kinds:
        raise InputError(f"There is no way {head!r} to keep a head.", next=f"Choose {', '.join(kinds)}.")
    length = tokens if tokens is not None else chosen.data.pack_tokens * chosen.train.batch_packs
    if length < 1 or epoch_tokens <= 0:
        raise InputError("Tokens must be at least 1.", f"Found: {length}, {epoch_tokens}.")
    speeds = cards.measured(measured) if measured else cards.named(card)
    budget = Budget(bytes_of(vram), bytes_of(ram))
    wishes = wishes_of(chosen.train, head, document)  # type: ignore[arg-type]
    run = Run(
        config=config, lora=adapter, scheme=chosen.model.quantization, tokens=length, value_bytes=2
    )  # a card without bf16 computes in fp16: as wide
    reach = longest(run, budget, speeds, wishes)
    setting = best(run, budget, speeds, wishes)
    if setting is None:
        raise InputError(
            f"{length:,} tokens in one pass do not fit in {vram} of card and {ram} of host memory.",
            _why(run, budget),
            f"At most {reach:,} tokens fit; or give more memory."
            if reach
            else "Nothing fits: a larger card is needed.",
        )
    # The levers are those that the training will choose; what its objective computes beside is forecast with them.
    objective = objective_of(chosen)
    asked = objective.cost(learnt)
    setting = replace(
        setting, speed=speed(run, setting.levers, speeds, document or objective.document_tokens(length), asked)
    )
    where = f"{shape or model}, {chosen.model.quantization}, r = {adapter.r}"
    print(f"{where}: one pass of {length:,} tokens on {vram} (allocator {_gib(budget.allocator)}), host {ram}\n")
    _table(setting, budget)
    _levers(setting)
    seconds = epoch_tokens * setting.speed.seconds / length
    source = "measured" if speeds.measured else "a forecast from its maker's sheet, not a measurement"
    print(
        f"\n{setting.speed.flops_per_token / 1e9:.1f} GFLOP a token ({setting.speed.times_n:.2f} N; a plain step's floor is 4 N). "
        f"On {speeds.name}, {source}: {length / setting.speed.seconds:,.0f} tokens/s, "
        f"{seconds / 3600:,.1f} hours for {epoch_tokens:,.0f} tokens.\n{_beside(asked)}Longest context that fits: {reach:,} tokens."
    )
    emit({**_figures(setting, budget, reach, seconds), "objective": asdict(asked)}, as_json)


def _beside(asked: ObjectiveCost) -> str:
    """What the objective reads beside the pass itself, in words."""
    if not asked.base:
        return ""
    which = "all tokens" if asked.base == 1 else f"{100 * asked.base:.1f} % of the tokens"
    return f"Counted with it: the base's own forward pass over {which}, adapter off.\n"


def _shape(model: str, shape: str | None) -> LlamaConfig:
    from stilnovo.errors import InputError
    from stilnovo.plan.config import config_from_json, config_from_numbers
    from stilnovo.plan.shape import KNOWN

    if shape is not None:
        return config_from_numbers(shape)
    if model in KNOWN:
        return KNOWN[model]
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        return config_from_json(folder / "config.json")
    raise InputError(
        f"The shape of {model!r} is not known.",
        next=f"Known: {', '.join(KNOWN)}; or give a folder with a config.json, or --shape.",
    )


def _why(run: Any, budget: Budget) -> str:
    from dataclasses import replace

    from stilnovo.plan.cards import CARDS, DEFAULT
    from stilnovo.plan.choice import leanest

    lean, least = leanest(run, CARDS[DEFAULT]), leanest(replace(run, tokens=1), CARDS[DEFAULT])
    return (
        f"The leanest plan needs {_gib(lean.peak)} of {_gib(budget.allocator)} on the card ({_gib(least.peak)} before any token) "
        f"and {_gib(lean.ledger.host)} of {_gib(budget.host_room)} on the host."
    )


def _table(plan: Plan, budget: Budget) -> None:
    for place, title in (("card", "On the card"), ("host", "In host memory")):
        items = [item for item in plan.ledger.items if item.place == place]
        if not items:
            continue
        print(f"{title}:")
        for item in items:
            print(f"  {item.name:<28}{_size(item.size):>14}  {item.note}")
        if place == "card":
            print(f"  {'fragmentation':<28}{_size(plan.fragmentation):>14}  3 % of what comes and goes")
            print(f"  {'= the allocator at its peak':<28}{_size(plan.peak):>14}  of {_size(budget.allocator)}")
            print(f"  {'context and libraries':<28}{_size(budget.context):>14}  outside the allocator")
        else:
            print(
                f"  {'= host':<28}{_size(plan.ledger.host):>14}  of {_size(budget.host_room)}; 3 GiB left for the system"
            )
    others = sorted(
        ((size, name) for name, size in plan.ledger.moments.items() if name != plan.ledger.moment), reverse=True
    )
    print("  other moments: " + ", ".join(f"{name} {_size(size)}" for size, name in others))


def _levers(plan: Plan) -> None:
    for name, value, why in explained(plan):
        print(f"  {name:<20}{value:<26}{why}")


def explained(plan: Plan) -> list[tuple[str, str, str]]:
    """(lever, its setting, why) in plain words."""
    levers, layers = plan.levers, plan.run.config.layers
    counts = {name: levers.layers.count(name) for name in dict.fromkeys(levers.layers)}
    saved = ", ".join(f"{count} {name}" for name, count in counts.items())
    again = [name for name in ("attention", "recompute") if name in counts]
    streamed = levers.streamed_layers
    rows = [
        ("layers", saved, "nothing is computed twice" if not again else "memory or the link allow no more to be kept"),
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
    return [("lever", "setting", "why"), *rows]


def _figures(plan: Plan, budget: Budget, reach: int, seconds: float) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "tokens": plan.run.tokens, "longest_context_tokens": reach, "peak_bytes": plan.peak, "host_bytes": plan.ledger.host,
        "budget_bytes": budget.allocator, "flops_per_token": plan.speed.flops_per_token, "times_n": plan.speed.times_n,
        "tokens_per_second": plan.run.tokens / plan.speed.seconds, "hours_per_epoch": seconds / 3600,
        "items": [
            {"name": item.name, "place": item.place, "bytes": item.size, "note": item.note} for item in plan.ledger.items
        ],
        "moments": plan.ledger.moments, "levers": asdict(plan.levers),
    }  # fmt: skip


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
