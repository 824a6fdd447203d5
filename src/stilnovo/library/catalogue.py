"""The catalogue of public-domain works, and the download of one of them.

Nothing is fetched unless a person names the work. Wikisource's works come as EPUB from its own export service, which
gathers a book's pages; Project Gutenberg's as plain text. Titles at Wikisource may move: a page that is gone is said to be.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from stilnovo.errors import InputError, StilnovoError, reported
from stilnovo.library.read import MAXIMUM_BYTES
from stilnovo.runlog import write_atomic
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

    def address(self, mirror: str = "") -> tuple[str, str]:
        """Download URL and file suffix; `mirror` replaces the site."""
        if self.gutenberg is not None:
            return f"{mirror.rstrip('/') or GUTENBERG}/cache/epub/{self.gutenberg}/pg{self.gutenberg}.txt", ".txt"
        query = urllib.parse.urlencode({"lang": "it", "format": "epub", "page": self.wikisource})
        return f"{mirror.rstrip('/') or WIKISOURCE}/?{query}", ".epub"


@cache
def catalogue() -> tuple[Entry, ...]:
    """All works of the catalogue, oldest first."""
    text = resources.files("stilnovo.library").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return tuple(Entry(**row) for row in yaml.safe_load(text))


def find(name: str) -> Entry:
    """Find the only work whose title equals `name`, or whose author and title contain its words; case and accents ignored.

    Raises:
        InputError: none, or several.
    """
    words = fold(name).strip()
    matches = [e for e in catalogue() if fold(e.title) == words]
    matches = matches or [
        e for e in catalogue() if words and all(w in fold(f"{e.author} {e.title}") for w in words.split())
    ]
    if len(matches) != 1:
        raise InputError(
            f"{f'{len(matches)} works' if matches else 'No work'} in the catalogue match «{name}».",
            "; ".join(f"{e.author}, {e.title}" for e in matches[:8]),
            "See: stilnovo library catalogue",
        )
    return matches[0]


def fetch(entry: Entry, folder: Path, mirror: str = "", progress: Callable[[int], None] = lambda _: None) -> Path:
    """Download a work into a folder atomically; an existing file is kept.

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
    if not target.exists():
        write_atomic(target, _download(address, entry, progress))
    return target


def _download(address: str, entry: Entry, progress: Callable[[int], None]) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "stilnovo (a reader of public-domain books)"})
    content = bytearray()
    gone = reported(
        f"{entry.title} is not there any more.", f"Fetch it by hand: {address}", errors=urllib.error.HTTPError
    )
    lost = reported(
        f"{entry.title} could not be fetched.", f"Is there a network? {address}",
        errors=(OSError, ValueError), kind=StilnovoError,
    )  # fmt: skip
    with lost, gone, urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        promised = answer.headers.get("Content-Length")
        while piece := answer.read(_PIECE):
            content += piece
            if len(content) > MAXIMUM_BYTES:
                raise StilnovoError(f"{entry.title} is too large.", f"The limit is {MAXIMUM_BYTES >> 20} MiB.")
            progress(len(content))
    if not content or (promised and promised.isdigit() and len(content) < int(promised)):
        raise StilnovoError(
            f"{entry.title} came only in part.", f"{len(content)} of {promised or 'some'} bytes.", "Try again."
        )
    return bytes(content)
