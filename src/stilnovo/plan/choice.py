"""Choose a plan: the fastest engine settings that fit a memory budget, and the longest context that fits at all.

The search is exhaustive over the settings of `candidates.py`, which are the same for every budget: more memory, or a faster part,
never gives a slower forecast. For each place of what lasts, each choice of what layers save and each size of the parts, the most layers
are kept that fit. Places are tried in the order of what they could reach at best, and the search ends where that is slower than
what was found.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from stilnovo.plan.candidates import (
    LOSS_CHUNK,
    Sums,
    Wishes,
    choices,
    loss_parts,
    parts,
    places,
    sized,
    spread,
    steps_of,
)
from stilnovo.plan.cards import CPU, GIB, Card
from stilnovo.plan.ledger import CONTEXT_BYTES, FRAGMENTATION, Ledger, ledger, load_bytes
from stilnovo.plan.levers import HeadKind, LayerChoice, Levers, Place, all_layers, optimizer_kind
from stilnovo.plan.sizes import Run, saved_values
from stilnovo.plan.speed import Clock, Speed, speed

if TYPE_CHECKING:
    from stilnovo.recipe_sections import TrainSection

HOST_RESERVE = 3 * GIB  # of host memory, for the system and this program
COPIES_SHARE = 0.67  # of a processor's free memory, with copies of the weights that only save time
CPU_HEAD_TILE = 4096  # rows of the vocabulary whose logits stay in a processor's cache, in a step of 16 bits


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


def _setting_fits(sums: Sums, levers: Levers, budget: Budget) -> bool:
    """As `fits`, of a setting without its plan."""
    room = budget.allocator if budget.load is None else budget.load - budget.context
    peak = with_fragmentation(
        sums.lasting(levers)[0] + sums.waiting(levers.layers, levers.inputs)[0], sums.moment(levers)
    )
    return sums.load(levers) <= room and peak <= budget.allocator and sums.host(levers) <= budget.host_room


def with_fragmentation(lasting: int, moment: int) -> int:
    """Bytes of the allocator at the peak: what lasts, what comes and goes, and the blocks beside it that cannot be used."""
    return lasting + moment + round(FRAGMENTATION * moment)


def best(run: Run, budget: Budget, card: Card, wishes: Wishes | None = None) -> Plan | None:
    """The fastest plan that fits, None where none does."""
    wishes = wishes or Wishes()
    if card is CPU:
        return _on_cpu(run, budget, wishes)
    found = _Search(run, budget, card, wishes).found()
    return None if found is None else plan_for(run, found, card, wishes.document)


class _Search:
    """A search for the fastest setting within a budget."""

    def __init__(self, run: Run, budget: Budget, card: Card, wishes: Wishes) -> None:
        self.run, self.budget, self.wishes = run, budget, wishes
        self.sums, self.clock = Sums(run), Clock(run, card, wishes.document)
        self.layers = run.config.layers
        self.parts, self.losses = parts(run), loss_parts(run, wishes)
        self._best: tuple[tuple[float, int, int], Levers] | None = None

    def found(self, *, any_will_do: bool = False) -> Levers | None:
        """The fastest setting; among equals that with the least host memory, then the smallest on the card."""
        for start in sorted(self._starts(), key=lambda start: start.seconds):
            if self._best is not None and (any_will_do or start.seconds > self._best[0][0]):
                break
            self._try(start)
        return None if self._best is None else self._best[1]

    def _seconds(self, levers: Levers) -> float:
        return sum(self.clock.seconds(levers))

    def _starts(self) -> Iterator[_Start]:
        """Every place and choice, with the most layers that could be kept if nothing came and went."""
        room = self.budget.allocator if self.budget.load is None else self.budget.load - self.budget.context
        counts = [0] if self.wishes.recompute else steps_of(self.layers)
        leanest = self.losses[-1]  # no place takes less
        for place in (sized(each, self.parts[-1], leanest) for each in places(self.run, self.wishes)):
            if self.sums.load(place) > room:
                continue
            for (kind, inputs, prefetch), sent in itertools.product(choices(self.wishes), counts):
                if (inputs == "card" and prefetch and not sent) or (
                    kept := self._most(place, inputs, kind, sent)
                ) is None:
                    continue
                base = replace(place, inputs=inputs, prefetch=prefetch)
                levers = sized(self._layered(base, kept, sent, kind), self.parts[0], self.losses[0])
                yield _Start(self._seconds(levers), kept, sent, kind, levers)

    def _layered(self, levers: Levers, kept: int, sent: int, kind: LayerChoice) -> Levers:
        return replace(levers, layers=spread(self.layers, kept, sent, kind))

    def _most(self, base: Levers, inputs: Place, kind: LayerChoice, sent: int) -> int | None:
        """The most layers that can be kept by what lasts alone; None where not even none can."""
        fixed = self.sums.lasting(base)

        def waiting(kept: int) -> tuple[int, int]:
            return self.sums.waiting(spread(self.layers, kept, sent, kind), inputs)

        def too_many(kept: int) -> bool:
            return fixed[0] + waiting(kept)[0] > self.budget.allocator

        most = 0 if self.wishes.recompute else self.layers - sent
        kept = bisect.bisect(range(most + 1), False, key=too_many) - 1
        if kept < 0 or fixed[1] + waiting(kept)[1] > self.budget.host_room:
            return None  # with fewer layers kept, more waits on the host
        return kept

    def _try(self, start: _Start) -> None:
        """Offer the fastest setting of a start that fits: with each size of the parts, the most layers kept."""
        sizes = sorted(
            ((self._seconds(sized(start.levers, part, self.losses[0])), part) for part in self.parts),
            key=lambda pair: pair[0],
        )
        for bound, part in sizes:
            if self._best is not None and bound > self._best[0][0]:
                return
            kept = start.kept
            while kept >= 0:
                levers = self._layered(start.levers, kept, start.sent, start.kind)
                lacking, fastest = self._try_losses(levers, part)
                if fastest:
                    break
                kept -= max(1, lacking)

    def _try_losses(self, levers: Levers, part: tuple[int | None, int, int]) -> tuple[int, bool]:
        """Offer a setting with the fastest loss that fits: layers that must be kept less, and whether none need be."""
        excess: list[int] = []
        for loss in self.losses:
            tried = sized(levers, part, loss)
            seconds = self._seconds(tried)
            if self._best is not None and seconds > self._best[0][0]:
                return (
                    0,
                    not excess,
                )  # whatever follows is slower, unless fewer layers are kept and the loss is in larger parts
            lacking = self._peak(tried) - self.budget.allocator
            if lacking <= 0:
                host = self.sums.host(tried)
                merit = (seconds, host, self._peak(tried))
                if host <= self.budget.host_room and (self._best is None or merit < self._best[0]):
                    self._best = merit, tried
                return 0, not excess or host > self.budget.host_room
            excess.append(lacking)
        each = self.run.tokens * self.run.value_bytes * saved_values(self.run.config, "keep")
        return min(excess) // each, False

    def _peak(self, levers: Levers) -> int:
        lasting = self.sums.lasting(levers)[0] + self.sums.waiting(levers.layers, levers.inputs)[0]
        return with_fragmentation(lasting, self.sums.moment(levers))


class _Start(NamedTuple):
    """Where a search begins: seconds at best, layers kept then, layers sent, what the others save, and the setting."""

    seconds: float
    kept: int
    sent: int
    kind: LayerChoice
    levers: Levers


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


def longest(run: Run, budget: Budget, card: Card, wishes: Wishes | None = None, step: int = 64) -> int:
    """The most tokens in one pass for which a plan fits, a multiple of `step` unless there are fewer; 0 where none does.

    In documents as long as those of `run`; where that has one, in one.
    """
    wishes = wishes or Wishes()

    def impossible(tokens: int) -> bool:
        sums = Sums(_in_documents(run, tokens))
        return not any(_setting_fits(sums, levers, budget) for levers in _leanest(sums.run, wishes, card, sums))

    def none(tokens: int) -> bool:  # of all settings; where the leanest do not fit, one between them may
        return _Search(_in_documents(run, tokens), budget, card, wishes).found(any_will_do=True) is None

    reach = step * bisect.bisect(range(step, 2**24, step), False, key=impossible)
    if card is CPU:
        return reach or bisect.bisect(range(1, step), False, key=impossible)
    further = 1
    while not none(reach + further * step):
        further *= 2
    reach += step * bisect.bisect(range(reach + step, reach + further * step, step), False, key=none)
    return reach or bisect.bisect(range(1, step), False, key=none)


def _in_documents(run: Run, tokens: int) -> Run:
    """A pass of so many tokens, in documents as long as those of `run`."""
    return replace(run, tokens=tokens, documents=-(-tokens * run.documents // run.tokens) if run.documents > 1 else 1)


def leaner(plan: Plan, budget: Budget, card: Card, wishes: Wishes | None = None) -> Plan | None:
    """The next plan after an out-of-memory error: one that needs at least an eighth less of the card."""
    cut = replace(budget, card=min(budget.card, (plan.peak + budget.context) * 7 // 8), load=budget.load or budget.card)
    return best(plan.run, cut, card, wishes)


def leanest(run: Run, card: Card, wishes: Wishes | None = None) -> Plan:
    """The plan with the smallest peak on the card, whether it fits or not."""
    plans = (plan_for(run, levers, card) for levers in _leanest(run, wishes or Wishes(), card, Sums(run)))
    return min(plans, key=lambda plan: plan.peak)


def _leanest(run: Run, wishes: Wishes, card: Card, sums: Sums) -> Iterator[Levers]:
    if card is CPU:
        yield from (levers for levers in _cpu_settings(run, wishes) if not levers.keep_dense)
        return
    # Streaming, and whatever else waits on the host, costs host memory, which may be the scarcer.
    loss, layers, smallest = loss_parts(run, wishes)[-1], run.config.layers, dict[object, Levers]()
    waits: list[tuple[LayerChoice, Place]] = [("recompute", "host"), ("recompute", "card")]
    waits += [] if wishes.recompute else [("attention", "host"), ("offload", "host")]
    for place, (kind, inputs) in itertools.product(reversed(list(places(run, wishes))), waits):
        if place.keep_dense:
            continue
        levers = replace(place, inputs=inputs, prefetch=False, layers=all_layers(kind, layers))
        key = (place.head, kind, inputs)  # on which alone depends what parts take least
        if key not in smallest:
            smallest[key] = min((sized(levers, part, loss) for part in parts(run)), key=sums.moment)
        best_part = smallest[key]
        yield sized(levers, (best_part.tile, best_part.elementwise_bytes, best_part.attention_groups), loss)
