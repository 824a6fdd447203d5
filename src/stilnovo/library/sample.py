"""The built-in library: the project's own novella and poem, indexed in memory when a person has no library yet."""

from __future__ import annotations

from stilnovo.data.sample import library_texts
from stilnovo.library.read import read
from stilnovo.library.store import Library


def sample_library() -> Library:
    """The sample library, made anew in memory (a fraction of a second)."""
    library = Library.memory()
    for path in library_texts():
        library.add(read(path))
    return library
