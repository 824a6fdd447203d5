"""What each way of keeping the weights costs SmolLM2 in bits per byte of Italian it has not been trained on here.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from stilnovo.benchmarks.task import Draw
from stilnovo.compare.variants import scheme_costs
from stilnovo.model.load import open_model
from stilnovo.runlog import environment, write_atomic
from stilnovo.scoring.perplexity import held_out_texts
from stilnovo.spec import ModelSpec


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", default="sample", help="text, JSONL or Parquet")
    parser.add_argument("--documents", type=int, default=20, help="drawn by seed")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model, tokenizer = open_model(ModelSpec(options.model, quantization="none"))
    costs = scheme_costs(model, tokenizer, held_out_texts([options.text], Draw(options.documents)))
    for cost in costs:
        bits = cost.bits_per_byte
        print(
            f"{cost.scheme:<6}{cost.bits_per_weight:>7.3f} bits a weight {cost.bytes / 2**20:>8.1f} MiB   "
            f"{bits.value:.4f} bits per byte [{bits.low:.4f}, {bits.high:.4f}]   +{bits.value - costs[0].bits_per_byte.value:.4f}"
        )
    record = {
        **environment(),
        "command": " ".join(sys.argv),
        "n": costs[0].bits_per_byte.n,
        "results": [asdict(c) for c in costs],
    }
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
