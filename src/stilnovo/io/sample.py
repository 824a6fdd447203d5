"""The project's own Italian sample: everything the demo and the tests need, written for it, shipped in the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

ENCYCLOPAEDIA = ("encyclopaedia_a.jsonl", "encyclopaedia_b.jsonl")
#: What may be named instead of files wherever rows are read: articles, conversations, and preference pairs.
NAMED = {"sample": ENCYCLOPAEDIA, "sample-chat": ("conversations.jsonl",), "sample-pairs": ("pairs.jsonl",)}


def path(name: str) -> Path:
    """Path of one file of the sample, such as `questions.jsonl` or `library/il_faro_di_pietranera.txt`."""
    return Path(str(resources.files("stilnovo").joinpath("sample", name)))


def library_texts() -> list[Path]:
    """The texts of the sample library."""
    return sorted(path("library").glob("*.txt"))
