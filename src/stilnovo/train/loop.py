"""The training loop, top to bottom: batch → loss → gradients → clipped step → metrics → checkpoint.

It knows a model with an adapter, a stream of batches, a loss and the recipe's `train` section. It can be killed at any
moment and resumed; the losses that follow are those of the uninterrupted run (on a card to the last bit where
`train.deterministic` says so).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stilnovo.data.batches import Batch, BatchStream
from stilnovo.data.packing import PackedCorpus
from stilnovo.engine.product import HostAdapter
from stilnovo.engine.stack import TrainingEngine
from stilnovo.errors import InputError, StilnovoError, card_fault
from stilnovo.model import card, lora
from stilnovo.model.llama import Llama
from stilnovo.model.memory import PeakMemory
from stilnovo.plan.choice import Plan
from stilnovo.progress import Progress, bytes_text, rate_text, seconds_text
from stilnovo.recipe_sections import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train import checkpoint
from stilnovo.train.callback import EvaluationCallback, Evaluations
from stilnovo.train.held_out import HeldOutEvaluation
from stilnovo.train.interrupt import held_interrupt
from stilnovo.train.loss_scale import LossScale
from stilnovo.train.moments import load_moments, stored_moments
from stilnovo.train.objectives.text import NextToken
from stilnovo.train.observers import Observers
from stilnovo.train.optimizer import learning_rate, make_optimizer
from stilnovo.train.outcome import TrainResult, result_of
from stilnovo.train.passes import BatchLoss, Parts, Passes, added, means
from stilnovo.train.planning import autograd_levers
from stilnovo.train.steps import batches_of_step, planned_steps

log = logging.getLogger(__name__)


class Trainer:
    """A training in progress: the step, and everything a checkpoint must hold.

    Args:
        model: With its adapter.
        corpus: What is learnt.
        settings: The recipe's `train` section.
        run: Where metrics and checkpoints go.
        loss: Of a batch; next-token prediction by default.
        plan: What the engine works by; None: by torch's autograd.
        callback: Evaluates the model during training, and may end it.
        held_out: Evaluates the held-out rows and makes samples during training; the loss may end it too.
        observers: Told of every step and checkpoint.
        program: Bytes that the process held before the model was opened; its memory is counted without them.
    """

    def __init__(
        self, model: Llama, corpus: PackedCorpus, settings: TrainSection, run: RunFolder, *,
        loss: BatchLoss | None = None, plan: Plan | None = None, callback: EvaluationCallback | None = None,
        held_out: HeldOutEvaluation | None = None, observers: Observers | None = None, program: int = 0,
    ) -> None:  # fmt: skip
        if not corpus.packs:
            raise InputError(
                "There is nothing to learn from.", "No document has two tokens.", "Give more text with --data."
            )
        self.model, self.settings, self.run, self.batch_loss = model, settings, run, loss or NextToken()
        self.observers = observers or Observers()
        on_card = model.device.type == "cuda"
        self.levers = plan.levers if plan else autograd_levers(model.config, settings, on_card=on_card)
        self.host = HostAdapter(model) if self.levers.optimizer_place == "host" else None
        # The plan counts on a type: the model's, or the narrower one in which a processor multiplies faster.
        narrower = plan is not None and plan.run.value_bytes < model.dtype.itemsize
        self.dtype = torch.bfloat16 if narrower else model.dtype
        self.engine = TrainingEngine(model, self.levers, self.host, self.dtype) if plan else None
        self.passes = Passes(model, self.engine, self.levers.loss_chunk)
        self.checkpoints = run.path / "checkpoints"
        self.parameters = lora.parameters(model) if self.host is None else self.host.masters
        self.optimizer = make_optimizer(self.parameters, settings, self.levers.optimizer)
        self.scale = LossScale() if self.dtype == torch.float16 else None
        self._updating = False  # whether the optimizer is at work
        self.stream = BatchStream(corpus, settings.batch_packs, settings.seed)
        self.steps = planned_steps(corpus, settings)
        self.step = self.tokens = self._begun = 0
        self.memory, self.gradient_bytes = PeakMemory(model.device, program), 0
        self.seconds = 0.0
        self._saved = time.monotonic()
        self._sign: Callable[[int], None] = lambda done: None  # told how many batches of the step are done
        self.evaluations = Evaluations(callback, run, self.steps)
        self.held_out = held_out or HeldOutEvaluation()
        model.checkpointing = settings.gradient_checkpointing and self.engine is None
        model.train()
        torch.manual_seed(settings.seed)

    def state(self) -> dict[str, Any]:
        """State for a checkpoint: everything that the next step depends on."""
        return {
            "step": self.step, "steps": self.steps, "tokens": self.tokens, "seconds": self.seconds, "data": self.stream.state(),
            "random": checkpoint.random_state(self.model.device), "parameters": [p.detach().cpu() for p in self.parameters],
            "optimizer": stored_moments(self.optimizer), "watching": self.evaluations.state(),
            "held_out": self.held_out.state(), "loss_scale": None if self.scale is None else self.scale.state(),
        }  # fmt: skip

    def state_to_go_on(self) -> dict[str, Any]:
        """State after the last whole step, once a step has failed, all of it in host memory.

        Where the optimizer was at work then, some parameters have moved and some not: the newest checkpoint has the state.
        """
        if not self._updating:
            with suppress(StilnovoError):  # on a full disk it goes on all the same
                self.save()  # should what follows fail too, nothing is lost
            return self.state()
        state, _ = checkpoint.newest(self.checkpoints)
        self.run.keep_metrics_until(state["step"])
        return state

    def close(self) -> None:
        """End what runs beside the training."""
        self.memory.close()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint's state.

        Raises:
            InputError: when it belongs to a run of another length or adapter.
        """
        shapes = [tuple(p.shape) for p in state["parameters"]]
        if state["steps"] != self.steps and self.settings.steps is None:
            raise InputError(
                "The checkpoint belongs to a run of another length.",
                f"It has {state['steps']} steps; {self.settings.epochs:g} epochs of these data are {self.steps}. "
                "Earlier versions let a step go on into the next pass over the data.",
                f"Finish the run as it was begun with --set train.steps={state['steps']}, or start anew in another folder (--out).",
            )
        if state["steps"] != self.steps or shapes != [tuple(p.shape) for p in self.parameters]:
            raise InputError(
                "The checkpoint belongs to another run.",
                f"It has {state['steps']} steps and {len(shapes)} tensors; this run {self.steps} and {len(self.parameters)}.",
                "Resume with the recipe and data it was started with.",
            )
        self._take(state["parameters"])
        if converted := load_moments(self.optimizer, state["optimizer"]):
            log.warning(
                "The optimizer's moments were converted %s: the losses differ a little from what they would have been.",
                converted,
            )
        if self.scale is not None:
            self.scale.restore(state.get("loss_scale"))
        self.stream.restore(state["data"])
        self.step = self._begun = state["step"]
        self.tokens, self.seconds = state["tokens"], state["seconds"]
        checkpoint.set_random_state(state["random"], self.model.device)
        self.evaluations.restore(state.get("watching"))
        self.held_out.restore(state.get("held_out"))

    @property
    def ended(self) -> bool:
        """Whether an evaluation has ended the training before its last step, by the guard or by the held-out loss."""
        return self.evaluations.ended is not None or (self.held_out.ended and self.step < self.steps)

    @property
    def adapter_step(self) -> int:
        """The step whose adapter is the run's when it ends here: the last, or the best to which it goes back."""
        if self.evaluations.ended is not None:  # what the guard protects comes first
            return self.evaluations.best if self.evaluations.returns_to_best else self.step
        return self.step if self.held_out.best is None else self.held_out.best

    def _take(self, parameters: list[Tensor]) -> None:
        for parameter, stored in zip(self.parameters, parameters, strict=True):
            parameter.data.copy_(stored)
        if self.host is not None:
            self.host.publish()

    def train_step(self, batches: list[Batch]) -> dict[str, Any]:
        """One optimizer step over the batches; returns the step's metrics."""
        started = time.perf_counter()
        # A step of rehearsal alone, which is only held near the base, has no loss token: its mean is over what it reads.
        count = sum(map(self.batch_loss.count, batches)) or sum(batch.targets.numel() for batch in batches)
        rate = learning_rate(self.step, self.steps, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._clear_gradients()
        sums: Parts = {}
        scale = 1.0 if self.scale is None else self.scale.value
        for done, batch in enumerate(batches, 1):
            loss, parts = self.batch_loss(self.passes, batch)
            (loss * scale / count).backward()  # type: ignore[no-untyped-call]
            sums = added(sums, parts)
            if self.scale is None and not math.isfinite(loss.item()):
                raise self._no_number(loss.item(), batch)
            self._sign(done)
        if self.host is not None:
            self.host.collect()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.gradient_bytes = sum(gradient.nbytes for gradient in gradients)
        if self.scale is not None and gradients:
            torch._foreach_div_(gradients, scale)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm))
        if self.scale is None and not math.isfinite(norm):
            raise self._no_number(norm, batches[-1], "gradient's norm")
        if math.isfinite(norm):
            self._update()
        seconds, learnt = time.perf_counter() - started, sum(batch.predictions for batch in batches)
        self.step, self.tokens, self.seconds = self.step + 1, self.tokens + learnt, self.seconds + seconds
        row = {
            "step": self.step, **means(sums), "learning_rate": rate, "gradient_norm": norm, "tokens": self.tokens,
            "tokens_per_second": learnt / seconds, "seconds": self.seconds, "memory_bytes": self.memory.bytes,
        }  # fmt: skip
        return row if self.scale is None else row | self._scaled(row, self.scale)

    def _clear_gradients(self) -> None:
        """Zero the gradients where they lie, before a step, so that one that failed leaves nothing behind.

        They are taken once, ahead of all that comes and goes in a step: what is freed and taken anew each time leaves fragments.
        """
        if self.host is not None:
            self.host.collect()  # what a failed step has still on its way
        self.optimizer.zero_grad(set_to_none=False)
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _update(self) -> None:
        self._updating = True
        self.optimizer.step()
        if self.host is not None:
            self.host.publish()
        self._updating = False

    def _scaled(self, row: dict[str, Any], scale: LossScale) -> dict[str, Any]:
        """What an fp16 step has otherwise in its row: its scale, the steps skipped so far, and no figure that is no number."""
        used, finite = scale.value, math.isfinite(row["gradient_norm"])
        scale.update(finite=finite)
        if not finite:
            log.info("Step %d overflowed fp16 and was skipped; the loss scale is %g now.", self.step, scale.value)
        none = {name: None for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        return {"loss_scale": used, "skipped_steps": scale.skipped, **none}

    def _no_number(self, value: float, batch: Batch, what: str = "loss") -> StilnovoError:
        place = self.stream.state()
        return StilnovoError(
            f"The {what} is {value} at step {self.step + 1}.",
            f"Batch {place['index']} of epoch {place['epoch'] + 1}: {batch.targets.numel():,} tokens in {len(batch.lengths)} pieces.",
            "Lower train.learning_rate, or look at that batch's texts.",
        )

    def guard_summary(self) -> dict[str, Any] | None:
        """What the guard found, for `train.json`; None without one."""
        return self.evaluations.summary(self.step, self.adapter_step)

    def save(self) -> None:
        """Save a checkpoint."""
        best = {*([] if self.evaluations.callback is None else [self.evaluations.best])}
        if self.held_out.best is not None:
            best.add(self.held_out.best)
        checkpoint.save(self.checkpoints, self.step, self.state(), self.settings.keep_checkpoints, best)
        self._saved = time.monotonic()
        self.observers.checkpoint(self.step)

    def resume(self) -> None:
        """Continue from the newest whole checkpoint of the run folder."""
        state, damaged = checkpoint.newest(self.checkpoints)
        for name in damaged:
            log.warning("Checkpoint %s is damaged and was passed over.", name)
        self.restore(state)
        self.run.keep_metrics_until(self.step)
        over = ": nothing is left to learn, only its end is done again" if self.step == self.steps else ""
        log.info("Resumed at step %d of %d%s.", self.step, self.steps, over)

    def run_all(self) -> TrainResult:
        """Train to the last step, or until an evaluation stops the training; with progress, metrics, checkpoints.

        The first Ctrl-C ends the step, writes a checkpoint and stops; a second one drops the step. Whatever stops the
        training says as its last line at which step it stands and where it goes on.
        """
        with Progress("train", self.steps, self.step) as progress, held_interrupt() as asked, self.way_on():
            self._run(progress, asked)
        if self.adapter_step != self.step:
            self._take(checkpoint.at(self.checkpoints, self.adapter_step)["parameters"])
        self.model.eval()
        self.close()
        self.optimizer.zero_grad(set_to_none=True)
        if self.host is not None:
            self.host.restore()
        result = result_of(self.run.metrics(), self._begun, self.memory.bytes)
        return replace(result, steps=self.step, tokens=self.tokens, seconds=self.seconds)

    def _run(self, progress: Progress, asked: threading.Event) -> None:
        """The loop itself; raises KeyboardInterrupt once a checkpoint is saved after `asked`."""
        stream = iter(self.stream)
        self.evaluations.begin(self.model)
        self.held_out.begin(self.passes, self.batch_loss, self.settings)
        # The base is kept too: it is the best until something better is known, and what stops early goes on from it.
        # An evaluation is due at once where the machine had no memory for it.
        if self.step == 0 or self.evaluations.evaluate(self.step, self.model):
            self.save()
        while self.step < self.steps and not self.ended:
            place = self.stream.state()
            count = batches_of_step(self.stream.corpus, self.settings, **place)
            try:
                self._sign = self._signs(progress, count)
                with card.repeating(self.settings.deterministic):
                    row = self.train_step([next(stream) for _ in range(count)])
            except Exception:  # a step that failed has read nothing: it may be tried again
                self.stream.restore(place)
                raise
            try:
                row |= self.held_out.evaluate(self.step, self.passes, self.batch_loss, self.settings)
            finally:  # one row a step, whatever becomes of its evaluation
                self.run.append_metrics(row)
                self.observers.step(row)
            progress.update(
                self.step,
                f"step {self.step}/{self.steps} {_loss_text(row)} {rate_text(row['tokens_per_second'])} tok/s "
                f"{bytes_text(row['memory_bytes'])}",
            )
            evaluated = self.evaluations.evaluate(self.step, self.model)
            due = self.step % self.settings.checkpoint_every == 0 or self.step == self.steps
            late = time.monotonic() - self._saved >= 60 * self.settings.checkpoint_minutes
            if asked.is_set() or evaluated or due or late or self.ended or self.held_out.best == self.step:
                self.save()
            if asked.is_set() and self.step < self.steps and not self.ended:
                raise KeyboardInterrupt

    def _signs(self, progress: Progress, count: int) -> Callable[[int], None]:
        """Report progress inside a step of `count` batches."""
        started, step = time.monotonic(), self.step

        def sign(done: int) -> None:
            gone = time.monotonic() - started
            progress.update(
                step + done / (count + 1),  # the optimizer's share is still to come
                f"step {step + 1}/{self.steps}: batch {done} of {count}, {seconds_text(gone)} of about {seconds_text(gone / done * count)}",
            )

        progress.update(step, f"step {step + 1}/{self.steps}: {count} batches")
        return sign

    @contextmanager
    def way_on(self) -> Iterator[None]:
        """Context manager: what stops the training in it says as its last line at which step it stands and where it goes on."""
        try:
            yield
        except KeyboardInterrupt:
            # An interrupted step is dropped: its gradients must not leak into the state that is kept.
            raise KeyboardInterrupt(self._standing()) from None
        except StilnovoError as error:
            raise type(error)(error.what, error.found, f"{error.next}\n{self._standing()}") from error
        except Exception as error:
            fault = card_fault(error)
            if fault is None:
                raise
            raise StilnovoError(fault.what, fault.found, f"{fault.next}\n{self._standing()}") from error

    def _standing(self) -> str:
        return f"Stopped at step {self.step} of {self.steps}. {checkpoint.way_on(self.checkpoints)}"


def _loss_text(row: dict[str, Any]) -> str:
    return "overflowed" if row["loss"] is None else f"loss {row['loss']:.3f}"
