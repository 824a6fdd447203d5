"""The one training loop, top to bottom: batch → loss → gradients → clipped step → metrics → checkpoint.

It knows a model with an adapter, a stream of batches and a recipe; it knows nothing of evaluation (the command does that
before and after). It can be killed at any moment and resumed; the losses that follow are those of the uninterrupted run.
"""

from __future__ import annotations

import logging
import math
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stilnovo.data.batches import Batch, BatchStream
from stilnovo.data.packing import PackedCorpus
from stilnovo.engine.stack import TrainingEngine, supports
from stilnovo.errors import InputError, StilnovoError
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.plan.choice import Plan
from stilnovo.progress import Progress, bytes_text
from stilnovo.recipe import TrainSection
from stilnovo.runlog import RunFolder
from stilnovo.train import checkpoint, planning
from stilnovo.train.host import HostAdapter
from stilnovo.train.interrupt import HeldInterrupt
from stilnovo.train.objective import NextToken, objective_of
from stilnovo.train.optimizer import learning_rate, make_optimizer
from stilnovo.train.passes import Passes, added, means
from stilnovo.train.watch import Watch, Watching

LAST_STEPS = 10  # over which a training says how it prefers: a single step has few pairs


@dataclass(frozen=True)
class TrainResult:
    """What a finished training says of itself; throughput counts predicted tokens and is the median over the steps.

    Of preference pairs, `margin` and `accuracy` are the metrics' means over the last `LAST_STEPS` steps; None of others.
    """

    steps: int
    tokens: int
    first_loss: float
    last_loss: float
    tokens_per_second: float
    seconds: float
    peak_memory_bytes: int
    margin: float | None = None
    accuracy: float | None = None


def batch_loss(model: Llama, batch: Batch, chunk: int) -> Tensor:
    """Sum of −log p over a batch's targets, in nats, by torch's autograd: the plain path that the engine equals."""
    return NextToken()(Passes(model, None, chunk), batch)[0]


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: on a card by torch's allocator, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kibibytes


def planned_steps(corpus: PackedCorpus, recipe: TrainSection) -> int:
    """Optimizer steps of the run."""
    if recipe.steps is not None:
        return recipe.steps
    batches = -(-len(corpus.packs) // recipe.batch_packs)
    return max(1, math.ceil(batches * recipe.epochs / recipe.accumulation))


class Trainer:
    """A training under way: everything a checkpoint must hold, and the step.

    Attributes:
        plan: What the engine works by; None on the plain path (dropout, quantisation-aware training, or asked for).
    """

    def __init__(
        self,
        model: Llama,
        corpus: PackedCorpus,
        recipe: TrainSection,
        run: RunFolder,
        plan: Plan | None = None,
        watch: Watch | None = None,
    ) -> None:
        if not corpus.packs:
            raise InputError(
                "There is nothing to learn from.", "No document has two tokens.", "Give more text with --data."
            )
        self.model, self.recipe, self.run = model, recipe, run
        self.plan = self.engine = self.host = None
        if recipe.engine == "auto" and supports(model):
            tokens = min(corpus.pack_tokens * recipe.batch_packs, corpus.tokens)
            self.plan = plan or planning.choose_plan(planning.run_of(model, tokens), recipe, model.device)
            if self.plan.levers.optimizer_place == "host":
                self.host = HostAdapter(model)
            self.engine = TrainingEngine(model, self.plan.levers, self.host)
        chunk = recipe.loss_chunk if self.plan is None else self.plan.levers.loss_chunk
        self.passes, self.objective = Passes(model, self.engine, chunk), objective_of(recipe)
        self.parameters = lora.parameters(model) if self.host is None else self.host.masters
        self.optimizer = make_optimizer(self.parameters, recipe)
        self.stream = BatchStream(corpus, recipe.batch_packs, recipe.seed)
        self.steps = planned_steps(corpus, recipe)
        self.step = self.tokens = 0
        self.seconds = 0.0
        self.watching = None if watch is None else Watching(watch, run, self.steps)
        model.checkpointing = recipe.gradient_checkpointing and self.engine is None
        model.train()
        torch.manual_seed(recipe.seed)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        random: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if self.model.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.model.device)
        return {
            "step": self.step, "steps": self.steps, "tokens": self.tokens, "seconds": self.seconds, "data": self.stream.state(),
            "random": random, "parameters": [p.detach().cpu() for p in self.parameters], "optimizer": self.optimizer.state_dict(),
            "watching": None if self.watching is None else self.watching.state(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Put a checkpoint's state back.

        Raises:
            InputError: when it belongs to a run of another length or adapter.
        """
        shapes = [tuple(p.shape) for p in state["parameters"]]
        if state["steps"] != self.steps or shapes != [tuple(p.shape) for p in self.parameters]:
            raise InputError(
                "The checkpoint belongs to another run.",
                f"It has {state['steps']} steps and {len(shapes)} tensors; this run {self.steps} and {len(self.parameters)}.",
                "Resume with the recipe and data it was started with.",
            )
        self._take(state["parameters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream.restore(state["data"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.model.device)
        if self.watching is not None and state.get("watching") is not None:
            self.watching.restore(state["watching"])

    def _take(self, parameters: list[Tensor]) -> None:
        for parameter, stored in zip(self.parameters, parameters, strict=True):
            parameter.data.copy_(stored)
        if self.host is not None:
            self.host.publish()

    def loss(self, batch: Batch) -> Tensor:
        """Sum of a batch's losses, in nats."""
        return self.objective(self.passes, batch)[0]

    def train_step(self, batches: list[Batch]) -> dict[str, Any]:
        """One optimizer step over the batches; returns the step's metrics."""
        started = time.perf_counter()
        objective = self.objective
        count = max(1, sum(objective.count(batch) for batch in batches))
        rate = learning_rate(self.step, self.steps, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums: dict[str, tuple[float, int]] = {}
        # fp16 (cards without bf16) loses what is under 6e-8: backward runs on about the sum, not the mean; powers of two are exact.
        scale = 2.0 ** math.ceil(math.log2(count)) if self.model.dtype == torch.float16 else 1.0
        for batch in batches:
            loss, parts = objective(self.passes, batch)
            (loss * scale / count).backward()  # type: ignore[no-untyped-call]
            sums = added(sums, parts)
            if not math.isfinite(loss.item()):
                raise self._no_number(loss.item(), batch)
        if self.host is not None:
            self.host.collect()
        if scale != 1.0:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(scale)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm))
        if not math.isfinite(norm):
            raise self._no_number(norm, batches[-1], "gradient's norm")
        self.optimizer.step()
        if self.host is not None:
            self.host.publish()
        self.optimizer.zero_grad(set_to_none=True)
        seconds, learnt = time.perf_counter() - started, sum(batch.predictions for batch in batches)
        self.step, self.tokens, self.seconds = self.step + 1, self.tokens + learnt, self.seconds + seconds
        return {
            "step": self.step, **means(sums), "learning_rate": rate, "gradient_norm": norm, "tokens": self.tokens,
            "tokens_per_second": learnt / seconds, "seconds": self.seconds, "memory_bytes": peak_memory(self.model.device),
        }  # fmt: skip

    def _no_number(self, value: float, batch: Batch, what: str = "loss") -> StilnovoError:
        place = self.stream.state()
        return StilnovoError(
            f"The {what} is {value} at step {self.step + 1}.",
            f"Batch {place['index']} of epoch {place['epoch'] + 1}: {batch.targets.numel():,} tokens in {len(batch.lengths)} pieces. "
            f"The last checkpoint is whole.",
            "Lower train.learning_rate, or look at that batch's texts; --resume continues from the checkpoint.",
        )

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        best = None if self.watching is None else self.watching.best
        checkpoint.save(self.run.path / "checkpoints", self.step, self.state(), self.recipe.keep_checkpoints, best)

    def resume(self) -> None:
        """Continue from the newest whole checkpoint of the run folder."""
        state, damaged = checkpoint.newest(self.run.path / "checkpoints")
        for name in damaged:
            logging.getLogger(__name__).warning("Checkpoint %s is damaged and was passed over.", name)
        self.restore(state)
        self.run.keep_metrics_until(self.step)
        logging.getLogger(__name__).info("Resumed at step %d of %d.", self.step, self.steps)

    def run_all(self) -> TrainResult:
        """Train to the last step, or until the watch says that something was lost; with progress, metrics, checkpoints.

        The first Ctrl-C ends the step, writes a checkpoint and stops; a second one drops the step.
        """
        stream = iter(self.stream)
        with Progress("train", self.steps) as progress, HeldInterrupt() as held:
            try:
                self._begin_watching()
                while self.step < self.steps and not self.ended:
                    place = self.stream.state()
                    try:
                        row = self.train_step([next(stream) for _ in range(self.recipe.accumulation)])
                    except RuntimeError:  # a step that failed has read nothing: it may be tried again
                        self.stream.restore(place)
                        raise
                    self.run.append_metrics(row)
                    progress.update(
                        self.step,
                        f"step {self.step}/{self.steps} loss {row['loss']:.3f} {row['tokens_per_second']:.0f} tok/s "
                        f"{bytes_text(row['memory_bytes'])}",
                    )
                    looked = self.watching is not None and self.watching.look(self.step, self.model)
                    due = self.step % self.recipe.checkpoint_every == 0 or self.step == self.steps
                    if held.asked or looked or due:
                        self.save()
                    if held.asked and self.step < self.steps and not self.ended:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                # An interrupted step is dropped: its gradients must not leak into the state that is kept.
                raise self._interrupted() from None
        self._go_back()
        self.model.eval()
        if self.host is not None:
            self.host.restore()
        return self._result()

    @property
    def ended(self) -> bool:
        """Whether the watch has ended the training."""
        return self.watching is not None and self.watching.ended is not None

    def _begin_watching(self) -> None:
        if self.watching is None:
            return
        self.watching.begin(self.model)
        if self.step == 0 and self.watching.watch.on_loss == "best":
            self.save()  # the base is the best until something better is known
        elif self.watching.look(self.step, self.model):  # one that the machine had no memory for
            self.save()

    def _go_back(self) -> None:
        """Take the best step's adapter where the watch ended the training and the recipe says so."""
        if self.watching is not None and self.ended and self.watching.watch.on_loss == "best":
            self._take(checkpoint.at(self.run.path / "checkpoints", self.watching.best)["parameters"])

    def _interrupted(self) -> KeyboardInterrupt:
        saved = checkpoint.steps(self.run.path / "checkpoints")
        way = f"Continue from step {saved[-1]} with --resume." if saved else "There is no checkpoint yet: start anew."
        return KeyboardInterrupt(f"Stopped at step {self.step} of {self.steps}. {way}")

    def _result(self) -> TrainResult:
        rows = self.run.metrics()
        speeds = sorted(row["tokens_per_second"] for row in rows)
        preferred = {name: _last(rows, name) for name in ("margin", "accuracy")}
        return TrainResult(
            self.step, self.tokens, rows[0]["loss"], rows[-1]["loss"], speeds[len(speeds) // 2], self.seconds,
            max(row["memory_bytes"] for row in rows), **preferred,
        )  # fmt: skip


def _last(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """The mean of a metric over the last steps; None where the objective does not report it."""
    found = [row[name] for row in rows[-LAST_STEPS:] if name in row]
    return statistics.fmean(found) if found else None
