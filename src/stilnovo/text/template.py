"""What a conversation is, before and after a chat template: messages, and the rendered text with the place of every turn.

The template itself is the model's own (`stilnovo.text.chat_template`). Two forms are ours: `plain`, for a base model without
a chat template, and Llama 3's, for its rank files, which come without one. Here also stand the spellings of control
tokens that this project knows by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    @property
    def has_loss(self) -> bool:
        """Whether training learns to write it: the assistant's turns."""
        return self.role == "assistant"


@dataclass(frozen=True)
class MarkedMessage(Message):
    """A turn of which the data say whether it is learnt; a class of its own, so that others keep their digests."""

    learnt: bool = False

    @property
    def has_loss(self) -> bool:
        """Whether training learns to write it: as marked."""
        return self.learnt


@dataclass(frozen=True)
class RenderedTurn:
    """Where a message stands in a rendered text, in characters.

    Attributes:
        message: Its number in the conversation.
        start: Where what has a loss begins: an answer begins where the prompt of a generation ends.
        words_end: Where the words end.
        end: Where what has a loss ends: behind the token that ends the turn; without one, behind all that closes it.
    """

    message: int
    start: int
    words_end: int
    end: int


@dataclass(frozen=True)
class RenderedChat:
    """A conversation as text.

    Attributes:
        text: What the template wrote.
        inert: Parts written by people, as (start, end): the spelling of a control token in them is only text.
        turns: The turns that were found, in order.
        cuts: Places at which the text is encoded separately: where an answer begins.
        closed: Whether something ends the last turn.
    """

    text: str
    inert: tuple[tuple[int, int], ...] = ()
    turns: tuple[RenderedTurn, ...] = ()
    cuts: frozenset[int] = frozenset()
    closed: bool = True


# Any of these ends an assistant's turn, whichever of them the model was trained to write; the second closes a document.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>")
DOCUMENT_BEGINS = ("<|begin_of_text|>", "<s>")
# What shows through in an answer when a model has lost its template: the signs that common templates put around a turn.
TURN_SIGNS = frozenset({
    *TURN_ENDS, *DOCUMENT_BEGINS, "<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]", "[/INST]", "<<SYS>>",
    "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
})  # fmt: skip

# Llama 3's 256 special tokens in the order of their ids, which follow the vocabulary's.
LLAMA3_SPECIALS = (
    "<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{n}|>" for n in range(4)), "<|start_header_id|>",
    "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>", *(f"<|reserved_special_token_{n}|>" for n in range(5, 251)),
)  # fmt: skip
# Llama 3's template as Jinja, for rank files, which come without one.
LLAMA3_JINJA = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# SmolLM2's ChatML, by which prepared corpora of models that render the same are recognised (`Tokenizer.template`).
SMOLLM2_JINJA = (
    "{% if messages and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM,"
    " trained by Hugging Face<|im_end|>\n' }}{% endif %}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def plain(messages: Sequence[Message], *, generation: bool) -> RenderedChat:
    """Render for a base model without turns: texts follow each other, a blank line between; every text is encoded separately."""
    text, turns, cuts = "", list[RenderedTurn](), set[int]()
    for number, message in enumerate(messages):
        start, gap = len(text), "\n\n" if generation or number + 1 < len(messages) else ""
        words_end = start + len(message.content)
        text += message.content + gap
        turns.append(RenderedTurn(number, start, words_end, words_end if message.role == "assistant" else len(text)))
        cuts |= {start, words_end, len(text)} if message.role == "assistant" else {start, len(text)}
    return RenderedChat(text, ((0, len(text)),), tuple(turns), frozenset(cuts), closed=False)


def common_beginning(one: str, other: str) -> str:
    """What both texts begin with."""
    shorter = min(len(one), len(other))
    return one[: next((at for at in range(shorter) if one[at] != other[at]), shorter)]
