"""Where a model comes from: its base, the training that made it, the data, and the terms of them all.

Unusual: it is carried from folder to folder. Each card that is written lists the data of all trainings so far with their licences in
its front matter (`training_data`), because the next training or export may happen where the first one's files are not.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilnovo.hub import base_reference
from stilnovo.modelcard.terms import (
    UNKNOWN,
    LicenceTerms,
    beside_file,
    folder_card,
    terms_of_adapter,
    terms_of_data,
    terms_of_model,
)  # fmt: skip
from stilnovo.recipe import Recipe, load


@dataclass(frozen=True)
class TrainingFacts:
    """What a run folder says of its training: its recipe, and what it wrote at its beginning and at its end."""

    recipe: Recipe
    manifest: dict[str, Any]
    figures: dict[str, Any]


def training_facts(folder: Path) -> TrainingFacts | None:
    """The facts of the run whose folder, or whose adapter's folder, this is; None where it is neither.

    Raises:
        InputError: when the run's recipe cannot be read.
    """
    run = next((place for place in (folder, folder.resolve().parent) if (place / "recipe.yaml").is_file()), None)
    if run is None:
        return None
    return TrainingFacts(load(run / "recipe.yaml"), _read(run / "manifest.json"), _read(run / "train.json"))


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from.

    Attributes:
        model: The base as the user names it.
        reference: The base as other programs find it: a Hugging Face id, or a path of this machine.
        terms: The base's licence.
        data: Those of all data that are known to have been learnt, and of adapters that others made.
        training: The last training, where its run is known.
    """

    model: str
    reference: str
    terms: LicenceTerms
    data: tuple[LicenceTerms, ...] = ()
    training: TrainingFacts | None = None

    @property
    def base_id(self) -> str | None:
        """The base's Hugging Face id; None for a folder or file of one's own."""
        return (
            self.reference
            if self.reference.count("/") == 1 and not self.reference.startswith((".", "/", "~"))
            else None
        )

    @property
    def title(self) -> str:
        """The base's name without its owner or folder."""
        return Path(self.base_id or self.reference).name

    @property
    def italian(self) -> bool:
        """Whether it was trained here, for Italian; of an adapter that others made the language is not known."""
        return self.training is not None or (bool(self.data) and not any(terms.weights for terms in self.data))

    @property
    def non_commercial(self) -> tuple[LicenceTerms, ...]:
        """What of base and data forbids commercial use."""
        return tuple(terms for terms in (self.terms, *self.data) if terms.non_commercial)

    @property
    def licence(self) -> dict[str, str]:
        """The licence as a card's metadata: the base's; all by name where data forbid commercial use, or weights have their own."""
        names = {terms.name for terms in self.data if terms.non_commercial or terms.weights}
        stricter = sorted(names - {self.terms.name, UNKNOWN})
        if stricter:
            return {"license": "other", "license_name": "-and-".join([_slug(self.terms.name), *map(_slug, stricter)])}
        return self.base_licence

    @property
    def base_licence(self) -> dict[str, str]:
        """The base's licence as a card's metadata."""
        if self.terms.name == UNKNOWN:
            return {"license": UNKNOWN}
        if self.terms.custom or " " in self.terms.name or self.terms.name == "other":
            said = {"license": "other", "license_name": _slug(self.terms.name)}
            return {**said, "license_link": self.terms.link} if self.terms.link else said
        return {"license": self.terms.name}

    def warnings(self) -> list[str]:
        """What whoever passes the model on should know, a sentence each."""
        told = [
            f"{terms.of} is under {terms.title}: no commercial use; the model card says so." for terms in self.non_commercial
        ]  # fmt: skip
        if self.terms.name == UNKNOWN:
            told.append(f"The licence of {self.title} is not known here: look for it before you pass the result on.")
        silent = [terms.of for terms in self.data if terms.name == UNKNOWN]
        if silent:
            told.append(
                f"No licence is stated for {', '.join(silent[:3])}{' and others' if len(silent) > 3 else ''}: say it in a README.md "
                "beside the data that begins with ---, license: …, ---."
            )
        return told


def _slug(name: str) -> str:
    return "-".join(name.lower().replace(",", " ").split())


def provenance(model: str, adapter: Path | None = None, recipe: Recipe | None = None) -> Provenance:
    """Collect where a model comes from.

    Args:
        model: The base: short name, folder, file or Hugging Face id.
        adapter: The adapter on it, whose run or card says what it learnt.
        recipe: The recipe of the training, where its run folder is not written yet.

    Raises:
        InputError: when the recipe of the adapter's run cannot be read.
    """
    path, data = Path(model).expanduser(), list[LicenceTerms]()
    if path.exists():
        data += _carried(folder_card(path) if path.is_dir() else beside_file(path))
    training = None if adapter is None else training_facts(adapter)
    if recipe is None and training is not None:
        recipe = training.recipe
    learnt = [] if adapter is None else _carried(folder_card(adapter))
    if not learnt and recipe is not None:
        learnt = list(terms_of_data([*recipe.data.paths, *recipe.data.rehearsal]))
        if recipe.model.adapter is not None:  # learnt on another, which the result contains
            learnt = [*provenance(model, Path(recipe.model.adapter)).data, *learnt]
    elif not learnt and adapter is not None:
        learnt = list(terms_of_adapter(adapter))
    unique = {(terms.of, terms.name): terms for terms in (*data, *learnt)}
    return Provenance(model, base_reference(model)[0], terms_of_model(model), tuple(unique.values()), training)


def _carried(card: dict[str, Any]) -> Sequence[LicenceTerms]:
    """The data that a card of ours lists."""
    listed = card.get("training_data")
    rows = [row for row in listed if isinstance(row, dict) and "name" in row] if isinstance(listed, list) else []
    return [
        LicenceTerms(
            str(row["name"]), str(row.get("license") or UNKNOWN), str(row.get("link") or ""), "the card of the model",
            row.get("repository"), weights=row.get("part") == "weights",
        )
        for row in rows
    ]  # fmt: skip
