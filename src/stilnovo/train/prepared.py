"""The prepared corpora that a training names: one, or several that are learnt together.

Their documents follow each other as the folders were named, and of each the held-out texts stay held out: a document that
repeats one of another folder is not learnt. A single folder keeps the digest that it was prepared with.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stilnovo.data.packing import IntArray
from stilnovo.data.shards import MappedDocuments, is_prepared, open_prepared
from stilnovo.data.sources import Document
from stilnovo.errors import InputError
from stilnovo.recipe_sections import DataSection
from stilnovo.train import corpus

if TYPE_CHECKING:
    from stilnovo.text.tokenizer import Tokenizer


class OpenedTogether(NamedTuple):
    """Documents and held-out texts of prepared corpora, the digest of all, and a line about each.

    `plain`: every token of the documents has a loss, since none is a conversation.
    """

    documents: Sequence[IntArray]
    held_out: tuple[Document, ...]
    sha256: str
    lines: tuple[str, ...]
    plain: bool


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
    held_out = [part.held_out[: round(data.held_out * (len(part.documents) + len(part.held_out)))] for part in opened]
    texts = list(itertools.chain.from_iterable(held_out))
    parts = [part.documents for part in opened]
    if len(parts) > 1:  # each was split by itself: one may learn what another holds out
        parts = [_without_repeats(*part, texts, tokenizer) for part in zip(folders, parts, strict=True)]
    lines = [
        f"{folder}: a prepared corpus of {len(documents):,} documents, {int(documents.lengths.sum()):,} tokens; "
        f"{len(kept):,} of its {len(whole.held_out):,} held-out texts are evaluated"
        for folder, whole, documents, kept in zip(folders, opened, parts, held_out, strict=True)
    ]
    begins = itertools.accumulate((len(documents) for documents in parts), initial=0)
    if most := data.max_documents:
        none = (folder for folder, begin in zip(folders, begins, strict=False) if begin >= most)
        corpus.warn(f"Nothing of {folder} is learnt: data.max_documents is {most:,}" for folder in none)
    together: Sequence[IntArray] = parts[0] if len(parts) == 1 else corpus.Joined(*parts)
    digests = [part.sha256 for part in opened]
    return OpenedTogether(
        together if data.max_documents is None else together[: data.max_documents],
        tuple(Document(str(at), "", text) for at, text in enumerate(texts)),
        digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        tuple(lines),
        all(part.plain for part in parts),
    )


def _without_repeats(
    folder: Path, documents: MappedDocuments, held_out: Sequence[str], tokenizer: Tokenizer
) -> MappedDocuments:
    """Leave out the documents that are a held-out text, and say so."""

    from stilnovo.text.encoder import Encoder

    texts = Encoder(tokenizer).documents(list(held_out))
    known = {text.tobytes() for text in texts}
    alike = np.flatnonzero(np.isin(documents.lengths, [len(text) for text in texts])).tolist()
    repeats = [at for at in alike if documents[at].tobytes() in known]
    if not repeats:
        return documents
    corpus.warn([f"{folder}: {len(repeats):,} left out, equal to a held-out text of another prepared corpus"])
    return documents.without(repeats)
