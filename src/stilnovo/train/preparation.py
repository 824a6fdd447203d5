"""Check a recipe and read its data: everything of a training but the model's weights, so that a fault is told at once.

Only the model's configuration and tokenizer are opened here. `TrainingRun` goes on from it; a dry run ends with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.model.load import choose_device
from stilnovo.model.memory import budget_of
from stilnovo.recipe import FREE_AT_RESUME, Recipe, keys, load, plain_reason, refuse_ignored_keys, value_of
from stilnovo.text.tokenizer import open_tokenizer
from stilnovo.train import checkpoint, planning
from stilnovo.train.corpus import Corpus
from stilnovo.train.held_out import check_patience, held_out_slice, schedule_for
from stilnovo.train.objectives.base import objective_of, read_corpus
from stilnovo.train.stage import check_frozen, find_frozen
from stilnovo.train.trackers import check_installed


class Preparation:
    """A checked recipe with its data, ready for a model.

    Attributes:
        device: Where the training runs.
        shape: What the memory plan knows of the training.
        budget: The memory that was free before the model was opened.
        plan: What the step is done by; None where torch's autograd does it.
        step: The plan, or else autograd's step: what the training needs.
        frozen: The folder of the adapter on which the new one is learnt; None: on the base alone.
        tokenizer, objective, corpus: As the training uses them.
        schedule: When the training is evaluated.
        held_out: The packs of held-out rows that are read then; None: there are none.

    Raises:
        InputError: for everything that can be known to be wrong before the model is opened.
    """

    def __init__(self, recipe: Recipe, folder: Path, *, resume: bool = False) -> None:
        self.device = device = choose_device(recipe.model.device)
        refuse_ignored_keys(recipe, on_card=device.type == "cuda")
        check_installed(recipe.train.trackers)
        before = _noted(folder, recipe, resume)
        if resume:
            checkpoint.check_any(folder / "checkpoints")
        self.recipe = recipe
        self.frozen = find_frozen(recipe, folder, resume=resume)
        dtype = planning.resumed_dtype(before, device) if resume else None
        self.shape = planning.run_of(recipe, device, self.frozen, dtype)
        if self.frozen is not None:
            check_frozen(self.frozen, recipe, self.shape.config)
        self.budget = budget_of(device)
        plain = plain_reason(recipe)
        plan = None if plain else planning.choose_plan(self.shape, recipe.train, device, self.budget)
        planned = plan or planning.autograd_step(self.shape, recipe, self.budget)
        planning.check_disk(self.shape, recipe.train, folder, planned.levers.optimizer, resume=resume)
        self.tokenizer = open_tokenizer(recipe.model.name)
        self.tokenizer.check_vocabulary(self.shape.config.vocab_size)
        # Runs on conversations and pairs once learnt all of them whatever data.held_out said; begun so, they go on so.
        unheld = recipe.train.task != "text" and before.get("held_out_documents") == 0
        self.objective = objective_of(recipe.changed({"data.held_out": 0}) if unheld else recipe)
        self.corpus = read_corpus(self.objective, self.tokenizer)
        _check_length(self.corpus, self.shape.config.max_positions)
        if before.get("data_sha256", self.corpus.sha256) != self.corpus.sha256:
            # The same names may hold other texts by now; the position in the data would then mean something else.
            raise InputError(
                "The data differ from those this run began with.",
                f"sha256 {self.corpus.sha256[:12]}, was {before['data_sha256'][:12]}.",
                "Put the old files back, or start anew in another folder (--out).",
            )
        packs = len(self.corpus.packed.packs)
        if before.get("packs", packs) != packs:  # a version that cut conversations otherwise began it
            raise InputError(
                "The data are packed otherwise than when this run began.",
                f"Packs: {packs:,}, were {before['packs']:,}.",
                "Start anew in another folder (--out), or finish it with the version that began it.",
            )
        self.plan = plan and planning.for_corpus(plan, self.corpus.packed, recipe.train, device, self.budget)
        largest = planning.run_for(self.shape, self.corpus.packed, recipe.train)
        self.step = self.plan or planning.autograd_step(largest, recipe, self.budget)
        self.schedule = schedule_for(self.corpus.packed, recipe.train)
        longest = self.shape.config.max_positions
        self.held_out = held_out_slice(self.objective, self.corpus, self.tokenizer, self.schedule, longest)
        check_patience(recipe.train, self.held_out)


def _check_length(corpus: Corpus, longest: int) -> None:
    """Refuse pieces that are longer than the model's context or attention window."""
    pieces = corpus.packed.packs.length
    if len(pieces) and int(pieces.max()) > longest:
        raise InputError(
            f"A document of {int(pieces.max()):,} tokens is longer than the model reads at once.",
            f"Its context or attention window has {longest:,} tokens.",
            f"Lower data.pack_tokens to at most {longest:,}: --set data.pack_tokens={longest}.",
        )


def begun_recipe(folder: Path) -> Recipe:
    """The recipe of the run in a folder; keys which did not exist when it began have their defaults.

    Raises:
        InputError: when the folder holds no run.
    """
    if not (folder / "recipe.yaml").exists():
        raise InputError(f"There is no run to resume in {folder}.", next="Start it without --resume.")
    return load(folder / "recipe.yaml")


def _noted(folder: Path, recipe: Recipe, resume: bool) -> dict[str, Any]:
    """Read the manifest of the run to resume, empty for a new one; called before anything is loaded.

    Raises:
        InputError: where a run would overwrite another, or be resumed with another recipe.
    """
    if not resume:
        if (folder / "metrics.jsonl").exists():
            raise InputError(
                f"{folder} holds a run already.",
                "It has metrics.",
                "Continue it with --resume, or choose another --out.",
            )
        return {}
    before = begun_recipe(folder)
    free = {*FREE_AT_RESUME, *(["train.steps"] if before.train.steps is None else [])}  # the checkpoint knows its steps
    changed = [key for key in keys() if key not in free and value_of(before, key) != value_of(recipe, key)]
    if changed:
        raise InputError(
            "The recipe differs from the one this run began with.",
            f"Changed: {', '.join(changed)}",
            "Resume with the same settings; --resume with --out alone takes them from the folder.",
        )
    path = folder / "manifest.json"
    noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return noted
