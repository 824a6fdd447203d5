"""The project's own Italian sample: everything the demo and the tests need, written for it, shipped in the package."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

ENCYCLOPAEDIA = ("encyclopaedia_a.jsonl", "encyclopaedia_b.jsonl")


def path(name: str) -> Path:
    """Path of one file of the sample, such as `questions.jsonl` or `library/il_faro_di_pietranera.txt`."""
    return Path(str(resources.files("stilnovo").joinpath("sample", name)))


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of one JSONL file of the sample."""
    return [json.loads(line) for line in path(name).read_text(encoding="utf-8").splitlines() if line.strip()]


def library_texts() -> list[Path]:
    """The texts of the sample library."""
    return sorted(path("library").glob("*.txt"))
