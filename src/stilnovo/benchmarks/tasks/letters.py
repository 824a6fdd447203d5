"""Questions answered by a letter: the form that MMLU gave its name to."""

from __future__ import annotations

from collections.abc import Sequence

from stilnovo.benchmarks.task import MultipleChoice
from stilnovo.errors import InputError

LETTERS = "ABCD"


def lettered(
    id: str, header: str, question: str, options: Sequence[str], answer: int, subject: str, cue: str = "Answer:"
) -> MultipleChoice:
    """`question`, the options with their letters, and `cue`, after `header`; the endings are the letters."""
    if not question or not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError("the question or an option is empty")
    letters = "ABCDEFGHI"[: len(options)]
    lines = [question, *(f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)), cue]
    return MultipleChoice(
        id=id,
        context=header + "\n".join(lines),
        endings=tuple(f" {letter}" for letter in letters),
        answer=answer,
        cluster=subject,
        category=subject,
        header=header,
    )


def header(examples: Sequence[MultipleChoice], wanted: int, origin: str) -> str:
    """The answered examples, a blank line after each.

    Raises:
        InputError: there are fewer of them than wanted.
    """
    if len(examples) < wanted:
        raise InputError(f"There are only {len(examples)} examples for {wanted} shots.", f"File: {origin}")
    return "".join(f"{item.context}{item.endings[item.answer]}\n\n" for item in examples)
