"""What every command prints alike: people's tables on stdout, and one JSON object as the last line when asked for."""

from __future__ import annotations

import json
import sys
from typing import Any

from stilnovo import dist


def emit(result: dict[str, Any], as_json: bool) -> None:
    """Print `result` as one JSON line on stdout when `as_json`."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    sys.stdout.flush()


def note(text: str) -> None:
    """A line for the person watching, on stderr; of several processes only the first one speaks."""
    if dist.is_first():
        print(text, file=sys.stderr, flush=True)
