"""Choose a plan: the fastest engine settings that fit a memory budget, and the longest context that fits at all.

The search is plain: for each way of making the fixed part smaller (embedding, head, optimizer, streamed layers) and each
way of making a token's part smaller (tiles, groups of heads, where inputs wait) the ledger is summed; what is left over
buys back recomputation, layer by layer, on the card and over the link. The fastest forecast wins; among equals the one
with more room.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stilnovo.plan.cards import CPU, GIB, Card
from stilnovo.plan.ledger import CONTEXT_BYTES, FRAGMENTATION, Ledger, ledger, load_bytes
from stilnovo.plan.levers import HeadKind, LayerChoice, Levers, OptimizerChoice, all_layers, optimizer_kind
from stilnovo.plan.sizes import Run
from stilnovo.plan.speed import Speed, speed

if TYPE_CHECKING:
    from stilnovo.recipe_sections import TrainSection

HOST_RESERVE = 3 * GIB  # of host memory, for the system and this program
TILE = 4096
COPIES_SHARE = 0.67  # of a processor's free memory, with copies of the weights that only save time
CPU_HEAD_TILE = 4096  # rows of the vocabulary whose logits stay in a processor's cache, in a step of 16 bits
LOSS_CHUNK = 256  # tokens whose logits exist at once, unless the recipe says otherwise


@dataclass(frozen=True)
class Budget:
    """Memory of GPU and host in bytes, as sold; what the driver and other programs hold is subtracted here."""

    card: int
    host: int
    context: int = CONTEXT_BYTES
    reserve: int = HOST_RESERVE
    load: int | None = None  # of the card, while the model is opened; None: as later

    @property
    def allocator(self) -> int:
        """Bytes that torch's allocator may hold."""
        return self.card - self.context

    @property
    def host_room(self) -> int:
        """Bytes that the run may hold on the host."""
        return self.host - self.reserve


@dataclass(frozen=True)
class Plan:
    """An engine setting with its memory ledger and its time forecast."""

    run: Run
    levers: Levers
    ledger: Ledger
    speed: Speed

    @property
    def fragmentation(self) -> int:
        """Bytes that the allocator holds and cannot use."""
        return round(FRAGMENTATION * self.ledger.moments[self.ledger.moment])

    @property
    def peak(self) -> int:
        """Bytes of the allocator at the step's fullest, blocks it cannot use included."""
        return self.ledger.peak + self.fragmentation

    @property
    def load(self) -> int:
        """Bytes of the allocator while the model is opened."""
        return load_bytes(self.run, self.levers)


@dataclass(frozen=True)
class Wishes:
    """Settings that the user has fixed; `recompute`: every layer is recomputed in backward (gradient checkpointing)."""

    optimizer: OptimizerChoice = "adamw8bit"
    head: HeadKind | None = None
    document: int | None = None
    loss_chunk: int | None = None
    recompute: bool = False


def wishes_of(settings: TrainSection, head: HeadKind | None = None, document: int | None = None) -> Wishes:
    """Settings that a recipe fixes."""
    return Wishes(settings.optimizer, head, document, settings.loss_chunk, settings.gradient_checkpointing)


def plan_for(run: Run, levers: Levers, card: Card, document: int | None = None) -> Plan:
    """Compute the ledger and the forecast of one setting."""
    return Plan(run, levers, ledger(run, levers), speed(run, levers, card, document))


def fits(plan: Plan, budget: Budget) -> bool:
    """Whether a plan fits both memories, its load too."""
    room = budget.allocator if budget.load is None else budget.load - budget.context
    return plan.load <= room and plan.peak <= budget.allocator and plan.ledger.host <= budget.host_room


def best(run: Run, budget: Budget, card: Card, wishes: Wishes | None = None) -> Plan | None:
    """The fastest plan that fits, None where none does."""
    wishes = wishes or Wishes()
    if card is CPU:
        return _on_cpu(run, budget, wishes)
    plans = (plan_for(run, levers, card, wishes.document) for levers in _settings(run, wishes))
    fitting = [plan for plan in plans if fits(plan, budget)] or [
        plan for levers in _leanest(run, wishes, card) if fits(plan := plan_for(run, levers, card), budget)
    ]
    # What is left over may make a slower setting the faster one: of each number of streamed layers, the fastest and the
    # smallest are tried.
    tried = []
    for streamed in {plan.levers.streamed_layers for plan in fitting}:
        alike = [plan for plan in fitting if plan.levers.streamed_layers == streamed]
        tried += [min(alike, key=_merit), min(alike, key=lambda plan: (plan.peak, _merit(plan)))]
    if not wishes.recompute:
        tried = [_bought_back(plan, budget, card, wishes) for plan in tried]
    return min(tried, key=_merit, default=None)


def _cpu_settings(run: Run, wishes: Wishes) -> Iterator[Levers]:
    """The few settings that make sense on a CPU, fastest first: copies kept, nothing kept, layers recomputed."""
    keep, recompute = (all_layers(choice, run.config.layers) for choice in ("keep", "recompute"))
    copies = run.scheme != "none" or run.own_bytes != run.value_bytes
    alike = [(recompute, copies)] if wishes.recompute else [(keep, copies), (keep, False)]
    optimizer, chunk = optimizer_kind(wishes.optimizer, on_card=False), min(wishes.loss_chunk or LOSS_CHUNK, run.tokens)
    tile = CPU_HEAD_TILE if run.value_bytes == 2 else None  # in fp32 a sum's order is kept
    for layers, kept in [*alike, (recompute, False)]:
        yield Levers(layers=layers, keep_dense=kept, optimizer=optimizer, loss_chunk=chunk, head_tile=tile)


def _on_cpu(run: Run, budget: Budget, wishes: Wishes) -> Plan | None:
    """The fastest setting for a CPU that fits; copies of weights leave a third of the memory to other programs."""
    for levers in _cpu_settings(run, wishes):
        plan = plan_for(run, levers, CPU)
        room = replace(budget, card=round(COPIES_SHARE * budget.card)) if levers.keep_dense else budget
        if fits(plan, room):
            return plan
    return None


def _merit(plan: Plan) -> tuple[float, int, int]:
    """Sort key: fastest first; within half a percent, the one with the least host memory, then the smallest on the card."""
    return (round(math.log(plan.speed.seconds) * 200), plan.ledger.host, plan.peak)


def longest(run: Run, budget: Budget, card: Card, wishes: Wishes | None = None, step: int = 64) -> int:
    """The most tokens in one pass for which a plan fits, a multiple of `step` unless there are fewer; 0 where none does."""
    wishes = wishes or Wishes()

    def impossible(tokens: int) -> bool:
        longer = replace(run, tokens=tokens)
        return not any(fits(plan_for(longer, levers, card), budget) for levers in _leanest(longer, wishes, card))

    reach = step * bisect.bisect(range(step, 2**24, step), False, key=impossible)
    return reach or bisect.bisect(range(1, step), False, key=impossible)


def leaner(plan: Plan, budget: Budget, card: Card, wishes: Wishes | None = None) -> Plan | None:
    """The next plan after an out-of-memory error: one that needs at least an eighth less of the card."""
    cut = replace(budget, card=min(budget.card, (plan.peak + budget.context) * 7 // 8), load=budget.load or budget.card)
    return best(plan.run, cut, card, wishes)


def leanest(run: Run, card: Card, wishes: Wishes | None = None) -> Plan:
    """The plan with the smallest peak on the card, whether it fits or not."""
    plans = (plan_for(run, levers, card) for levers in _leanest(run, wishes or Wishes(), card))
    return min(plans, key=lambda plan: plan.peak)


def _heads(run: Run, wishes: Wishes) -> tuple[HeadKind, ...]:
    if wishes.head is not None:
        return (wishes.head,)
    return ("dense",) if run.config.tie_embeddings else ("dense", "streamed")


def _groups(run: Run) -> list[int]:
    kv = run.config.kv_heads
    return [count for count in (1, 2, 4, 8) if count <= kv and kv % count == 0]


def _streams(run: Run) -> list[int]:
    layers = run.config.layers
    return sorted({0, layers // 4, layers // 2, 3 * layers // 4, layers})


def _setting(
    run: Run, wishes: Wishes, choice: LayerChoice, streamed: int, head: HeadKind, embedding: str, place: str,
    inputs: str, tile: int | None, groups: int, prefetch: bool,
) -> Levers:  # fmt: skip
    tiled_head = head != "dense" or run.config.vocab_size * run.config.hidden_size > 2**28
    return Levers(
        layers=all_layers(choice, run.config.layers), inputs=inputs, streamed_layers=streamed, embedding=embedding,  # type: ignore[arg-type]
        head=head, head_tile=8192 if tiled_head else None, tile=tile, attention_groups=groups, prefetch=prefetch,
        loss_chunk=wishes.loss_chunk or (min(2048, run.tokens) if tiled_head else LOSS_CHUNK), optimizer_place=place,  # type: ignore[arg-type]
        optimizer=optimizer_kind(wishes.optimizer, on_card=place == "card"),
    )  # fmt: skip


def _settings(run: Run, wishes: Wishes) -> Iterator[Levers]:
    embeddings = ("card",) if run.config.tie_embeddings else ("card", "host")
    streams = _streams(run)
    tiles = (None,) if run.tokens <= TILE else (TILE, 2048)
    choices: tuple[LayerChoice, ...] = ("recompute",) if wishes.recompute else ("recompute", "attention")
    # Only these make sense together: inputs on the card want no prefetch, small parts only where the stream is long.
    waits = (("card", False), ("host", True), ("host", False))
    groups = _groups(run) if run.tokens > TILE else [1]
    for head, embedding, place, streamed in itertools.product(
        _heads(run, wishes), embeddings, ("card", "host"), streams
    ):
        if (head == "streamed" or place == "host" or streamed) and embedding == "card" and len(embeddings) > 1:
            continue  # the embedding is the cheapest thing to move: it goes first
        for choice, (inputs, prefetch), tile, count in itertools.product(choices, waits, tiles, groups):
            yield _setting(run, wishes, choice, streamed, head, embedding, place, inputs, tile, count, prefetch)


def _leanest(run: Run, wishes: Wishes, card: Card) -> Iterator[Levers]:
    if card is CPU:
        yield from (levers for levers in _cpu_settings(run, wishes) if not levers.keep_dense)
        return
    # Streaming, and whatever else waits on the host, costs host memory, which may be the scarcer.
    embeddings = ("card",) if run.config.tie_embeddings else ("host", "card")
    for streamed, place, embedding, inputs, head in itertools.product(
        reversed(_streams(run)), ("host", "card"), embeddings, ("host", "card"), reversed(_heads(run, wishes))
    ):
        yield _setting(
            run, wishes, "recompute", streamed, head, embedding, place, inputs, 2048, _groups(run)[-1], prefetch=False
        )


def _bought_back(plan: Plan, budget: Budget, card: Card, wishes: Wishes) -> Plan:
    """Undo recomputation as far as spare memory and the link allow: keep activations of some layers, offload others'."""
    layers = plan.run.config.layers
    fastest = plan
    for sent in sorted({0, layers // 4, layers // 2, 3 * layers // 4, layers}):
        low, high = 0, layers - sent  # the most that can be kept beside them
        base = plan.levers.layers[0]
        while True:
            middle = (low + high + 1) // 2
            levers = replace(plan.levers, layers=_spread(layers, middle, sent, base))
            tried = plan_for(plan.run, levers, card, wishes.document)
            if fits(tried, budget):
                fastest = min(fastest, tried, key=_merit)
                low = middle
            else:
                high = middle - 1
            if low >= high:
                break
    return fastest


def _spread(layers: int, kept: int, sent: int, base: LayerChoice) -> tuple[LayerChoice, ...]:
    """Assign `kept` layers to the top (backward frees them first), spread `sent` ones evenly among the rest."""
    rest = layers - kept
    sent = min(sent, rest)
    chosen = {round((i + 0.5) * rest / sent - 0.5) for i in range(sent)} if sent else set()
    return tuple("keep" if i >= rest else "offload" if i in chosen else base for i in range(layers))
