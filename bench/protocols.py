"""What each single difference between the 2024 report's protocol and the default does to SmolLM2's score.

One thing is changed at a time, on the same items, so that the comparison is paired: the quantisation (FP4, NF4), an
opening token where the model has none, ARC-IT's version with a fifth choice. The subset is another matter: the first
fifth of a file and the rest are different items. With shares s and 1 - s of the file, the first fifth differs from the
whole by (1 - s) (mean of the first part - mean of the rest); both means are estimated on items drawn from their part.
`--ship` also writes the effects into the package, where `stilnovo evaluate` says them beside what differs.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stilnovo.benchmarks import protocol
from stilnovo.benchmarks.protocol import STILNOVO, Protocol
from stilnovo.benchmarks.task import Draw, MultipleChoice, Task, items_sha256, select, subset
from stilnovo.benchmarks.tasks import find_tasks
from stilnovo.model.load import open_model
from stilnovo.progress import Progress
from stilnovo.runlog import environment, write_atomic
from stilnovo.scoring.packed import ItemScore, score
from stilnovo.spec import ModelSpec
from stilnovo.statistics.estimates import mcnemar, mean, paired_difference

SHARE = 0.20
METRIC = "acc_norm"


@dataclass(frozen=True)
class Change:
    """One thing changed: its name in `protocol.EFFECTS`, in words, and the protocol that has it."""

    key: str
    words: str
    protocol: Protocol
    against: str = "stilnovo"


CHANGES = (
    Change("quantization fp4", "FP4 instead of the weights as they are", replace(STILNOVO, name="fp4", quantization="fp4")),
    Change("quantization nf4", "NF4 instead of the weights as they are", replace(STILNOVO, name="nf4", quantization="nf4")),
    Change("fp4 for nf4", "FP4 instead of NF4", replace(STILNOVO, name="fp4", quantization="fp4"), "nf4"),
    Change("opening token", "an opening token, which this model has not", replace(STILNOVO, name="opening", opening="always")),
    Change("version of arc_it", "ARC-IT 1.0, with a fifth choice", replace(STILNOVO, name="arc 1.0", versions={"arc_it": "1.0"})),
)  # fmt: skip


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data/benchmarks"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--items", type=int, default=100, help="of ARC-IT, the same for every change")
    parser.add_argument("--parts", type=int, default=60, help="of HellaSwag, in each of its two parts")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, help="a file for the JSON record")
    parser.add_argument("--ship", action="store_true", help="write the effects into the package")
    options = parser.parse_args()
    began = time.perf_counter()
    arc, hellaswag = find_tasks(["arc_it", "hellaswag"])
    base = select(arc, options.data_dir, draw=Draw(options.items, options.seed))
    scored = _conditions(options, [item.id for item in base.items])
    effects = [_paired(change, scored) for change in CHANGES]
    effects += [_subset(arc, options, scored["stilnovo"]), _subset(hellaswag, options, None)]
    for effect in effects:
        low, high = effect["interval"]
        print(
            f"{effect['words']:<62}{100 * effect['difference']:>+7.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
            f"   {_sides(effect)}"
        )
    record = {
        **environment(), "command": " ".join(sys.argv), "model": options.model, "metric": METRIC, "seed": options.seed,
        "items_sha256": items_sha256(base.items), "n": len(base.items), "effects": effects,
        "scores": {name: mean([item.values[METRIC] for item in found]).value for name, found in scored.items()},
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if options.ship:
        kept = ("key", "words", "task", "n", "difference", "interval")
        shipped = {
            "model": options.model, "metric": METRIC, "date": f"{datetime.now(UTC):%Y-%m-%d}", "command": record["command"],
            "effects": [{key: effect[key] for key in kept} for effect in effects],
        }  # fmt: skip
        write_atomic(protocol.EFFECTS_FILE, json.dumps(shipped, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(record, ensure_ascii=False))


def _conditions(options: argparse.Namespace, ids: Sequence[str]) -> dict[str, list[ItemScore]]:
    """The same items of ARC-IT under every protocol; a model is loaded once for each quantisation."""
    wanted = {change.protocol.name: change.protocol for change in CHANGES}
    protocols = [STILNOVO, *sorted(wanted.values(), key=lambda one: one.quantization != "none")]
    found: dict[str, list[ItemScore]] = {}
    loaded: tuple[str, Any, Any] = ("", None, None)
    (arc,) = find_tasks(["arc_it"])
    with Progress("arc_it", len(protocols) * len(ids)) as bar:
        for number, one in enumerate(protocols):
            if loaded[0] != one.quantization:
                loaded = (one.quantization, *open_model(ModelSpec(options.model, quantization=one.quantization)))
            items = {item.id: item for item in one.select(arc, options.data_dir).items}
            asked = [item for name in ids if isinstance(item := items[name], MultipleChoice)]

            def say(done: int, _: int, name: str = one.name, before: int = number * len(ids)) -> None:
                bar.update(before + done, name)

            found[one.name] = score(loaded[1], one.tokenizer(loaded[2]), asked, progress=say)
    return found


def _paired(change: Change, scored: dict[str, list[ItemScore]]) -> dict[str, Any]:
    before = [item.values[METRIC] for item in scored[change.against]]
    after = [item.values[METRIC] for item in scored[change.protocol.name]]
    estimate = paired_difference(before, after)
    gained = sum(b < a for b, a in zip(before, after, strict=True))
    lost = sum(b > a for b, a in zip(before, after, strict=True))
    return {
        "key": change.key, "words": change.words, "task": "arc_it", "n": len(before), "difference": estimate.value,
        "interval": [estimate.low, estimate.high], "p": mcnemar(gained, lost), "changed": gained + lost,
    }  # fmt: skip


def _subset(task: Task, options: argparse.Namespace, scored: Sequence[ItemScore] | None) -> dict[str, Any]:
    """The first fifth against the whole, from items of either part; ARC-IT's are already scored."""
    items = select(task, options.data_dir).items
    count = math.ceil(SHARE * len(items))
    first = {item.id for item in items[:count]}
    if scored is None:
        model, tokenizer = open_model(ModelSpec(options.model, quantization="none"))
        parts = [subset(part, options.parts, options.seed) for part in (items[:count], items[count:])]
        asked = [item for part in parts for item in part if isinstance(item, MultipleChoice)]
        with Progress(task.name, len(asked)) as bar:
            scored = score(model, tokenizer, asked, progress=lambda done, _: bar.update(done))
    inside = [item for item in scored if item.id in first]
    outside = [item for item in scored if item.id not in first]
    a, b = (
        mean([item.values[METRIC] for item in part], [item.cluster or item.id for item in part])
        for part in (inside, outside)
    )
    rest = 1 - count / len(items)
    value = rest * (a.value - b.value)
    # independent samples: Newcombe's interval from those of the two parts (Statistics in Medicine 17, 1998, method 10)
    low = value - rest * math.hypot(a.value - a.low, b.high - b.value)
    high = value + rest * math.hypot(a.high - a.value, b.value - b.low)
    return {
        "key": f"items of {task.name}", "words": f"the first fifth of {task.name} instead of all of it", "task": task.name,
        "n": len(scored), "difference": value, "interval": [low, high], "first": len(inside), "changed": None,
    }  # fmt: skip


def _sides(effect: dict[str, Any]) -> str:
    if effect["changed"] is None:
        return f"{effect['first']} of {effect['n']} items in the first fifth"
    return f"{effect['changed']} of {effect['n']} items changed sides"


if __name__ == "__main__":
    main()
