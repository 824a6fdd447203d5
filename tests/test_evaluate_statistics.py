"""Statistics against scipy where it has the same thing, and against simulation where coverage is the claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stilnovo.evaluate import statistics as ours


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 10), (17, 60), (668, 1169), (60, 60)])
def test_wilson_is_scipys(right: int, n: int) -> None:
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    estimate = ours.mean([1] * right + [0] * (n - right))
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (estimate.value, estimate.n, estimate.clusters) == (right / n, n, n)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 5), (6, 5), (5, 6), (10, 30), (400, 300), (4000, 4100)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = 1.0 if gained + lost == 0 else stats.binomtest(gained, gained + lost).pvalue
    assert ours.mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("degrees", [4, 5, 9, 30, 1000])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
def test_student_quantile(probability: float, degrees: int) -> None:
    assert ours.student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=0.012)


def test_mean_of_measurements_is_the_t_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=40)
    low, high = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values))
    estimate = ours.mean(values)
    assert estimate.standard_error == pytest.approx(stats.sem(values), rel=1e-12)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)


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


def test_bootstrap_agrees_with_scipys_on_a_mean() -> None:
    values = np.random.default_rng(4).exponential(size=200)
    expected = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=5)
    estimate = ours.bootstrap_ratio(values, np.ones_like(values))
    assert estimate.standard_error == pytest.approx(expected.standard_error, rel=0.03)
    assert estimate.low == pytest.approx(expected.confidence_interval.low, abs=0.02)
    assert estimate.high == pytest.approx(expected.confidence_interval.high, abs=0.02)
    assert ours.bootstrap_ratio(values, np.ones_like(values)) == estimate, "seeded"


def test_bootstrap_in_slices_is_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).normal(size=100)
    whole = ours.bootstrap_ratio(values, np.ones_like(values))
    monkeypatch.setattr(ours, "_CHUNK_DRAWS", 999)
    sliced = ours.bootstrap_ratio(values, np.ones_like(values))
    assert (sliced.low, sliced.high) == (whole.low, whole.high)


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


@pytest.mark.parametrize(
    ("n", "discordance", "points"), [(1169, 0.2, 3.7), (234, 0.1, 5.8), (234, 0.3, 10.0), (9193, 0.3, 1.6)]
)
def test_smallest_visible_difference_has_the_power_it_claims(n: int, discordance: float, points: float) -> None:
    """Simulated: at the difference it names, about 80 % of runs are significant (z-test, as the formula assumes)."""
    visible = ours.smallest_visible_difference(n, discordance)
    assert 100 * visible == pytest.approx(points, abs=0.05)
    rng = np.random.default_rng(8)
    gained, lost = (discordance + visible) / 2, (discordance - visible) / 2
    counts = rng.multinomial(n, [gained, lost, 1 - discordance], size=20_000)
    z = (counts[:, 0] - counts[:, 1]) / np.sqrt(counts[:, 0] + counts[:, 1])
    assert 0.79 <= np.mean(np.abs(z) > 1.96) <= 0.85, "never less than claimed, little more"


def test_smallest_visible_difference_of_too_few_items() -> None:
    assert ours.smallest_visible_difference(0) == 1.0
    assert ours.smallest_visible_difference(3) == 1.0
    assert 0.2 < ours.smallest_visible_difference(20, 0.05) < 1.0, "a difference needs at least that much discordance"


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
    for _ in range(1500):
        shares = rng.beta(1.5, 1.5, size=30)
        answers = rng.binomial(1, np.repeat(shares, 10))
        with_clusters, without = ours.mean(answers, names), ours.mean(answers)
        covered += with_clusters.low <= 0.5 <= with_clusters.high
        naive += without.low <= 0.5 <= without.high
    assert 0.93 <= covered / 1500 <= 0.97
    assert naive / 1500 < 0.85


def test_coverage_of_the_paired_difference() -> None:
    """Sixty items of which a fifth change sides, true difference 5 points."""
    rng = np.random.default_rng(11)
    covered = 0
    for seed in range(1000):
        outcome = rng.choice(3, size=60, p=[0.125, 0.075, 0.8])
        before, after = (outcome == 1).astype(float), (outcome == 0).astype(float)
        estimate = ours.bootstrap_ratio(after - before, np.ones(60), resamples=600, seed=seed)
        covered += estimate.low <= 0.05 <= estimate.high
    assert 0.93 <= covered / 1000 <= 0.97


def test_coverage_of_bits_per_byte_over_few_documents() -> None:
    """Twelve documents of very different lengths: the plain percentile interval would cover about 90 %."""
    rng = np.random.default_rng(12)
    covered = 0
    for seed in range(1500):
        sizes = rng.lognormal(7, 0.5, size=12)
        nats = sizes * rng.normal(1.0, 0.1, size=12)
        estimate = ours.bootstrap_ratio(nats, sizes, resamples=600, seed=seed)
        covered += estimate.low <= 1.0 <= estimate.high
    assert 0.93 <= covered / 1500 <= 0.97


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        ours.mean([])
    with pytest.raises(ValueError, match="cluster names"):
        ours.mean([1, 0], ["a"])
    with pytest.raises(ValueError, match="equally many"):
        ours.bootstrap_ratio([1.0], [1.0, 2.0])
