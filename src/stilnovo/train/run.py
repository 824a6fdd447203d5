"""Run a training: from a recipe to a trained adapter in a run folder.

A run folder holds manifest.json, recipe.yaml, held_out.jsonl, metrics.jsonl, checkpoints/step-N/ and, at the end,
adapter/ (PEFT, with its model card) and train.json; with a guard also guard.jsonl, and the base's answers in guard/; with a
frozen adapter its copy in frozen_adapter/, and adapter/ is then the sum of both. Observers add theirs: report.html, status.json,
trackers.json.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from stilnovo.data.inputs import recipe_inputs
from stilnovo.data.shards import HELD_OUT
from stilnovo.errors import StilnovoError, card_fault, is_out_of_memory
from stilnovo.folderlock import FolderLock
from stilnovo.model import card, lora, memory
from stilnovo.model.budget import admit, use_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_llama
from stilnovo.model.qat import make_aware
from stilnovo.modelcard.readme import adapter_card, write_readme
from stilnovo.plan.choice import Plan
from stilnovo.plan.ledger import MemoryItem
from stilnovo.plan.shape import lora_parameters
from stilnovo.progress import bytes_text
from stilnovo.recipe import Recipe
from stilnovo.runlog import RunFolder, write_atomic
from stilnovo.spec import ModelSpec
from stilnovo.text.tokenizer import Tokenizer
from stilnovo.train import checkpoint, planning
from stilnovo.train.callback import EvaluationCallback
from stilnovo.train.corpus import Corpus, HeldOutRows
from stilnovo.train.held_out import HeldOutEvaluation
from stilnovo.train.loop import Trainer
from stilnovo.train.objectives.base import Objective
from stilnovo.train.observers import Observer, Observers
from stilnovo.train.optimizer import warmup_note
from stilnovo.train.outcome import TrainResult
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

    The folder is locked until `train` ends, unless the caller holds its lock (`locked`). What `identity` returns, once everything
    is open, goes into the manifest: whose weights these are.

    Attributes:
        plan: What the step is done by; None where torch's autograd does it.
        step: The plan, or else autograd's step: what the training needs.
        measured: Figures of the held-out rows under the trained model, and a line that says them; None before, and for texts.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, *, resume: bool = False, make_callback: MakeCallback | None = None,
        sampler: Sampler | None = None, observers: Sequence[Observer] = (), locked: bool = False,
        identity: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:  # fmt: skip
        if recipe.guard.every is not None and make_callback is None:
            raise ValueError("a recipe with a guard needs its callback (stilnovo.forgetting.guard.guard_callback)")
        self._lock = None if locked else FolderLock(folder, "a training")
        try:
            self._begin(recipe, folder, resume, make_callback, sampler, observers)
            self._write_manifest(identity())
        except BaseException:
            self._unlock()
            raise

    def _begin(
        self, recipe: Recipe, folder: Path, resume: bool, make_callback: MakeCallback | None, sampler: Sampler | None,
        observers: Sequence[Observer],
    ) -> None:  # fmt: skip
        prepared = Preparation(recipe, folder, resume=resume)
        self.recipe, self.folder, self.device = recipe, RunFolder(folder), prepared.device
        self.shape, self.plan, self.lora = prepared.shape, prepared.plan, prepared.shape.lora
        self.tokenizer, self.objective, self.corpus = prepared.tokenizer, prepared.objective, prepared.corpus
        self.prepared, self._sampler = prepared, sampler
        self._make_callback = make_callback
        self.observers = Observers([*observers, *trackers(recipe.train.trackers)])
        self.measured: tuple[dict[str, float], str] | None = None
        self.frozen = None if prepared.frozen is None else keep_frozen(prepared.frozen, folder)
        self.step = prepared.step
        use = use_of("train", _spec(recipe), self.shape.config, prepared.device, self.step.run.tokens)
        admit(use, _spec(recipe), prepared.budget, self.step)
        if recipe.train.deterministic and prepared.device.type == "cuda":
            card.prepare_repeating()
        log.info("Opening %s …", recipe.model.name)
        self._program = memory.resident()
        self._open()
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

    def _write_manifest(self, identity: Mapping[str, Any]) -> None:
        self.folder.write_manifest(
            recipe=self.recipe.model_dump(mode="json"), data_sha256=self.corpus.sha256, trainable_parameters=self.trainable,
            total_parameters=self.model.config.parameters(), documents=len(self.corpus.packed.documents),
            held_out_documents=len(self.corpus.held_out), tokens_per_epoch=self.corpus.packed.tokens, levers=self._levers(),
            packs=len(self.corpus.packed.packs), remarks=self.corpus.remarks, steps=self.trainer.steps,
            computes_in=planning.type_name(self.trainer.dtype), inputs=recipe_inputs(self.recipe), **identity,
        )  # fmt: skip

    def _open(self) -> None:
        """Open the model by the plan, and everything that holds it."""
        on_host = None if self.plan is None else self.plan.levers.stays_on_host
        self.model = open_llama(_spec(self.recipe), on_host=on_host)
        self._attach()
        make = self._make_callback
        self.callback = None if make is None else make(self.model, self.tokenizer, self.corpus)
        self.trainer = self._trainer()
        memory.free_unused(self.device)  # what was placed otherwise while it was read

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
        result = self._learn()
        adapter = self.folder.path / "adapter"
        lines = self._ledger(result.peak_memory_bytes)
        with self.trainer.way_on():  # the disk may be full by now
            base = self.recipe.model
            lora.save(self.model, self.lora, adapter, base.name, frozen=self.frozen, scheme=base.quantization)
            self._write(result, lines)
        self._evaluate_held_out()
        if self.measured is not None:
            self._write(result, lines)
        return result, lines

    def _write_card(self) -> None:
        """Write the adapter's model card, by what the run folder says by now."""
        base, adapter = self.recipe.model.name, self.folder.path / "adapter"
        recipe = self.recipe if self.frozen is None else self.recipe.changed({"model.adapter": str(self.frozen)})
        write_readme(adapter, adapter_card(self.folder.path, base, recipe, [lora.storage_line(adapter)]))

    def _evaluate_held_out(self) -> None:
        """Evaluate the held-out rows; what stops it says that the training itself is finished."""
        standing = "The training is finished and its adapter written; --resume evaluates them again."
        try:
            self.measured = self.objective.evaluate(self.trainer.passes, self.corpus.held_out, self.tokenizer)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Stopped while the held-out rows were evaluated. {standing}") from None
        except Exception as error:
            fault = card_fault(error)
            if fault is None and not is_out_of_memory(error):
                raise
            what = "Memory ran out" if fault is None else "The card failed"
            found = _first_line(error) if fault is None else f"{fault.what} {fault.found}"
            raise StilnovoError(f"{what} while the held-out rows were evaluated.", found, standing) from error

    def figures(self, result: TrainResult) -> dict[str, Any]:
        """Figures of the finished training, as plain data."""
        known = asdict(result)
        metrics = known.pop("metrics")
        return {
            **known, **metrics, "predicted_peak_bytes": self.step.peak,
            "guard": self.trainer.guard_summary(), "early_stopping": self.trainer.held_out.summary(self.trainer.adapter_step),
            "held_out": None if self.measured is None else self.measured[0],
        }  # fmt: skip

    def _write(self, result: TrainResult, lines: list[MemoryItem]) -> None:
        memory_lines = [
            {"item": item.name, "predicted": item.size, "measured": item.measured, "note": item.note} for item in lines
        ]
        self.folder.write_json("train.json", self.figures(result) | {"memory": memory_lines, "levers": self._levers()})
        self._write_card()

    def _learn(self) -> TrainResult:
        """Train to the last step; once, when memory runs out, under the next leaner plan from the last finished step."""
        try:
            return self.trainer.run_all()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.plan is None:
                raise self._ran_out(error) from error
            memory.let_go(error, self.device)
            found = error.with_traceback(None)
        # Only here: inside the `except` the error's traceback holds the first model while the second is opened.
        step, state = self.trainer.step, self.trainer.state_to_go_on()
        self.close()
        self.step = self.plan = self._leaner(self.plan, step, found)
        try:
            self._open()
            self.trainer.restore(state)
            del state
            return self.trainer.run_all()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise self._ran_out(error) from error

    def _leaner(self, before: Plan, step: int, error: BaseException) -> Plan:
        """The next leaner plan after an out-of-memory error, for the memory that is free now.

        Raises:
            StilnovoError: when none is left.
        """
        plan = planning.leaner(before, self.recipe.train, self.device, self.prepared.budget)
        if plan is None:
            raise self._ran_out(error)
        log.warning(
            "Out of memory at step %d: going on with a leaner plan (%s instead of %s).",
            step + 1, bytes_text(plan.peak), bytes_text(before.peak),
        )  # fmt: skip
        return plan

    def close(self) -> None:
        """Let go of the model and of everything that holds it, and give its memory back."""
        self.trainer.close()
        del self.trainer, self.model, self.callback
        memory.free_unused(self.device)

    def _ran_out(self, error: BaseException) -> StilnovoError:
        stated = "STILNOVO_VRAM" if self.device.type == "cuda" else "STILNOVO_RAM"
        way = checkpoint.way_on(self.folder.path / "checkpoints")
        return StilnovoError(
            "The machine ran out of memory, and no leaner plan is left to try.",
            _first_line(error),
            f"Close other programs, or state less memory than there is ({stated}=6GB), so that a leaner plan is chosen. In a "
            f"new run, lower data.pack_tokens or train.batch_packs; `stilnovo plan` shows what fits.\n{way}",
        )

    def _ledger(self, peak: int) -> list[MemoryItem]:
        """The plan's items beside what each was; `peak` is the most that was held at once."""
        trainer = self.trainer
        measured = memory.measure(self.model, trainer.optimizer) | {"gradients": trainer.gradient_bytes}
        if trainer.engine is not None:
            measured["saved for backward"] = trainer.engine.saved_bytes
        items = self.step.ledger.items
        lasting = sum(measured.get(item.name, 0) for item in items if item.place == "card")
        measured["peak inside the step"] = max(0, peak - lasting)
        return [
            replace(item, name=f"{item.name} (host)")
            if item.place == "host"
            else replace(item, measured=measured.get(item.name))
            for item in items
        ]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _spec(recipe: Recipe) -> ModelSpec:
    return ModelSpec(recipe.model.name, quantization=recipe.model.quantization, device=recipe.model.device)


def write_held_out(folder: Path, objective: Objective, rows: HeldOutRows) -> None:
    """Write `held_out.jsonl` atomically; no file where no row is held out."""
    if rows:
        lines = (json.dumps(objective.held_out_row(row), ensure_ascii=False) + "\n" for row in rows)
        write_atomic(folder / HELD_OUT, "".join(lines))
