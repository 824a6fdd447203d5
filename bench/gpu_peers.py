"""The same step by TRL + PEFT + bitsandbytes and by Unsloth, where they are installed.

Their checkpoint is synthetic and packed (5.6 GB of 8B, made on the card); `peers.py` runs them as it does for `training.py`.

Needs: an environment of its own (README.md).
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_runner import Row

UNSLOTH: dict[str, Row] = {
    "unsloth": {}, "unsloth, offload_layers": {"offload_layers": "auto"},
    "unsloth, offload_layers and tiled MLP": {"offload_layers": "auto", "unsloth_tiled_mlp": True},
}  # fmt: skip


def write_checkpoint(job: Row) -> Iterator[Row]:
    """Write the checkpoint that the peers load."""
    import torch

    from gpu_step import SHAPES
    from stilnovo.trials.trial import half_type
    from synthetic import write

    device = torch.device(job["device"])
    dtype = torch.float32 if device.type == "cpu" else half_type(device)
    folder = write(Path(job["model"]), SHAPES[job["shape"]], dtype, device)
    yield {"bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors"))}


def lengths_of(tokens: int) -> list[int]:
    """The documents of our own step (`gpu_step.documents`), here without importing it: this Python may not have the project."""
    lengths: list[int] = []
    while tokens:
        lengths.append(min(tokens, (700, 150, 1100, 300)[len(lengths) % 4]))
        tokens -= lengths[-1]
    return lengths


def peer(job: Row) -> Iterator[Row]:
    """Steps of one peer: useful tokens a second, the first step not counted."""
    import torch

    import peers

    stream = [
        [(7 * i + 11 * n) % 200 + 3 for i in range(length)] for n, length in enumerate(lengths_of(job["tokens"]))
    ] * job["steps"]
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.json"
        ids.write_text(json.dumps(stream))
        whole: dict[str, Any] = {
            **job, "side": "trl" if job["peer"] == "trl" else "unsloth", "load": UNSLOTH.get(job["peer"], {}), "ids": str(ids),
            "folder": folder, "pack": job["tokens"], "batch": 1, "packs_a_step": 1, "rate": 1e-4,
            "optimizer": "adamw_bnb_8bit", "checkpointing": True, "cuda": job["device"] == "cuda",
            "half": "bfloat16" if half else "float16",
        }  # fmt: skip
        rows = (peers.run_trl if whole["side"] == "trl" else peers.run_unsloth)(whole)
    counted = rows[1:]
    if not counted:
        raise RuntimeError("no counted step")
    yield {
        "peer": job["peer"], "tokens": job["tokens"], "cap_bytes": job["cap"], "peak_bytes": peers.peak_bytes(),
        "tokens_per_second": statistics.median(row["tokens"] / row["seconds"] for row in counted), "n": len(counted),
    }  # fmt: skip
