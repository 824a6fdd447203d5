"""The rule that ends a training: how often it cries wolf, what it sees, and what its numbers are."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from stilnovo.benchmarks.task import MultipleChoice, Selection, Task
from stilnovo.forgetting.guard import Guard, percent_gained, score_rooms, soft_scores, text_rooms
from stilnovo.forgetting.slice import Answers, Slice
from stilnovo.recipe_sections import GuardSection
from stilnovo.statistics import sequential
from stilnovo.statistics.estimates import normal_quantile
from stilnovo.statistics.sequential import bound, quantiles, visible_loss


def walks(rng: np.random.Generator, looks: int, units: int, step: float) -> np.ndarray:
    """(looks, units) of mean zero: what every unit has of its own, and its random walk."""
    return rng.standard_normal(units) + step * np.cumsum(rng.standard_normal((looks, units)), axis=0)


@pytest.mark.parametrize("step", [0.1, 0.5, 5.0])
def test_false_alarms_at_the_edge_of_what_is_allowed(step: float) -> None:
    # the true room is zero at every look: the worst that is still no loss
    rng, looks, alpha, draws = np.random.default_rng(3), 8, 0.1, 400
    alarms = 0
    for _ in range(draws):
        rooms = walks(rng, looks, 60, step)
        normal = quantiles(rooms - rooms.mean(axis=1, keepdims=True), looks, alpha, draws=4000)
        scores = math.sqrt(60) * rooms.mean(axis=1) / rooms.std(axis=1, ddof=1)
        alarms += bool((scores < -np.array(normal) * 1.02).any())  # about Student's correction with 59 degrees
    assert alarms / draws <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / draws)
    assert alarms / draws >= alpha / 3  # and the looks are not paid for twice


def test_critical_values_lie_between_one_look_and_bonferroni() -> None:
    rng, looks, alpha = np.random.default_rng(5), 6, 0.05
    same = np.tile(rng.standard_normal(80), (looks, 1))
    same -= same.mean(axis=1, keepdims=True)
    apart = np.linalg.qr(rng.standard_normal((80, looks)))[0].T  # looks that have nothing in common
    blunt, one = normal_quantile(1 - alpha / looks), normal_quantile(1 - alpha)
    alike, unlike = quantiles(same, looks, alpha), quantiles(apart, looks, alpha)
    assert alike[0] == pytest.approx(blunt, abs=0.03)
    assert alike[-1] == pytest.approx(one, abs=0.02)  # one draw looked at six times: spent once
    assert alike == sorted(alike, reverse=True)
    # independent looks: a first alarm at look k needs k - 1 quiet ones before it
    share = alpha / looks
    for number, value in enumerate(unlike):
        assert value == pytest.approx(min(blunt, normal_quantile(1 - share / (1 - number * share))), abs=0.06)
    assert all(value <= blunt for value in (*alike, *unlike))
    assert quantiles(same[:3], looks, alpha) == pytest.approx(alike[:3])  # what is to come changes nothing


def test_looks_at_a_model_that_has_not_moved_cost_nothing() -> None:
    rng = np.random.default_rng(6)
    still, moved = np.zeros((3, 40)), rng.standard_normal((1, 40))
    moved -= moved.mean()
    values = quantiles(np.concatenate([still, moved]), 10, 0.05)
    assert all(math.isfinite(value) for value in values)
    assert values[3] < quantiles(moved, 10, 0.05)[0]
    untouched = bound(np.full((2, 40), 2.0), 10, 0.05)  # exactly the allowance left, of every item
    assert (untouched.room, untouched.standard_error, untouched.most) == (2.0, 0.0, 2.0)


def test_a_bound_is_students() -> None:
    stats = pytest.importorskip("scipy.stats")
    rooms = np.random.default_rng(8).normal(-1, 1, (1, 25))
    found = bound(rooms, 1, 0.05)
    expected = stats.ttest_1samp(rooms[0], 0, alternative="less").confidence_interval(0.95).high
    assert found.most == pytest.approx(expected, abs=2e-3)
    assert found.most < 0
    assert bound(rooms[:, :1], 1, 0.05).most == math.inf  # one unit proves nothing


def test_groups_that_differ_are_no_chance() -> None:
    rng = np.random.default_rng(9)
    strata = np.repeat([0, 1], 30)
    rooms = (rng.standard_normal(60) + 20.0 * strata)[None]
    assert bound(rooms, 1, 0.05, strata).standard_error < bound(rooms, 1, 0.05).standard_error / 3


def test_visible_loss_is_seen_as_often_as_it_says() -> None:
    rng, deviation, units, looks, alpha, allowed = np.random.default_rng(10), 15.0, 100, 4, 0.05, 2.0
    loss = visible_loss(deviation, units, looks, alpha, allowed)
    seen = sum(bound(rng.normal(allowed - loss, deviation, (1, units)), looks, alpha).most < 0 for _ in range(60))
    assert 0.8 - 4 * math.sqrt(0.16 / 60) <= seen / 60 <= 0.8 + 4 * math.sqrt(0.16 / 60)
    assert visible_loss(deviation, 1, looks, alpha) == math.inf


def a_task(items: list[MultipleChoice], metric: str = "acc") -> Selection:
    task = Task("t", "1", "", "", (metric,), ("test",), lambda _: items)  # type: ignore[arg-type]
    return Selection(task, "test", tuple(items), len(items), 42)


def test_soft_scores_by_hand() -> None:
    items = [MultipleChoice(str(i), "q", (" aa", " bbbb", " c"), 1) for i in range(2)]
    base, now = [(-4.0, -2.0, -6.0), (-1.0, -4.0, -9.0)], [(-2.0, -2.0, -500.0), (-1.0, -4.0, -9.0)]
    tau = 0.25 * math.sqrt((2.0**2 + 3.0**2) / 2)
    expected = [1 / (1 + math.exp(-2 / tau) + math.exp(-4 / tau)), 1 / (1 + math.exp(3 / tau) + math.exp(-5 / tau))]
    before, after = soft_scores(a_task(items), base, now)
    assert before == pytest.approx(expected)
    assert after[0] == pytest.approx(0.5)
    assert after[1] == before[1]
    # by characters: the same endings, each divided by its length
    by_character = soft_scores(a_task(items, "acc_norm"), base, now)[0]
    lengths = np.array([2, 4, 1])
    assert by_character == pytest.approx(soft_scores(a_task(items), (base / lengths).tolist(), now)[0])


def test_rooms_are_what_is_left_of_the_allowance() -> None:
    base, now = [10.0, 40.0, 50.0], [11.0, 40.0, 50.0]
    rooms = text_rooms(base, now, 2.0)
    assert rooms.mean() == pytest.approx(2.0 - 1.0)  # one percent more bits
    assert text_rooms(base, [value * 1.02 for value in base], 2.0) == pytest.approx(np.zeros(3))
    before, after = (Answers((), {"gain": tuple(nats)}, {"gain": (1, 1, 1)}) for nats in (base, now))
    assert percent_gained(before, after, "gain") == pytest.approx(-1.0)


def test_items_of_a_group_are_one_unit() -> None:
    names = ["a", "a", "a", "b", "", ""]
    items = [MultipleChoice(str(i), "q", (" x", " y"), 0, cluster=name) for i, name in enumerate(names)]
    rng = np.random.default_rng(1)
    base, now = (tuple(map(tuple, rng.normal(size=(12, 2)).tolist())) for _ in range(2))
    alone = [MultipleChoice(f"e{i}", "q", (" x", " y"), 1) for i in range(6)]
    parts = (a_task(items), a_task(alone))
    rooms, strata = score_rooms(parts, *(Answers((rows[:6], rows[6:]), {}, {}) for rows in (base, now)), 3.0)
    changes = [
        soft_scores(part, base[at], now[at]) for part, at in zip(parts, (slice(0, 6), slice(6, 12)), strict=True)
    ]
    assert len(rooms) == len(strata) == 4 + 6
    assert rooms.mean() == pytest.approx(
        3.0 + 100 * np.concatenate([after - before for before, after in changes]).mean()
    )


def judged(loss: float, allowed: float, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, bool]:
    """Lost and within, for a benchmark whose right ending loses `loss` nats of a typical margin of about 2."""
    rng = np.random.default_rng(11)
    items = [MultipleChoice(str(i), "q", (" x", " y"), 0) for i in range(200)]
    base = rng.normal(0, 2, (200, 2))
    now = base + rng.normal(0, 0.1, (200, 2)) - np.array([loss, 0.0])
    section = GuardSection(every=1, tolerance_points=allowed)
    guard = Guard(Slice((a_task(items),), {}), section, None, steps=5, folder=tmp_path_factory.mktemp("g"))  # type: ignore[arg-type]
    guard.base = Answers((base.tolist(),), {}, {})
    (found,) = guard.judge(Answers((now.tolist(),), {}, {}))
    return found.lost, found.change >= -found.allowed


def test_what_is_allowed_may_be_lost(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert judged(0.0, 2.0, tmp_path_factory) == (False, True)
    assert judged(1.0, 2.0, tmp_path_factory) == (True, False)
    assert judged(1.0, 30.0, tmp_path_factory) == (False, True)
    assert judged(-1.0, 0.0, tmp_path_factory) == (False, True)  # a gain is no loss


@pytest.mark.parametrize("units", [16, 48])
def test_skewed_gains_are_no_false_alarm(units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few units gain much, the others lose a little, the mean is what it was: Student's quantile alone stops too often."""
    monkeypatch.setattr(sequential, "quantiles", partial(quantiles, draws=5000))
    rng, looks, alarms, plain = np.random.default_rng(units), 3, 0, 0
    for _ in range(150):
        walk = np.cumsum(rng.standard_normal((looks, units)), axis=0) / np.sqrt(np.arange(1, looks + 1))[:, None]
        rooms = np.exp(walk) - math.exp(0.5)
        bounds = [bound(rooms[: look + 1], looks, 0.05) for look in range(looks)]
        alarms += any(made.most < 0 for made in bounds)
        certain = stats.t.ppf(1 - 0.05 / looks, units - 1)
        plain += any(made.room + certain * made.standard_error < 0 for made in bounds)
    assert alarms / 150 <= 0.11, "what so few draws can show of .05 to .07"
    assert plain > alarms
