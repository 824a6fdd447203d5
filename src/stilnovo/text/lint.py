"""What must be true of a tokeniser and its chat template before anything is trained with them.

These mistakes do not stop a training; they spoil it. A model whose end of turn lies outside the loss never learns to
stop; a padding token that equals the end is masked together with it; a doubled opening token is a state the model never
saw; a training template that differs from the generation template teaches answers to prompts that will not come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stilnovo.errors import InputError
from stilnovo.text import template as chat
from stilnovo.text.template import Message, Special
from stilnovo.text.tokenizer import Tokenizer

Level = Literal["ok", "warning", "error"]
PROBE = (
    Message("system", "Rispondi in italiano."),
    Message("user", "Qual è la capitale d'Italia?"),
    Message("assistant", "Roma."),
    Message("user", "E della Francia?"),
    Message("assistant", "Parigi, sulla Senna."),
)


@dataclass(frozen=True)
class Finding:
    """One rule looked at: how it stands, and what was seen."""

    rule: str
    level: Level
    text: str


def lint(tokenizer: Tokenizer) -> list[Finding]:
    """Every rule in turn, for a conversation of two questions with a system turn."""
    rules = (_end_of_turn, _same_prompt, _one_opening, _document_end, _padding, _own_template)
    return [rule(tokenizer) for rule in rules]


def check(tokenizer: Tokenizer) -> list[Finding]:
    """`lint`, for a training about to begin: returns the warnings.

    Raises:
        InputError: when a rule is broken, with every broken one.
    """
    findings = lint(tokenizer)
    broken = [f"{found.rule}: {found.text}" for found in findings if found.level == "error"]
    if broken:
        raise InputError(
            f"The chat template ({tokenizer.template}) is not fit for training.", " · ".join(broken),
            "See `stilnovo doctor --model NAME`; train on plain text, or give a model whose tokeniser is whole.",
        )  # fmt: skip
    return [found for found in findings if found.level == "warning"]


def _ends(ids: Sequence[int], learnt: Sequence[bool]) -> list[int]:
    """The last learnt token of each run of learnt tokens."""
    return [token for i, token in enumerate(ids) if learnt[i] and (i + 1 == len(ids) or not learnt[i + 1])]


def _end_of_turn(tokenizer: Tokenizer) -> Finding:
    rule = "end of turn inside the loss"
    try:
        ids, learnt = tokenizer.supervised(PROBE)
    except InputError as error:
        return Finding(rule, "error", f"the template has no end: {error.what}")
    ends, turns = _ends(ids, learnt), sum(turn.role == "assistant" for turn in PROBE)
    wrong = [token for token in ends if token not in tokenizer.turn_end_ids]
    if tokenizer.template == "plain":
        text = (
            "no chat template: only the last turn ends, with the end-of-text; fit for plain text, not for conversations"
        )
        return Finding(rule, "error" if wrong[-1:] == ends[-1:] else "warning", text)
    if wrong or len(ends) != turns:
        return Finding(rule, "error", f"{len(ends) - len(wrong)} of {turns} assistant's turns end inside the loss")
    return Finding(rule, "ok", f"all {turns} turns end with {tokenizer.special_text(ends[0])}, which is learnt")


def _same_prompt(tokenizer: Tokenizer) -> Finding:
    rule = "training template equals generation template"
    try:
        for number, turn in enumerate(PROBE):
            if turn.role == "assistant":
                prompt = tokenizer.render(PROBE[:number], generation=True)
                ids, learnt = tokenizer.supervised(PROBE[: number + 1])
                start = len(ids) - learnt[::-1].index(False, learnt[::-1].index(True)) if any(learnt) else len(ids)
                if ids[:start] != prompt:
                    text = f"before turn {number + 1} training sees {start} tokens, generation {len(prompt)}"
                    return Finding(rule, "error", text)
    except InputError as error:
        return Finding(rule, "error", error.what)
    return Finding(rule, "ok", "what comes before an answer is the same, token by token")


def _one_opening(tokenizer: Tokenizer) -> Finding:
    rule = "no doubled opening token"
    if tokenizer.bos_id is None:
        return Finding(rule, "ok", "the model uses none")
    try:
        conversation = tokenizer.supervised(PROBE)[0]
    except InputError as error:
        return Finding(rule, "error", error.what)
    spelt = f"{tokenizer.special_text(tokenizer.bos_id)} Ciao"
    counts = [ids.count(tokenizer.bos_id) for ids in (conversation, tokenizer.document(spelt))]
    if tokenizer.template == "plain":
        counts = counts[1:]
    level: Level = "ok" if all(count == 1 for count in counts) else "error"
    return Finding(rule, level, f"it stands {' and '.join(map(str, counts))} time(s) in a conversation and a document")


def _document_end(tokenizer: Tokenizer) -> Finding:
    end = tokenizer.document("Ciao.")[-1]
    level: Level = "ok" if end in tokenizer.turn_end_ids else "error"
    return Finding("a document ends", level, f"with {tokenizer.special_text(end)}")


def _padding(tokenizer: Tokenizer) -> Finding:
    rule = "padding is not an end"
    if tokenizer.pad_id is None:
        return Finding(rule, "ok", "no padding token is named, and nothing is padded here")
    spelt = tokenizer.special_text(tokenizer.pad_id)
    if tokenizer.pad_id in tokenizer.turn_end_ids:
        text = (
            f"{spelt} is both; nothing is padded here, but other programs will mask the end together with the padding"
        )
        return Finding(rule, "warning", text)
    return Finding(rule, "ok", f"{spelt} is no end")


def _own_template(tokenizer: Tokenizer) -> Finding:
    rule = "our template writes what the model's own writes"
    if tokenizer.jinja is None:
        return Finding(rule, "ok", "the model has none of its own")
    try:
        for generation, turns in ((False, PROBE), (True, PROBE[:2])):
            ours = _spelt(chat.TEMPLATES[tokenizer.template](turns, generation=generation))
            theirs = _run_jinja(tokenizer, turns, generation)
            # Some templates leave the opening token to the tokeniser.
            opening = tokenizer.special_text(tokenizer.bos_id) or ""
            if ours.removeprefix(opening) != theirs.removeprefix(opening):
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), -1)
                text = f"they part at character {at}: ours {ours[at : at + 40]!r}, the model's {theirs[at : at + 40]!r}"
                return Finding(rule, "warning", text)
    except (
        Exception
    ) as error:  # a template is a program of someone else's; whatever it raises, it could not be compared
        return Finding(rule, "warning", f"it could not be run: {type(error).__name__}: {str(error)[:100]}")
    return Finding(rule, "ok", "the same text for a conversation and for a prompt")


def _spelt(pieces: Sequence[chat.TemplatePiece]) -> str:
    return "".join(piece.token if isinstance(piece, Special) else piece for piece in pieces)


def _run_jinja(tokenizer: Tokenizer, turns: Sequence[Message], generation: bool) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> str:
        raise ValueError(message)

    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return world.from_string(tokenizer.jinja or "").render(
        messages=[{"role": turn.role, "content": turn.content} for turn in turns],
        add_generation_prompt=generation, bos_token=tokenizer.special_text(tokenizer.bos_id) or "",
        eos_token=tokenizer.special_text(tokenizer.eos_id) or "", raise_exception=refuse,
    )  # fmt: skip
