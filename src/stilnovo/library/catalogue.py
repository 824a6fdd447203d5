"""The catalogue of public-domain works, and fetching one of them where there is a network.

Nothing is fetched unless a person names the work. Wikisource's works come as EPUB from its own export service, which
gathers a book's pages; Project Gutenberg's as plain text. Titles at Wikisource may move: a page that is gone is said to be.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from stilnovo.errors import InputError, StilnovoError
from stilnovo.library.names import Names
from stilnovo.library.read import MAXIMUM_BYTES
from stilnovo.runlog import disk_errors
from stilnovo.text.italian import fold

GUTENBERG, WIKISOURCE = "https://www.gutenberg.org", "https://ws-export.wmcloud.org"
_TIMEOUT_SECONDS, _PIECE = 60, 1 << 16


@dataclass(frozen=True)
class Entry:
    """A work of the catalogue: its names, its page at the Italian Wikisource, its number at Project Gutenberg."""

    author: str
    title: str
    year: int
    wikisource: str = ""
    gutenberg: int | None = None

    @property
    def names(self) -> Names:
        """What the work is called, for the library."""
        return Names(self.title, self.author, self.year)

    def address(self, mirror: str = "") -> tuple[str, str]:
        """Where it lies, and the kind of file that is there; `mirror` takes the place of the site."""
        if self.gutenberg is not None:
            return f"{mirror.rstrip('/') or GUTENBERG}/cache/epub/{self.gutenberg}/pg{self.gutenberg}.txt", ".txt"
        asked = urllib.parse.urlencode({"lang": "it", "format": "epub", "page": self.wikisource})
        return f"{mirror.rstrip('/') or WIKISOURCE}/?{asked}", ".epub"


@cache
def catalogue() -> tuple[Entry, ...]:
    """All works, in the order of the file: by age."""
    text = resources.files("stilnovo.library").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = yaml.safe_load(text)
    return tuple(Entry(**row) for row in rows)


def find(name: str) -> Entry:
    """The one work whose title is, or whose author and title hold, `name`; accents and capitals aside.

    Raises:
        InputError: none, or several.
    """
    asked = fold(name).strip()
    found = [e for e in catalogue() if fold(e.title) == asked]
    found = found or [
        e for e in catalogue() if asked and all(w in fold(f"{e.author} {e.title}") for w in asked.split())
    ]
    if len(found) != 1:
        what = "No work" if not found else f"{len(found)} works"
        raise InputError(
            f"{what} in the catalogue match «{name}».",
            "; ".join(f"{e.author}, {e.title}" for e in found[:8]),
            "See: stilnovo library catalogue",
        )
    return found[0]


def fetch(entry: Entry, folder: Path, mirror: str = "", progress: Callable[[int], None] = lambda _: None) -> Path:
    """Download a work into a folder, whole or not at all; a file that is there already is kept.

    Args:
        entry: The work.
        folder: Where its file goes.
        mirror: Address to take instead of the site's own, `http` or `https`.
        progress: Told how many bytes have come.

    Raises:
        InputError: the mirror is no web address; the work is not there.
        StilnovoError: no network, too slow, too large, a full disk.
    """
    address, suffix = entry.address(mirror)
    if not address.startswith(("http://", "https://")):
        raise InputError("The mirror is no web address.", f"Given: {mirror}", "Such as https://www.gutenberg.org")
    target = folder / (re.sub(r"[^a-z0-9]+", "-", fold(f"{entry.author} {entry.title}")).strip("-") + suffix)
    if target.exists():
        return target
    with disk_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            _download(address, entry, file, progress)
        with disk_errors(target):
            shutil.move(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def _download(address: str, entry: Entry, file: Any, progress: Callable[[int], None]) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "stilnovo (a reader of public-domain books)"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            promised, size = answer.headers.get("Content-Length"), 0
            while piece := answer.read(_PIECE):
                size += len(piece)
                if size > MAXIMUM_BYTES:
                    raise StilnovoError(f"{entry.title} is too large.", f"The limit is {MAXIMUM_BYTES >> 20} MiB.")
                with disk_errors(Path(file.name) if isinstance(file.name, str) else Path("the download")):
                    file.write(piece)
                progress(size)
    except urllib.error.HTTPError as error:
        raise InputError(
            f"{entry.title} is not there any more.", f"{address}: {error.code} {error.reason}", "Fetch it by hand."
        ) from error
    except (OSError, ValueError) as error:
        raise StilnovoError(
            f"{entry.title} could not be fetched.", f"{address}: {error}", "Is there a network?"
        ) from error
    if size == 0 or (promised and promised.isdigit() and size < int(promised)):
        raise StilnovoError(f"{entry.title} came only in part.", f"{size} of {promised or 'some'} bytes.", "Try again.")
