"""Conversations and preference pairs, from every common shape of rows.

| shape | columns | in the wild |
|---|---|---|
| messages | messages: [{role, content}] | most of the hub |
| sharegpt | conversations: [{from, value}] | ShareGPT, LLaMA-Factory |
| alpaca | instruction, output, maybe input and system | Alpaca; Chat-Error/wizard_alpaca_dolly_orca |
| preference | chosen and rejected, and prompt, conversations, or nothing | mlabonne/orpo-dpo-mix-40k, UltraFeedback |

An answer of a pair is a string, a message, or the whole conversation; then what stands before the last message is the
prompt, which both sides must share. A row that cannot be used raises `BadRow`, whose reason is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from stilnovo.errors import InputError
from stilnovo.io.bad_rows import BadRow, OnBad, Tally, refuse_if, stop
from stilnovo.io.formats import Row
from stilnovo.io.rows import blocks, files_of, parsed
from stilnovo.text.template import Message, Role

RowShape = Literal["messages", "sharegpt", "alpaca", "preference"]
_ROLES: dict[str, Role] = {
    "system": "system", "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant",
    "bot": "assistant", "chatbot": "assistant", "model": "assistant",
}  # fmt: skip
_NEEDED: dict[RowShape, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"), "messages": ("messages",), "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
}  # fmt: skip
SHAPES = "messages; conversations; instruction, output[, input, system]; [prompt,] chosen, rejected"


@dataclass(frozen=True)
class Conversation:
    """Turns that end with an answer of the assistant."""

    id: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Preference:
    """Two answers to the same prompt, the first preferred."""

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


Item = TypeVar("Item", "Conversation", "Preference")


def shape_of(columns: Iterable[str]) -> RowShape | None:
    """The shape that a row's columns have; None for an unknown shape."""
    return next((shape for shape, needed in _NEEDED.items() if {*needed} <= {*columns}), None)


def conversation(row: Row, row_number: int) -> Conversation:
    """A row of any shape as a conversation; of a preference pair, the preferred one.

    Raises:
        BadRow: when it cannot be learnt from.
    """
    shape = shape_of(row)
    if shape == "preference":
        pair = preference(row, row_number)
        return Conversation(pair.id, (*pair.prompt, Message("assistant", pair.chosen)))
    if shape is None:
        raise _missing(row)
    turns = _alpaca(row) if shape == "alpaca" else _turns(row[_NEEDED[shape][0]], row.get("system"))
    _check(turns)
    refuse_if(turns[-1].role != "assistant", "no answer at the end", f"ends with {turns[-1].role}")
    return Conversation(str(row.get("id") or row_number), turns)


def preference(row: Row, row_number: int) -> Preference:
    """A row of the shape `preference`.

    Raises:
        BadRow: when a side is missing, both are equal, or they answer different prompts.
    """
    if shape_of(row) != "preference":
        raise _missing(row)
    (before, chosen), (other, rejected) = _side(row["chosen"]), _side(row["rejected"])
    refuse_if(
        before != other, "chosen and rejected answer different prompts",
        f"{len(before)} and {len(other)} turns before",
    )  # fmt: skip
    prompt = before or _prompt(row)
    if not prompt:
        raise _missing(row, "no prompt: ")
    _check(prompt)
    refuse_if(prompt[-1].role != "user", "the prompt does not end with the user", f"ends with {prompt[-1].role}")
    refuse_if(not chosen.strip(), "empty answer", "chosen")
    refuse_if(not rejected.strip(), "empty answer", "rejected")
    refuse_if(chosen.strip() == rejected.strip(), "equal answers", repr(chosen[:40]))
    return Preference(str(row.get("id") or row_number), prompt, chosen, rejected)


def _missing(row: Row, what: str = "") -> BadRow:
    return BadRow("missing columns", f"{what}has {', '.join(row)}")


def _alpaca(row: Row) -> tuple[Message, ...]:
    instruction, more, output = (_text(row.get(key), key) for key in ("instruction", "input", "output"))
    refuse_if(not output.strip(), "empty answer", "output")
    asked = "\n\n".join(part for part in (instruction, more) if part.strip())
    return (*_opening(row.get("system")), Message("user", asked), Message("assistant", output))


def _prompt(row: Row) -> tuple[Message, ...]:
    for key in ("prompt", "conversations", "messages", "question", "instruction"):
        value = row.get(key)
        if isinstance(value, str) and value.strip():
            return (*_opening(row.get("system")), Message("user", value))
        if isinstance(value, list) and value:
            return _turns(value, row.get("system"))
    return ()


def _side(value: Any) -> tuple[tuple[Message, ...], str]:
    """Split one side of a preference pair into prompt and answer."""
    if isinstance(value, str):
        return (), value
    turns = _turns(value if isinstance(value, list) else [value], None)
    last = turns[-1].role if turns else "no turns"
    refuse_if(last != "assistant", "no answer at the end", f"ends with {last}")
    return turns[:-1], turns[-1].content


def _opening(system: Any) -> tuple[Message, ...]:
    text = _text(system, "system")
    return (Message("system", text),) if text.strip() else ()


def _turns(value: Any, system: Any) -> tuple[Message, ...]:
    is_list = isinstance(value, list) and all(isinstance(turn, dict) for turn in value)
    refuse_if(not is_list, "not a list of messages", type(value).__name__)
    turns = []
    for turn in value:
        name = turn.get("role", turn.get("from"))
        role = _ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise BadRow("unknown role", repr(name)[:40])
        turns.append(Message(role, _text(turn.get("content", turn.get("value")), "content")))
    return tuple(turns) if turns and turns[0].role == "system" else (*_opening(system), *turns)


def _text(value: Any, key: str) -> str:
    refuse_if(value is not None and not isinstance(value, str), "not text", f"{key} is {type(value).__name__}")
    return value or ""


def _check(turns: Sequence[Message]) -> None:
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    refuse_if(not spoken, "empty row", "no turns")
    refuse_if(spoken[0].role == "assistant", "starts with the assistant", repr(spoken[0].content[:40]))
    for number, (turn, following) in enumerate(itertools.pairwise(spoken), 2):
        refuse_if(
            following.role in ("system", turn.role), "roles do not alternate",
            f"turn {number} is {following.role} after {turn.role}",
        )  # fmt: skip
    for number, turn in enumerate(spoken, 1):
        refuse_if(not turn.content.strip(), "empty turn", f"turn {number}")


def read_items(
    parse: Callable[[Row, int], Item], paths: Sequence[str | Path], *, on_bad: OnBad = "skip", max_rows: int | None = None
) -> tuple[list[Item], Tally]:  # fmt: skip
    """Parse every row of the files; also returns the tally of rows left out.

    Raises:
        InputError: for files without the columns, or with `stop`, for the first row that cannot be used.
    """
    tally = Tally()
    rows = parsed(blocks(files_of(paths)), parse, stop if on_bad == "stop" else tally.leave)
    items = list(itertools.islice(rows, max_rows))
    tally.taken = len(items)
    if not items:
        shown = tally.lines()[0] if tally.left else "no rows"
        raise InputError("No row can be learnt from.", shown, f"Columns that are read: {SHAPES}.")
    return items, tally


#: `read_items` of every conversation of the files (of a preference pair, the preferred one), and of every preference pair.
read_conversations, read_preferences = partial(read_items, conversation), partial(read_items, preference)
