"""Forecast of the 8B step's speed on cards, by a roofline over the operations of the real step; no card has run any of it.

Each operation takes the longer of its FLOPs at the arithmetic and its bytes at the memory's speed that the card reaches
(`stilnovo.plan.cards` says of which sheet, and which share of it); a phase takes at least as long as the host needs to launch its
operations; copies over the link run beside. Operations are those of the engine on shapes alone (`op_costs.py`), under the plan that
`stilnovo train` would choose, with our kernels and without.

Beside it stands the scheme that recomputes everything, as Unsloth and gradient checkpointing in general do: every layer's forward is
computed again whole (attention and the down projection too), so 6 N FLOPs a token where 4 N are the floor. It is modelled by
the plan's own sums in its favour: the same rates, kernels fused as well as ours, one launch for each matrix that is made dense, one for
the losses, inputs of layers that wait on the host without any cost, no streaming, all memory that it wants.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpu_step import documents
from memory import ADAPTER
from op_costs import Op, step_costs
from stilnovo.model.kernels import SWITCH
from stilnovo.plan.cards import CARDS, GIB, Card
from stilnovo.plan.choice import Budget, Plan, best
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B
from stilnovo.plan.sizes import Run
from stilnovo.plan.speed import FUSED, LAUNCH, ObjectiveCost, layer_work, loss_work, optimizer_seconds, speed
from stilnovo.runlog import environment, write_atomic

#: Cards and what the step may hold of their memory: an RTX 4060 in a computer of 32 GB, an H200 without a limit.
CASES = {"rtx-4060": Budget(8 * GIB, 32 * GIB), "h200": Budget(139 * GIB, 128 * GIB)}


def mean_square(lengths: Sequence[int]) -> int:
    """The length of documents, all alike, over which attention takes as long as over these."""
    return round(sum(length * length for length in lengths) / sum(lengths))


def op_seconds(op: Op, card: Card) -> float:
    """Seconds of an operation on the card, those of the link elsewhere."""
    rate = card.attention_flops if op.kind == "attention" else card.flops
    return max(op.flops / rate, op.moved / card.memory_speed)


def roofline(ops: Sequence[Op], plan: Plan, card: Card) -> dict[str, Any]:
    """Seconds of a pass by kind of operation, its launches, and its tokens a second."""
    kinds: defaultdict[str, float] = defaultdict(float)
    total, launches = 0.0, 0
    for phase in ("forward", "loss", "backward"):
        here = [op for op in ops if op.phase == phase]
        for op in here:
            kinds[op.kind] += op_seconds(op, card)
        own = sum(op_seconds(op, card) + op.link / card.memory_speed for op in here)
        count = sum(op.kind != "link" for op in here)
        launches += count
        link = sum(op.link for op in here) / card.link_speed
        waits = phase == "backward" and not plan.levers.prefetch and plan.levers.inputs == "host"
        seconds = max(own, count * LAUNCH)
        total += seconds + link if waits else max(seconds, link)
    total += optimizer_seconds(plan.run, plan.levers, card)
    kinds.pop("link", None)
    return {
        "tokens_per_second": plan.run.tokens / total, "seconds": total, "launches": launches,
        "elementwise_share": kinds["elementwise"] / total, "seconds_by_kind": dict(kinds),
    }  # fmt: skip


def recompute_everything(run: Run, card: Card, document: int) -> float:
    """Tokens a second of the scheme that computes every layer's forward again; see the module for what is granted to it."""
    levers = Levers(layers=all_layers("keep", run.config.layers), loss_chunk=run.tokens, elementwise_bytes=2**40)
    ahead, back = layer_work(run, levers, "keep", document, FUSED)
    layers = (ahead * 2 + back) * run.config.layers
    loss = loss_work(run, levers, ObjectiveCost(), FUSED)
    return run.tokens / (layers.seconds(card) + loss.seconds(card) + optimizer_seconds(run, levers, card))


def row(name: str, tokens: int) -> dict[str, Any]:
    """One card and length: the plan's forecast, the roofline with kernels and without, the other scheme."""
    lengths = documents(tokens)
    card, document = CARDS[name], mean_square(lengths)
    run = Run(
        config=LLAMA_3_8B, lora=ADAPTER, tokens=tokens, capability=card.capability, documents=len(lengths), accumulation=16
    )  # fmt: skip
    found: dict[str, Any] = {"card": name, "tokens": tokens, "forecast": True}
    for kernels in (False, True):
        os.environ[SWITCH] = "1" if kernels else "0"
        fitting = replace(run, kernels=kernels)
        plan = best(fitting, CASES[name], card)
        assert plan is not None, "the card is too small"
        line = roofline(step_costs(LLAMA_3_8B, plan.levers, lengths), plan, card)
        line["plan_tokens_per_second"] = tokens / speed(fitting, plan.levers, card, document).seconds
        line |= {"peak_bytes": plan.peak, "host_bytes": plan.ledger.host, "levers": asdict(plan.levers)}
        if kernels:
            found |= line
        else:
            found["without_kernels"] = line
    other = recompute_everything(run, card, document)
    return {**found, "recompute_everything_tokens_per_second": other, "ratio": found["tokens_per_second"] / other}


def say(found: dict[str, Any]) -> None:
    """Print a row."""
    other = found["recompute_everything_tokens_per_second"]
    print(f"{found['card']}, {found['tokens']:,} tokens: recomputing everything {other:,.0f} tokens/s")
    for name, line in (("kernels", found), ("torch", found["without_kernels"])):
        kinds = ", ".join(f"{kind} {1e3 * seconds:.0f}" for kind, seconds in line["seconds_by_kind"].items())
        layers = dict(Counter(line["levers"]["layers"]))
        ratio = line["tokens_per_second"] / other
        print(
            f"  {name:<8}{line['tokens_per_second']:>8,.0f} tokens/s ({ratio:.2f} ×; the plan says {line['plan_tokens_per_second']:,.0f}), "
            f"{line['launches']:,} launches, element-wise {100 * line['elementwise_share']:.1f} %; ms: {kinds}; {layers}"
        )


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cards", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--tokens", type=int, nargs="*", default=[2048, 8192])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for name in options.cards:
        for tokens in options.tokens:
            rows.append(row(name, tokens))
            say(rows[-1])
            sys.stdout.flush()
    record = {**environment(), "command": " ".join(sys.argv), "forecast": True, "rows": rows}
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
