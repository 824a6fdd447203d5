"""Conversations and preference pairs, from every common shape of rows.

| shape | columns | in the wild |
|---|---|---|
| messages | messages (conversation, dialogue): [{role, content}] | most of the hub |
| sharegpt | conversations: [{from, value}] | ShareGPT, LLaMA-Factory |
| alpaca | instruction (question, query) and output (response, answer); maybe input, system, history | Alpaca, Dolly, OpenOrca |
| completion | prompt and completion: texts or messages | TRL |
| preference | chosen and rejected, and a question or messages before them, or nothing | mlabonne/orpo-dpo-mix-40k, UltraFeedback |

An answer of a pair is a string, a message, or the whole conversation (also as one text of `Human:` and `Assistant:`);
then what stands before the last message is the prompt, which both sides must share. A turn with `train: false`,
`loss: false`, `weight: 0` or `mask: true` has no loss. A row that cannot be used raises `BadRow`, whose reason is counted;
what of a row is not read, it says itself (`unread`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from stilnovo.data.turns import Cells, are_turns, is_blank, nested, transcript, truth, turns_of
from stilnovo.errors import InputError
from stilnovo.io.bad_rows import BadRow, OnBad, Tally, refuse_if, stop
from stilnovo.io.formats import Row
from stilnovo.io.rows import blocks, files_of, parsed
from stilnovo.text.template import MarkedMessage, Message

RowShape = Literal["messages", "sharegpt", "alpaca", "completion", "preference"]
_TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog")
_ASKED = ("instruction", "prompt", "question", "query", "problem")
_ANSWER = ("output", "completion", "response", "answer", "solution")
_MORE, _SYSTEM = ("input", "context"), ("system", "system_prompt")
_PROMPT = (
    "prompt",
    "conversations",
    "messages",
    "conversation",
    "dialogue",
    "dialog",
    "question",
    "instruction",
    "query",
    "input",
)
_TOOLS, _MEDIA = ("tools", "functions"), ("image", "images", "video", "videos", "audio", "audios")
_THUMBS = ("label", "kto_tag", "kto_label", "thumbs_up", "thumbs", "desirable")
_SEVERAL = ("responses", "completions", "answers", "generations", "outputs")
_RIVALS = [(f"{stem}_{one}", f"{stem}_{two}") for stem in (*_ANSWER, "conversation") for one, two in ("ab", "01", "12")]
SHAPES = (
    "messages; conversations; instruction, output[, input, system, history]; question, answer; prompt, completion; "
    "[prompt,] chosen, rejected"
)


@dataclass(frozen=True)
class Conversation:
    """Turns that end with an answer of the assistant; `unread` names what of its row was not read."""

    id: str
    messages: tuple[Message, ...]
    unread: frozenset[str] = field(default=frozenset(), compare=False, repr=False)


@dataclass(frozen=True)
class Preference:
    """Two answers to the same prompt, the first preferred; `unread` names what of its row was not read."""

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    unread: frozenset[str] = field(default=frozenset(), compare=False, repr=False)


Item = TypeVar("Item", "Conversation", "Preference")


def shape_of(columns: Iterable[str]) -> RowShape | None:
    """The shape that a row's columns have; None for an unknown shape."""
    named = {*columns}
    if {"chosen", "rejected"} <= named:
        return "preference"
    if turns := next((name for name in _TURNS if name in named), None):
        return "sharegpt" if turns == "conversations" else "messages"
    if {"prompt", "completion"} <= named and not {"instruction", "output"} <= named:
        return "completion"
    return "alpaca" if named & {*_ASKED, "input"} and named & {*_ANSWER} else None


def conversation(row: Row, row_number: int, *, completion_only: bool = True) -> Conversation:
    """A row of any shape as a conversation; of a preference pair, the preferred one.

    Args:
        row: One row of a file.
        row_number: Its number, which stands for the id where it has none.
        completion_only: Of a prompt and its completion, only the latter has a loss; otherwise both.

    Raises:
        BadRow: when it cannot be learnt from.
    """
    cells = Cells(row)
    shape = _filled_shape(row)
    if shape == "preference":
        pair = preference(row, row_number)
        return Conversation(pair.id, (*pair.prompt, Message("assistant", pair.chosen)), pair.unread)
    if shape is None:
        raise _missing(cells)
    _refuse_unsupported(cells, shape)
    if shape == "alpaca":
        turns = _alpaca(cells)
    elif shape == "completion":
        turns = _completion(cells, completion_only)
    else:
        turns = _asked(cells, next(iter(cells.filled(_TURNS)), next(name for name in _TURNS if name in row)))
    _check(turns)
    refuse_if(turns[-1].role != "assistant", "no answer at the end", f"ends with {turns[-1].role}")
    refuse_if(not any(turn.has_loss for turn in turns), "no turn is learnt", "all are marked as not learnt")
    return Conversation(str(row.get("id") or row_number), turns, cells.unread())


def preference(row: Row, row_number: int) -> Preference:
    """A row of the shape `preference`.

    Raises:
        BadRow: when a side is missing, both are equal, or they answer different prompts.
    """
    cells = Cells(row)
    if _filled_shape(row) != "preference":
        raise _missing(cells)
    _refuse_unsupported(cells, "preference")
    (before, chosen), (other, rejected) = _side(cells, "chosen"), _side(cells, "rejected")
    refuse_if(
        before != other, "chosen and rejected answer different prompts",
        f"{len(before)} and {len(other)} turns before",
    )  # fmt: skip
    prompt = before or _prompt(cells)
    if not prompt:
        raise _missing(cells, "no prompt: ")
    _check(prompt)
    refuse_if(prompt[-1].role != "user", "the prompt does not end with the user", f"ends with {prompt[-1].role}")
    refuse_if(not chosen.strip(), "empty answer", "chosen")
    refuse_if(not rejected.strip(), "empty answer", "rejected")
    refuse_if(chosen.strip() == rejected.strip(), "equal answers", repr(chosen[:40]))
    return Preference(str(row.get("id") or row_number), prompt, chosen, rejected, cells.unread())


def _filled_shape(row: Row) -> RowShape | None:
    """The shape of the columns that are not null: tables joined from several have all columns in every row."""
    return shape_of(name for name, value in row.items() if value is not None) or shape_of(row)


def _missing(cells: Cells, what: str = "") -> BadRow:
    several = next((name for name in _SEVERAL if isinstance(nested(cells.row.get(name)), list)), None)
    several = several or next((" and ".join(pair) for pair in _RIVALS if {*pair} <= cells.row.keys()), None)
    if several:
        return BadRow(
            "several answers to choose from", f"has {several}",
            "Write a better and a worse answer as chosen and rejected (train.task dpo), or the best one as output.",
        )  # fmt: skip
    return BadRow("missing columns", f"{what}has {', '.join(cells.row)}")


def _refuse_unsupported(cells: Cells, shape: RowShape) -> None:
    """Refuse rows with columns that change what the others mean."""
    tools = nested(cells.get(*_TOOLS))
    refuse_if(
        not is_blank(tools) and tools != "null", "tools, which are not supported", " or ".join(cells.filled(_TOOLS))
    )
    media = cells.filled(_MEDIA)
    refuse_if(media, "pictures, sound or video", ", ".join(media))
    if shape == "preference":
        return
    for name in cells.filled(_THUMBS):
        value = cells.row[name]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if truth(value) is not None and not (is_number and name == "label" and shape != "completion"):
            raise BadRow(
                f"thumbs up or down ({name})", f"{name}: {value}",
                f"Keep the rows that are thumbs up and take the column {name} out; or pair them as chosen and rejected.",
            )  # fmt: skip


def _alpaca(cells: Cells) -> tuple[Message, ...]:
    asked, answers = cells.filled(_ASKED), cells.filled(_ANSWER)
    if {"instruction", "output"} <= cells.row.keys():
        asked, answers = ["instruction"], ["output"]
    elif len(asked) > 1 or len(answers) > 1:
        raise BadRow(
            "ambiguous columns", ", ".join([*asked, *answers]), "Name the two to learn instruction and output."
        )
    output = cells.text(*answers)
    refuse_if(not output.strip(), "empty answer", " or ".join(answers or cells.row.keys() & {*_ANSWER}))
    question = Message("user", _question(cells, *asked))
    return (*_opening(cells), *_history(cells), question, Message("assistant", output))


def _question(cells: Cells, *names: str) -> str:
    return "\n\n".join(part for part in (cells.text(*names), cells.text(*_MORE)) if part)


def _history(cells: Cells) -> tuple[Message, ...]:
    """Earlier turns of an Alpaca row: pairs of question and answer, or messages."""
    history = nested(cells.get("history"))
    if history is None:
        return ()
    if are_turns(history):
        return turns_of(history, cells, "history")
    refuse_if(not isinstance(history, list), "history is no list", repr(history)[:40])
    pairs = [nested(pair) for pair in history]
    for number, pair in enumerate(pairs, 1):
        is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        refuse_if(not is_pair, "history is no list of questions and answers", f"pair {number}: {pair!r}"[:60])
    return tuple(turn for asked, said in pairs for turn in (Message("user", asked), Message("assistant", said)))


def _asked(cells: Cells, column: str) -> tuple[Message, ...]:
    """What a column asks, text or turns, with the system turn and the earlier turns of other columns before it."""
    value = cells.row[column]
    if isinstance(value, str) and column not in _TURNS and not are_turns(value):
        text = cells.text(column) if column in _MORE else _question(cells, column)
        return (*_opening(cells), *_history(cells), *([Message("user", text)] if text else ()))
    turns = (*_history(cells), *turns_of(cells.get(column), cells, column))
    return turns if turns and turns[0].role == "system" else (*_opening(cells), *turns)


def _completion(cells: Cells, completion_only: bool) -> tuple[Message, ...]:
    said = cells.get("completion")
    is_text = isinstance(said, str) and not are_turns(said)
    completion = (Message("assistant", said),) if is_text else turns_of(said, cells, "completion")
    refuse_if(not completion, "empty answer", "completion")
    asked = _asked(cells, "prompt")
    if not completion_only:
        return tuple(MarkedMessage(turn.role, turn.content, learnt=True) for turn in (*asked, *completion))
    return (*(MarkedMessage(turn.role, turn.content) if turn.has_loss else turn for turn in asked), *completion)


def _prompt(cells: Cells) -> tuple[Message, ...]:
    column = next(iter(cells.filled(_PROMPT)), None)
    return () if column is None else tuple(Message(turn.role, turn.content) for turn in _asked(cells, column))


def _side(cells: Cells, column: str) -> tuple[tuple[Message, ...], str]:
    """Split one side of a preference pair into prompt and answer."""
    value = cells.get(column)
    if value is None or (isinstance(value, str) and not are_turns(value)):
        turns = () if value is None or cells.filled(_PROMPT) else transcript(value)
        if not turns:
            return (), value or ""
    else:
        turns = turns_of(value, cells, column)
    last = turns[-1].role if turns else "no turns"
    refuse_if(last != "assistant", "no answer at the end", f"ends with {last}")
    return tuple(Message(turn.role, turn.content) for turn in turns[:-1]), turns[-1].content


def _opening(cells: Cells) -> tuple[Message, ...]:
    text = cells.text(*_SYSTEM)
    return (Message("system", text),) if text else ()


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
    """Parse every row of the files; also returns the tally of rows left out and of columns that are not read.

    Raises:
        InputError: for files without the columns, or with `stop`, for the first row that cannot be used.
    """
    tally = Tally()
    rows = parsed(blocks(files_of(paths)), parse, stop if on_bad == "stop" else tally.leave, tally)
    items = list(itertools.islice(rows, max_rows))
    tally.taken = len(items)
    if not items:
        shown = tally.lines()[0] if tally.left else "no rows"
        advice: Any = next(iter(tally.advice.values()), f"Columns that are read: {SHAPES}.")
        raise InputError("No row can be learnt from.", shown, advice)
    return items, tally


#: `read_items` of every conversation of the files (of a preference pair, the preferred one), and of every preference pair.
read_conversations, read_preferences = partial(read_items, conversation), partial(read_items, preference)
