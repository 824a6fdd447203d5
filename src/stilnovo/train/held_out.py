"""The held-out rows: written to `held_out.jsonl` in the shape they are trained from, and evaluated after training.

`stilnovo evaluate --text` and `stilnovo sweep --chat` read the file, and so does `--data` of another training. The
evaluation runs through the training objective itself, without gradients and without dropout.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import torch

from stilnovo.data.batches import BatchStream
from stilnovo.data.packing import PackedCorpus
from stilnovo.model.llama import evaluating
from stilnovo.progress import Progress
from stilnovo.recipe import TrainSection
from stilnovo.runlog import write_atomic
from stilnovo.train.corpus import HeldOutRows
from stilnovo.train.objectives.base import Objective
from stilnovo.train.passes import BatchLoss, Parts, Passes, added, means

FILE = "held_out.jsonl"


def write(folder: Path, objective: Objective, rows: HeldOutRows) -> None:
    """Write `held_out.jsonl`, whole or not at all; nothing where no row is held out."""
    if rows:
        lines = (json.dumps(objective.held_out_row(row), ensure_ascii=False) + "\n" for row in rows)
        write_atomic(folder / FILE, "".join(lines))


def figures_of(passes: Passes, loss: BatchLoss, corpus: PackedCorpus, settings: TrainSection) -> dict[str, float]:
    """What the loss reports of one pass over a corpus: means by name, and `n`, over how many."""
    stream = BatchStream(corpus, settings.batch_packs, settings.seed)
    count = stream.batches_per_epoch()
    sums: Parts = {"loss": (0.0, 0)}
    with torch.no_grad(), evaluating(passes.model), Progress("held-out", count) as progress:
        for done, batch in enumerate(itertools.islice(stream, count), 1):
            sums = added(sums, loss(passes, batch)[1])
            progress.update(done, f"{done:,} of {count:,} batches")
    return {"n": sums["loss"][1], **means(sums)}
