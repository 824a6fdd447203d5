"""`stilnovo plan`: memory and time of a training run, without loading the model or importing torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from stilnovo.cli.common import ADVANCED, AsJson, FrozenAdapter, RecipeName, emit
from stilnovo.data.corpora import tokens_of
from stilnovo.errors import InputError
from stilnovo.hub import UnknownModel
from stilnovo.plan import cards
from stilnovo.plan.adapter import frozen_ranks
from stilnovo.plan.choice import Budget, Plan, best, leanest, longest, wishes_of
from stilnovo.plan.ledger import Run
from stilnovo.plan.levers import HeadKind
from stilnovo.plan.model_shape import known_config
from stilnovo.plan.shape import KNOWN, PROJECTIONS, LlamaConfig, adapter_of, config_from_numbers
from stilnovo.plan.speed import ObjectiveCost, speed
from stilnovo.progress import seconds_text
from stilnovo.recipe import Recipe, load, plain_reason, refuse_ignored_keys
from stilnovo.train.objectives.base import objective_of


def plan(
    recipe: RecipeName = "wikipedia-it",
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Short name, folder, .gguf file, or Hugging Face id, of which config.json alone is fetched.",
        ),
    ] = "anita",
    vram: Annotated[str, typer.Option(metavar="SIZE", help="GPU memory.")] = "8GB",
    ram: Annotated[str, typer.Option(metavar="SIZE", help="Host memory.")] = "32GB",
    tokens: Annotated[int | None, typer.Option(help="Tokens per forward pass (default: the recipe's).")] = None,
    card: Annotated[str, typer.Option(metavar="NAME", help="GPU for the time estimate.")] = "rtx-4060",
    epoch_tokens: Annotated[
        float | None, typer.Option(help="Tokens of one epoch (default: estimated for a known corpus, else 1e8).")
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="Also say how many steps and tokens so many days have room for.")
    ] = None,
    adapter: FrozenAdapter = None,
    adapter_rank: Annotated[
        int | None,
        typer.Option(min=1, help="Rank of a frozen adapter on all projections, where none exists yet."),
    ] = None,
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
        typer.Option(min=1, help="Document length in tokens (default: one fills the pass).", rich_help_panel=ADVANCED),
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
            help="Output head: dense, streamed, int8, nf4 (these two change the model).",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
) -> None:
    """Plan a training run: memory, hours, longest context.

    Lists GPU and host memory item by item, FLOPs and hours, without loading the model.
    """
    chosen = _planned_recipe(recipe)
    config = _shape(model, shape)
    if head not in (None, *get_args(HeadKind)):
        raise InputError(f"There is no output head {head!r}.", next=f"Choose {', '.join(get_args(HeadKind))}.")
    length = tokens if tokens is not None else chosen.data.pack_tokens * chosen.train.batch_packs
    epoch = _epoch(chosen, config, epoch_tokens)
    if length < 1 or epoch.tokens <= 0:
        raise InputError("Tokens must be at least 1.", f"Found: {length}, {epoch.tokens:g}.")
    if days is not None and days <= 0:
        raise InputError("Days must be more than 0.", f"Found: {days:g}.")
    reads = None if shape else _context(model, config, document)  # a shape alone has no context
    speeds = cards.measured(measured) if measured else cards.named(card)
    budget = Budget(cards.bytes_of(vram), cards.bytes_of(ram))
    wishes = wishes_of(chosen.train, head, document)  # type: ignore[arg-type]
    # A card without bf16 computes in fp16: as wide.
    run = Run(
        config=config, lora=adapter_of(chosen.lora, config.layers), scheme=chosen.model.quantization, tokens=length,
        value_bytes=2, frozen=_frozen(adapter, adapter_rank, chosen, config),
    )  # fmt: skip
    reach = longest(run, budget, speeds, wishes)
    setting = best(run, budget, speeds, wishes)
    if setting is None:
        raise _too_large(run, budget, f"{vram} of GPU and {ram} of host memory", reach)
    # The levers are those that the training will choose; what its objective computes beside is forecast with them.
    objective = objective_of(chosen)
    asked, filled = objective.cost(learnt), objective.document_tokens(length) or length
    documents = document or min(filled, reads or filled)
    setting = replace(setting, speed=speed(run, setting.levers, speeds, documents, asked))
    print(
        f"{shape or model}, {chosen.model.quantization}, r = {run.lora.r}: one pass of {length:,} tokens on {vram} "
        f"(allocator {_gib(budget.allocator)}), host {ram}\n"
    )
    _table(setting, budget)
    rate, accumulation = length / setting.speed.seconds, chosen.train.accumulation
    print(
        f"\n{_speed_text(setting, speeds)}\n{_beside(asked)}{epoch.text(rate)}\n"
        f"{_room(rate, length, accumulation, days, epoch.tokens)}Longest context that fits: {reach:,} tokens"
        f"{f'; the model reads {reads:,} at once' if reads and reads < reach else ''}."
    )
    emit(
        {
            "tokens": length, "longest_context_tokens": reach, "peak_bytes": setting.peak, "host_bytes": setting.ledger.host,
            "budget_bytes": budget.allocator, "flops_per_token": setting.speed.flops_per_token, "times_n": setting.speed.times_n,
            "tokens_per_second": rate, "measured": speeds.measured, "epoch_tokens": epoch.tokens, "epoch_tokens_source": epoch.source,
            "hours_per_epoch": epoch.tokens / rate / 3600, "seconds_per_step": length * accumulation / rate,
            "days": days, "steps_in_days": None if days is None else _steps(rate, length, accumulation, days),
            "items": [{"name": item.name, "place": item.place, "bytes": item.size, "note": item.note} for item in setting.ledger.items],
            "moments": setting.ledger.moments, "levers": asdict(setting.levers), "objective": asdict(asked),
        },
        as_json,
    )  # fmt: skip


def _planned_recipe(name: str) -> Recipe:
    """Load the recipe; refuse one whose run would have no plan."""
    recipe = load(name)
    refuse_ignored_keys(recipe, on_card=True)
    if reason := plain_reason(recipe):
        raise InputError(f"{reason} is trained by torch's autograd, which has no plan.", next="Leave this key out.")
    return recipe


def _context(model: str, config: LlamaConfig, document: int | None) -> int:
    """Tokens that the model reads at once; refuse longer documents."""
    reads = config.max_positions
    if document is not None and document > reads:
        raise InputError(
            f"Documents of {document:,} tokens are longer than {model} reads at once.",
            f"Its context or attention window has {reads:,} tokens.",
            f"Lower --document to at most {reads:,}.",
        )
    return reads


def _frozen(adapter: Path | None, rank: int | None, recipe: Recipe, config: LlamaConfig) -> tuple[tuple[int, ...], ...]:
    """Ranks of the frozen adapter, layer by layer: the given folder's, the given rank, or the recipe's adapter."""
    if adapter is not None and rank is not None:
        raise InputError("--adapter has its own rank.", f"Found: --adapter-rank {rank}.", "Give one of the two.")
    if rank is not None:
        return ((rank,) * len(PROJECTIONS),) * config.layers
    named = adapter or (Path(recipe.model.adapter) if recipe.model.adapter else None)
    return () if named is None else frozen_ranks(named.expanduser(), config)


@dataclass(frozen=True)
class _Epoch:
    """Tokens of one epoch, and where the figure is from."""

    tokens: float
    source: str

    def text(self, rate: float) -> str:
        """Say what one epoch takes at `rate` tokens a second."""
        seconds = self.tokens / rate
        time = f"{seconds / 86_400:,.0f} days" if seconds > 3 * 86_400 else seconds_text(seconds)
        return f"One epoch of {self.tokens:,.0f} tokens ({self.source}): {time}."


def _epoch(recipe: Recipe, config: LlamaConfig, given: float | None) -> _Epoch:
    """Tokens of the recipe's epoch: as given, or estimated for a known corpus, or an example."""
    if given is not None:
        return _Epoch(given, "as given")
    sizes = [tokens_of(path, config.vocab_size) for path in recipe.data.paths]
    if all(sizes) and recipe.data.rows == "packed":
        share = recipe.data.rehearsal_share if recipe.data.rehearsal else 0.0
        total = sum(size for size in sizes if size) / (1 - share)
        return _Epoch(total, f"all of {' and '.join(recipe.data.paths)}, an estimate from the size of the text")
    return _Epoch(1e8, "an example: give your own, which `stilnovo train --dry-run` counts, with --epoch-tokens")


def _steps(rate: float, tokens: int, accumulation: int, days: float) -> int:
    return int(days * 86_400 * rate / (tokens * accumulation))


def _room(rate: float, tokens: int, accumulation: int, days: float | None, epoch: float) -> str:
    """Say how many steps `days` have room for; without, what to choose instead of an epoch that takes long."""
    if days is None:
        long = epoch / rate > 3 * 86_400
        return (
            "To train on a part of it: `stilnovo plan --days 3` counts the steps that fit, for `stilnovo train --steps`; "
            "--set data.max_documents=N reads fewer documents.\n"
            if long
            else ""
        )
    steps, each = _steps(rate, tokens, accumulation, days), tokens * accumulation
    return (
        f"{days:g} days have room for {steps:,} steps of {each:,} tokens ({steps * each:,} in all): --steps {steps}.\n"
    )


def _speed_text(setting: Plan, card: cards.Card) -> str:
    source = "measured" if card.measured else "a forecast from its maker's sheet, not a measurement"
    speed, rate = setting.speed, setting.run.tokens / setting.speed.seconds
    return (
        f"{speed.flops_per_token / 1e9:.1f} GFLOP a token ({speed.times_n:.2f} N; a plain step's floor is 4 N). "
        f"On {card.name}, {source}: {rate:,.0f} tokens/s."
    )


def _beside(asked: ObjectiveCost) -> str:
    """Extra passes and data that the objective needs, in words."""
    if not asked.base:
        return ""
    which = "all tokens" if asked.base == 1 else f"{100 * asked.base:.1f} % of the tokens"
    return f"Counted with it: the base's own forward pass over {which}, adapter off.\n"


def _shape(model: str, shape: str | None) -> LlamaConfig:
    if shape is not None:
        return config_from_numbers(shape)
    try:
        return known_config(model)
    except UnknownModel as error:
        raise InputError(
            f"The shape of {model!r} is not known.",
            error.found,
            f"Known: {', '.join(KNOWN)}; or give a folder, a .gguf file, a Hugging Face id, or --shape.",
        ) from error


def _too_large(run: Run, budget: Budget, memory: str, reach: int) -> InputError:
    lean, least = (leanest(asked, cards.CARDS[cards.DEFAULT]) for asked in (run, replace(run, tokens=1)))
    return InputError(
        f"{run.tokens:,} tokens in one pass do not fit in {memory}.",
        f"The leanest plan needs {_gib(lean.peak)} of {_gib(budget.allocator)} on the GPU ({_gib(least.peak)} before any token) "
        f"and {_gib(lean.ledger.host)} of {_gib(budget.host_room)} on the host.",
        f"At most {reach:,} tokens fit; or give more memory." if reach else "Nothing fits: use a larger GPU.",
    )


def _table(setting: Plan, budget: Budget) -> None:
    totals = {
        "card": [
            ("fragmentation", setting.fragmentation, "3 % of what is allocated and freed"),
            ("= peak of the allocator", setting.peak, f"of {_size(budget.allocator)}"),
            ("CUDA context, libraries", budget.context, "outside the allocator"),
        ],
        "host": [("= host", setting.ledger.host, f"of {_size(budget.host_room)}; 3 GiB left for the system")],
    }
    for place, title in (("card", "GPU memory"), ("host", "Host memory")):
        if items := [(item.name, item.size, item.note) for item in setting.ledger.items if item.place == place]:
            print(f"{title}:")
            for name, size, why in items + totals[place]:
                print(f"  {name:<28}{_size(size):>14}  {why}")
    moments = sorted(((size, name) for name, size in setting.ledger.moments.items()), reverse=True)
    others = [f"{name} {_size(size)}" for size, name in moments if name != setting.ledger.moment]
    print("  other moments: " + ", ".join(others))
    for name, value, why in _levers(setting):
        print(f"  {name:<20}{value:<26}{why}")


def _levers(setting: Plan) -> list[tuple[str, str, str]]:
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


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
