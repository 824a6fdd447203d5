"""Verdicts: the right word, the right figures, one plain sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest

from stilnovo.compare.verdict import bits_per_byte_verdict, corrected, score_verdict
from stilnovo.statistics.estimates import mcnemar, tango


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[list[bool], list[bool]]:
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return before, after


def test_noise_is_called_noise() -> None:
    verdict = score_verdict(*answers(both=11, gained=7, lost=6, neither=36))
    assert verdict.outcome == "inconclusive"
    assert (verdict.before.value, verdict.after.value) == (17 / 60, 18 / 60)
    assert verdict.p == mcnemar(7, 6) == 1.0
    assert re.fullmatch(
        r"Inconclusive: accuracy 28\.3 % → 30\.0 % \(\+1\.7 points, 95 % interval −\d+\.\d to \+\d+\.\d, "
        r"McNemar p = 1\.00 \(mid-p \.79\), 60 items\); this test could only have seen changes of 17 points or more\.",
        verdict.sentence,
    )


def test_a_clear_gain_and_a_clear_loss() -> None:
    gain = score_verdict(*answers(both=80, gained=30, lost=8, neither=116), metric="normalised accuracy")
    assert gain.outcome == "improved"
    assert gain.sentence.startswith("Improved: normalised accuracy 37.6 % → 47.0 % (+9.4 points, 95 % interval +")
    assert "McNemar p < .001 (mid-p < .001), 234 items)." in gain.sentence
    assert gain.difference.low < gain.difference.value < gain.difference.high
    loss = score_verdict(*answers(both=80, gained=8, lost=30, neither=116))
    assert loss.outcome == "regressed"
    assert loss.p == gain.p
    assert loss.difference.value == -gain.difference.value


def test_nothing_changed_at_all() -> None:
    verdict = score_verdict(*answers(both=20, gained=0, lost=0, neither=40))
    assert (verdict.outcome, verdict.p, verdict.difference.value) == ("inconclusive", 1.0, 0.0)
    assert (verdict.difference.low, verdict.difference.high) == tango(0, 0, 60), (
        "sixty equal answers do not prove equality"
    )
    assert "(±0.0 points" in verdict.sentence
    assert 0 < verdict.smallest_visible < 0.2


def test_clusters_ask_for_more() -> None:
    """Ten items gained, all about one passage: convincing as ten items, nothing as one passage."""
    before, after = answers(both=40, gained=10, lost=0, neither=50)
    passages = [f"p{index // 10}" for index in range(40)] + ["one"] * 10 + [f"q{index // 10}" for index in range(50)]
    assert score_verdict(before, after).outcome == "improved"
    verdict = score_verdict(before, after, clusters=passages)
    assert (verdict.outcome, verdict.test, verdict.p) == ("inconclusive", "sign-flip", 1.0)
    assert "100 items in 10 groups" in verdict.sentence
    alone = score_verdict(before, after, clusters=list(range(100)))
    assert alone == score_verdict(before, after), "clusters of one are no clusters"


def test_bits_per_byte() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(500, 3000, size=40)
    before = sizes * rng.normal(1.0, 0.1, size=40)
    better = bits_per_byte_verdict(before, before - sizes * 0.02, sizes)
    assert better.outcome == "improved"
    assert better.difference.value == pytest.approx(-0.02 / np.log(2))
    assert better.sentence.startswith("Improved: bits per byte ")
    assert "(−0.029, 95 % interval −0.029 to −0.029, sign-flip p < .001, 40 documents)." in better.sentence
    worse = bits_per_byte_verdict(before, before + sizes * rng.normal(0.02, 0.01, size=40), sizes)
    assert worse.outcome == "regressed"
    noise = bits_per_byte_verdict(before, before + sizes * rng.normal(0, 0.05, size=40), sizes)
    assert noise.outcome == "inconclusive"
    assert re.search(r"; this text could only have shown changes of 0\.\d{3} or more\.$", noise.sentence)


def test_too_few_documents_say_so() -> None:
    verdict = bits_per_byte_verdict([10.0, 20.0, 30.0], [9.0, 18.0, 27.0], [10, 20, 30])
    assert verdict.outcome == "inconclusive"
    assert verdict.sentence.endswith(
        "no verdict can be reached: 3 independent documents are too few, at least 8 are needed."
    )
    assert "(−0.144, no interval, sign-flip p = .25, 3 documents)" in verdict.sentence
    assert not verdict.can_decide
    single = bits_per_byte_verdict([10.0], [9.0], [10])
    assert "no interval" in single.sentence
    assert single.sentence.endswith("1 independent document is too few, at least 8 are needed.")
    assert single.outcome == "inconclusive"


def test_clustered_runs_that_agree_do_not_claim_to_see_everything() -> None:
    before, _ = answers(both=20, gained=0, lost=0, neither=20)
    verdict = score_verdict(before, before, clusters=[index // 5 for index in range(40)])
    assert verdict.outcome == "inconclusive"
    assert verdict.smallest_visible > 0.2
    few = score_verdict(before, before, clusters=[index // 20 for index in range(40)])
    assert few.sentence.endswith("no verdict can be reached: 2 independent groups are too few, at least 8 are needed.")


def test_scores_between_zero_and_one() -> None:
    rng = np.random.default_rng(3)
    before = rng.uniform(0, 0.8, size=100)
    verdict = score_verdict(before, np.clip(before + rng.uniform(-0.05, 0.15, size=100), 0, 1), metric="F1")
    assert (verdict.outcome, verdict.test) == ("improved", "sign-flip")
    assert verdict.sentence.startswith("Improved: F1 ")
    assert verdict.gained is not None and verdict.lost is not None
    assert verdict.gained + verdict.lost == 100


def test_several_benchmarks_are_corrected() -> None:
    """McNemar's p of 14 against 4 is .031: enough alone, not as one of three."""
    alone = score_verdict(*answers(both=30, gained=14, lost=4, neither=52))
    nothing = score_verdict(*answers(both=30, gained=5, lost=5, neither=60))
    assert (alone.outcome, alone.p_corrected) == ("improved", None)
    found = corrected({"a": alone, "b": nothing, "c": nothing})
    assert found["a"].p_corrected == pytest.approx(3 * alone.p)
    assert (found["a"].outcome, found["a"].p) == ("inconclusive", alone.p)
    assert found["a"].sentence.startswith("Inconclusive: accuracy 34.0 % → 44.0 % ")
    assert found["a"].sentence.endswith(
        "p = .093 after Holm's correction for 3 comparisons; without the correction it would be called improved."
    )
    sure = corrected({"a": score_verdict(*answers(both=80, gained=30, lost=8, neither=116)), "b": nothing})
    assert sure["a"].outcome == "improved"
    assert corrected({"a": alone})["a"].sentence == alone.sentence, "one comparison needs no correction"


def test_unequal_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        score_verdict([True], [True, False])
    with pytest.raises(ValueError, match="same items"):
        score_verdict([], [])


@pytest.mark.parametrize("seed", range(5))
def test_identical_models_are_rarely_told_apart(seed: int) -> None:
    """Under the null at most 5 % of verdicts may claim a difference."""
    rng = np.random.default_rng(seed)
    claims = 0
    for _ in range(100):
        changed = rng.random(60) < 0.2
        before = rng.random(60) < 0.4
        claims += score_verdict(before.tolist(), (before ^ changed).tolist()).outcome != "inconclusive"
    assert claims <= 10
