"""Plans over many budgets: more memory or a faster part never gives a slower forecast; what is chosen fits and is summed right."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from stilnovo.plan.candidates import Sums, Wishes, choices, loss_parts, parts, places, sized, spread
from stilnovo.plan.cards import CARDS, GIB, Card
from stilnovo.plan.choice import Budget, best, fits, leaner, leanest, longest, plan_for
from stilnovo.plan.ledger import ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, SMOLLM2_135M, LlamaConfig, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.plan.speed import HOST_ADAM_BYTES, HOST_MEMORY_SPEED, speed
from stilnovo.plan.temporaries import layer_moments, loss_moment, moments_of, peak_moments

SMALL = LlamaConfig(
    vocab_size=32_000, hidden_size=2048, intermediate_size=5632, layers=22, heads=32, kv_heads=4, head_dim=64,
    tie_embeddings=False,
)  # fmt: skip
KNOWN = ("t4", "rtx-3060", "rtx-4060", "rtx-4090", "a100-80gb", "h200")
EQUAL = 1 + 1e-9


def seconds(run: Run, card_gib: float, host_gib: float, card: Card, wishes: Wishes | None = None) -> float:
    """The forecast of the best plan; infinite where none fits."""
    budget = Budget(round(card_gib * GIB), round(host_gib * GIB))
    plan = best(run, budget, card, wishes)
    if plan is None:
        return float("inf")
    assert fits(plan, budget)
    sums = Sums(run)
    assert (sums.card(plan.levers), sums.host(plan.levers)) == (plan.ledger.peak, plan.ledger.host)
    return plan.speed.seconds


def made_case(generator: random.Random) -> tuple[Run, Card, Wishes]:
    config = generator.choice([LLAMA_3_8B, LLAMA_3_8B, SMALL, SMOLLM2_135M])
    first = generator.choice([0, 0, config.layers // 2])
    run = Run(
        config=config, lora=LoraConfig(r=generator.choice([8, 32, 64]), first_layer=first),
        scheme=generator.choice(["nf4", "nf4", "int8", "none"]), tokens=round(512 * 2 ** generator.uniform(0, 7)),
        documents=generator.choice([1, 1, 9]), accumulation=generator.choice([1, 16]), kernels=generator.random() < 0.5,
    )  # fmt: skip
    optimizer = generator.choice(["auto", "adamw8bit", "adamw"])
    wishes = Wishes(optimizer=optimizer, recompute=generator.random() < 0.1)  # type: ignore[arg-type]
    return run, CARDS[generator.choice(KNOWN)], wishes


def check(seed: int) -> None:
    """A made case: along more memory of the card, more of the host, and faster parts, the forecast never rises."""
    generator = random.Random(seed)
    run, card, wishes = made_case(generator)
    sizes = sorted(generator.uniform(2, 24) for _ in range(2))
    hosts = sorted(generator.uniform(8, 64) for _ in range(2))
    found = {(c, h): seconds(run, c, h, card, wishes) for c, h in itertools.product(sizes, hosts)}
    for (c, h), (more, host) in itertools.product(found, found):
        if more >= c and host >= h:
            assert found[more, host] <= found[c, h] * EQUAL, (seed, c, h, more, host)
    for part in ("link_speed", "memory_speed", "flops", "attention"):
        faster = replace(card, **{part: getattr(card, part) * generator.uniform(1.01, 4)})
        assert seconds(run, sizes[1], hosts[0], faster, wishes) <= found[sizes[1], hosts[0]] * EQUAL, (seed, part)


@pytest.mark.parametrize("seed", range(3))
def test_more_never_gives_a_slower_forecast(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 220))
def test_more_never_gives_a_slower_forecast_anywhere(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("tokens", [1024, 4096])
def test_less_memory_is_never_faster_on_an_rtx_4060(tokens: int) -> None:
    run = Run(config=LLAMA_3_8B, lora=LoraConfig(r=32), tokens=tokens)
    found = [seconds(run, gib, 32, CARDS["rtx-4060"]) for gib in (2, 3, 4, 5.5, 6, 7, 8)]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(6))
def test_what_settings_share_is_what_each_would_have_alone(seed: int) -> None:
    generator = random.Random(seed)
    run, _, wishes = made_case(generator)
    sums, everywhere = Sums(run), list(places(run, wishes))
    for _ in range(25):
        kind, inputs, prefetch = generator.choice(list(choices(wishes)))
        levers = sized(
            generator.choice(everywhere), generator.choice(parts(run)), generator.choice(loss_parts(run, wishes))
        )
        kept = generator.randint(0, run.config.layers)
        layers = spread(run.config.layers, kept, generator.randint(0, run.config.layers - kept), kind)
        levers = replace(levers, layers=layers, inputs=inputs, prefetch=prefetch)
        alone = peak_moments(
            run, levers, loss_moment(run, levers), lambda index, each=levers: layer_moments(run, each, index)
        )
        assert moments_of(run, levers) == alone
        assert (sums.card(levers), sums.host(levers)) == (ledger(run, levers).peak, ledger(run, levers).host)


@pytest.mark.parametrize("gib", [2, 3, 4, 5, 6])
def test_a_small_card_has_a_plan_whose_load_fits(gib: int) -> None:
    budget = Budget(gib * GIB, 32 * GIB)
    plan = best(Run(config=LLAMA_3_8B, lora=LoraConfig(r=32), tokens=1024), budget, CARDS["rtx-4060"])
    assert plan is not None
    assert plan.load <= budget.allocator and plan.peak <= budget.allocator


def test_the_hosts_adam_takes_time() -> None:
    run = Run(config=LLAMA_3_8B, lora=LoraConfig(r=32), tokens=2048)
    plain = Levers(layers=all_layers("recompute", 32), optimizer="adamw")
    here, there = (
        speed(run, replace(plain, optimizer_place=place), CARDS["rtx-4060"]).seconds  # type: ignore[arg-type]
        for place in ("card", "host")
    )
    step = HOST_ADAM_BYTES * 83_886_080 / HOST_MEMORY_SPEED
    assert there - here > 0.8 * step
    often = replace(run, accumulation=16)  # a step every sixteenth pass
    assert speed(often, replace(plain, optimizer_place="host"), CARDS["rtx-4060"]).seconds < there - 0.8 * step


def test_a_large_card_takes_the_largest_parts_and_keeps_all() -> None:
    run = Run(config=LLAMA_3_8B, lora=LoraConfig(r=32), tokens=8192)
    plan = best(run, Budget(141 * GIB, 128 * GIB), CARDS["h200"])
    assert plan is not None
    assert (plan.levers.tile, plan.levers.attention_groups, plan.levers.head_tile) == (None, 1, None)
    assert plan.levers.keep_dense and set(plan.levers.layers) == {"keep"}
    parts = replace(plan.levers, tile=1024, elementwise_bytes=2**25)
    small = plan_for(replace(run, kernels=False), parts, CARDS["h200"])
    assert small.speed.seconds > plan.speed.seconds


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 24))])
def test_the_longest_context_has_a_plan_and_leaner_ones_take_less(seed: int) -> None:
    generator = random.Random(seed)
    run, card, wishes = made_case(generator)
    budget = Budget(round(generator.uniform(4, 24) * GIB), round(generator.uniform(8, 64) * GIB))
    if reach := longest(run, budget, card, wishes):
        there = replace(
            run, tokens=reach, documents=-(-reach * run.documents // run.tokens) if run.documents > 1 else 1
        )
        plan = best(there, budget, card, wishes)
        assert plan is not None and fits(plan, budget)
        longer = replace(run, tokens=reach + (64 if reach >= 64 else 1))
        assert run.documents > 1 or best(longer, budget, card, wishes) is None
        # bytes that are held: what is assumed to be lost between blocks is a share of what comes and goes alone
        assert leanest(there, card, wishes).ledger.peak <= plan.ledger.peak
        following = leaner(plan, budget, card, wishes)
        assert following is None or following.peak <= plan.peak * 7 / 8 + 1
