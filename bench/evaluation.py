"""Evaluation beside lm-evaluation-harness' `hf` backend: the same numbers, and how many times faster.

Both score SmolLM2 in fp32 from the same dense weights, in one process with the same number of threads, on the same items:
ARC in Italian (all 297 of validation), HellaSwag in English and MMLU in Italian with five shots (seeded samples). The
items of a task are dealt into rounds; in every round each side scores them once, A B A B, and the round's ratio is one
measurement. Reported is the median. Timed is what a user waits for: from the requests as text to log-likelihoods,
tokenisation included; building the requests (the harness renders templates, slowly) is outside on both sides.

Beside the clock's ratio stands that of processor seconds, which a busy machine disturbs less.

Log-likelihoods are compared as the harness gives them. Its log-softmax is fp32 over the whole vocabulary, which is off by
more than anything else here on long endings; the items that differ most are therefore asked again with that one step in
fp64, and both differences are reported.

The harness gets its best batch size of several, found on a few items of the same task beforehand. It computes a few-shot
header anew for every item, we once a round: short rounds are to its advantage.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilnovo.benchmarks.task import Draw, MultipleChoice, select
from stilnovo.benchmarks.tasks import find_tasks
from stilnovo.runlog import environment, write_atomic
from stilnovo.scoring.packed import score
from stilnovo.spec import ModelSpec
from stilnovo.text.tokenizer import open_tokenizer
from training import dense_copy

DATA = Path(__file__).parents[2] / "shared" / "data" / "benchmarks"
SEED = 42
WORST = 4  # items of a task that are asked again with an exact log-softmax


@dataclass(frozen=True)
class Part:
    """One task's share of the benchmark: how many items, and the harness's batch sizes to choose from."""

    task: str
    items: int
    batches: tuple[int, ...]
    trial: int  # items on which the batch sizes are compared


PARTS = {
    "arc": Part("arc_it", 297, (4, 8, 16), 12),
    "hellaswag": Part("hellaswag", 96, (4, 8, 16), 12),
    "mmlu": Part("mmlu_it", 60, (1, 2, 4), 6),
}
Scorer = Callable[[Sequence[MultipleChoice]], list[list[float]]]


def ours() -> Scorer:
    """Log-likelihoods by stilnovo."""
    from stilnovo.model.load import open_model

    model, tokenizer = open_model(ModelSpec("smollm2", quantization="none", device="cpu"))
    return lambda items: [list(item.loglikelihoods) for item in score(model, tokenizer, items)]


def harness(folder: Path) -> Callable[[int, bool], Scorer]:
    """Log-likelihoods by the harness, for a batch size; as it is, or with its log-softmax in fp64."""
    try:
        import torch
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    except ImportError:
        print("This benchmark needs its peer. Run: pip install -e '.[bench]'", file=sys.stderr)
        sys.exit(2)
    logging.disable(logging.WARNING)
    path = dense_copy(folder)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    # transformers reads the GGUF's vocabulary without its digit split: the peer gets the same tokens as we, in its own class.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(open_tokenizer("smollm2").definition), eos_token="<|im_end|>"
    )

    def with_batch(size: int, exact: bool) -> Scorer:
        softmax = torch.float64 if exact else None
        peer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, device="cpu", softmax_dtype=softmax)

        def scored(items: Sequence[MultipleChoice]) -> list[list[float]]:
            requests = [
                Instance("loglikelihood", {}, pair, place, metadata=(None, number, 1))
                for number, item in enumerate(items)
                for place, pair in enumerate(item.pairs)
            ]
            found = iter(peer.loglikelihood(requests, disable_tqdm=True))
            return [[next(found)[0] for _ in item.endings] for item in items]

        return scored

    return with_batch


@dataclass(frozen=True)
class Timing:
    """Seconds by the clock, and of all processors together."""

    clock: float
    processor: float


def timed(scorer: Scorer, items: Sequence[MultipleChoice]) -> tuple[Timing, list[list[float]]]:
    """How long it took, and what was found."""
    clock, processor = time.perf_counter(), time.process_time()
    found = scorer(items)
    return Timing(time.perf_counter() - clock, time.process_time() - processor), found


def largest(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest distance of an item's log-likelihoods."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def run_part(name: str, part: Part, mine: Scorer, theirs: Callable[[int, bool], Scorer], rounds: int) -> dict[str, Any]:
    """One task: the peer's batch size, then the rounds."""
    selection = select(find_tasks([part.task])[0], DATA, "validation", Draw(part.items, SEED))
    items = [item for item in selection.items if isinstance(item, MultipleChoice)]
    random.Random(SEED).shuffle(items)  # the rounds are alike
    trial = items[: part.trial]
    mine(trial[:2])
    trials = {size: timed(theirs(size, False), trial)[0].clock for size in part.batches}
    batch = min(trials, key=lambda size: trials[size])
    peer = theirs(batch, False)
    ratios, processor_ratios, equal = [], [], 0
    differences: list[tuple[float, int, list[float]]] = []
    seconds = {"ours": 0.0, "theirs": 0.0}
    for number in range(rounds):
        some = items[number::rounds]
        our_time, found = timed(mine, some)
        their_time, expected = timed(peer, some)
        ratios.append(their_time.clock / our_time.clock)
        processor_ratios.append(their_time.processor / our_time.processor)
        seconds["ours"] += our_time.clock
        seconds["theirs"] += their_time.clock
        for place, (item, one, other) in enumerate(zip(some, found, expected, strict=True)):
            differences.append((largest(one, other), number + place * rounds, one))
            picks = [(item.choice(values), item.choice_norm(values)) for values in (one, other)]
            equal += picks[0] == picks[1]
        print(f"{name}: round {number + 1} of {rounds}, {ratios[-1]:.2f} times as fast", file=sys.stderr, flush=True)
    worst = sorted(differences, reverse=True)[:WORST]
    exact = theirs(batch, True)([items[place] for _, place, _ in worst])
    return {
        "task": part.task, "split": selection.split, "shots": selection.shots, "items": len(items), "batch_size": batch,
        "trial_seconds": {str(size): round(value, 2) for size, value in trials.items()},
        "speedup": statistics.median(ratios), "ratios": [round(ratio, 3) for ratio in ratios],
        "processor_speedup": statistics.median(processor_ratios),
        "items_per_second": len(items) / seconds["ours"], "their_items_per_second": len(items) / seconds["theirs"],
        "picks_equal": equal / len(items), "max_abs_loglikelihood_difference": worst[0][0],
        "median_abs_loglikelihood_difference": statistics.median(size for size, _, _ in differences),
        "worst_items": len(worst), "worst_items_difference_to_fp64_softmax": max(
            largest(one, other) for (_, _, one), other in zip(worst, exact, strict=True)
        ),
    }  # fmt: skip


def main() -> None:
    """Run the parts and print the table; the last line is one JSON object."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the items of the sampled tasks; ARC is always whole"
    )
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"This benchmark needs the benchmarks' rows in {DATA}.", file=sys.stderr)
        sys.exit(2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        mine, theirs = ours(), harness(Path(folder))
        for name in options.only:
            part = PARTS[name]
            share = 1.0 if name == "arc" else options.share
            count = max(options.rounds, round(part.items * share))
            part = Part(part.task, count, part.batches, min(part.trial, count))
            results[name] = run_part(name, part, mine, theirs, options.rounds)
    for name, row in results.items():
        speed = f"{row['items_per_second']:>7.2f} items/s  x{row['speedup']:.2f} (x{row['processor_speedup']:.2f} in processor time)"
        print(
            f"{name:<10}{row['items']:>5} items {speed} of the harness at batch {row['batch_size']}; "
            f"same picks {100 * row['picks_equal']:.1f} %, "
            f"largest difference {row['max_abs_loglikelihood_difference']:.1e} nats, on the {row['worst_items']} worst items "
            f"{row['worst_items_difference_to_fp64_softmax']:.1e} to the harness with an fp64 log-softmax"
        )
    total = sum(row["items"] for row in results.values())
    record = {
        **environment(), "command": " ".join(sys.argv), "threads": options.threads, "n": total, "results": results,
        **{f"{name}_speedup": row["speedup"] for name, row in results.items()},
        "picks_equal": sum(row["picks_equal"] * row["items"] for row in results.values()) / total,
        "max_abs_loglikelihood_difference": max(row["max_abs_loglikelihood_difference"] for row in results.values()),
        "max_abs_loglikelihood_difference_to_fp64_softmax": max(
            row["worst_items_difference_to_fp64_softmax"] for row in results.values()
        ),
        "items": total,
    }  # fmt: skip
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
