"""Do the intervals hold the truth 95 % of the time, the tests cry wolf 5 % of the time, and do 80 % see what they should?

No model: values are drawn where the truth is known, and the procedures of `statistics/` are asked, nothing else. Measures
(bits per byte is one) are normal or lognormal (σ = 1), of single units or in groups of 1 to 20 items, of which a part
(none, half, all) of what differs is the group's. Beside each row stands what Student's t would hold on the same units, or
what the same data would give if the groups were ignored. Below eight units no interval is printed, and none is counted.

    python bench/coverage.py --draws 3000 --out results/coverage_…json

The last line is one JSON object: `worst_coverage` of the intervals of measures and shares, `best_coverage` of measures
(shares may be held more often), `worst_corpus_coverage` of metrics of all items together, with a third of the draws,
`power_at_visible_min`, the lowest power at a printed smallest visible difference, and `rows`.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stilnovo.benchmarks.corpus_metrics import corpus_measure
from stilnovo.runlog import environment, write_atomic
from stilnovo.statistics import estimates, macro, power
from stilnovo.statistics.corpus_level import CorpusMeasure, change_error, difference, estimate, swap_test
from stilnovo.statistics.sequential import bound

UNITS = (8, 10, 12, 16, 20, 30, 40, 60)
TRUTH = {"normal": 0.0, "lognormal": math.exp(0.5)}
FLIPS = 400  # sign patterns of each test; more changes nothing that so many draws could show
GAIN, LOSS = 0.15, 0.05


@dataclass(frozen=True)
class Row:
    """What one procedure reached: `kind` is measure, share, corpus, test or power; `beside` what a simpler one would have."""

    kind: str
    what: str
    draws: int
    wanted: float
    reached: float
    beside: float | None = None

    @property
    def error(self) -> float:
        """Standard error of `reached`."""
        return math.sqrt(self.reached * (1 - self.reached) / self.draws)

    def __str__(self) -> str:
        beside = "" if self.beside is None else f"   else {100 * self.beside:5.1f} %"
        return f"{self.kind:<8}{self.what:<62}{100 * self.reached:6.1f} % ± {100 * self.error:.1f}{beside}"


def groups_of(rng: np.random.Generator, units: int) -> np.ndarray:
    """The group of each item, (N,), for groups of 1 to 20 items."""
    return np.repeat(np.arange(units), rng.integers(1, 21, size=units))


def student(values: np.ndarray, truth: float) -> bool:
    """Whether Student's t alone holds the truth."""
    half = estimates.student_quantile(estimates.UPPER, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return bool(abs(values.mean() - truth) <= half)


def measures(draws: int) -> list[Row]:
    """Coverage of a mean of measurements, in units of one size and in groups, and of bits per byte."""
    rows = []
    for units in UNITS:
        for kind, truth in TRUTH.items():
            shape = np.exp if kind == "lognormal" else np.asarray
            rng, held, plain = np.random.default_rng(units), 0, 0
            for _ in range(draws):
                values = shape(rng.standard_normal(units))
                estimate = estimates.ratio(values, np.ones(units))
                held, plain = held + (estimate.low <= truth <= estimate.high), plain + student(values, truth)
            rows.append(Row("measure", f"{units} units, {kind}", draws, 0.95, held / draws, plain / draws))
            for shared in (0.0, 0.5, 1.0):
                held = plain = 0
                for _ in range(draws):
                    index = groups_of(rng, units)
                    apart = rng.standard_normal(units)[index] * math.sqrt(shared)
                    values = shape(apart + rng.standard_normal(len(index)) * math.sqrt(1 - shared))
                    estimate = estimates.ratio(values, np.ones(len(index)), index.tolist())
                    held, plain = held + (estimate.low <= truth <= estimate.high), plain + student(values, truth)
                what = f"{units} groups of 1 to 20, {kind}, {100 * shared:.0f} % the group's"
                rows.append(Row("measure", what, draws, 0.95, held / draws, plain / draws))
    for units in (8, 12, 30):
        rng, held = np.random.default_rng(units), 0
        for _ in range(draws):
            sizes, bits = rng.lognormal(7, 0.6, size=units), rng.normal(2.4, 0.15, size=units)
            estimate = estimates.ratio(bits * sizes, sizes)
            held += estimate.low <= 2.4 <= estimate.high
        rows.append(Row("measure", f"bits per byte, {units} documents of lognormal length", draws, 0.95, held / draws))
    return rows


def shares(draws: int) -> list[Row]:
    """Coverage of accuracies and of scores between zero and one, alone and in groups, and of paired differences."""
    rows = []
    for n, p in ((10, 0.3), (60, 0.3), (234, 0.75)):
        rng = np.random.default_rng(n)
        ends = [estimates.mean([1] * right + [0] * (n - right)) for right in range(n + 1)]
        held = np.mean([ends[right].low <= p <= ends[right].high for right in rng.binomial(n, p, size=draws).tolist()])
        rows.append(Row("share", f"accuracy, {n} items, {100 * p:.0f} % right", draws, 0.95, float(held)))
    for units in (8, 12, 30):
        for p, alike in ((0.1, 0.1), (0.5, 0.1), (0.5, 0.4), (0.9, 0.3)):
            rng, held, plain = np.random.default_rng(units), 0, 0
            for _ in range(draws):
                index = groups_of(rng, units)
                rates = rng.beta(p * (1 / alike - 1), (1 - p) * (1 / alike - 1), size=units)
                right = (rng.random(len(index)) < rates[index]).astype(float)
                grouped, alone = estimates.mean(right, index.tolist()), estimates.mean(right)
                held, plain = held + (grouped.low <= p <= grouped.high), plain + (alone.low <= p <= alone.high)
            what = f"accuracy, {units} groups of 1 to 20, {100 * p:.0f} %, correlation {alike}"
            rows.append(Row("share", what, draws, 0.95, held / draws, plain / draws))
    for n, a, b in ((8, 0.5, 0.5), (10, 8, 1), (30, 0.5, 4), (8, 0.2, 2), (20, 0.2, 2)):
        rng, held = np.random.default_rng(n), 0
        for values in rng.beta(a, b, size=(draws, n)):
            estimate = estimates.mean(values, shares=True)
            held += estimate.low <= a / (a + b) <= estimate.high
        rows.append(Row("share", f"F1 or mc2, {n} items, beta({a}, {b})", draws, 0.95, held / draws))
    for name, sizes in {
        "30 groups of 10": [10] * 30,
        "12 of 40": [40] * 12,
        "24 of 5 to 40": [5, 10, 20, 40] * 6,
    }.items():
        rng, index, truth = np.random.default_rng(1), np.repeat(np.arange(len(sizes)), sizes), GAIN - LOSS
        held = plain = 0
        for _ in range(draws):
            found = changes(rng, index, GAIN, LOSS)
            estimate = estimates.ratio(found, np.ones_like(found), index.tolist())
            low, high = estimates.tango(int(np.sum(found > 0)), int(np.sum(found < 0)), len(found))
            held, plain = held + (estimate.low <= truth <= estimate.high), plain + (low <= truth <= high)
        rows.append(Row("share", f"paired difference, {name}", draws, 0.95, held / draws, plain / draws))
    counts = np.random.default_rng(4).multinomial(234, [0.125, 0.075, 0.8], size=draws)[:, :2].tolist()
    held = np.mean([low <= 0.05 <= high for low, high in (estimates.tango(*pair, 234) for pair in counts)])
    return [*rows, Row("share", "paired difference, 234 items", draws, 0.95, float(held))]


def corpus(draws: int) -> list[Row]:
    """Coverage, false alarms and power of Matthews correlation and macro F1, beside the delete-one jackknife with Fisher's z."""
    rows = []
    for metric in ("mcc", "macro_f1"):
        measure = corpus_measure(metric, 4)
        for n, rare, (before, after) in itertools.product((50, 100, 300, 1000), (0.5, 0.1), ANSWERED):
            pairs = answer_pairs(np.asarray([1 - rare, rare]), np.asarray(before), np.asarray(after))
            truth, later = (float(measure.of(pairs.sum(axis=axis).ravel())) for axis in (2, 1))
            rng, held, plain, shown = np.random.default_rng(n), 0, 0, 0
            for index in rng.choice(8, size=(draws, n), p=pairs.ravel()):
                first, second = (np.eye(4)[index // 4 * 2 + given] for given in (index // 2 % 2, index % 2))
                found, change = estimate(measure, first), difference(measure, first, second)
                held += found.low <= truth <= found.high
                plain += jackknife(measure, first.sum(axis=0), truth)
                shown += change.low <= later - truth <= change.high
            what = f"{metric}, {n} items, {100 * rare:.0f} % rarer class, {100 * before[1]:.0f} % of it right"
            rows.append(Row("corpus", what, draws, 0.95, held / draws, plain / draws))
            rows.append(Row("corpus", f"paired difference of {what}", draws, 0.95, shown / draws))
    return [*rows, *corpus_groups(draws), *corpus_tests(draws)]


ANSWERED = (((0.9, 0.6), (0.92, 0.7)), ((0.97, 0.3), (0.95, 0.4)))  # right answers to either class, before and after


def answer_pairs(classes: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Probability of (class, answer before, answer after), (2, 2, 2); half of what could be answered alike is."""
    both = (np.minimum(before, after) + before * after) / 2
    right = np.array(
        [[both, before - both], [after - both, 1 - before - after + both]]
    )  # (before wrong, after wrong, class)
    table = np.zeros((2, 2, 2))
    for kind, first, second in itertools.product((0, 1), repeat=3):
        table[kind, first, second] = classes[kind] * right[int(second != kind), int(first != kind), kind]
    return table


def jackknife(measure: CorpusMeasure, sums: np.ndarray, truth: float) -> bool:
    """Whether Fisher's z with the delete-one jackknife's error holds the truth."""
    n, value = sums.sum(), float(measure.of(sums))
    if abs(value) >= 1:
        return truth == value
    left_out = np.array(
        [value - float(measure.of(sums - step)) if has else 0.0 for step, has in zip(np.eye(4), sums > 0, strict=True)]
    )
    error = (n - 1) * math.sqrt(float(sums @ left_out**2) / n / (n - 1)) / (1 - value**2)
    return abs(math.atanh(value) - math.atanh(truth)) <= estimates.student_quantile(estimates.UPPER, n - 1) * error


def corpus_groups(draws: int) -> list[Row]:
    """Coverage of Matthews correlation where groups of 1 to 20 items are easy or hard together (beside: groups ignored)."""
    rows, measure = [], corpus_measure("mcc", 4)
    for units in (8, 12, 30):
        rng, held, plain = np.random.default_rng(units), 0, 0
        for _ in range(draws):
            index = groups_of(rng, units)
            kind = (rng.random(len(index)) < 0.4).astype(int)
            right = rng.random(len(index)) < rng.beta(0.75 * 4, 0.25 * 4, size=units)[index]  # correlation 1/5
            table = np.eye(4)[2 * kind + np.where(right, kind, 1 - kind)]
            truth = float(measure.of(np.array([0.45, 0.15, 0.1, 0.3])))
            grouped, alone = estimate(measure, table, index.tolist()), estimate(measure, table)
            held, plain = held + (grouped.low <= truth <= grouped.high), plain + (alone.low <= truth <= alone.high)
        rows.append(Row("corpus", f"mcc, {units} groups of 1 to 20", draws, 0.95, held / draws, plain / draws))
    return rows


def corpus_tests(draws: int) -> list[Row]:
    """False alarms of the exchange test, and its power where the visible difference of Matthews correlation is the truth."""
    rows, measure = [], corpus_measure("mcc", 4)
    for n, rare in ((60, 0.3), (300, 0.3), (300, 0.1)):
        rng, claims, shown = np.random.default_rng(n), 0, 0
        classes, right = np.asarray([1 - rare, rare]), np.asarray([0.75, 0.75])
        null = answer_pairs(classes, right, right)
        typical = np.repeat(np.eye(4), np.round(null.sum(axis=2).ravel() * n).astype(int), axis=0)
        error = change_error(measure, typical, power.ASSUMED_DISCORDANCE)
        visible = power.smallest_visible_shift(error, [1.0] * len(typical))
        changing = truth_of_change(measure, classes, right, visible)
        for seed in range(draws):
            for table in (null, changing):
                index = rng.choice(8, size=n, p=table.ravel())
                first, second = (np.eye(4)[index // 4 * 2 + given] for given in (index // 2 % 2, index % 2))
                low = swap_test(measure, first, second, resamples=FLIPS, seed=seed) < 0.05
                if table is null:
                    claims += low
                else:
                    shown += low and difference(measure, first, second).low > 0
        what = f"{n} items, {100 * rare:.0f} % in the rarer class"
        rows.append(Row("test", f"exchange test of mcc, {what}", draws, 0.05, claims / draws))
        rows.append(Row("power", f"mcc, {what}, {100 * visible:.1f} points", draws, 0.8, shown / draws))
    return rows


def truth_of_change(measure: CorpusMeasure, classes: np.ndarray, right: np.ndarray, shift: float) -> np.ndarray:
    """(2, 2, 2) of runs that differ on a fifth of the answers to either class and by `shift` in the measure."""

    def table(lean: float) -> np.ndarray:
        gain, loss = (power.ASSUMED_DISCORDANCE / 2 + sign * lean for sign in (1, -1))
        found = np.zeros((2, 2, 2))
        for kind in (0, 1):
            other = 1 - kind
            found[kind, kind, kind], found[kind, kind, other] = (
                classes[kind] * (right[kind] - loss),
                classes[kind] * loss,
            )
            found[kind, other, kind] = classes[kind] * gain
            found[kind, other, other] = classes[kind] * (1 - right[kind] - gain)
        return found

    def change(lean: float) -> float:
        first, second = (float(measure.of(table(lean).sum(axis=axis).ravel())) for axis in (2, 1))
        return second - first

    return table(estimates.root(lambda lean: shift - change(lean), 0.0, power.ASSUMED_DISCORDANCE / 2))


def macros(draws: int) -> list[Row]:
    """Coverage of macro averages of five tasks of mixed sizes, and of their paired differences; beside: of the standard errors'."""
    rng, held = np.random.default_rng(8), np.zeros((2, 2), dtype=int)
    for _ in range(draws):
        index = groups_of(rng, 12)
        rates, lean, draw = rng.beta(2, 2, size=12)[index], rng.beta(2, 2, size=12)[index], rng.random(len(index))
        scores = [estimates.mean((rng.random(n) < p).astype(float)) for n, p in ((20, 0.95), (60, 0.55), (234, 0.75))]
        scores.append(estimates.mean((rng.random(len(index)) < rates).astype(float), index.tolist()))
        scores.append(estimates.mean(rng.beta(0.5, 2, size=30), shares=True))
        pairs = [(rng.random(n) < 0.5, rng.random(n) < 0.55) for n in (20, 60, 234, 600)]
        changed = [estimates.paired_difference(*pair) for pair in pairs]
        changed.append(estimates.paired_difference(draw > 1 - 0.1 * (1 - lean), draw < 0.2 * lean, index.tolist()))
        joined = macro.score_average(scores), macro.macro_average(changed).estimate
        for row, (parts, truth) in enumerate(((scores, (0.95 + 0.55 + 0.75 + 0.5 + 0.2) / 5), (changed, 0.05))):
            ends = [joined[row], macro.macro_average(parts, 0.0).estimate]
            held[row] += [end.low <= truth <= end.high for end in ends]
    names = ("macro average of 5 tasks, 20 to 234 items", "paired difference of it, 20 to 600 items")
    return [Row("share", name, draws, 0.95, *(row / draws).tolist()) for name, row in zip(names, held, strict=True)]


def changes(rng: np.random.Generator, groups: np.ndarray, gain: float, loss: float) -> np.ndarray:
    """-1, 0 or 1 an item (N,): answers lost, kept and gained, leaning one way or the other group by group."""
    lean = rng.beta(2, 2, size=groups.max() + 1)[groups]  # mean 1/2
    draws = rng.random(len(groups))
    return (draws < 2 * gain * lean).astype(float) - (draws > 1 - 2 * loss * (1 - lean))


def tests(draws: int) -> list[Row]:
    """How often the tests find what is not there: alone, over groups (beside: McNemar's, which ignores them), of five."""
    null = np.random.default_rng(4).multinomial(234, [0.1, 0.1, 0.8], size=draws)[:, :2].tolist()
    exact, middle = (np.mean([test(*pair) < 0.05 for pair in null]) for test in (estimates.mcnemar, estimates.mid_p))
    rng, index, claims, ignoring = np.random.default_rng(3), np.repeat(np.arange(30), 10), 0, 0
    for seed in range(draws):
        found = changes(rng, index, 0.3, 0.3)
        claims += estimates.sign_flip(found, index.tolist(), resamples=FLIPS, seed=seed) < 0.05
        ignoring += estimates.mcnemar(int(np.sum(found > 0)), int(np.sum(found < 0))) < 0.05
    five = np.random.default_rng(5).random((draws, 5))
    corrected = np.mean([min(estimates.holm(row)) < 0.05 for row in five.tolist()])
    return [
        Row("test", "McNemar, exact, 234 items", draws, 0.05, float(exact)),
        Row("test", "McNemar, mid-p, 234 items", draws, 0.05, float(middle)),
        Row("test", "sign-flip, 30 groups of 10", draws, 0.05, claims / draws, ignoring / draws),
        Row("test", "any of five, Holm", draws, 0.05, float(corrected), float(np.mean(five.min(axis=1) < 0.05))),
        *guard(max(50, draws // 20)),
    ]


def guard(draws: int) -> list[Row]:
    """False alarms of the guard's rule over five evaluations of the same units, with and without skewed changes."""
    rows = []
    for units in (16, 48):
        for kind, truth in TRUTH.items():
            for sign in (1, -1) if kind == "lognormal" else (1,):
                rng, alarms = np.random.default_rng(units), 0
                for _ in range(draws):
                    walk = np.cumsum(rng.standard_normal((5, units)), axis=0) / np.sqrt(np.arange(1, 6))[:, None]
                    rooms = sign * ((np.exp(walk) if kind == "lognormal" else walk) - truth)
                    alarms += any(bound(rooms[: k + 1], 5, 0.05).most < 0 for k in range(5))
                side = "" if kind == "normal" else ", a few lose much" if sign < 0 else ", a few gain much"
                rows.append(Row("test", f"guard, {units} units, {kind}{side}", draws, 0.05, alarms / draws))
    return rows


def powers(draws: int) -> list[Row]:
    """How often a difference is shown that is just the smallest visible one; a verdict needs test and interval."""
    rows = []
    for n in (10, 20, 60, 234, 1169):
        visible = power.smallest_visible_difference(n)
        changing = max(power.ASSUMED_DISCORDANCE, visible)
        cells = [(changing + visible) / 2, (changing - visible) / 2, 1 - changing]
        pairs = np.random.default_rng(n).multinomial(n, cells, size=draws)[:, :2].tolist()
        seen = np.mean([estimates.mcnemar(*pair) < 0.05 and estimates.tango(*pair, n)[0] > 0 for pair in pairs])
        rows.append(Row("power", f"{n} items, exact test, {100 * visible:.1f} points", draws, 0.8, float(seen)))
    for sizes in ([10] * 8, [6] * 15, [1, 5, 10, 20] * 5, [12] * 40):
        index, n = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
        visible = power.smallest_visible_difference(n, clusters=index.tolist())
        changing = max(power.ASSUMED_DISCORDANCE, visible)

        def answers(
            rng: np.random.Generator,
            n: int = n,
            gain: float = (changing + visible) / 2,
            loss: float = (changing - visible) / 2,
        ) -> np.ndarray:
            drawn = rng.random(n)
            return (drawn < gain).astype(float) - (drawn > 1 - loss)

        what = f"{len(sizes)} groups, {min(sizes)} to {max(sizes)} items, {100 * visible:.1f} points"
        rows.append(Row("power", what, draws, 0.8, _seen(draws, answers, np.ones(n), index.tolist())))
    for units in UNITS:
        shift = power.smallest_visible_shift(1 / math.sqrt(units), [1.0] * units)

        def bits(rng: np.random.Generator, units: int = units, shift: float = shift) -> np.ndarray:
            return rng.standard_normal(units) + shift

        seen = _seen(draws, bits, np.ones(units), None)
        rows.append(Row("power", f"{units} documents of one size", draws, 0.8, seen))
    return rows


def _seen(
    draws: int, sample: Callable[[np.random.Generator], np.ndarray], sizes: np.ndarray, names: list[int] | None
) -> float:
    rng, seen = np.random.default_rng(6), 0
    for seed in range(draws):
        values = sample(rng)
        shown = estimates.ratio(values, sizes, names).low > 0
        seen += shown and estimates.sign_flip(values, names, resamples=FLIPS, seed=seed) < 0.05
    return seen / draws


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--out", type=Path, help="a file for the JSON record")
    options = parser.parse_args()
    began, rows = time.perf_counter(), list[Row]()
    for part in (measures, shares, macros, tests, powers, lambda draws: corpus(max(20, draws // 3))):
        for row in part(options.draws):
            print(row)
            rows.append(row)
    reached = {kind: [row.reached for row in rows if row.kind == kind] for kind in {row.kind for row in rows}}
    record = {
        **environment(), "command": " ".join(["python", *sys.argv]), "draws": options.draws,
        "worst_coverage": min(reached["measure"] + reached["share"]), "best_coverage": max(reached["measure"]),
        "worst_corpus_coverage": min(reached["corpus"]), "power_at_visible_min": min(reached["power"]),
        "fewest_units": estimates.FEWEST_UNITS, "rows": [{**asdict(row), "standard_error": row.error} for row in rows],
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    if options.out is not None:
        write_atomic(options.out, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
