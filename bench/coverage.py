"""Do the intervals hold the truth 95 % of the time, and do the tests cry wolf 5 % of the time? By simulation.

No model: answers are drawn where the truth is known, with and without groups of items that lean together, and each
procedure of `statistics/estimates.py` is asked. Beside it stands what the same data would give if the groups were ignored.

    python bench/coverage.py --draws 3000 --out results/coverage_…json

The last line is one JSON object: for each procedure the share it reached, its standard error and the share without groups.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from stilnovo.runlog import environment, write_atomic
from stilnovo.statistics import estimates

SIZES = {"30 groups of 10": [10] * 30, "12 groups of 40": [40] * 12, "24 groups of 5 to 40": [5, 10, 20, 40] * 6}
RESAMPLES = 500  # of each bootstrap; more changes nothing that so many draws could show
GAIN, LOSS = 0.15, 0.05


def changes(rng: np.random.Generator, groups: np.ndarray, gain: float, loss: float) -> np.ndarray:
    """-1, 0 or 1 an item (N,): answers lost, kept and gained, leaning one way or the other group by group."""
    lean = rng.beta(2, 2, size=groups.max() + 1)[groups]  # mean 1/2
    draws = rng.random(len(groups))
    return (draws < 2 * gain * lean).astype(float) - (draws > 1 - 2 * loss * (1 - lean))


def paired(sizes: list[int], draws: int) -> tuple[float, float]:
    """Coverage of the paired difference, with groups and ignoring them."""
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(len(sizes)), sizes)
    names, truth, held, ignoring = groups.tolist(), GAIN - LOSS, 0, 0
    for seed in range(draws):
        found = changes(rng, groups, GAIN, LOSS)
        estimate = estimates.bootstrap_ratio(found, np.ones_like(found), names, resamples=RESAMPLES, seed=seed)
        held += estimate.low <= truth <= estimate.high
        low, high = estimates.tango(int(np.sum(found > 0)), int(np.sum(found < 0)), len(found))
        ignoring += low <= truth <= high
    return held / draws, ignoring / draws


def score(draws: int) -> tuple[float, float]:
    """Coverage of an accuracy over 30 passages of 10 questions."""
    rng, names = np.random.default_rng(2), np.repeat(np.arange(30), 10).tolist()
    held = ignoring = 0
    for _ in range(draws):
        answers = rng.binomial(1, np.repeat(rng.beta(1.5, 1.5, size=30), 10))
        grouped, alone = estimates.mean(answers, names), estimates.mean(answers)
        held += grouped.low <= 0.5 <= grouped.high
        ignoring += alone.low <= 0.5 <= alone.high
    return held / draws, ignoring / draws


def level(draws: int) -> tuple[float, float]:
    """How often the sign-flip test over 30 passages, and McNemar's which ignores them, find what is not there."""
    rng, groups = np.random.default_rng(3), np.repeat(np.arange(30), 10)
    names, claims, ignoring = groups.tolist(), 0, 0
    for seed in range(draws):
        found = changes(rng, groups, 0.3, 0.3)
        claims += estimates.sign_flip(found, names, resamples=RESAMPLES, seed=seed) < 0.05
        ignoring += estimates.mcnemar(int(np.sum(found > 0)), int(np.sum(found < 0))) < 0.05
    return claims / draws, ignoring / draws


def independent(draws: int) -> tuple[float, float]:
    """Coverage of Tango's interval on 234 independent items (a fifth of ARC-IT), and the level of McNemar's test."""
    rng = np.random.default_rng(4)
    counts = rng.multinomial(234, [0.125, 0.075, 0.8], size=draws)
    ends = {(g, lo): estimates.tango(g, lo, 234) for g, lo in {(int(c[0]), int(c[1])) for c in counts}}
    held = np.mean([ends[int(c[0]), int(c[1])][0] <= 0.05 <= ends[int(c[0]), int(c[1])][1] for c in counts])
    null = rng.multinomial(234, [0.1, 0.1, 0.8], size=draws)
    return float(held), float(np.mean([estimates.mcnemar(int(c[0]), int(c[1])) < 0.05 for c in null]))


def familywise(draws: int) -> tuple[float, float]:
    """How often at least one of five benchmarks without a difference is called, with Holm's correction and without."""
    p_values = np.random.default_rng(5).random((draws, 5))
    corrected = np.mean([min(estimates.holm(row)) < 0.05 for row in p_values.tolist()])
    return float(corrected), float(np.mean(p_values.min(axis=1) < 0.05))


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--out", type=Path, help="a file for the JSON record")
    options = parser.parse_args()
    began, draws = time.perf_counter(), options.draws
    tango, mcnemar = independent(10 * draws)
    many = 10 * draws  # where a draw costs nothing
    rows: list[tuple[str, int, float, float, float | None]] = [
        ("95 % interval, paired, 234 items", many, 0.95, tango, None)
    ]
    for name, sizes in SIZES.items():
        held, ignoring = paired(sizes, draws)
        rows.append((f"95 % interval, paired, {name}", draws, 0.95, held, ignoring))
    rows.append(("95 % interval, accuracy, 30 groups of 10", draws, 0.95, *score(draws)))
    rows.append(("McNemar at 5 %, 234 items", many, 0.05, mcnemar, None))
    rows.append(("sign-flip at 5 %, 30 groups of 10", draws, 0.05, *level(draws)))
    rows.append(("any of five benchmarks at 5 %, Holm", many, 0.05, *familywise(many)))
    found: list[dict[str, Any]] = []
    for name, count, wanted, reached, without in rows:
        error = math.sqrt(reached * (1 - reached) / count)
        found.append(
            {
                "what": name,
                "draws": count,
                "wanted": wanted,
                "reached": reached,
                "standard_error": error,
                "uncorrected": without,
            }
        )
        beside = "" if without is None else f"   uncorrected {100 * without:5.1f} %"
        print(f"{name:<44}{100 * reached:6.1f} % ± {100 * error:.1f}{beside}")
    record = {
        **environment(), "command": " ".join(["python", *sys.argv]), "draws": draws, "rows": found,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    if options.out is not None:
        write_atomic(options.out, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
