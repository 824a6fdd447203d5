"""Run a training: from a recipe to a trained adapter in a run folder.

A run folder holds manifest.json, recipe.yaml, held_out.jsonl, metrics.jsonl, checkpoints/step-N/ and, at the end,
adapter/ (PEFT) and train.json; with a guard also guard.jsonl, and the base's answers in guard/; with a frozen adapter its
copy in frozen_adapter/, and adapter/ is then the sum of both. Observers add theirs: report.html, status.json, trackers.json.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stilnovo.data.shards import HELD_OUT
from stilnovo.errors import StilnovoError, is_out_of_memory
from stilnovo.folderlock import FolderLock
from stilnovo.model import lora, memory
from stilnovo.model.budget import admit, use_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama
from stilnovo.model.qat import make_aware
from stilnovo.plan.ledger import MemoryItem, ledger
from stilnovo.plan.shape import lora_parameters
from stilnovo.progress import bytes_text
from stilnovo.recipe import Recipe
from stilnovo.runlog import RunFolder, write_atomic
from stilnovo.spec import ModelSpec
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train import planning
from stilnovo.train.callback import EvaluationCallback
from stilnovo.train.corpus import Corpus, HeldOutRows
from stilnovo.train.held_out import HeldOutEvaluation
from stilnovo.train.loop import Trainer, TrainResult
from stilnovo.train.objectives.base import Objective
from stilnovo.train.observers import Observer, Observers
from stilnovo.train.optimizer import warmup_note
from stilnovo.train.preparation import Preparation
from stilnovo.train.stage import keep_frozen
from stilnovo.train.trackers import trackers

log = logging.getLogger(__name__)
#: Makes the evaluation callback of a run from what was opened for it.
MakeCallback = Callable[[Llama, Tokenizer, Corpus], EvaluationCallback]
#: Answers prompts with the model as it is (`stilnovo.generate.generator.sample_answers`).
Sampler = Callable[..., list[dict[str, str]]]


class TrainingRun:
    """A recipe opened on a run folder: model, adapter, data and trainer, ready to go.

    The folder is locked until `train` ends, unless the caller holds its lock (`locked`).

    Attributes:
        plan: What the step is done by; None where torch's autograd does it.
        measured: Figures of the held-out rows under the trained model, and a line that says them; None before, and for texts.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, *, resume: bool = False, make_callback: MakeCallback | None = None,
        sampler: Sampler | None = None, observers: Sequence[Observer] = (), locked: bool = False,
    ) -> None:  # fmt: skip
        if recipe.guard.every is not None and make_callback is None:
            raise ValueError("a recipe with a guard needs its callback (stilnovo.forgetting.guard.guard_callback)")
        self._lock = None if locked else FolderLock(folder, "a training")
        try:
            self._begin(recipe, folder, resume, make_callback, sampler, observers)
        except BaseException:
            self._unlock()
            raise

    def _begin(
        self, recipe: Recipe, folder: Path, resume: bool, make_callback: MakeCallback | None, sampler: Sampler | None,
        observers: Sequence[Observer],
    ) -> None:  # fmt: skip
        prepared = Preparation(recipe, folder, resume=resume)
        self.recipe, self.folder = recipe, RunFolder(folder)
        self.shape, self.plan, self.lora = prepared.shape, prepared.plan, prepared.shape.lora
        self.tokenizer, self.objective, self.corpus = prepared.tokenizer, prepared.objective, prepared.corpus
        self.prepared, self._sampler = prepared, sampler
        self.observers = Observers([*observers, *trackers(recipe.train.trackers)])
        self.measured: tuple[dict[str, float], str] | None = None
        self.frozen = None if prepared.frozen is None else keep_frozen(prepared.frozen, folder)
        if self.plan is not None:
            spec, place = _spec(recipe), prepared.device
            admit(
                use_of("train", spec, self.shape.config, place, self.plan.run.tokens), spec, prepared.budget, self.plan
            )
        log.info("Opening %s …", recipe.model.name)
        self._program = memory.resident()
        self.model = self._open()
        self._attach()
        self.callback = None if make_callback is None else make_callback(self.model, self.tokenizer, self.corpus)
        self.trainer = self._trainer()
        if self.trainer.dtype != self.model.dtype:
            log.info(
                "Steps compute in bf16; the model stays as it is for evaluations (STILNOVO_CPU=fp32 chooses fp32)."
            )
        if text := warmup_note(self.trainer.steps, recipe.train):
            log.warning(text)
        if resume:
            self.trainer.resume()
        write_held_out(folder, self.objective, self.corpus.held_out)
        write_atomic(folder / "recipe.yaml", recipe.to_yaml())
        self.folder.write_manifest(
            recipe=recipe.model_dump(mode="json"), data_sha256=self.corpus.sha256, trainable_parameters=self.trainable,
            total_parameters=self.model.config.parameters(), documents=len(self.corpus.packed.documents),
            held_out_documents=len(self.corpus.held_out), tokens_per_epoch=self.corpus.packed.tokens, levers=self._levers(),
            packs=len(self.corpus.packed.packs), remarks=self.corpus.remarks, steps=self.trainer.steps,
            computes_in=planning.type_name(self.trainer.dtype),
        )  # fmt: skip

    def _open(self) -> Llama:
        return open_llama(_spec(self.recipe), on_host=None if self.plan is None else self.plan.levers.stays_on_host)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _trainer(self) -> Trainer:
        return Trainer(
            self.model, self.corpus.packed, self.recipe.train, self.folder, loss=self.objective.loss(), plan=self.plan,
            callback=self.callback, held_out=self._evaluation(), observers=self.observers,
            program=self._program,
        )  # fmt: skip

    def _evaluation(self) -> HeldOutEvaluation:
        """The evaluations of the run; samples need all weights where they were opened."""
        settings, sample = self.recipe.train, None
        if settings.samples and self._sampler is not None:
            if self.plan is not None and self.plan.levers.moves_weights:
                log.warning("No samples are made: the plan keeps a part of the model in host memory.")
            else:
                sample = partial(
                    self._sampler,
                    tokenizer=self.tokenizer,
                    prompts=settings.samples,
                    max_new_tokens=settings.sample_tokens,
                )
        return HeldOutEvaluation(self.prepared.schedule.due, self.prepared.held_out, settings.patience, sample)

    def _attach(self) -> None:
        if self.frozen is not None:
            lora.attach_frozen(self.model, self.frozen)
        lora.attach(self.model, self.lora, self.recipe.train.seed)
        aware = self.recipe.lora.quantization_aware
        if aware != "none":
            make_aware(self.model, 8 if aware == "int8" else 4)

    @property
    def trainable(self) -> int:
        """Number of trainable parameters."""
        return lora_parameters(self.model.config, self.lora)

    def _levers(self) -> dict[str, object] | None:
        return None if self.plan is None else asdict(self.plan.levers)

    def train(self) -> tuple[TrainResult, list[MemoryItem]]:
        """Train to the end; writes adapter/ and train.json and returns the result and the memory ledger.

        The held-out rows are evaluated then (`measured`), when everything else is written already.
        When the machine runs out of memory, the run goes on once with the next leaner plan, from the last finished step.
        """
        self.observers.begin(self)
        status = "failed"
        try:
            result, lines = self._train()
            status = "stopped early" if self.trainer.ended else "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            self.observers.end(self, status)
            self._unlock()
        return result, lines

    def _train(self) -> tuple[TrainResult, list[MemoryItem]]:
        try:
            result = self.trainer.run_all()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._lean(error)
            result = self.trainer.run_all()
        adapter = self.folder.path / "adapter"
        lines = self._ledger(result.peak_memory_bytes)
        with self.trainer.way_on():  # the disk may be full by now
            lora.save(self.model, self.lora, adapter, self.recipe.model.name, frozen=self.frozen)
            self._write(result, lines)
        try:
            self.measured = self.objective.evaluate(self.trainer.passes, self.corpus.held_out, self.tokenizer)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "Stopped while the held-out rows were evaluated. The training is finished and its adapter written; "
                "--resume evaluates them again."
            ) from None
        if self.measured is not None:
            self._write(result, lines)
        return result, lines

    def figures(self, result: TrainResult) -> dict[str, Any]:
        """Figures of the finished training, as plain data."""
        known = asdict(result)
        metrics = known.pop("metrics")
        return {
            **known, **metrics, "predicted_peak_bytes": None if self.plan is None else self.plan.peak,
            "guard": self.trainer.guard_summary(), "early_stopping": self.trainer.held_out.summary(self.trainer.adapter_step),
            "held_out": None if self.measured is None else self.measured[0],
        }  # fmt: skip

    def _write(self, result: TrainResult, lines: list[MemoryItem]) -> None:
        memory_lines = [
            {"item": item.name, "predicted": item.size, "measured": item.measured, "note": item.note} for item in lines
        ]
        self.folder.write_json("train.json", self.figures(result) | {"memory": memory_lines, "levers": self._levers()})

    def _lean(self, error: BaseException) -> None:
        """Reload everything under the next leaner plan, and continue from the last finished step."""
        device = self.model.device
        plan = (
            None if self.plan is None else planning.leaner(self.plan, self.recipe.train, device, self.prepared.budget)
        )
        if self.plan is None or plan is None:
            raise StilnovoError(
                "The machine ran out of memory, and no leaner plan is left.",
                str(error).splitlines()[0][:200],
                "Lower data.pack_tokens or train.batch_packs; `stilnovo plan` shows what fits. --resume continues.",
            ) from error
        log.warning(
            "Out of memory at step %d: going on with a leaner plan (%s instead of %s).",
            self.trainer.step + 1, bytes_text(plan.peak), bytes_text(self.plan.peak),
        )  # fmt: skip
        state = self.trainer.state()
        del self.trainer, self.model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        self.plan = plan
        self.model = self._open()
        self._attach()
        self.trainer = self._trainer()
        self.trainer.restore(state)

    def _ledger(self, peak: int) -> list[MemoryItem]:
        """The plan's items beside what each was; `peak` is the most that was held at once."""
        trainer = self.trainer
        measured = memory.measure(self.model, trainer.optimizer) | {"gradients": trainer.gradient_bytes}
        if self.plan is not None and trainer.engine is not None:
            measured["saved for backward"] = trainer.engine.saved_bytes
            items = self.plan.ledger.items
            lasting = sum(measured.get(item.name, 0) for item in items if item.place == "card")
            measured["peak inside the step"] = max(0, peak - lasting)
        else:  # there is no plan; what lasts can be weighed all the same
            lasting_items = ledger(replace(self.shape, tokens=1), trainer.levers).items
            items = tuple(item for item in lasting_items if item.name in measured)
        return [
            replace(item, name=f"{item.name} (host)")
            if item.place == "host"
            else replace(item, measured=measured.get(item.name))
            for item in items
        ]


def _spec(recipe: Recipe) -> ModelSpec:
    return ModelSpec(recipe.model.name, quantization=recipe.model.quantization, device=recipe.model.device)


def write_held_out(folder: Path, objective: Objective, rows: HeldOutRows) -> None:
    """Write `held_out.jsonl` atomically; no file where no row is held out."""
    if rows:
        lines = (json.dumps(objective.held_out_row(row), ensure_ascii=False) + "\n" for row in rows)
        write_atomic(folder / HELD_OUT, "".join(lines))
