"""`stilnovo plan`: memory and time of a training run, without loading the model or importing torch."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from stilnovo.cli.common import ADVANCED, AdapterQuantization, AsJson, FrozenAdapter, RecipeName, emit
from stilnovo.cli.plan_tables import Planned, gib, plan_command, print_commands, print_plan
from stilnovo.data.corpora import tokens_of
from stilnovo.errors import InputError
from stilnovo.hub import UnknownModel
from stilnovo.model.processor import planned_products
from stilnovo.plan import cards
from stilnovo.plan.account import COMMANDS, Command
from stilnovo.plan.adapter import frozen_ranks
from stilnovo.plan.choice import HOST_RESERVE, Budget, Plan, best, leanest, longest, wishes_of
from stilnovo.plan.levers import HeadKind
from stilnovo.plan.model_shape import known_config
from stilnovo.plan.shape import KNOWN, PROJECTIONS, LlamaConfig, adapter_of, config_from_numbers
from stilnovo.plan.sizes import Run
from stilnovo.plan.speed import ObjectiveCost, speed
from stilnovo.progress import seconds_text
from stilnovo.recipe import Recipe, anchors, learns_parts, load, plain_reason, refuse_ignored_keys
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
    vram: Annotated[
        str | None, typer.Option(metavar="SIZE", help="GPU memory (default: $STILNOVO_VRAM, else 8GB).")
    ] = None,
    ram: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Host memory (default: $STILNOVO_RAM, else 32GB).")
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="cuda (a GPU of --vram) or cpu (a processor, with --ram alone).")
    ] = "cuda",
    command: Annotated[
        str, typer.Option(metavar="NAME", help="Only the memory of this command: evaluate, generate, chat, serve, …")
    ] = "train",
    quantization: AdapterQuantization = None,
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
        typer.Option(
            min=1, help="Rank of a frozen adapter on all projections, where none exists yet.", rich_help_panel=ADVANCED
        ),
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
    vram, ram = vram or os.environ.get("STILNOVO_VRAM") or "8GB", ram or os.environ.get("STILNOVO_RAM") or "32GB"
    on_card, budget = _memory(device, vram, ram)
    speeds = cards.CPU if not on_card else cards.measured(measured) if measured else cards.named(card)
    planned = Planned(
        model=None if shape else model,
        config=config,
        scheme=quantization,
        adapter=adapter,
        budget=budget,
        on_card=on_card,
    )
    if (name := _command(command)) != "train":
        return emit(plan_command(planned, name) if name else _compare(), as_json)
    objective = objective_of(chosen)
    asked, filled = objective.cost(learnt), objective.document_tokens(length) or length
    documents = document or min(filled, reads or filled)
    wishes = wishes_of(chosen.train, head, documents)  # type: ignore[arg-type]
    run = _run(planned, chosen, length, _frozen(adapter, adapter_rank, chosen, config))
    run = replace(run, capability=speeds.capability, documents=-(-length // (document or length)))
    reach = longest(run, budget, speeds, wishes)
    setting = best(run, budget, speeds, wishes)
    memory = f"{vram} of GPU and {ram} of host memory" if on_card else f"{ram} of memory, on a processor"
    if setting is None:
        raise _too_large(run, budget, memory, reach, speeds)
    # The levers are those that the training will choose; what its objective computes beside is forecast with them.
    setting = replace(setting, speed=speed(run, setting.levers, speeds, documents, asked))
    print(
        f"{shape or model}, {run.scheme}, r = {run.lora.r}: one pass of {length:,} tokens in {memory} "
        f"({gib(budget.allocator)} for the step)\n"
    )
    print_plan(setting, budget)
    forecast = _Forecast(setting, speeds if on_card else None, epoch, chosen.train.accumulation, days)
    print(f"\n{forecast.text(_beside(asked))}{_context_text(reach, reads)}")
    emit(
        {
            "tokens": length, "longest_context_tokens": min(reach, reads or reach), "longest_pass_tokens": reach,
            "peak_bytes": setting.peak, "load_bytes": setting.load, "host_bytes": setting.ledger.host,
            "budget_bytes": budget.allocator, "flops_per_token": setting.speed.flops_per_token, "times_n": setting.speed.times_n,
            "measured": speeds.measured, **forecast.figures(),
            "items": [{"name": item.name, "place": item.place, "bytes": item.size, "note": item.note} for item in setting.ledger.items],
            "moments": setting.ledger.moments, "levers": asdict(setting.levers), "objective": asdict(asked),
            "commands": print_commands(planned),
        },
        as_json,
    )  # fmt: skip


def _memory(device: str, vram: str, ram: str) -> tuple[bool, Budget]:
    """Whether a card is planned for, and the memory that there is."""
    if device not in ("cuda", "cpu"):
        raise InputError(f"A plan has no device {device!r}.", next="Choose --device cuda or --device cpu.")
    host = cards.bytes_of(ram)
    if device == "cuda":
        return True, Budget(cards.bytes_of(vram), host)
    return False, Budget(max(0, host - HOST_RESERVE), host, context=0, reserve=min(host, HOST_RESERVE))


def _command(name: str) -> Command | None:
    """The command that is planned; None for `compare`, which opens no model."""
    if name in COMMANDS:
        return name
    if name == "compare":
        return None
    raise InputError(f"No plan is made for {name!r}.", next=f"Choose {', '.join(COMMANDS)}.")


def _compare() -> dict[str, Any]:
    print("`stilnovo compare` opens no model: it reads two results.")
    return {"command": "compare", "card_bytes": 0, "host_bytes": 0, "fits": True}


def _run(planned: Planned, recipe: Recipe, tokens: int, frozen: tuple[tuple[int, ...], ...]) -> Run:
    use = planned.use("train")
    in_bf16 = not planned.on_card and planned_products() == "bf16"  # as `stilnovo.model.load.step_dtype`, without torch
    return Run(
        config=planned.config, lora=adapter_of(recipe.lora, planned.config.layers),
        scheme=planned.scheme or recipe.model.quantization, tokens=tokens, value_bytes=2 if in_bf16 else use.value_bytes,
        weight_bytes=use.value_bytes,
        table_bytes=use.table_bytes, mapped=use.mapped, flash=planned.on_card, frozen=frozen,
        accumulation=recipe.train.accumulation, gathered=learns_parts(recipe), anchored=anchors(recipe),
    )  # fmt: skip


def _context_text(reach: int, reads: int | None) -> str:
    """What fits at once, and what of it a single document may have."""
    if reads is None or reads >= reach:
        return f"Longest context that fits: {reach:,} tokens."
    return f"Longest context that fits: {reads:,} tokens; the model reads {reads:,} at once, and a pass may hold {reach:,}."


@dataclass(frozen=True)
class _Forecast:
    """Time of a training; without a card's speeds only its arithmetic is known."""

    setting: Plan
    speeds: cards.Card | None
    epoch: _Epoch
    accumulation: int
    days: float | None

    @property
    def rate(self) -> float | None:
        """Tokens a second; None where the speed is not known."""
        return None if self.speeds is None else self.setting.run.tokens / self.setting.speed.seconds

    def text(self, beside: str) -> str:
        """Say it in lines; `beside` is what the objective computes besides."""
        tokens = self.setting.run.tokens
        if self.rate is None or self.speeds is None:
            speed = self.setting.speed
            return (
                f"{speed.flops_per_token / 1e9:.1f} GFLOP a token ({speed.times_n:.2f} N). No forecast of time on a processor: "
                f"the first steps of a training say it.\n{beside}"
            )
        room = _room(self.rate, tokens, self.accumulation, self.days, self.epoch.tokens)
        return f"{_speed_text(self.setting, self.speeds)}\n{beside}{self.epoch.text(self.rate)}\n{room}"

    def figures(self) -> dict[str, Any]:
        """The same as plain data."""
        tokens, rate, days = self.setting.run.tokens, self.rate, self.days
        return {
            "tokens_per_second": rate, "epoch_tokens": self.epoch.tokens, "epoch_tokens_source": self.epoch.source,
            "hours_per_epoch": None if rate is None else self.epoch.tokens / rate / 3600,
            "seconds_per_step": None if rate is None else tokens * self.accumulation / rate, "days": days,
            "steps_in_days": None if days is None or rate is None else _steps(rate, tokens, self.accumulation, days),
        }  # fmt: skip


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


def _too_large(run: Run, budget: Budget, memory: str, reach: int, speeds: cards.Card) -> InputError:
    lean, least = (leanest(asked, speeds) for asked in (run, replace(run, tokens=1)))
    if not run.flash:
        return InputError(
            f"{run.tokens:,} tokens in one pass do not fit in {memory}.",
            f"The leanest plan needs {gib(max(lean.peak, lean.load))} of {gib(budget.allocator)} ({gib(least.peak)} before any token).",
            f"At most {reach:,} tokens fit; or give more memory." if reach else "Nothing fits: use a smaller model.",
        )
    return InputError(
        f"{run.tokens:,} tokens in one pass do not fit in {memory}.",
        f"The leanest plan needs {gib(lean.peak)} of {gib(budget.allocator)} on the GPU ({gib(least.peak)} before any token) "
        f"and {gib(lean.ledger.host)} of {gib(budget.host_room)} on the host.",
        f"At most {reach:,} tokens fit; or give more memory." if reach else "Nothing fits: use a larger GPU.",
    )
