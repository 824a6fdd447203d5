"""Known corpora by name, and any data set of the hub: from a local mirror, the hub's cache, or, when allowed, a download.

A mirror is a folder that holds `owner/name/…` as the hub does. Nothing is downloaded before the licence and the size that
the hub states have been shown and agreed to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Literal

from stilnovo.errors import InputError, reported
from stilnovo.io import sample
from stilnovo.io.formats import READERS
from stilnovo.io.streams import COMPRESSIONS, suffix_of
from stilnovo.progress import bytes_text

MIRROR = "STILNOVO_DATA"  # the environment variable that names a mirror
_DATA = tuple(
    f"*{kind}{packing}" for kind in (".parquet", ".arrow", ".jsonl", ".json", ".csv") for packing in ("", *COMPRESSIONS)
)


@dataclass(frozen=True)
class Source:
    """A data set of the hub.

    Attributes:
        patterns: Which of its files are the corpus, against the path inside the data set.
        licence: As its card states it.
        clean: How its texts are cleaned unless told otherwise.
        text_bytes: About how many bytes of text it holds, an estimate from listed sizes; None: not known.
    """

    repository: str
    patterns: tuple[str, ...] = _DATA
    licence: str = "not known: see its card"
    about: str = ""
    clean: Literal["wikipedia", "none"] = "none"
    text_bytes: float | None = None


SOURCES = {
    "wikipedia-it": Source(
        "wikimedia/wikipedia", ("20231101.it/*.parquet",), "CC BY-SA 3.0 and GFDL",
        "Italian Wikipedia of 1 November 2023: id, url, title, text", "wikipedia", 4.7e9,
    ),
    "clean-mc4-it": Source(
        "gsarti/clean_mc4_it", ("*-of-*.json.gz", "*.parquet"), "ODC-BY, and Common Crawl's terms",
        "cleaned Italian web pages: text, timestamp, url; hundreds of gigabytes, take some files with owner/name:PATTERN",
    ),
    "anita-sft": Source(
        "Chat-Error/wizard_alpaca_dolly_orca", _DATA, "not stated on its card", "system, instruction, input, output"
    ),
    "anita-dpo": Source("mlabonne/orpo-dpo-mix-40k", ("data/*.parquet",), "Apache-2.0", "prompt, chosen, rejected"),
}  # fmt: skip


def tokens_of(name: str, vocabulary: int) -> float | None:
    """Estimate the tokens of a corpus: its bytes, times the tokens of a byte of Italian; None where its size is not known.

    Measured on 64 articles of the sample and 800 passages of Italian Wikipedia: Llama 3's tokenizer (128,256) needs 0.29 to
    0.30 tokens a byte, SmolLM2's (49,152) 0.35. Other vocabularies are put between them by the logarithm of their size.
    """
    source = find(name)
    if source is None or source.text_bytes is None:
        return None
    (small, many), (large, few) = (49_152, 0.35), (128_256, 0.29)
    share = min(1.0, max(0.0, math.log(vocabulary / small) / math.log(large / small)))
    return float(f"{source.text_bytes * (many + share * (few - many)):.2g}")


def find(name: str) -> Source | None:
    """A known corpus by short name or repository, or `owner/name[:PATTERN]`; None for anything else."""
    repository, _, pattern = name.partition(":")
    known = next((s for short, s in SOURCES.items() if repository in (short, s.repository)), None)
    on_hub = repository.count("/") == 1 and repository[0] not in "./~" and all(repository.split("/"))
    if known is None and (
        not on_hub or suffix_of(Path(repository)) in READERS
    ):  # a file that is not there stays a file
        return None
    source = known or Source(repository)
    return replace(source, patterns=(pattern,)) if pattern else source


def locate(
    names: Sequence[str],
    *,
    mirror: Path | None = None,
    agree: Callable[[str], bool] | None = lambda _text: False,
) -> list[str]:
    """Resolve each name to paths: files and folders as they are, the samples, and corpora in the mirror, the cache, or from the hub.

    Args:
        mirror: A folder of `owner/name/…`; else the one that STILNOVO_DATA names.
        agree: Shown what a download is, its licence and its size; False refuses it. None: the hub is not asked at all.

    Raises:
        InputError: when a corpus is nowhere, or its download was refused or failed.
    """
    root = mirror or (Path(os.environ[MIRROR]) if os.environ.get(MIRROR) else None)
    paths: list[str] = []
    for name in names:
        source = None if name in sample.NAMED or Path(name).expanduser().exists() else find(name)
        paths += [name] if source is None else [str(path) for path in _files(source, root, agree)]
    return paths


def _files(source: Source, mirror: Path | None, agree: Callable[[str], bool] | None) -> list[Path]:
    if mirror is not None:
        if not mirror.is_dir():
            raise InputError(f"There is no folder {mirror}.", "It was named as the mirror of data sets.")
        if files := _matching(mirror / source.repository, source.patterns):
            return files
    try:
        return _from_hub(source, agree)
    except InputError as error:
        if mirror is None:
            raise
        nor = f"Nor is it in the mirror: {mirror / source.repository} holds no {', '.join(source.patterns)}."
        raise InputError(error.what, nor, error.next) from error


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [
        path for path in sorted(folder.rglob("*"))
        if path.is_file() and any(fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in patterns)
    ]  # fmt: skip


def _from_hub(source: Source, agree: Callable[[str], bool] | None) -> list[Path]:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, snapshot_download

    wanted = list(source.patterns)
    fetch = partial(snapshot_download, source.repository, repo_type="dataset", allow_patterns=wanted)
    # The cache first: what is here must not depend on the network. The library's "not cached" errors differ between
    # versions; the next call tells the truth.
    with suppress(Exception):
        if files := _matching(Path(fetch(local_files_only=True)), source.patterns):
            return files
    if agree is None:
        raise InputError(
            f"{source.repository} is a data set of the hub and not on this machine.", source.about,
            f"Fetch it once with: hf download {source.repository} --repo-type dataset; or name files of your own. Built in, to "
            "try: --data sample-chat (as rehearsal: --set data.rehearsal=[sample-chat]); of pairs, --data sample-pairs.",
        )  # fmt: skip
    with reported(
        f"{source.repository} is not on this machine and could not be fetched from the hub.",
        "Connect to a network, or give a local copy with --mirror FOLDER.",
    ):
        info = HfApi().dataset_info(source.repository, files_metadata=True, timeout=20)
        listed = [f for f in info.siblings or [] if any(fnmatch(f.rfilename, pattern) for pattern in wanted)]
        if not listed:
            names = ", ".join(f.rfilename for f in (info.siblings or [])[:5])
            raise InputError(
                f"{source.repository} has no {', '.join(wanted)}.", f"It holds: {names} …", "Use owner/name:PATTERN."
            )
        card = getattr(info.card_data, "license", None)
        licence = ", ".join(card) if isinstance(card, list) else card or source.licence
        download = f"{len(listed)} files, {bytes_text(sum(f.size or 0 for f in listed))}; licence: {licence}."
        if not agree(f"{source.repository}: {download}"):
            raise InputError(
                f"{source.repository} is not on this machine.", download,
                "Agree to the download with --yes, or give a local copy with --mirror FOLDER.",
            )  # fmt: skip
        return _matching(Path(fetch()), source.patterns)
