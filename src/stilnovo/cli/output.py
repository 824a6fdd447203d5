"""Output of all commands: tables on stdout, notes on stderr, and with `--json` one JSON object as the last line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from stilnovo import dist


def emit(result: dict[str, Any], as_json: bool) -> None:
    """Print `result` as one JSON line on stdout when `as_json`."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    sys.stdout.flush()


def show(parts: Iterable[object]) -> None:
    """Print texts and rich's tables on stdout; tables are laid out for 150 columns where stdout is no terminal."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 150)
    for part in parts:
        if isinstance(part, str):
            print(part, flush=True)
        else:
            console.print(part)


def note(text: str) -> None:
    """A line for the person watching, on stderr; of several processes only the first one speaks."""
    if dist.is_first():
        print(text, file=sys.stderr, flush=True)
