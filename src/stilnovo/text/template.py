"""Chat templates: the only file in which special tokens are spelt.

A template turns messages into pieces that are either literal special tokens or plain text; the tokeniser maps the first
to ids and encodes the second, so text typed by a person can never smuggle a control token in. Training and generation
use the same pieces. Two templates exist, because the models this project loads use two: ChatML (SmolLM2) and Llama 3
(LLaMAntino-3-ANITA); a model without a chat template is a base model and gets plain text.

What is learnt in training is marked here too: an assistant's words (`AssistantText`) and the token that ends its turn. Words and
header of an assistant's turn are separate pieces, so that training sees the tokens that generation will have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stilnovo.errors import InputError

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
class Special:
    """A special token by its text; the tokeniser knows its id. `learnt`: it ends an assistant turn and has a loss."""

    token: str
    learnt: bool = False


class AssistantText(str):
    """Text that the assistant learns to write: its tokens have a loss."""

    __slots__ = ()


TemplatePiece = Special | str

IM_START, IM_END = Special("<|im_start|>"), Special("<|im_end|>")
BEGIN, START_HEADER, END_HEADER, EOT = (
    Special("<|begin_of_text|>"),
    Special("<|start_header_id|>"),
    Special("<|end_header_id|>"),
    Special("<|eot_id|>"),
)
# Any of these ends an assistant's turn, whichever of them the model was trained to write; the second closes a document.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>")
DOCUMENT_BEGINS = ("<|begin_of_text|>", "<s>")

# Llama 3's 256 special tokens in the order of their ids, which follow the vocabulary's.
LLAMA3_SPECIALS = (
    BEGIN.token, "<|end_of_text|>", *(f"<|reserved_special_token_{n}|>" for n in range(4)), START_HEADER.token,
    END_HEADER.token, "<|reserved_special_token_4|>", EOT.token, *(f"<|reserved_special_token_{n}|>" for n in range(5, 251)),
)  # fmt: skip
# Llama 3's template as Jinja, for rank files, which come without one.
LLAMA3_JINJA = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

SMOLLM_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def _turns(
    messages: Sequence[Message],
    generation: bool,
    opening: Callable[[str], list[TemplatePiece]],
    end: str,
    tail: Sequence[str],
) -> list[TemplatePiece]:
    """Format a conversation as pieces: `opening` gives what precedes a role's words, its last piece being text."""
    pieces: list[TemplatePiece] = []
    for turn in messages:
        *header, gap = opening(turn.role)
        written = AssistantText if turn.has_loss else str
        words = [gap, written(turn.content)] if turn.role == "assistant" else [written(f"{gap}{turn.content}")]
        pieces += [*header, *words, Special(end, turn.has_loss), *tail]
    return pieces + (opening("assistant") if generation else [])


def chatml(messages: Sequence[Message], *, generation: bool) -> list[TemplatePiece]:
    """ChatML as SmolLM2 uses it: adds a default system turn when there is none."""
    turns = list(messages)
    if turns and turns[0].role != "system":
        turns.insert(0, Message("system", SMOLLM_SYSTEM))
    return _turns(turns, generation, lambda role: [IM_START, f"{role}\n"], IM_END.token, ["\n"])


def llama3(messages: Sequence[Message], *, generation: bool) -> list[TemplatePiece]:
    """Llama 3's template: header, blank line, stripped content, end of turn."""
    turns = [replace(turn, content=turn.content.strip()) for turn in messages]
    return [BEGIN, *_turns(turns, generation, lambda role: [START_HEADER, role, END_HEADER, "\n\n"], EOT.token, [])]


def plain(messages: Sequence[Message], *, generation: bool) -> list[TemplatePiece]:
    """Plain template for a base model without turns: texts follow each other, a blank line between."""
    pieces: list[TemplatePiece] = []
    for position, turn in enumerate(messages):
        gap = "\n\n" if generation or position + 1 < len(messages) else ""
        written = AssistantText if turn.has_loss else str
        pieces += [written(turn.content), gap] if turn.role == "assistant" else [written(turn.content + gap)]
    return pieces


TEMPLATES = {"chatml": chatml, "llama3": llama3, "plain": plain}


def detect(template: str | None, vocabulary: set[str]) -> str:
    """Detect the template from a model's own Jinja template and special tokens.

    Raises:
        InputError: when the model has a chat template that is none of ours; a wrong one would be worse than none.
    """
    if not template:
        return "plain"
    for name, begin in (("chatml", IM_START.token), ("llama3", START_HEADER.token)):
        if begin in template and begin in vocabulary:
            return name
    raise InputError(
        "The model's chat template is not supported.",
        f"It begins: {template[:80]!r}",
        f"Supported: {', '.join(TEMPLATES)}.",
    )
