"""From a recipe to a trained adapter in a run folder: what the command, the demo and the tests call.

A run folder holds manifest.json, recipe.yaml, metrics.jsonl, checkpoints/step-N/ and, at the end, adapter/ (PEFT) and
train.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stilnovo.data.packing import PackedCorpus, pack
from stilnovo.data.sources import Document, read_documents, training_text
from stilnovo.errors import InputError
from stilnovo.model import lora, memory
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_model
from stilnovo.plan.shape import LoraConfig, lora_parameters
from stilnovo.recipe import DataSection, LoraSection, Recipe
from stilnovo.runlog import RunFolder, write_atomic
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train.loop import Trainer, TrainResult, batch_loss


@dataclass(frozen=True)
class Corpus:
    """Documents to learn from, packed, and documents kept aside for measuring."""

    packed: PackedCorpus
    held_out: tuple[str, ...]
    sha256: str


def lora_config(section: LoraSection) -> LoraConfig:
    """The adapter that a recipe describes."""
    return LoraConfig(section.r, section.alpha, section.dropout, section.rslora, section.projections)


def split(documents: Sequence[Document], held_out: float, seed: int) -> tuple[list[Document], list[Document]]:
    """Documents to learn from and documents kept aside, drawn by seed; at least one of each when both are wanted."""
    kept_aside = round(held_out * len(documents))
    if held_out and len(documents) > 1:
        kept_aside = min(max(1, kept_aside), len(documents) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(documents))[:kept_aside].tolist())
    learnt = [d for i, d in enumerate(documents) if i not in chosen]
    return learnt, [d for i, d in enumerate(documents) if i in chosen]


def read_corpus(section: DataSection, tokenizer: Tokenizer, seed: int) -> Corpus:
    """Read, split, tokenise and pack what the recipe names."""
    documents = read_documents(section.paths, section.max_documents)
    learnt, aside = split(documents, section.held_out, seed)
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.text.encode())
    packed = pack([tokenizer.document(training_text(d)) for d in learnt], section.pack_tokens)
    return Corpus(packed, tuple(training_text(d) for d in aside), digest.hexdigest())


class TrainingRun:
    """A recipe opened on a run folder: model, adapter, data and trainer, ready to go."""

    def __init__(self, recipe: Recipe, folder: Path, *, resume: bool = False) -> None:
        _check_folder(folder, recipe, resume)
        self.recipe, self.folder = recipe, RunFolder(folder)
        self.model, self.tokenizer = _open(recipe)
        self.corpus = read_corpus(recipe.data, self.tokenizer, recipe.train.seed)
        if resume:
            _check_data(folder, self.corpus)
        self.lora = lora_config(recipe.lora)
        lora.attach(self.model, self.lora, recipe.train.seed)
        self.trainer = Trainer(self.model, self.corpus.packed, recipe.train, self.folder)
        if resume:
            self.trainer.resume()
        write_atomic(folder / "recipe.yaml", recipe.to_yaml())
        self.folder.write_manifest(
            recipe=recipe.model_dump(mode="json"), data_sha256=self.corpus.sha256, trainable_parameters=self.trainable,
            total_parameters=self.model.config.parameters(), documents=len(self.corpus.packed.documents),
            held_out_documents=len(self.corpus.held_out), tokens_per_epoch=self.corpus.packed.tokens,
        )  # fmt: skip

    @property
    def trainable(self) -> int:
        """Parameters that learn."""
        return lora_parameters(self.model.config, self.lora)

    def train(self) -> tuple[TrainResult, list[memory.MemoryLine]]:
        """Train to the end; writes adapter/ and train.json and returns the result and the memory ledger."""
        kept = self._measure_kept()
        result = self.trainer.run_all()
        lora.save(self.model, self.lora, self.folder.path / "adapter", self.recipe.model.name)
        lines = self._ledger(kept)
        self.folder.write_json("train.json", {**asdict(result), "memory": [asdict(line) for line in lines]})
        return result, lines

    def _measure_kept(self) -> int:
        # The first batch of an epoch, read without moving the stream or the random state of dropout.
        place = self.trainer.stream.state()
        batch = next(iter(self.trainer.stream))
        self.trainer.stream.restore(place)
        self._batch_tokens = batch.tokens.numel()
        import torch

        with torch.random.fork_rng():
            return memory.measure_kept(self.model, lambda: batch_loss(self.model, batch, self.recipe.train.loss_chunk))

    def _ledger(self, kept: int) -> list[memory.MemoryLine]:
        train = self.recipe.train
        shape = memory.TrainingShape(
            self._batch_tokens,
            self.model.dtype.itemsize,
            train.gradient_checkpointing,
            train.loss_chunk,
            train.optimizer == "adamw8bit",
        )
        measured = memory.measure(self.model, self.trainer.optimizer, kept)
        predicted = memory.predict(self.model.config, self.recipe.model.quantization, self.lora, shape)
        return [memory.MemoryLine(item, size, measured.get(item), text) for item, size, text in predicted]


def _open(recipe: Recipe) -> tuple[Llama, Tokenizer]:
    return open_model(recipe.model.name, quantization=recipe.model.quantization, device=recipe.model.device)


def _check_data(folder: Path, corpus: Corpus) -> None:
    # The same names may hold other texts by now; the position in the data would then mean something else.
    path = folder / "manifest.json"
    noted = json.loads(path.read_text(encoding="utf-8")).get("data_sha256") if path.is_file() else None
    if noted is not None and noted != corpus.sha256:
        raise InputError(
            "The data differ from those this run began with.",
            f"sha256 {corpus.sha256[:12]}, was {noted[:12]}.",
            "Put the old files back, or start anew in another folder (--out).",
        )


def _check_folder(folder: Path, recipe: Recipe, resume: bool) -> None:
    # Before anything is loaded: a run must never silently overwrite another.
    begun = (folder / "metrics.jsonl").exists()
    if begun and not resume:
        raise InputError(
            f"{folder} holds a run already.", "It has metrics.", "Continue it with --resume, or choose another --out."
        )
    if resume and not (folder / "recipe.yaml").exists():
        raise InputError(f"There is no run to resume in {folder}.", next="Start it without --resume.")
    if resume:
        import yaml

        before: dict[str, Any] = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        now = recipe.model_dump(mode="json")
        changed = [f"{s}.{k}" for s in now for k in now[s] if before.get(s, {}).get(k) != now[s][k]]
        if changed:
            raise InputError(
                "The recipe differs from the one this run began with.",
                f"Changed: {', '.join(changed)}",
                "Resume with the same settings.",
            )
