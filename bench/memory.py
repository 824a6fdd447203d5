"""What gradient checkpointing saves: bytes kept for backward on SmolLM2, predicted from shapes and weighed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from stilnovo.data.batches import Batch
from stilnovo.model import lora, memory
from stilnovo.model.load import open_model
from stilnovo.runlog import environment, write_atomic
from stilnovo.train.loop import batch_loss


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="*", default=[512, 1024])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model, _ = open_model("smollm2", device="cpu")
    adapter = lora.LoraConfig(r=32)
    lora.attach(model, adapter)
    rows = []
    for tokens in options.tokens:
        stream = torch.arange(tokens) % model.config.vocab_size
        batch = Batch(stream, stream.roll(-1), (tokens,))
        for checkpointing in (False, True):
            model.checkpointing = checkpointing
            weighed = memory.measure_kept(model, lambda batch=batch: batch_loss(model, batch, 256))  # type: ignore[misc]
            shape = memory.TrainingShape(tokens, model.dtype.itemsize, checkpointing, 256, True)
            predicted = next(
                size
                for item, size, _ in memory.predict(model.config, "nf4", adapter, shape)
                if item == "kept for backward"
            )
            rows.append({"tokens": tokens, "checkpointing": checkpointing, "predicted": predicted, "weighed": weighed})
            print(
                f"{tokens:>6} tokens  checkpointing {'on ' if checkpointing else 'off'}  predicted {predicted / 2**20:8.1f} MiB  "
                f"weighed {weighed / 2**20:8.1f} MiB  ({100 * (predicted / weighed - 1):+.2f} %)"
            )
    record = {**environment(), "command": " ".join(sys.argv), "n": 1, "results": rows}
    if options.out:
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
