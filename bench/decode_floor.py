"""What a written token of the 8B shape costs a card by arithmetic: bytes, launches, milliseconds; nothing runs and nothing is timed.

The step is the writer's own, on shapes alone (the device `meta` plays the card). Each operation reads its inputs once and writes its
outputs once; attention reads the keys and values that are there, a copy into the cache moves what it writes. A forecast and no
measurement: bytes at the speed that the table of cards has for reading (90 % of the nominal one), and `--gap-us` between two kernels.
Where the host launches each of them, it takes `--launch-us`, and the slower of host and card counts. Both are assumed.

Ways as `STILNOVO_CARD` names them: `plain` dequantises every matrix, as all commits did before; `fused` and `captured` are the same
operations, launched one by one or as a graph. Sampling is in it, but under `plain` the host's part of it is not. `STILNOVO_KERNELS=1`
counts our kernels in place of torch's element-wise operations.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from memory import CARD, empty_model
from op_costs import OpCosts
from stilnovo.generate.card_writer import CardWriter
from stilnovo.generate.kv_cache import KVCache
from stilnovo.generate.sampling import Sampling
from stilnovo.model import lora
from stilnovo.plan.cards import CARDS
from stilnovo.plan.shape import LLAMA_3_8B, LlamaConfig
from stilnovo.runlog import environment

#: What one operation of torch launches on a card where it is more than one kernel.
_KERNELS = {
    "aten.topk": 4, "aten._flash_attention_forward": 5, "aten.cumsum": 2, "aten.logsumexp": 5,
    "aten.argmax": 2, "aten._fused_rms_norm": 1,
}  # fmt: skip


class Traffic(OpCosts):
    """Bytes and launches of a step; of a cache `seen` tokens of each text are read, besides its own."""

    def __init__(self, config: LlamaConfig, texts: int, seen: int) -> None:
        super().__init__([seen] * texts)
        self._cached = 2 * texts * (seen + 1) * config.kv_heads * config.head_dim * 2

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = len(self.ops)
        result = super().__torch_dispatch__(function, types, args, kwargs)
        if len(self.ops) > known:
            op, inputs = self.ops[-1], [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            moved = op.moved
            if op.name.startswith(
                ("aten.index_copy", "aten.index_put")
            ):  # what is written, not what it is written into
                moved = 2 * min(x.nbytes for x in inputs if x.is_floating_point())
            elif "attention" in op.name:
                moved = self._cached + 2 * args[0].nbytes
            self.ops[-1] = replace(op, moved=moved)
        return result

    @property
    def bytes(self) -> int:
        """Bytes that are read and written."""
        return sum(op.moved for op in self.ops)

    @property
    def launches(self) -> int:
        """Kernels."""
        return sum(_KERNELS.get(op.name.rpartition(".")[0], 1) for op in self.ops)

    def largest(self, count: int) -> dict[str, int]:
        """The operations that move most."""
        moved: Counter[str] = Counter()
        for op in self.ops:
            moved[op.name] += op.moved
        return dict(moved.most_common(count))


def token(config: LlamaConfig, way: str, texts: int, seen: int, adapter: bool) -> Traffic:
    """One step of so many texts that have `seen` tokens each."""
    with torch.inference_mode():
        model = empty_model(config).eval()
        lora.set_enabled(model, adapter)
        if way == "plain":
            cache = KVCache(config, texts, seen + 64, CARD, torch.bfloat16)
            cache.lengths = [seen] * texts
            with Traffic(config, texts, seen) as traffic:
                tokens = torch.zeros(texts, dtype=torch.int64, device=CARD)
                model.logits(model.hidden(tokens, cache.expect([1] * texts), cache))
            return traffic
        writer = CardWriter(model, None)
        with writer.texts([Sampling()] * texts, seen + 64) as on_card, Traffic(config, texts, seen) as traffic:
            on_card._step()
        return traffic


def forecasts(traffic: Traffic, way: str, texts: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds a token and tokens a second on each card."""
    found = {}
    for name in options.cards:
        memory = traffic.bytes / CARDS[name].memory_speed
        seconds = memory + traffic.launches * options.gap_us * 1e-6
        if way != "captured":
            seconds = max(seconds, traffic.launches * options.launch_us * 1e-6)
        found[name] = {
            "memory_ms": round(memory * 1e3, 2), "ms": round(seconds * 1e3, 2), "tokens_per_second": round(texts / seconds, 1)
        }  # fmt: skip
    return found


def main() -> None:
    """A table, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--seen", type=int, default=1000, help="tokens of each text before this one")
    parser.add_argument("--cards", nargs="*", default=["rtx-4060", "h200"])
    parser.add_argument("--launch-us", type=float, default=10.0, help="the host's time for one launch, assumed")
    parser.add_argument("--gap-us", type=float, default=1.5, help="the card's time between two kernels, assumed")
    options = parser.parse_args()
    rows = []
    for texts in options.texts:
        for adapter in (False, True):
            for way in ("plain", "fused", "captured"):
                traffic = token(LLAMA_3_8B, way, texts, options.seen, adapter)
                cards = forecasts(traffic, way, texts, options)
                rows.append({
                    "way": way, "texts": texts, "adapter": adapter, "bytes": traffic.bytes,
                    "launches": traffic.launches, "cards": cards,
                    "largest": traffic.largest(3),
                })  # fmt: skip
                times = "  ".join(
                    f"{n} {f['ms']:7.2f} ms {f['tokens_per_second']:7.1f} tok/s" for n, f in cards.items()
                )
                print(
                    f"{way:<9}{texts:>2} texts {'adapter' if adapter else 'base':<8}{traffic.bytes / 1e9:6.2f} GB "
                    f"{traffic.launches:>5} launches  {times}  (forecast)"
                )
    assumed = {"launch_us": options.launch_us, "gap_us": options.gap_us, "seen": options.seen}
    print(json.dumps({**environment(), "forecast": True, "assumed": assumed, "rows": rows}))


if __name__ == "__main__":
    main()
