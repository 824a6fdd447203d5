"""Turns of a conversation out of one cell of a row, and cells that know which of them were read.

A cell holds a list of objects; what else people's files hold there is turned into one: JSON or Python's notation as
text (tables, pandas; also numpy's, which leaves out the commas), or one object of lists. Nothing is dropped silently:
turns of tools and parts that are no text make the row a bad one, and every key that is not read can be named.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import tokenize
import warnings
from collections.abc import Sequence
from io import StringIO
from typing import Any

from stilnovo.io.bad_rows import BadRow, refuse_if
from stilnovo.io.formats import Row
from stilnovo.text.template import MarkedMessage, Message, Role

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user", "assistant": "assistant",
    "gpt": "assistant", "bot": "assistant", "chatbot": "assistant", "model": "assistant",
}  # fmt: skip
_TOOL_ROLES = frozenset({
    "tool", "tools", "tool_call", "tool_calls", "tool_response", "tool_result", "function", "function_call", "function-call",
    "function_response", "function-response", "observation", "ipython",
})  # fmt: skip
_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_CALLS = ("tool_calls", "function_call")
#: Whether a turn is learnt, as others write it, and what `true` means there.
_MARKS = {
    "train": True,
    "training": True,
    "weight": True,
    "loss": True,
    "loss_mask": True,
    "mask": False,
    "masked": False,
}
_PART_MARKS = ("train_detail", "training_detail")
_CONTENT = ("content", "value", "text")
_SPOKEN = frozenset({"role", "from", *_CONTENT})
_TEXT_PARTS = (None, "text", "input_text", "output_text")
#: What rows say about themselves and no training reads; nothing is said of it.
METADATA = frozenset({
    "", "id", "_id", "idx", "index", "uuid", "hash", "source", "url", "dataset", "split", "category", "tags", "language", "lang",
    "license", "licence", "date", "timestamp", "created", "model", "metadata", "conversation_id", "turn_id", "message_id",
    "prompt_id", "__index_level_0__", "Unnamed: 0",
})  # fmt: skip

_KNOWN = METADATA | {*_CALLS, *_MARKS, *_PART_MARKS}


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing: null, blank text, an empty list or object."""
    return value is None or (not value.strip() if isinstance(value, str) else value in ([], {}))


class Cells:
    """The cells of one row, which note what was asked for."""

    def __init__(self, row: Row) -> None:
        self.row, self.asked, self.within = row, set[str](), set[str]()

    def get(self, *names: str) -> Any:
        """Value of the first of these columns that holds something; None where none does."""
        for name in names:
            self.asked.add(name)
            if not is_blank(value := self.row.get(name)):
                return value
        return None

    def text(self, *names: str) -> str:
        """As `get`, as text.

        Raises:
            BadRow: for anything but text.
        """
        value = self.get(*names)
        refuse_if(
            value is not None and not isinstance(value, str), "not text",
            f"{' or '.join(names)} is {type(value).__name__}",
        )  # fmt: skip
        return value or ""

    def filled(self, names: Sequence[str]) -> list[str]:
        """Those of the columns that hold something; they do not count as read."""
        return [name for name in names if not is_blank(self.row.get(name))]

    def unread(self) -> frozenset[str]:
        """Names of columns that hold something and were not read, and of such keys of turns."""
        others = self.row.keys() - self.asked - METADATA
        return frozenset(name for name in others if not is_blank(self.row[name])) | self.within


def nested(value: Any) -> Any:
    """Text that is a list or an object in JSON's or Python's notation as what it says; anything else as it is.

    Raises:
        BadRow: when its escapes spell half a character.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text.startswith(("[", "{")):
        return value
    try:
        found = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        try:
            found = _literal(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return value
    if "\\ud" in text.lower():
        try:
            json.dumps(found, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            raise BadRow("half a character", repr(error.object[error.start])) from error
    return found


def _literal(text: str) -> Any:
    with warnings.catch_warnings(action="ignore"):  # of escapes in the text, which are not ours
        try:
            return ast.literal_eval(text)
        except SyntaxError:
            return ast.literal_eval(_with_commas(text))


def _with_commas(text: str) -> str:
    """Put commas between objects that follow each other, as numpy writes them; what is inside strings stays."""
    try:
        tokens = [token for token in tokenize.generate_tokens(StringIO(text).readline) if token.string.strip()]
    except tokenize.TokenError as error:
        raise ValueError(str(error)) from error
    starts = [0, *itertools.accumulate(len(line) for line in text.splitlines(keepends=True))]
    gaps = [
        starts[after.start[0] - 1] + after.start[1]
        for before, after in itertools.pairwise(tokens)
        if (before.string, after.string) == ("}", "{")
    ]
    return ",".join(text[begin:end] for begin, end in itertools.pairwise([0, *gaps, len(text)]))


def are_turns(value: Any) -> bool:
    """Whether a cell holds turns rather than text: objects with a role each, or one object of lists of them."""
    found = nested(value) if not isinstance(value, str) or "role" in value or "from" in value else value
    found = [found] if isinstance(found, dict) else found
    return isinstance(found, list) and all(isinstance(turn, dict) and {"role", "from"} & {*turn} for turn in found)


def turns_of(value: Any, cells: Cells, column: str) -> tuple[Message, ...]:
    """Read the turns of one cell; keys that are not read are noted in `cells` under the column's name.

    Raises:
        BadRow: when it holds no turns, turns of tools, or other than text.
    """
    value = nested(value)
    if isinstance(value, dict):
        lists = value and all(isinstance(of, list) for of in value.values()) and len({*map(len, value.values())}) == 1
        value = [dict(zip(value, of, strict=True)) for of in zip(*value.values(), strict=True)] if lists else [value]
    is_list = isinstance(value, list) and all(isinstance(turn, dict) for turn in value)
    refuse_if(value is not None and not is_list, "not a list of messages", f"{column} is {type(value).__name__}")
    return tuple(_message(turn, cells, column) for turn in value or ())


def transcript(text: str) -> tuple[Message, ...]:
    """Read a dialogue written as one text, each turn after `Human:` or `Assistant:`; nothing where it is none."""
    opening, *parts = _SPEAKER.split(text.lstrip())
    if opening or "Assistant" not in parts[::2]:
        return ()
    turns = zip(parts[::2], parts[1::2], strict=True)
    return tuple(Message("user" if speaker == "Human" else "assistant", said.strip()) for speaker, said in turns)


def _message(turn: Row, cells: Cells, column: str) -> Message:
    name = next((turn[key] for key in ("role", "from") if turn.get(key) is not None), None)
    known = name.strip().lower() if isinstance(name, str) else ""
    refuse_if(known in _TOOL_ROLES, "tool turns, which are not learnt", repr(name))
    others = turn.keys() - _SPOKEN
    calls = next((key for key in _CALLS if key in others and not is_blank(turn[key])), None)
    refuse_if(calls, "tool calls, which are not learnt", f"{column}: {calls}")
    refuse_if(known not in _ROLES, "unknown role", repr(name)[:40])
    role = _ROLES[known]
    content = _content(next((turn[key] for key in _CONTENT if turn.get(key) is not None), None))
    learnt = _mark(turn) if others else None
    cells.within |= {f"{column}[].{key}" for key in others - _KNOWN if not is_blank(turn[key])}
    if role != "assistant" and learnt:
        cells.within.add(f"{column}[] marks to learn a turn of the {role}")
    return MarkedMessage(role, content) if role == "assistant" and learnt is False else Message(role, content)


def _content(value: Any) -> str:
    """Text of a turn; of a list of parts, one below the other."""
    if isinstance(value, list):
        parts = [{"text": part} if isinstance(part, str) else part for part in value]
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            is_text = isinstance(part, dict) and kind in _TEXT_PARTS and isinstance(part.get("text"), str)
            refuse_if(not is_text, "parts that are no text", f"a part of the type {kind!r}")
        return "\n".join(part["text"] for part in parts)
    refuse_if(value is not None and not isinstance(value, str), "not text", f"content is {type(value).__name__}")
    return value or ""


def _mark(turn: Row) -> bool | None:
    """Whether the data mark a turn as learnt; None where they say nothing."""
    detail = next((key for key in _PART_MARKS if not is_blank(turn.get(key))), None)
    refuse_if(detail, "marks inside a turn, which are not read", repr(detail))
    marks = {key: truth(turn[key]) for key in _MARKS.keys() & turn.keys() if turn[key] is not None}
    for key, says in marks.items():
        if says is None:
            raise BadRow("a mark that is neither yes nor no", f"{key}: {turn[key]!r}"[:60], "Write true or false.")
    return all(says is _MARKS[key] for key, says in marks.items()) if marks else None


def truth(value: Any) -> bool | None:
    """What a cell says of yes and no, also as number or text; None for anything else."""
    written = value.strip().lower() if isinstance(value, str) else value
    return True if written in (1, "true", "1") else False if written in (0, "false", "0") else None
