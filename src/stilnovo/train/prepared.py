"""The prepared corpora that a training names: one, or several that are learnt together.

Their documents follow each other as the folders were named, and of each the held-out texts stay held out. A single folder
keeps the digest that it was prepared with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stilnovo.data.packing import IntArray
from stilnovo.data.shards import is_prepared, open_prepared
from stilnovo.data.sources import Document
from stilnovo.errors import InputError
from stilnovo.recipe_sections import DataSection
from stilnovo.train import corpus

if TYPE_CHECKING:
    from stilnovo.text.tokenizer import Tokenizer


class OpenedTogether(NamedTuple):
    """Documents and held-out texts of prepared corpora, the digest of all, and a line about each."""

    documents: Sequence[IntArray]
    held_out: tuple[Document, ...]
    sha256: str
    lines: tuple[str, ...]


def prepared_folders(paths: Sequence[str], model: str) -> list[Path]:
    """The paths as prepared corpora; none where they are files of rows. `model` is named in the advice to prepare those.

    Raises:
        InputError: for both together, or a folder that is named twice.
    """
    folders = [folder for path in paths if is_prepared(folder := Path(path).expanduser())]
    if folders and len(folders) < len(paths):
        others = [path for path in paths if not is_prepared(Path(path).expanduser())]
        raise InputError(
            "Prepared corpora and other files are not learnt together.",
            f"Prepared: {', '.join(map(str, folders))}; other files: {', '.join(others)}.",
            f"Prepare these too, and name both folders: stilnovo prepare {' '.join(others)} --model {model} --out another",
        )
    resolved = [folder.resolve() for folder in folders]
    if twice := next((folder for folder in folders if resolved.count(folder.resolve()) > 1), None):
        raise InputError(
            f"{twice} is named twice.", next="Name each prepared corpus once; --epochs 2 learns all twice."
        )
    return folders


def open_together(folders: Sequence[Path], tokenizer: Tokenizer, data: DataSection) -> OpenedTogether:
    """Open prepared corpora as one; of each, at most the share `data.held_out` stays held out.

    Raises:
        InputError: for a folder that is damaged or was prepared for another tokeniser.
    """
    opened = [open_prepared(folder, tokenizer.fingerprint()) for folder in folders]
    held_out, lines = list[str](), list[str]()
    for folder, part in zip(folders, opened, strict=True):
        documents, tokens = len(part.documents), int(part.documents.lengths.sum())
        kept = part.held_out[: round(data.held_out * (documents + len(part.held_out)))]
        held_out += kept
        lines.append(
            f"{folder}: a prepared corpus of {documents:,} documents, {tokens:,} tokens; {len(kept):,} of its "
            f"{len(part.held_out):,} held-out texts are evaluated"
        )
    together = opened[0].documents if len(opened) == 1 else corpus.Joined(*(part.documents for part in opened))
    digests = [part.sha256 for part in opened]
    return OpenedTogether(
        together if data.max_documents is None else together[: data.max_documents],
        tuple(Document(str(at), "", text) for at, text in enumerate(held_out)),
        digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        tuple(lines),
    )
