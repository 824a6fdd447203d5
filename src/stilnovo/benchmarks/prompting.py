"""How the selected tasks are asked: examples, prompts, repeats, temperature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stilnovo.benchmarks.chat_form import USUAL_FORM, ChatForm
from stilnovo.benchmarks.draw import Draw
from stilnovo.benchmarks.items import Generation, Item
from stilnovo.benchmarks.protocol import Protocol
from stilnovo.benchmarks.task import MissingData, Selection, Task
from stilnovo.errors import InputError, check_types


@dataclass(frozen=True)
class Prompting:
    """How tasks are asked, where that is not left to them.

    Attributes:
        shots: Examples before each question.
        prompts: Which wordings of a task that has several: `default`, `all`, or names with commas.
        repeats: How often a written answer is drawn; an item's value is its mean over them.
        temperature: Of written answers, instead of the task's.
        chat_template: Whether items are asked under the model's chat template; None as False, to a model that has one with a note.
        chat: Its system prompt, and where the examples stand.
    """

    shots: int | None = None
    prompts: str | None = None
    repeats: int = 1
    temperature: float | None = None
    chat_template: bool | None = None
    chat: ChatForm = USUAL_FORM

    def __post_init__(self) -> None:
        check_types(int, type(None), shots=self.shots, repeats=self.repeats)
        check_types(str, type(None), prompts=self.prompts)
        check_types(int, float, type(None), temperature=self.temperature)
        check_types(bool, type(None), chat_template=self.chat_template)
        if self.chat != USUAL_FORM and not self.chat_template:
            option = "--system" if self.chat.system else "--single-turn"
            raise InputError(f"{option} is about the chat template.", next="Add --chat-template.")
        if self.repeats < 1:
            raise InputError(f"Answers cannot be repeated {self.repeats} times.", next="Give --repeats 1 or more.")
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise InputError(f"The temperature {self.temperature:g} cannot be used.", next="Give 0, or a little more.")

    def selections(
        self,
        tasks: Sequence[Task],
        protocol: Protocol,
        draw: Draw,
        data_dir: Path | None = None,
        split: str | None = None,
        *,
        download: bool = False,
        absent: Callable[[Task, MissingData], None] | None = None,
    ) -> list[Selection]:
        """Load and sample tasks, one selection a prompt; one whose data are missing is left out if `absent` returns.

        Raises:
            InputError: one cannot be asked so.
        """
        chosen: list[Selection] = []
        for task in tasks:
            try:
                names = task.prompts_of(self.prompts)
                chosen += [
                    replace(
                        protocol.select(task, data_dir, split, draw, shots=self.shots, download=download, prompt=name),
                        prompts_asked=len(names),
                    )
                    for name in names
                ]
            except MissingData as error:
                if absent is None:
                    raise
                absent(task, error)
        if chosen and (self.repeats > 1 or self.temperature is not None) and not any(map(_writes, chosen)):
            option = "--repeats" if self.repeats > 1 else "--temperature"
            raise InputError(
                f"{option} is about written answers.", "The tasks are scored by log-likelihood, which is always the same.",
                f"Leave {option} out.",
            )  # fmt: skip
        return [self.sampled(selection) for selection in chosen]

    def settings(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values for a result; `of` reads them."""
        usual, given = asdict(Prompting()), asdict(self)
        return {key: value for key, value in given.items() if value != usual[key]}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Prompting:
        """From the plain values of `settings`.

        Raises:
            InputError: one is not known.
        """
        try:
            return cls(**{**settings, "chat": ChatForm(**settings.get("chat", {}))})
        except TypeError as error:
            raise InputError("The way of asking cannot be read.", str(error)) from error

    def sampled(self, selection: Selection) -> Selection:
        """A selection with this temperature and these repeats.

        Raises:
            InputError: repeats of answers that are written greedily.
        """
        if not _writes(selection):
            return selection  # log-likelihoods come out the same again
        items: tuple[Item, ...] = selection.items
        if self.temperature is not None:
            items = tuple(
                replace(item, decoding=replace(item.decoding, temperature=float(self.temperature)))
                if isinstance(item, Generation)
                else item
                for item in items
            )
        if self.repeats > 1 and not any(isinstance(item, Generation) and item.decoding.temperature for item in items):
            raise InputError(
                f"Task {selection.task.name} is written greedily: every repeat would be the same.",
                "Its temperature is 0.",
                "Add --temperature 0.7, say, or leave --repeats out.",
            )
        return replace(selection, items=items, repeats=self.repeats)


def _writes(selection: Selection) -> bool:
    return any(isinstance(item, Generation) for item in selection.items)
