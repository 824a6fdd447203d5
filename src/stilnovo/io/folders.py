"""Folders that hold something else than rows: what `stilnovo` or others write, each known by its files.

Read as data, such a folder gives whatever of its files happens to be readable: the held-out rows alone, metrics, a tokeniser's
vocabulary. So it is refused by name, also where it lies inside a folder of data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stilnovo.errors import InputError


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder: all of `files` are in it, and one of `beside`; `advice` may name the folder."""

    name: str
    files: tuple[str, ...]
    beside: tuple[str, ...]
    advice: str


PREPARED = FolderKind(
    "a prepared corpus", ("corpus.json",), ("dropped.npy", "shards"),
    "It is learnt as it is: stilnovo train --data {0}. Elsewhere give the files that it was made from.",
)  # fmt: skip
UNFINISHED = FolderKind(
    "a preparation that is not finished", ("settings.json",), ("journal.jsonl", "shards/*.ends"),
    "Run the same `stilnovo prepare` again: it goes on.",
)  # fmt: skip
_KINDS = (
    PREPARED,
    UNFINISHED,
    FolderKind(
        "the folder of a training run", ("recipe.yaml",), ("manifest.json", "metrics.jsonl", "checkpoints", "adapter"),
        "Give the files that it learnt from ({0}/recipe.yaml names them: data.paths), or its held-out rows: {0}/held_out.jsonl.",
    ),
    FolderKind("an adapter", ("adapter_config.json",), ("adapter_model.*",), "Give files of rows."),
    FolderKind("a model", ("config.json",), ("*.safetensors", "*.gguf", "*.bin", "tokenizer.json"), "Give files of rows."),
)  # fmt: skip


def kind_of(folder: Path) -> FolderKind | None:
    """The kind of a folder; None for a folder of data, and for what is no folder."""
    return next(
        (kind for kind in _KINDS if all(_within(folder, kind.files)) and any(_within(folder, kind.beside))), None
    )


def refuse_other_kinds(folder: Path) -> None:
    """Refuse to read a folder as rows that holds something else.

    Raises:
        InputError: naming the folder, what it is, and what to give instead.
    """
    if kind := kind_of(folder):
        raise InputError(
            f"{folder} is {kind.name}, not a folder of rows.",
            f"It holds {', '.join(kind.files)}.",
            kind.advice.format(folder),
        )


def _within(folder: Path, patterns: Iterable[str]) -> Iterable[bool]:
    return (any(folder.glob(pattern)) for pattern in patterns)
