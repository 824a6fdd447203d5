"""Statistics against scipy and statsmodels where they have the same thing, and against simulation or full enumeration
where coverage is the claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stilnovo.statistics import correlated, power
from stilnovo.statistics import estimates as ours


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 10), (17, 60), (668, 1169), (60, 60)])
def test_wilson_is_scipys(right: int, n: int) -> None:
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    estimate = ours.mean([1] * right + [0] * (n - right))
    interval = ours.wilson(right / n, n, ours.normal_quantile(0.975))
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert estimate.low <= interval[0] and interval[1] <= estimate.high, "a little wider, for few items"
    assert (estimate.value, estimate.n, estimate.clusters) == (right / n, n, n)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 5), (6, 5), (5, 6), (10, 30), (400, 300), (4000, 4100)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = 1.0 if gained + lost == 0 else stats.binomtest(gained, gained + lost).pvalue
    assert ours.mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("degrees", [1, 2, 4, 5, 9, 30, 1000])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
def test_student_quantile(probability: float, degrees: int) -> None:
    assert ours.student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=0.012)


def test_mean_of_measurements_is_the_t_interval() -> None:
    """Of a symmetric sample; one that is skewed reaches farther on its long side."""
    half = np.random.default_rng(1).normal(0.0, 2.0, size=20)
    values = 3.0 + np.concatenate([half, -half])
    low, high = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values))
    estimate = ours.mean(values)
    assert estimate.standard_error == pytest.approx(stats.sem(values), rel=1e-12)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)
    skewed = np.exp(values)
    low, high = stats.t.interval(0.95, 39, loc=skewed.mean(), scale=stats.sem(skewed))
    estimate = ours.mean(skewed)
    assert low <= estimate.low < skewed.mean() < high < estimate.high
    assert high < estimate.high < high + 3 * (high - skewed.mean())


@pytest.mark.parametrize(("a", "b", "n"), [(0.5, 0.5, 5), (0.5, 0.5, 10), (2, 2, 5), (8, 1, 10), (0.5, 4, 30),
                                        (0.2, 2, 5), (0.2, 2, 8), (0.2, 2, 20)])  # fmt: skip
def test_coverage_of_the_interval_of_shares(a: float, b: float, n: int) -> None:
    """Few values between 0 and 1, as mc2 and F1 are: never outside, and more often right than value ± t * error."""
    rng = np.random.default_rng(11)
    covered = plain = 0
    for values in rng.beta(a, b, size=(3000, n)):
        one = ours.mean(values, shares=True)
        assert 0 <= one.low <= one.value <= one.high <= 1
        assert one.standard_error == pytest.approx(stats.sem(values))
        covered += one.low <= a / (a + b) <= one.high
        plain += abs(one.value - a / (a + b)) <= stats.t.ppf(0.975, n - 1) * one.standard_error
    assert covered / 3000 >= 0.93  # few of them may hold more often
    assert covered > plain


def test_coverage_of_the_interval_of_shares_in_groups() -> None:
    """All of a group alike, most groups near zero: F1 of the questions of a few passages."""
    rng, held = np.random.default_rng(12), 0
    for _ in range(1000):
        index = np.repeat(np.arange(8), rng.integers(1, 21, size=8))
        one = ours.mean(rng.beta(0.2, 2, size=8)[index], index.tolist(), shares=True)
        held += one.low <= 1 / 11 <= one.high
    assert held / 1000 >= 0.93


def test_interval_of_many_shares_is_the_t_interval() -> None:
    values = np.random.default_rng(12).beta(2, 3, size=5000)
    one, other = ours.mean(values, shares=True), ours.mean(values)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=5e-5)


def test_shares_that_are_all_alike_still_leave_doubt() -> None:
    estimate = ours.mean([0.25] * 4, shares=True)
    assert 0 < estimate.low < 0.25 < estimate.high < 1
    assert ours.mean([0.5], shares=True).high == 1.0
    with pytest.raises(ValueError, match="shares"):
        ours.mean([0.5, 1.5], shares=True)


def test_clustered_standard_error_counts_copies_once() -> None:
    """Ten answers, each asked five times, are ten pieces of evidence and not fifty."""
    values = np.random.default_rng(2).normal(size=10)
    copies, names = np.repeat(values, 5), np.repeat(np.arange(10), 5).tolist()
    expected = stats.sem(values)
    assert ours.mean(copies, names).standard_error == pytest.approx(expected, rel=1e-12)
    assert ours.mean(copies).standard_error < expected / 2


def test_clusters_of_one_change_nothing() -> None:
    values = np.random.default_rng(3).integers(0, 2, size=50)
    assert ours.mean(values, list(range(50))) == ours.mean(values)


def test_one_cluster_says_nothing() -> None:
    estimate = ours.mean([0, 1, 1, 1], ["a"] * 4)
    assert (estimate.low, estimate.high, estimate.standard_error) == (0.0, 1.0, math.inf)


def test_the_standard_error_of_a_ratio_is_the_bootstraps() -> None:
    rng = np.random.default_rng(4)
    sizes = rng.lognormal(7, 0.5, size=200)
    nats = sizes * rng.exponential(size=200)

    def whole(index: np.ndarray) -> float:
        return float(nats[index].sum() / sizes[index].sum())

    expected = stats.bootstrap((np.arange(200),), whole, n_resamples=4000, vectorized=False, method="percentile", rng=5)
    assert ours.ratio(nats, sizes).standard_error == pytest.approx(expected.standard_error, rel=0.06)


@pytest.mark.parametrize("units", range(1, 8))
def test_few_units_have_no_interval(units: int) -> None:
    """Nothing simple holds for them; the value and its standard error stand."""
    values, sizes = np.arange(1.0, 1 + units), np.full(units, 2.0)
    estimate = ours.ratio(values, sizes)
    assert (estimate.low, estimate.high, estimate.has_interval) == (-math.inf, math.inf, False)
    assert estimate.between(2) == f"(no interval: units {units}, at least 8 needed)"
    assert estimate.value == pytest.approx((1 + units) / 4)
    pieces = ours.ratio(np.tile(values, 10), np.tile(sizes, 10), list(range(units)) * 10)
    assert not pieces.has_interval, "ten pieces of each are no more units"
    assert not ours.paired_difference(values / 10, values / 20).has_interval


def _sizes(rng: np.random.Generator, units: int, how: str) -> ours.Floats:
    return np.ones(units) if how == "equal" else rng.integers(1, 21, size=units).astype(float)


@pytest.mark.parametrize("units", [8, 12, 30, 60])
@pytest.mark.parametrize("how", ["equal", "in groups of 1 to 20"])
@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_coverage_of_the_interval_of_a_measure(units: int, how: str, kind: str) -> None:
    """Half of what differs inside a group is the group's; `bench/coverage.py` tries more, with more draws."""
    rng, covered, draws = np.random.default_rng(units), 0, 500
    truth = math.exp(0.5) if kind == "lognormal" else 0.0
    for _ in range(draws):
        index = np.repeat(np.arange(units), _sizes(rng, units, how).astype(int))
        values = rng.normal(0, math.sqrt(0.5), units)[index] + rng.normal(0, math.sqrt(0.5), len(index))
        estimate = ours.mean(np.exp(values) if kind == "lognormal" else values, index.tolist())
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 - 0.025 <= covered / draws <= 0.97 + 0.025, "what so few draws can show of .93 to .97"


def test_how_alike_the_items_of_a_unit_are_is_read_off_them() -> None:
    """All alike, the scale is the size; unrelated, its root; between them otherwise."""
    rng, sizes = np.random.default_rng(3), np.arange(1.0, 21).repeat(20)
    index = np.repeat(np.arange(len(sizes)), sizes.astype(int))
    for shared, wanted in ((1.0, 1.0), (0.0, 0.5)):
        values = rng.standard_normal(len(sizes))[index] * shared + rng.standard_normal(len(index)) * (1 - shared)
        apart = values - values.mean()
        residuals = np.bincount(index, weights=apart)
        scale = correlated.residual_scale(
            correlated.corrected_square(apart, np.ones(len(index))), sizes, residuals, sizes
        )
        assert np.log(scale[-1] / scale[0]) / np.log(20) == pytest.approx(wanted, abs=0.12)


@pytest.mark.parametrize("seed", range(20))
def test_properties_of_the_interval(seed: int) -> None:
    """It mirrors, scales and shifts with the values, whatever their order, and reaches as far as most of Student's."""
    rng = np.random.default_rng(seed)
    units = int(rng.integers(8, 40))
    sizes, values = rng.uniform(0.01, 30, size=units), rng.standard_t(2, size=units) ** rng.integers(1, 4)
    one = ours.ratio(values * sizes, sizes)
    mirrored, moved = ours.ratio(-values * sizes, sizes), ours.ratio((3 * values + 5) * sizes, sizes)
    assert one.low < one.value < one.high
    assert (mirrored.low, mirrored.high) == pytest.approx((-one.high, -one.low))
    assert (moved.low, moved.high) == pytest.approx((3 * one.low + 5, 3 * one.high + 5))
    equal = ours.mean(values)
    student = stats.t.ppf(0.975, units - 1) * equal.standard_error
    assert min(equal.high - equal.value, equal.value - equal.low) >= 0.7 * 0.999 * student
    shuffled = rng.permutation(units)
    again = ours.ratio((values * sizes)[shuffled], sizes[shuffled])
    assert (again.low, again.high) == pytest.approx((one.low, one.high))


def test_sign_flip_is_mcnemar_on_zeros_and_ones() -> None:
    before = np.array([0] * 9 + [1] * 3 + [1, 0] * 20)
    after = np.array([1] * 9 + [0] * 3 + [1, 0] * 20)
    assert ours.sign_flip(after - before) == pytest.approx(ours.mcnemar(9, 3), abs=1e-12)
    many = np.array([1.0] * 60 + [-1.0] * 40)
    assert ours.sign_flip(many) == pytest.approx(ours.mcnemar(60, 40), abs=0.01)
    assert ours.sign_flip(np.zeros(5)) == 1.0


def test_sign_flip_is_scipys_permutation_test() -> None:
    differences = np.random.default_rng(7).normal(0.4, 1.0, size=10)
    expected = stats.permutation_test(
        (differences, np.zeros(10)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=5000
    )
    assert ours.sign_flip(differences) == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize(("n", "discordance"), [(20, 0.2), (60, 0.2), (234, 0.1), (234, 0.3), (1169, 0.2), (3000, 0.2)])
def test_smallest_visible_difference_has_the_power_it_claims(n: int, discordance: float) -> None:
    """Simulated with the test that gives the verdict, McNemar's exact one."""
    visible = power.smallest_visible_difference(n, discordance)
    rng = np.random.default_rng(8)
    changing = max(visible, discordance)
    counts = rng.multinomial(n, [(changing + visible) / 2, (changing - visible) / 2, 1 - changing], size=20_000)
    pairs, times = np.unique(counts[:, :2], axis=0, return_counts=True)
    found = np.array([ours.mcnemar(*map(int, pair)) < 0.05 for pair in pairs])
    assert 0.78 <= times[found].sum() / 20_000 <= 0.82


@pytest.mark.parametrize("n", [6, 17, 40])
def test_mcnemars_power_is_the_sum_over_all_outcomes(n: int) -> None:
    for changing, difference in [(0.3, 0.2), (1.0, 0.4), (0.5, 0.5), (0.2, 0.0)]:
        gained, lost = (changing + difference) / 2, (changing - difference) / 2
        expected = sum(
            stats.multinomial.pmf([g, w, n - g - w], n, [gained, lost, 1 - gained - lost])
            for g in range(n + 1) for w in range(n + 1 - g) if ours.mcnemar(g, w) < 0.05
        )  # fmt: skip
        assert power.mcnemar_power(n, changing, difference) == pytest.approx(expected, abs=1e-9)


def test_smallest_visible_difference_of_too_few_items() -> None:
    assert power.smallest_visible_difference(0) == 1.0
    assert power.smallest_visible_difference(3) == 1.0
    assert power.smallest_visible_difference(5) == 1.0, "five changes in one direction have p = .0625"
    assert 0.2 < power.smallest_visible_difference(20, 0.05) < 1.0, "a difference needs at least that much discordance"


def test_smallest_visible_difference_of_groups() -> None:
    """Six passages can show nothing; a few need much more than as many single items, many hardly more."""
    few = [name for name, size in enumerate([11, 13, 14, 13, 13, 12]) for _ in range(size)]
    assert power.smallest_visible_difference(76, clusters=few) == 1.0
    eight, fifty = [index % 8 for index in range(80)], [index % 50 for index in range(100)]
    assert power.smallest_visible_difference(80, clusters=eight) > 1.2 * power.smallest_visible_difference(80)
    many = power.smallest_visible_difference(100, clusters=fifty)
    assert many == pytest.approx(power.smallest_visible_difference(100), rel=0.1), "one test is exact, the other is not"
    alone = [str(index) for index in range(80)]
    assert power.smallest_visible_difference(80, clusters=alone) == power.smallest_visible_difference(80)


@pytest.mark.parametrize("sizes", [[10] * 8, [6] * 15, [1, 5, 10, 20] * 5], ids=["8x10", "15x6", "uneven"])
def test_power_at_the_smallest_visible_difference_of_groups(sizes: list[int]) -> None:
    """Both witnesses of a verdict are asked, the sign-flip test and the interval."""
    names, n, draws = np.repeat(np.arange(len(sizes)), sizes).tolist(), sum(sizes), 400
    visible, found = power.smallest_visible_difference(n, clusters=names), 0
    rng, changing = np.random.default_rng(9), max(0.2, visible)
    for _ in range(draws):
        drawn = rng.random(n)
        changes = (drawn < (changing + visible) / 2).astype(float) - (drawn > 1 - (changing - visible) / 2)
        seen = ours.ratio(changes, np.ones(n), names).low > 0
        found += seen and ours.sign_flip(changes, names, resamples=500) < 0.05
    assert 0.77 - 0.05 <= found / draws <= 0.87 + 0.05, "what so few draws can show of .77 to .87"


def test_visible_shift_needs_units() -> None:
    assert power.smallest_visible_shift(1.0, [3.0] * 7) == math.inf
    shifts = [power.smallest_visible_shift(1.0, [3.0] * units) for units in (8, 12, 30, 200, 1000)]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[-1] == pytest.approx(2.80, abs=0.02), "the textbook's"


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (9, 3), (3, 9), (0, 5), (120, 90)])
def test_mid_p(gained: int, lost: int) -> None:
    """Twice (the tail beyond what was seen plus half of it), by scipy's binomial; one where both are alike."""
    fewer, changed = min(gained, lost), gained + lost
    half = stats.binom.cdf(fewer, changed, 0.5) - 0.5 * stats.binom.pmf(fewer, changed, 0.5)
    assert ours.mid_p(gained, lost) == pytest.approx(min(1.0, 2 * half) if gained != lost else 1.0, rel=1e-9)
    assert ours.mid_p(gained, lost) <= ours.mcnemar(gained, lost)


def test_coverage_of_an_accuracy_is_never_low() -> None:
    """Exact, over all outcomes: whatever is right, from 5 to 95 %, and however few the items."""
    for n in (5, 7, 10, 18, 40, 100):
        rights = np.arange(n + 1)
        ends = [ours.mean([1] * right + [0] * (n - right)) for right in rights.tolist()]
        low, high = np.array([end.low for end in ends]), np.array([end.high for end in ends])
        for p in np.linspace(0.05, 0.95, 91):
            assert stats.binom.pmf(rights, n, p)[(low <= p) & (p <= high)].sum() >= 0.93


def test_coverage_of_the_accuracy_interval() -> None:
    rng = np.random.default_rng(9)
    counts = rng.binomial(60, 0.3, size=20_000)
    intervals = {count: ours.mean([1] * count + [0] * (60 - count)) for count in set(counts.tolist())}
    covered = np.mean([intervals[count].low <= 0.3 <= intervals[count].high for count in counts.tolist()])
    assert 0.93 <= covered <= 0.97


def test_coverage_of_the_clustered_accuracy_interval() -> None:
    """Thirty passages with ten questions each; ignoring the passages would cover far less."""
    rng = np.random.default_rng(10)
    names = np.repeat(np.arange(30), 10).tolist()
    covered = naive = 0
    for _ in range(3000):
        shares = rng.beta(1.5, 1.5, size=30)
        answers = rng.binomial(1, np.repeat(shares, 10))
        with_clusters, without = ours.mean(answers, names), ours.mean(answers)
        covered += with_clusters.low <= 0.5 <= with_clusters.high
        naive += without.low <= 0.5 <= without.high
    assert 0.93 <= covered / 3000 <= 0.97
    assert naive / 3000 < 0.85


def test_coverage_of_the_paired_difference() -> None:
    """Sixty items of which a fifth change sides, true difference 5 points."""
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(1000):
        outcome = rng.choice(3, size=60, p=[0.125, 0.075, 0.8])
        before, after = (outcome == 1).astype(float), (outcome == 0).astype(float)
        estimate = ours.ratio(after - before, np.ones(60))
        covered += estimate.low <= 0.05 <= estimate.high
    assert 0.93 <= covered / 1000 <= 0.97


def test_coverage_of_bits_per_byte_over_few_documents() -> None:
    """Twelve documents of very different lengths: a bootstrap's percentiles would cover about 90 %."""
    rng = np.random.default_rng(12)
    covered = 0
    for _ in range(1500):
        sizes = rng.lognormal(7, 0.5, size=12)
        nats = sizes * rng.normal(1.0, 0.1, size=12)
        estimate = ours.ratio(nats, sizes)
        covered += estimate.low <= 1.0 <= estimate.high
    assert 0.93 <= covered / 1500 <= 0.97


@pytest.mark.parametrize(("gained", "lost"), [(3, 9), (0, 4), (25, 11), (40, 40)])
def test_mcnemar_is_statsmodels(gained: int, lost: int) -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    expected = contingency.mcnemar([[50, gained], [lost, 30]], exact=True)
    assert ours.mcnemar(gained, lost) == pytest.approx(expected.pvalue, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_clustered_standard_error_is_statsmodels(seed: int) -> None:
    """A regression on a constant with errors clustered the usual way (CR1), clusters of uneven size."""
    model = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(seed)
    names = rng.integers(0, 12, size=90)
    values = rng.normal(size=90) + 0.5 * rng.normal(size=12)[names]
    fitted = model.OLS(values, np.ones(90)).fit(cov_type="cluster", cov_kwds={"groups": names})
    assert ours.mean(values, names.tolist()).standard_error == pytest.approx(fitted.bse[0], rel=1e-9)


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.01, 0.03], [0.2, 0.2, 0.001, 1.0], [0.6, 0.5, 0.4], []])
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    expected = multitest.multipletests(p_values, method="holm")[1] if p_values else []
    assert ours.holm(p_values) == pytest.approx(list(expected), abs=1e-12)


def test_holm_keeps_the_familywise_level() -> None:
    """Five benchmarks, no difference in any: about 5 % of comparisons claim something, uncorrected 23 %."""
    p_values = np.random.default_rng(15).random((4000, 5))
    claims = np.mean([min(ours.holm(row)) < 0.05 for row in p_values.tolist()])
    assert 0.04 <= claims <= 0.06
    assert np.mean(p_values.min(axis=1) < 0.05) > 0.2


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 60), (7, 6, 60), (30, 8, 234), (12, 0, 40), (0, 3, 25)])
def test_tango_inverts_the_score_test(gained: int, lost: int, n: int) -> None:
    """At each end the score statistic, its nuisance share maximised numerically, is the normal quantile."""
    from scipy.optimize import minimize_scalar

    for end in ours.tango(gained, lost, n):

        def minus_loglikelihood(q: float, end: float = end) -> float:
            cells = (gained, q + end), (lost, q), (n - gained - lost, 1 - end - 2 * q)
            return -sum(count * math.log(max(share, 1e-300)) for count, share in cells if count)

        bounds = (max(0.0, -end), (1 - end) / 2)
        q = minimize_scalar(minus_loglikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        z = (gained - lost - n * end) / math.sqrt(n * (2 * q + end - end**2))
        assert abs(z) == pytest.approx(stats.norm.ppf(0.975), abs=2e-3)


def test_tango_speaks_like_mcnemar() -> None:
    """It leaves out zero exactly where McNemar's z does, mirrors, and never runs empty."""
    for gained, lost in [(15, 5), (14, 6), (20, 6), (4, 0), (3, 0)]:
        low, high = ours.tango(gained, lost, 100)
        assert (low > 0) == ((gained - lost) / math.sqrt(gained + lost) > stats.norm.ppf(0.975))
        assert ours.tango(lost, gained, 100) == pytest.approx((-high, -low), abs=1e-12)
    z2 = stats.norm.ppf(0.975) ** 2
    assert ours.tango(0, 0, 60) == pytest.approx((-z2 / (60 + z2), z2 / (60 + z2)), abs=1e-9)
    assert ours.tango(60, 0, 60)[1] == pytest.approx(1.0)


@pytest.mark.parametrize(("gain", "loss"), [(0.10, 0.10), (0.125, 0.075), (0.20, 0.05), (0.05, 0.04)])
def test_coverage_of_the_paired_interval_by_enumeration(gain: float, loss: float) -> None:
    """Exact: every outcome of 60 items with its probability, no simulation."""
    covered = 0.0
    for gained in range(61):
        for lost in range(61 - gained):
            weight = stats.multinomial.pmf([gained, lost, 60 - gained - lost], 60, [gain, loss, 1 - gain - loss])
            if weight > 1e-9:
                low, high = ours.tango(gained, lost, 60)
                covered += weight * (low <= gain - loss <= high)
    assert 0.93 <= covered <= 0.97


def test_mcnemar_keeps_its_level() -> None:
    """Exact over all outcomes: among n items that changed sides by fair coins, p < .05 at most 5 % of the time."""
    for changed in (5, 6, 12, 25, 50, 200):
        weights = stats.binom.pmf(np.arange(changed + 1), changed, 0.5)
        p_values = np.array([ours.mcnemar(k, changed - k) for k in range(changed + 1)])
        assert weights[p_values < 0.05].sum() <= 0.05
    assert weights[p_values < 0.05].sum() > 0.03, "and it is not idle"


def _clustered_changes(rng: np.random.Generator, names: np.ndarray, gain: float, loss: float) -> ours.Floats:
    """Changes of answers (-1, 0, 1) that lean one way or the other passage by passage, (N,)."""
    lean = rng.beta(2, 2, size=names.max() + 1)[names]  # mean 1/2
    draws = rng.random(len(names))
    gained, lost = draws < 2 * gain * lean, draws > 1 - 2 * loss * (1 - lean)
    return gained.astype(float) - lost


@pytest.mark.parametrize("sizes", [[10] * 30, [40] * 12, [5, 10, 20, 40] * 6], ids=["30x10", "12x40", "uneven"])
def test_coverage_of_the_paired_clustered_difference(sizes: list[int]) -> None:
    """Thirty passages with ten questions each, twelve with forty, and uneven ones; ignoring them would cover less."""
    rng = np.random.default_rng(13)
    index = np.repeat(np.arange(len(sizes)), sizes)
    names, covered, naive = index.tolist(), 0, 0
    for _ in range(3000):
        changes = _clustered_changes(rng, index, 0.15, 0.05)
        estimate = ours.ratio(changes, np.ones_like(changes), names)
        covered += estimate.low <= 0.10 <= estimate.high
        low, high = ours.tango(int(np.sum(changes > 0)), int(np.sum(changes < 0)), len(changes))
        naive += low <= 0.10 <= high
    assert 0.93 <= covered / 3000 <= 0.97
    assert naive < covered - 30


def test_sign_flip_keeps_its_level_over_clusters() -> None:
    """No difference, thirty passages: McNemar, which ignores them, claims far more than 5 %."""
    rng = np.random.default_rng(14)
    index = np.repeat(np.arange(30), 10)
    names, claims, naive = index.tolist(), 0, 0
    for seed in range(800):
        changes = _clustered_changes(rng, index, 0.3, 0.3)
        claims += ours.sign_flip(changes, names, resamples=400, seed=seed) < 0.05
        naive += ours.mcnemar(int(np.sum(changes > 0)), int(np.sum(changes < 0))) < 0.05
    assert 0.03 <= claims / 800 <= 0.07
    assert naive / 800 > 0.10


def test_paired_difference_chooses_its_interval() -> None:
    before, after = [1, 0, 1, 0] * 15, [1, 1, 1, 0] * 15
    estimate = ours.paired_difference(before, after)
    assert (estimate.low, estimate.high) == ours.tango(15, 0, 60)
    passages = [index // 4 for index in range(60)]
    clustered = ours.paired_difference(before, after, passages)
    assert clustered.clusters == 15
    same = ours.paired_difference(before, before, passages)
    assert (same.low, same.high) == ours.tango(0, 0, 15), "agreement of clustered runs counts each cluster once"
    scores = np.random.default_rng(16).random(60)  # F1, say
    measured = ours.paired_difference(scores, scores * 0.9)
    assert measured.low < measured.value < measured.high
    assert measured.value == pytest.approx(-0.1 * scores.mean())
    with pytest.raises(ValueError, match="same items"):
        ours.paired_difference([1, 0], [1])


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        ours.mean([])
    with pytest.raises(ValueError, match="cluster names"):
        ours.mean([1, 0], ["a"])
    with pytest.raises(ValueError, match="equally many"):
        ours.ratio([1.0], [1.0, 2.0])
