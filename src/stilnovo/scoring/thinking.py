"""What a thinking model writes before its answer: no part of the answer, whether it was written here or by a server."""

from __future__ import annotations

import re

UNFINISHED = "unfinished"  # remark on an answer that ended inside the thinking
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)
_THINKING = re.compile(r"^\s*<think(?:ing)?>")
_OPENED = re.compile(r"<think(?:ing)?>\s*$")


def opens_thinking(prompt: str) -> bool:
    """Whether a chat template begins the thinking itself."""
    return _OPENED.search(prompt) is not None


def without_thinking(written: str, *, opened: bool = False) -> tuple[str, bool | None]:
    """What follows the thinking of an answer, and whether the thinking was finished; None where there was none.

    Args:
        written: The whole answer.
        opened: Whether the prompt ended inside the thinking.
    """
    if thought := _THOUGHT.search(written):
        return written[thought.end() :].lstrip(), True
    return ("", False) if opened or _THINKING.search(written) else (written, None)
