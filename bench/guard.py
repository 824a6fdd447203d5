"""The guard's rule by simulation, and its cost: how often it cries wolf, what it sees, and what a look takes.

Simulated is a model that walks away from its base: every item's logits (a benchmark of four endings, base right in about
half) and every document's nats take a random step of their own between looks, so that looks resemble one another as those
of a training do. To that comes a true loss, set so that accuracy, the soft score or bits per byte lose exactly what is
asked. The rule that ends trainings is the guard's own (`statistics/sequential.py`, `forgetting/guard.py`).

1. False alarms, one benchmark of 300 items and two texts of 20 documents of very different length, ten looks, α = 5 %:
   nothing lost; exactly the allowance lost of all three at every look (the worst case); and the same with no allowance.
   Beside it what looking ten times at 5 % without a correction would do, and Bonferroni.
2. Power: the loss grows evenly to 2, 5 and 10 points of accuracy, or percent of bits per byte, at the last look. Beside the
   soft score the same rule on right and wrong.
3. Cost: processor seconds of a look and of a training step of SmolLM2, in one process and one thread.

    python bench/guard.py --out results/guard_…json        (--only rule leaves out 3., --only cost does nothing else)

The last line is one JSON object.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilnovo.forgetting.guard import soft_score, temperature, text_rooms
from stilnovo.io import sample
from stilnovo.runlog import environment, write_atomic
from stilnovo.statistics.estimates import normal_quantile, student_quantile
from stilnovo.statistics.sequential import quantiles

Array = NDArray[np.float64]
ITEMS, DOCUMENTS, LOOKS, ALPHA, MEASURES = 300, 20, 10, 0.05, 3
EDGE, STEP = 0.9, 0.15  # base's advantage of the right ending, and each look's step, in standard deviations of a logit
DRAWS = 8_000  # of each critical value; the guard itself takes more
PROBE = 20_000  # items from which shifts are found
LENGTHS, DOCUMENT_STEP = 0.8, 0.7  # log-deviation of documents' lengths; percent of a document's nats a look


def accuracy(logits: Array, _tau: float) -> Array:
    """1 where the right ending, the first, is the most probable."""
    right: Array = (logits[..., 0] > logits[..., 1:].max(axis=-1)).astype(np.float64)
    return right


def base_logits(rng: np.random.Generator, items: int) -> Array:
    """(items, 4), the right ending first."""
    logits = rng.standard_normal((items, 4))
    logits[:, 0] += EDGE
    return logits


def walk(rng: np.random.Generator, *shape: int) -> Array:
    """(looks, …): a random walk of each element."""
    return np.cumsum(rng.standard_normal((LOOKS, *shape)), axis=0)


Measure = Callable[[Array, float], Array]


def shifts(losses: Array, measure: Measure) -> Array:
    """What must be taken from the right ending's logit at each look so that `measure` loses `losses` (points)."""
    rng = np.random.default_rng(7)
    base = base_logits(rng, PROBE)
    tau, moved, found = temperature(list(base[:2000])), base + STEP * walk(rng, PROBE, 4), []
    before = float(measure(base, tau).mean())
    for look, loss in enumerate(losses):
        low, high = -3.0, 6.0
        for _ in range(20):
            middle = (low + high) / 2
            shifted = moved[look].copy()
            shifted[:, 0] -= middle
            low, high = (middle, high) if 100 * (before - float(measure(shifted, tau).mean())) < loss else (low, middle)
        found.append(low)
    return np.array(found)


def score_rows(rng: np.random.Generator, shift: Array, measure: Measure) -> Array:
    """Changes in points of one simulated training's items, (looks, items)."""
    base = base_logits(rng, ITEMS)
    now = base + STEP * walk(rng, ITEMS, 4)
    now[..., 0] -= shift[:, None]
    tau = temperature(list(base))
    return 100 * (measure(now, tau) - measure(base, tau))


def text_rows(rng: np.random.Generator, losses: Array, allowed: float) -> Array:
    """Rooms in percent of one simulated training's documents, (looks, documents); a long document moves as much."""
    base = np.exp(LENGTHS * rng.standard_normal(DOCUMENTS))
    own = DOCUMENT_STEP * walk(rng, DOCUMENTS)
    now = base * (1 + (losses[:, None] + own) / 100)
    return np.stack([text_rooms(base.tolist(), row.tolist(), allowed) for row in now])


def alarms(rooms: Array, measures: int) -> tuple[int, int, int]:
    """The first look (from 1; 0 for none) that is called a loss: by the rule, by Bonferroni, without correction."""
    units = rooms.shape[1]
    means, errors = rooms.mean(axis=1), rooms.std(axis=1, ddof=1) / math.sqrt(units)
    rule = quantiles(rooms - means[:, None], LOOKS, ALPHA / measures, draws=DRAWS)
    blunt = [normal_quantile(1 - ALPHA / measures / LOOKS)] * LOOKS
    none = [normal_quantile(1 - ALPHA)] * LOOKS
    found = []
    for normal in (rule, blunt, none):
        limits = [student_quantile(_cdf(one), units - 1) for one in normal]
        beyond = np.flatnonzero(means + np.array(limits) * errors < 0)
        found.append(int(beyond[0]) + 1 if len(beyond) else 0)
    return found[0], found[1], found[2]


def _cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def false_alarms(draws: int) -> list[dict[str, Any]]:
    """Shares of trainings that are ended without having lost more than allowed."""
    rows = []
    for name, true, allowed in (
        ("nothing lost, 2 allowed", 0.0, 2.0),
        ("exactly 2 lost of all three, 2 allowed", 2.0, 2.0),
        ("nothing lost, nothing allowed", 0.0, 0.0),
    ):
        rng, shift = np.random.default_rng(1), shifts(np.full(LOOKS, true), soft_score)
        called = np.zeros(3)
        for _ in range(draws):
            found = [
                alarms(score_rows(rng, shift, soft_score) + allowed, MEASURES),
                *(alarms(text_rows(rng, np.full(LOOKS, true), allowed), MEASURES) for _ in range(MEASURES - 1)),
            ]
            called += [any(one[kind] for one in found) for kind in range(3)]
        share = called / draws
        error = math.sqrt(share[0] * (1 - share[0]) / draws)
        rows.append(
            {
                "what": name, "draws": draws, "alarms": share[0], "standard_error": error,
                "bonferroni": share[1], "uncorrected": share[2],
            }
        )  # fmt: skip
        print(
            f"{name:<42} {100 * share[0]:5.2f} % (±{100 * error:.2f}); Bonferroni {100 * share[1]:.2f}, "
            f"uncorrected {100 * share[2]:.2f}", flush=True,
        )  # fmt: skip
    return rows


def power(draws: int) -> list[dict[str, Any]]:
    """Shares of trainings that are ended, of those that lose what is asked."""
    rows = []
    for allowed in (2.0, 0.0):
        for loss in (2.0, 5.0, 10.0):
            growing = loss * np.arange(1, LOOKS + 1) / LOOKS
            shift, rng = shifts(growing, accuracy), np.random.default_rng(2)
            kinds: dict[str, list[tuple[int, int, int]]] = {"soft score": [], "right and wrong": [], "text": []}
            for _ in range(draws):
                kinds["soft score"].append(alarms(score_rows(rng, shift, soft_score) + allowed, MEASURES))
                kinds["right and wrong"].append(alarms(score_rows(rng, shift, accuracy) + allowed, MEASURES))
                kinds["text"].append(alarms(text_rows(rng, growing, allowed), MEASURES))
            for kind, found in kinds.items():
                seen, blunt = (float(np.mean([one[place] > 0 for one in found])) for place in (0, 1))
                looks = [one[0] for one in found if one[0]]
                rows.append(
                    {
                        "what": kind, "loss": loss, "allowed": allowed, "draws": draws, "seen": seen, "bonferroni": blunt,
                        "median_look": float(np.median(looks)) if looks else None,
                    }
                )  # fmt: skip
                print(
                    f"{loss:4.0f} lost, {allowed:.0f} allowed, {kind:<16} seen {100 * seen:5.1f} % (Bonferroni {100 * blunt:.1f})",
                    flush=True,
                )
    return rows


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """Processor seconds of a look and of a step, of a real model; the guard's own path, nothing else."""
    import torch

    from stilnovo.forgetting.guard import guard_callback
    from stilnovo.recipe import load
    from stilnovo.train.run import TrainingRun

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        recipe = load("demo").changed(
            {
                "model.quantization": "none", "train.steps": options.steps, "train.batch_packs": 1, "guard.every": options.steps,
                "guard.tasks": ["sample_questions"], "guard.items": options.items, "guard.documents": options.documents,
                "guard.texts": [options.text],
            }
        )  # fmt: skip
        run = TrainingRun(recipe, Path(folder) / "run", make_callback=guard_callback(recipe, Path(folder) / "run"))
        trainer, callback = run.trainer, run.callback
        assert callback is not None
        clock = time.process_time
        began = clock()
        callback.begin(run.model)
        base, steps, stream = clock() - began, [], iter(trainer.stream)
        for _ in range(options.steps):
            began = clock()
            trainer.train_step([next(stream)])
            steps.append(clock() - began)
        began = clock()
        look = callback.evaluate(options.steps, run.model)
        looked = clock() - began
    step = float(np.median(steps))
    found = {
        "model": "smollm2", "items": options.items, "documents": 2 * options.documents, "base_seconds": base, "look_seconds": looked,
        "step_seconds": step, "step_tokens": recipe.data.pack_tokens, "steps_a_look": looked / step, "look": look.text,
    }  # fmt: skip
    tokens = recipe.data.pack_tokens
    print(
        f"A look: {looked:.1f} processor seconds, as long as {looked / step:.1f} steps of {tokens} tokens ({step:.1f})."
    )
    return found


def main() -> None:
    """Print the tables and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000, help="simulated trainings of each false-alarm figure")
    parser.add_argument("--power-draws", type=int, default=400)
    parser.add_argument("--only", choices=("rule", "cost"))
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--documents", type=int, default=8, help="of the protected text, and of the gain's")
    parser.add_argument("--steps", type=int, default=3)
    story = str(sample.path("library/il_faro_di_pietranera.txt"))
    parser.add_argument("--text", default=story, help="a protected text; our own story by default")
    parser.add_argument("--out", type=Path, help="a file for the JSON record")
    options = parser.parse_args()
    began = time.perf_counter()
    found: dict[str, Any] = {
        "settings": {
            "items": ITEMS, "documents": DOCUMENTS, "looks": LOOKS, "alpha": ALPHA, "measures": MEASURES, "edge": EDGE,
            "step": STEP, "length_deviation": LENGTHS, "document_step_percent": DOCUMENT_STEP, "critical_draws": DRAWS,
        },
    }  # fmt: skip
    last: dict[str, Any] = {"alpha": ALPHA}
    if options.only != "cost":
        found |= {"false_alarms": false_alarms(options.draws), "power": power(options.power_draws)}
        last |= {"false_alarms": max(row["alarms"] for row in found["false_alarms"]), "draws": options.draws}
        last["power"] = {
            f"{row['what']}, {row['loss']:.0f} lost, {row['allowed']:.0f} allowed": row["seen"]
            for row in found["power"]
        }
    if options.only != "rule":
        found["cost"] = cost(options)
        last |= {key: found["cost"][key] for key in ("steps_a_look", "look_seconds", "step_seconds")}
    found |= {"seconds": time.perf_counter() - began, "command": sys.argv, "environment": environment()}
    if options.out is not None:
        write_atomic(options.out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(last))


if __name__ == "__main__":
    main()
