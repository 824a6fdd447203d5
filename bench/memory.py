"""Memory and arithmetic of the real 8B training step, without a card: predicted beside tracked, for every plan.

The step is the engine's own, under `FakeTensorMode`: shapes are computed, storage never exists (`tracking.py`). FLOPs are
counted by torch's `FlopCounterMode`; attention is counted as causal, half of what the counter says for it.
N is the number of weights in matrix products (projections and head). Nothing is timed.

Needs: stilnovo[bench].
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import memory_peer
from stilnovo.engine.loss import tiled_divergence, tiled_losses
from stilnovo.engine.product import HostAdapter
from stilnovo.engine.stack import TrainingEngine
from stilnovo.model import kernels, lora
from stilnovo.model.llama import Llama
from stilnovo.model.lora_linear import FrozenLoraLinear, LowRank
from stilnovo.model.quantize import quantized_linear
from stilnovo.plan.adapter import module_path
from stilnovo.plan.cards import CARDS, GIB
from stilnovo.plan.choice import Budget, best, leanest
from stilnovo.plan.ledger import blas_bytes, ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, PROJECTIONS, LlamaConfig, LoraConfig
from stilnovo.plan.sizes import Run
from stilnovo.plan.speed import matrix_weights, speed
from stilnovo.recipe_sections import Scheme
from stilnovo.runlog import environment, write_atomic
from tracking import LiveBytes

CARD = torch.device("meta")
ADAPTER = LoraConfig(r=32)


def empty_model(config: LlamaConfig, frozen: int = 0, scheme: Scheme = "nf4") -> Llama:
    """The shape with its adapter, on a frozen one of that rank if any, on the device that plays the card."""
    model = Llama(
        config,
        lambda _name, shape: torch.empty(shape, device=CARD, dtype=torch.bfloat16),
        lambda weight: quantized_linear(weight, scheme),
    )
    model.rotary.frequencies = model.rotary.frequencies.to(CARD)
    for index, shapes in enumerate([config.linear_shapes()] * config.layers if frozen else []):
        for name, (outputs, inputs) in shapes.items():
            path = module_path(index, name)
            update = LowRank(torch.empty(frozen, inputs), torch.empty(outputs, frozen), 1.0)
            base = model.get_submodule(path.removeprefix("model."))
            lora.replace_projection(model, path, FrozenLoraLinear(base, update, torch.bfloat16))  # type: ignore[arg-type]
    lora.attach(model, ADAPTER)
    return model


def track(run: Run, levers: Levers, lengths: Sequence[int]) -> dict[str, Any]:
    """One real step without storage: peak bytes of the card, FLOPs; documents of these lengths fill the pass."""
    tokens, blas = run.tokens, blas_bytes(run) // 2
    with kernels.switched(run.kernels), FakeTensorMode(allow_non_fake_inputs=True), LiveBytes(blas=blas) as live:
        model = empty_model(run.config, run.frozen[0][0] if run.frozen else 0, run.scheme)  # type: ignore[arg-type]
        sink = HostAdapter(model) if levers.optimizer_place == "host" else None
        engine = TrainingEngine(model, levers, sink)
        gc.collect()
        states = [] if sink is not None else optimizer_states(model, levers)
        for parameter in lora.parameters(model) if sink is None else []:
            parameter.grad = torch.zeros_like(parameter)  # as from the second of several passes on
        live.reset()
        fixed = live.now
        ids = torch.zeros(tokens, dtype=torch.int64, device=CARD)
        with flop_counter() as counter:
            live.phase = "forward"
            hidden = engine.hidden(ids, lengths)
            live.phase = "loss"
            learnt = hidden[torch.arange(tokens, device=CARD)] if run.gathered else hidden
            loss = tiled_losses(learnt, engine.head, ids, levers.loss_chunk).sum()
            if run.anchored:
                with lora.disabled(model), torch.no_grad():
                    base = engine.hidden(ids, lengths)
                loss = loss + tiled_divergence(
                    hidden[torch.arange(tokens, device=CARD)], base, engine.head, levers.loss_chunk // 2
                )
                del base
            del hidden, learnt
            live.phase = "backward"
            loss.backward()  # type: ignore[no-untyped-call]
        counts = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
        attention = sum(count for name, count in counts.items() if "attention" in name)
        del states
        return {
            "tracked_bytes": live.peak, "tracked_fixed_bytes": fixed, "at": live.at,
            "flops_per_token": (counter.get_total_flops() - attention / 2) / tokens,
            "matrix_flops_per_token": (counter.get_total_flops() - attention) / tokens,
        }  # fmt: skip


def documents(tokens: int, length: int | None) -> tuple[int, ...]:
    """Documents of one length, the last with what is left."""
    whole, rest = divmod(tokens, length or tokens)
    return (length or tokens,) * whole + ((rest,) if rest else ())


def flop_counter() -> FlopCounterMode:
    """torch's counter, which knows no in-place product by itself."""

    def in_place(_self: Any, a: Any, b: Any, out_shape: Any = None, **_: Any) -> int:
        return 2 * a[0] * a[1] * b[1]  # type: ignore[no-any-return]

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})


def optimizer_states(model: Llama, levers: Levers) -> list[torch.Tensor]:
    """The moments, as the optimizer will hold them."""
    held = []
    for parameter in lora.parameters(model):
        for _ in range(2):
            if levers.optimizer == "adamw":
                held.append(torch.empty_like(parameter))
            else:
                held.append(torch.empty_like(parameter, dtype=torch.uint8))
                held.append(torch.empty(parameter.numel() // 256, device=CARD))
    return held


def row(name: str, levers: Levers, run: Run, document: int | None = None) -> dict[str, Any]:
    """Predicted beside tracked; `document` is the length of each (None: one fills the pass)."""
    lengths = documents(run.tokens, document)
    run = replace(run, documents=len(lengths))
    predicted = ledger(run, levers)
    found = track(run, levers, lengths)
    return {
        "plan": name, "scheme": run.scheme, "kernels": run.kernels, "tokens": run.tokens, "document": lengths[0],
        "predicted_bytes": predicted.peak, "host_bytes": predicted.host, "moment": predicted.moment, **found,
        "times_n": found["flops_per_token"] / matrix_weights(run),
        "predicted_times_n": speed(run, levers, CARDS["rtx-4060"], document).times_n, "levers": asdict(levers),
    }  # fmt: skip


PEER = memory_peer.NAME


def peer(tokens: int) -> dict[str, Any]:
    """The same step as the field's usual stack does it."""
    found = memory_peer.track(LLAMA_3_8B, tokens, ADAPTER.r)
    weights = matrix_weights(Run(config=LLAMA_3_8B, lora=ADAPTER, tokens=tokens))
    return {"plan": PEER, "tokens": tokens, **found, "times_n": found["flops_per_token"] / weights}


def plans(run: Run) -> dict[str, Levers]:
    """The settings whose ledger is put to the test on this pass."""
    card, tokens = CARDS["rtx-4060"], run.tokens
    found = {"leanest": leanest(run, card).levers} if tokens <= 8192 else {}
    for ram in (32, 64):
        plan = best(run, Budget(8 * GIB, ram * GIB), card)
        if plan is not None and plan.levers not in found.values():
            found[f"best of 8 GB, {ram} GB host"] = plan.levers
    plain = Levers(layers=all_layers("recompute", LLAMA_3_8B.layers))
    if tokens <= 8192:
        found["everything on the card, recomputed"] = plain
    if tokens <= 2048:
        found["everything kept"] = replace(plain, layers=all_layers("keep", LLAMA_3_8B.layers))
        found["int8 head, inputs on the host"] = replace(plain, inputs="host", head="int8", head_tile=16_384)
    return found


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--tokens", type=int, nargs="*", default=[2048, 8192, 16_384, 32_768, 65_536, 102_400])
    parser.add_argument("--no-peer", action="store_true", help="leave transformers + PEFT out")
    parser.add_argument("--frozen-rank", type=int, default=0, help="rank of a frozen adapter under the one that learns")
    parser.add_argument("--document", type=int, nargs="*", default=[], help="also in documents of this length, each")
    parser.add_argument("--kernels", nargs="*", choices=["on", "off"], default=["on", "off"], help="our kernels")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows, rank = [], options.frozen_rank
    ranks = ((rank,) * len(PROJECTIONS),) * LLAMA_3_8B.layers if rank else ()
    for tokens, kernel in itertools.product(options.tokens, options.kernels):
        run = Run(config=LLAMA_3_8B, lora=ADAPTER, tokens=tokens, frozen=ranks, kernels=kernel == "on")
        for (name, levers), document in itertools.product(plans(run).items(), (None, *options.document)):
            rows.append(row(name, levers, run, document))
            found = rows[-1]
            print(
                f"{tokens:>7} {name:<36} kernels {kernel:<3} in documents of {found['document']:>6,}: "
                f"predicted {found['predicted_bytes'] / GIB:7.3f}  tracked {found['tracked_bytes'] / GIB:7.3f} GiB "
                f"({100 * (found['predicted_bytes'] / found['tracked_bytes'] - 1):+.2f} %)  host {found['host_bytes'] / GIB:5.1f}  "
                f"{found['times_n']:.2f} N, predicted {found['predicted_times_n']:.2f}",
                flush=True,
            )
        if not options.no_peer and tokens <= 8192 and kernel == options.kernels[-1]:
            rows.append(peer(tokens))
            print(
                f"{tokens:>7} {rows[-1]['plan']:<36} tracked {rows[-1]['tracked_bytes'] / GIB:7.3f} GiB  {rows[-1]['times_n']:.2f} N"
            )
    within = [r for r in rows if r["tracked_bytes"] <= 7.5 * GIB and r["plan"] != PEER]
    record = {
        **environment(), "command": " ".join(sys.argv), "n": 1, "rows": rows,
        "longest_context_tokens": max((r["tokens"] for r in within if r["host_bytes"] <= 29 * GIB), default=0),
        "longest_context_tokens_64gb_host": max((r["tokens"] for r in within if r["host_bytes"] <= 61 * GIB), default=0),
    }  # fmt: skip
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
