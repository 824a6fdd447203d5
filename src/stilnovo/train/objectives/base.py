"""The interface of training objectives, and how a recipe's objective is found.

A new objective is one file with a subclass of `Objective`, and one entry in `stilnovo.recipe_sections.OBJECTIVES`. Such a file
imports torch only inside its functions, so that `stilnovo plan` can ask for the cost at once.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stilnovo.plan.speed import ObjectiveCost
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import OBJECTIVES

if TYPE_CHECKING:
    from stilnovo.data.packing import PackedCorpus
    from stilnovo.text.tokenizer import Tokenizer
    from stilnovo.train.corpus import Corpus, HeldOutRows
    from stilnovo.train.passes import BatchLoss, Passes


class Objective(ABC):
    """Interface of a training objective, made for one recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def read(self, tokenizer: Tokenizer) -> Corpus:
        """Read, split, tokenise and pack the recipe's data.

        Raises:
            InputError: for files that cannot be read or used, or a broken chat template.
        """

    @abstractmethod
    def loss(self) -> BatchLoss:
        """The loss of a batch."""

    @abstractmethod
    def cost(self, learnt: float = 1.0) -> ObjectiveCost:
        """Compute cost of a step; `learnt` is the share of conversations' or pairs' tokens that have a loss."""

    def document_tokens(self, tokens: int) -> int | None:
        """Length over which attention runs in a pass of so many tokens; None for the whole pass."""
        return None

    @abstractmethod
    def pack_held_out(self, rows: Sequence[Any], tokenizer: Tokenizer, longest: int) -> PackedCorpus:
        """Tokenise and pack held-out rows as the training rows are, so that `loss` can be evaluated on them.

        `longest` is how many tokens the model reads at once.
        """

    @abstractmethod
    def held_out_row(self, row: Any) -> dict[str, Any]:
        """Convert a held-out row for `held_out.jsonl`, in a shape that the objective reads."""

    def evaluate(self, passes: Passes, rows: HeldOutRows, tokenizer: Tokenizer) -> tuple[dict[str, float], str] | None:
        """Evaluate the held-out rows with the trained model: figures and one line of text; None where there are none."""
        return None


def read_corpus(objective: Objective, tokenizer: Tokenizer) -> Corpus:
    """Read an objective's data as `Objective.read` does, with what was said meanwhile as the corpus's `remarks`."""
    from stilnovo.train.corpus import remarks

    with remarks() as lines:
        read = objective.read(tokenizer)
    return replace(read, remarks=tuple(lines))


def objective_of(recipe: Recipe) -> Objective:
    """Look up the training objective that a recipe names."""
    module, _, name = OBJECTIVES[recipe.train.task].implementation.partition(":")
    implementation: type[Objective] = getattr(importlib.import_module(module), name)
    return implementation(recipe)
