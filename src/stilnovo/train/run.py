"""From a recipe to a trained adapter in a run folder: what the command, the demo and the tests call.

A run folder holds manifest.json, recipe.yaml, held_out.jsonl (what was kept aside), metrics.jsonl, checkpoints/step-N/
and, at the end, adapter/ (PEFT) and train.json; with a guard also guard.jsonl, and the base's answers in guard/.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from stilnovo.errors import InputError, StilnovoError
from stilnovo.hub import find_model
from stilnovo.model import lora, memory
from stilnovo.model.llama import Llama
from stilnovo.model.load import choose_device, open_model
from stilnovo.model.qat import make_aware
from stilnovo.model.weights import GGUFReader
from stilnovo.plan.choice import Plan
from stilnovo.plan.config import config_from_json
from stilnovo.plan.ledger import ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import adapter_of, lora_parameters
from stilnovo.progress import bytes_text
from stilnovo.recipe import Recipe, load
from stilnovo.runlog import RunFolder, write_atomic
from stilnovo.spec import ModelSpec
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train import held_out, planning
from stilnovo.train.corpus import Corpus, read_corpus
from stilnovo.train.held_out import Measured
from stilnovo.train.loop import Trainer, TrainResult
from stilnovo.train.watch import Watch

#: Makes the watch of a run from what was opened for it; None: nobody watches.
Watcher = Callable[[Llama, Tokenizer, Corpus], Watch]


class TrainingRun:
    """A recipe opened on a run folder: model, adapter, data and trainer, ready to go.

    Attributes:
        measured: What the finished model makes of what was kept aside; None before, and for texts.
    """

    def __init__(self, recipe: Recipe, folder: Path, *, resume: bool = False, watcher: Watcher | None = None) -> None:
        if recipe.guard.every is not None and watcher is None:
            raise ValueError("a recipe with a guard needs its watcher (stilnovo.forgetting.guard.watcher)")
        _check_folder(folder, recipe, resume)
        self.recipe, self.folder = recipe, RunFolder(folder)
        _check_memory(recipe)
        self.model, self.tokenizer = _open(recipe)
        self.lora = adapter_of(recipe.lora, self.model.config.layers)
        self.corpus = read_corpus(_as_begun(folder, recipe) if resume else recipe, self.tokenizer)
        self.measured: Measured | None = None
        if resume:
            _check_data(folder, self.corpus)
        self._attach()
        self.watch = None if watcher is None else watcher(self.model, self.tokenizer, self.corpus)
        self.trainer = Trainer(self.model, self.corpus.packed, recipe.train, self.folder, watch=self.watch)
        if resume:
            self.trainer.resume()
        held_out.write(folder, self.corpus.aside)
        write_atomic(folder / "recipe.yaml", recipe.to_yaml())
        self.folder.write_manifest(
            recipe=recipe.model_dump(mode="json"), data_sha256=self.corpus.sha256, trainable_parameters=self.trainable,
            total_parameters=self.model.config.parameters(), documents=len(self.corpus.packed.documents),
            held_out_documents=self.corpus.kept_aside, tokens_per_epoch=self.corpus.packed.tokens,
            levers=None if self.plan is None else asdict(self.plan.levers),
        )  # fmt: skip

    def _attach(self) -> None:
        lora.attach(self.model, self.lora, self.recipe.train.seed)
        aware = self.recipe.lora.quantization_aware
        if aware != "none":
            make_aware(self.model, 8 if aware == "int8" else 4)

    @property
    def trainable(self) -> int:
        """Parameters that learn."""
        return lora_parameters(self.model.config, self.lora)

    @property
    def plan(self) -> Plan | None:
        """What the step is done by; None on the plain path."""
        return self.trainer.plan

    def train(self) -> tuple[TrainResult, list[memory.MemoryLine]]:
        """Train to the end; writes adapter/ and train.json and returns the result and the memory ledger.

        Conversations or pairs that were kept aside are read then (`measured`), when everything else is written already.
        When the machine runs out of memory, the run goes on once with the next leaner plan, from the last finished step.
        """
        try:
            result = self.trainer.run_all()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            self._lean(error)
            result = self.trainer.run_all()
        lora.save(self.model, self.lora, self.folder.path / "adapter", self.recipe.model.name)
        lines = self._ledger()
        self._write(result, lines)
        self._measure()
        if self.measured is not None:
            self._write(result, lines)
        return result, lines

    def _write(self, result: TrainResult, lines: list[memory.MemoryLine]) -> None:
        self.folder.write_json(
            "train.json",
            {
                **asdict(result), "memory": [asdict(line) for line in lines],
                "predicted_peak_bytes": None if self.plan is None else self.plan.peak,
                "levers": None if self.plan is None else asdict(self.plan.levers),
                "guard": None if self.trainer.watching is None else self.trainer.watching.summary(),
                "held_out": None if self.measured is None else asdict(self.measured),
            },
        )  # fmt: skip

    def _measure(self) -> None:
        trainer, aside = self.trainer, self.corpus.aside
        try:
            self.measured = held_out.measure(trainer.passes, trainer.objective, aside, self.tokenizer, self.recipe)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "Stopped while what was kept aside was read. The training is finished and its adapter written; "
                "--resume reads it again."
            ) from None

    def _lean(self, error: BaseException) -> None:
        """Load everything again under the next leaner plan, and go on from the last finished step."""
        device, train = self.model.device, self.recipe.train
        plan = None if self.plan is None else planning.leaner(self.plan, train, device)
        if plan is None:
            raise StilnovoError(
                "The machine ran out of memory, and no leaner plan is left.",
                str(error).splitlines()[0][:200],
                "Lower data.pack_tokens or train.batch_packs; `stilnovo plan` shows what fits. --resume continues.",
            ) from error
        logging.getLogger(__name__).warning(
            "Out of memory at step %d: going on with a leaner plan (%s instead of %s).",
            self.trainer.step + 1, bytes_text(plan.peak), bytes_text(self.plan.peak if self.plan else 0),
        )  # fmt: skip
        state = self.trainer.state()
        del self.trainer, self.model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        self.model, _ = _open(self.recipe)
        self._attach()
        self.trainer = Trainer(self.model, self.corpus.packed, train, self.folder, plan, self.watch)
        self.trainer.restore(state)

    def _ledger(self) -> list[memory.MemoryLine]:
        measured = memory.measure(self.model, self.trainer.optimizer)
        if self.plan is not None and self.trainer.engine is not None:
            measured["saved for backward"] = self.trainer.engine.saved_bytes
            items = self.plan.ledger.items
        else:  # the plain path has no plan; what lasts can be weighed all the same
            run = planning.run_of(self.model, 1)
            kind = planning.optimizer_of(self.recipe.train, self.model.device)
            levers = Levers(layers=all_layers("keep", run.config.layers), optimizer=kind)
            items = tuple(item for item in ledger(run, levers).items if item.name in measured)
        return [
            memory.MemoryLine(
                f"{item.name} (host)" if item.place == "host" else item.name,
                item.size,
                measured.get(item.name) if item.place == "card" else None,
                item.note,
            )
            for item in items
        ]


def _check_memory(recipe: Recipe) -> None:
    """Refuse what cannot fit before gigabytes are read.

    Raises:
        InputError: with what would make it fit.
    """
    files, device = find_model(recipe.model.name), choose_device(recipe.model.device)
    config = GGUFReader(files.path).config if files.kind == "gguf" else config_from_json(files.path / "config.json")
    tokens = recipe.data.pack_tokens * recipe.train.batch_packs
    run = planning.shape_of_recipe(
        config, adapter_of(recipe.lora, config.layers), recipe.model.quantization, tokens, device
    )
    plain = recipe.train.engine == "plain" or recipe.lora.dropout or recipe.lora.quantization_aware != "none"
    if not plain:
        planning.choose_plan(run, recipe.train, device)


def _out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _open(recipe: Recipe) -> tuple[Llama, Tokenizer]:
    return open_model(ModelSpec(recipe.model.name, quantization=recipe.model.quantization, device=recipe.model.device))


def _as_begun(folder: Path, recipe: Recipe) -> Recipe:
    # Runs on conversations and pairs once learnt all of them whatever data.held_out said; begun so, they go on so.
    path = folder / "manifest.json"
    noted = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    whole = recipe.train.task != "text" and noted.get("held_out_documents") == 0
    return recipe.changed({"data.held_out": 0}) if whole else recipe


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
        # Read as a recipe, so that keys which did not exist when the run began have their defaults.
        before = load(folder / "recipe.yaml").model_dump(mode="json")
        now = recipe.model_dump(mode="json")
        changed = [f"{s}.{k}" for s in now for k in now[s] if before.get(s, {}).get(k) != now[s][k]]
        if changed:
            raise InputError(
                "The recipe differs from the one this run began with.",
                f"Changed: {', '.join(changed)}",
                "Resume with the same settings.",
            )
