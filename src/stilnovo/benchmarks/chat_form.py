"""Items as conversations: what a chat template, or a server for chats, is given in place of the plain prompt.

As lm-evaluation-harness divides it with a chat template: the system prompt and the task's description are the system's
turn, the examples are turns of user and assistant or stand in the user's one turn, the question is the user's last. The delimiter
between a question and its answer falls away, since the template takes its place: the endings are those of `choices`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from stilnovo.benchmarks.items import Item, MultipleChoice, item_sha256
from stilnovo.text.template import Message


@dataclass(frozen=True)
class ChatForm:
    """How an item becomes a conversation.

    Attributes:
        system: The system prompt; empty for none.
        single_turn: Whether the examples stand in the user's one turn instead of turns of their own.
    """

    system: str = ""
    single_turn: bool = False

    def settings(self) -> dict[str, str]:
        """The system prompt, and where the examples stand, as plain values for a result."""
        return {"system": self.system, "examples": "in one turn" if self.single_turn else "as turns"}

    def conversation(self, item: Item, context: str | None = None) -> list[Message]:
        """The turns of an item, the user's question last.

        Args:
            item: The item.
            context: Instead of the item's: one of its `contexts`, or the beginning of one, examples included.
        """
        before = item.few_shot
        asked = (item.context if context is None else context).removeprefix(before.description)
        turns: list[Message] = []
        if not self.single_turn:
            asked = asked.removeprefix(before.text[len(before.description) :])
            for question, answer in before.examples:
                turns += [Message("user", question), Message("assistant", answer)]
        turns.append(Message("user", asked))
        system = _joined(self.system, before.description, before.between)
        return [Message("system", system), *turns] if system else turns

    def sha256(self, item: Item) -> str:
        """Hash of an item and of all that it becomes here: what a cached answer is found by."""
        contexts = dict.fromkeys(text for text, _ in item.pairs) if isinstance(item, MultipleChoice) else [item.context]
        talks = [self.conversation(item, text) for text in contexts]
        asked = [[(turn.role, turn.content) for turn in talk] for talk in talks]
        parts = [item_sha256(item), asked, choices(item) if isinstance(item, MultipleChoice) else []]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


USUAL_FORM = ChatForm()


def choices(item: MultipleChoice) -> list[str]:
    """The endings of a question without the delimiter before them."""
    return [ending.removeprefix(item.few_shot.delimiter) for ending in item.endings]


def _joined(system: str, description: str, between: str) -> str:
    """A system prompt and a description, `between` them unless white space is there already."""
    seam = system[-1:].isspace() or description[:1].isspace()
    return system + ("" if seam or not (system and description) else between) + description
