"""Items under a model's chat template, ready to be scored or written to.

Token by token what lm-evaluation-harness makes of them: the rendered conversation and an ending are encoded as one text, and what
follows the tokens of the rendered text without its trailing white space belongs to the ending. So the line break with which
many templates open an answer is scored with every ending; it is nearly certain and the same for all. The opening token is
given where the model has one and the template does not write it.

Unusual: a template that takes no system turn gets its words at the beginning of the first question (`Tokenizer.taken`), where the
harness leaves them out without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from stilnovo.benchmarks.chat_form import ChatForm, choices
from stilnovo.benchmarks.items import Decoding, FewShot, Generation, Item, MultipleChoice
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.errors import InputError
from stilnovo.scoring.encode import Endings
from stilnovo.scoring.identity import Identity
from stilnovo.scoring.thinking import opens_thinking
from stilnovo.text.chat_template import TemplateRefusal
from stilnovo.text.sandbox import now
from stilnovo.text.template import RenderedChat
from stilnovo.text.tokenizer import Tokenizer

_ANY = "?"  # a question of which only what stands before it is wanted
_QUESTION = Generation(_ANY, _ANY, (_ANY,), Decoding(1))


class ChatPrompts:
    """Renders items with a model's chat template.

    Args:
        tokenizer: With the template.
        form: How an item becomes a conversation.

    Raises:
        InputError: the model has no chat template, or one that cannot be used.
    """

    def __init__(self, tokenizer: Tokenizer, form: ChatForm) -> None:
        if tokenizer.chat is None:
            raise InputError(
                "The model has no chat template.", "Its files hold none, so it is no chat model, or they are not whole.",
                "Leave --chat-template out.",
            )  # fmt: skip
        self.tokenizer, self.form, self._chat = tokenizer, form, tokenizer.chat
        self.prompt(_QUESTION)
        self._header = lru_cache(256)(self._before)

    def settings(self) -> dict[str, Any]:
        """What of it changes an answer, as plain values: the template by its hash, system prompt, form of the examples.

        Where the template writes the date, the day too: another day's answers are answers to other prompts.
        """
        parts = f"{self._chat.source}\0{sorted(self._chat.variables.items())}"
        return {
            "template": self.tokenizer.template,
            "sha256": hashlib.sha256(parts.encode()).hexdigest(),
            **self.form.settings(),
            **({"date": now("%Y-%m-%d")} if "strftime_now" in self._chat.source else {}),
        }

    def identity(self, model: Identity) -> Identity:
        """The identity of a model that is asked so, under which its answers are cached."""
        return replace(model, protocol={**model.protocol, "chat_template": self.settings()})

    def prompt(self, item: Item, context: str | None = None) -> RenderedChat:
        """Render an item up to where its answer begins; `context` as in `ChatForm.conversation`.

        Raises:
            InputError: the template refuses the conversation, or leaves some of it out.
        """
        turns = self.tokenizer.taken(self.form.conversation(item, context))
        advice = "Put the examples into the user's one turn: --single-turn; or leave them out: --shots 0."
        try:
            rendered = self._chat.prompt(turns)
        except TemplateRefusal as refusal:
            if len(turns) <= 2:
                raise
            raise TemplateRefusal(refusal.what, refusal.found, advice) from refusal
        if missing := self._chat.left_out([turn.role for turn in turns]):
            raise TemplateRefusal(
                "The model's chat template leaves examples out.",
                f"Of {len(turns)} turns it writes nothing of {', '.join(str(turn + 1) for turn in missing)}.",
                advice,
            )
        return rendered

    def sha256(self, item: Item) -> str:
        """Hash of an item as it is asked."""
        return self.form.sha256(item)

    def endings(self, item: MultipleChoice) -> Endings:
        """The rendered context and ending of every choice, and what other items may begin with too."""
        contexts = {text: self.prompt(item, text) for text, _ in item.pairs}
        pairs = [(contexts[text], ending) for (text, _), ending in zip(item.pairs, choices(item), strict=True)]
        return Endings(pairs, self.header(item))

    def header(self, item: Item) -> RenderedChat:
        """A prompt that begins like those of all items with the same header."""
        shared = item.few_shot if item.header.startswith(item.few_shot.text) else FewShot(item.few_shot.description)
        return self._header(item.header or shared.description, shared)

    def _before(self, header: str, few_shot: FewShot) -> RenderedChat:
        return self.prompt(Generation(_ANY, header + _ANY, (_ANY,), _QUESTION.decoding, few_shot=few_shot))


def chat_prompts(tokenizer: Tokenizer, how: Prompting, note: Callable[[str], None]) -> ChatPrompts | None:
    """The model's chat template where items are to be asked under it; else a note that it could be.

    Raises:
        InputError: it is asked for, and the model has none that can be used.
    """
    if how.chat_template:
        chat = ChatPrompts(tokenizer, how.chat)
        if not tokenizer.takes_system:
            note("The chat template takes no system turn: system prompt and descriptions begin the first question.")
        if opens_thinking(chat.prompt(_QUESTION).text):
            note(
                "The chat template opens the model's thinking before its answer: endings are scored inside it, as "
                "lm-evaluation-harness does, and written answers must end it within the task's tokens."
            )
        return chat
    if how.chat_template is None and tokenizer.converses:
        note(
            "The model has a chat template, and is asked in plain text. If it is an instruct model, add --chat-template."
        )
    return None
