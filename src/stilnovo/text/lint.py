"""Check a tokeniser and its chat template for mistakes that spoil a training.

These mistakes do not stop a training; they spoil it. A model whose end of turn lies outside the loss never learns to
stop; a padding token that equals the end is masked together with it; a doubled opening token is a state the model never
saw; a training template that differs from the generation template teaches answers to prompts that will not come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """The outcome of one rule: its level, and what was found."""

    rule: str
    level: Level
    text: str


Outcome = tuple[Level, str]


def lint(tokenizer: Tokenizer) -> list[Finding]:
    """Run all rules on a conversation of two questions with a system turn."""
    findings = []
    for name, rule in _RULES.items():
        try:
            findings.append(Finding(name, *rule(tokenizer)))
        except InputError as error:
            findings.append(Finding(name, "error", f"the template has no end, or lacks another token: {error.what}"))
    return findings


def check(tokenizer: Tokenizer) -> list[Finding]:
    """Run `lint` before a training and return the warnings.

    Raises:
        InputError: when a rule is broken, with every broken one.
    """
    findings = lint(tokenizer)
    broken = [f"{finding.rule}: {finding.text}" for finding in findings if finding.level == "error"]
    if broken:
        raise InputError(
            f"The chat template ({tokenizer.template}) is not fit for training.", " · ".join(broken),
            "See `stilnovo doctor --model NAME`; train on plain text, or give a model whose tokeniser is whole.",
        )  # fmt: skip
    return [finding for finding in findings if finding.level == "warning"]


def _end_of_turn(tokenizer: Tokenizer) -> Outcome:
    ids, learnt = tokenizer.supervised(PROBE)
    # The last learnt token of each run of learnt tokens.
    ends = [token for token, now, then in zip(ids, learnt, [*learnt[1:], False], strict=True) if now and not then]
    turns = sum(turn.role == "assistant" for turn in PROBE)
    wrong = [token for token in ends if token not in tokenizer.turn_end_ids]
    if tokenizer.template == "plain":
        return (
            "error" if wrong[-1:] == ends[-1:] else "warning",
            "no chat template: only the last turn ends, with the end-of-text; fit for plain text, not for conversations",
        )
    if wrong or len(ends) != turns:
        return "error", f"{len(ends) - len(wrong)} of {turns} assistant's turns end inside the loss"
    return "ok", f"all {turns} turns end with {tokenizer.special_text(ends[0])}, which is learnt"


def _same_prompt(tokenizer: Tokenizer) -> Outcome:
    for position, turn in enumerate(PROBE):
        if turn.role == "assistant":
            prompt = tokenizer.render(PROBE[:position], generation=True)
            ids, learnt = tokenizer.supervised(PROBE[: position + 1])
            start = len(ids) - learnt[::-1].index(False, learnt[::-1].index(True)) if any(learnt) else len(ids)
            if ids[:start] != prompt:
                return "error", f"before turn {position + 1} training sees {start} tokens, generation {len(prompt)}"
    return "ok", "what comes before an answer is the same, token by token"


def _one_opening(tokenizer: Tokenizer) -> Outcome:
    if tokenizer.bos_id is None:
        return "ok", "the model uses none"
    spelt = f"{tokenizer.special_text(tokenizer.bos_id)} Ciao"
    texts = [tokenizer.supervised(PROBE)[0], tokenizer.document(spelt)]
    counts = [ids.count(tokenizer.bos_id) for ids in texts[tokenizer.template == "plain" :]]
    return (
        "ok" if set(counts) == {1} else "error",
        f"it stands {' and '.join(map(str, counts))} time(s) in a conversation and a document",
    )


def _document_end(tokenizer: Tokenizer) -> Outcome:
    end = tokenizer.document("Ciao.")[-1]
    return "ok" if end in tokenizer.turn_end_ids else "error", f"with {tokenizer.special_text(end)}"


def _padding(tokenizer: Tokenizer) -> Outcome:
    if tokenizer.pad_id is None:
        return "ok", "no padding token is named, and stilnovo does not pad"
    spelt = tokenizer.special_text(tokenizer.pad_id)
    if tokenizer.pad_id in tokenizer.turn_end_ids:
        return (
            "warning",
            f"{spelt} is both; stilnovo does not pad, so this run is unaffected; other trainers may mask it out of the loss",
        )
    return "ok", f"{spelt} is no end"


def _own_template(tokenizer: Tokenizer) -> Outcome:
    if tokenizer.jinja is None:
        return "ok", "the model has none of its own"
    try:
        for generation, turns in ((False, PROBE), (True, PROBE[:2])):
            pieces = chat.TEMPLATES[tokenizer.template](turns, generation=generation)
            ours = "".join(piece.token if isinstance(piece, Special) else piece for piece in pieces)
            theirs = _run_jinja(tokenizer, turns, generation)
            # Some templates leave the opening token to the tokeniser.
            opening = tokenizer.special_text(tokenizer.bos_id) or ""
            if ours.removeprefix(opening) != theirs.removeprefix(opening):
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), -1)
                return (
                    "warning",
                    f"they part at character {at}: ours {ours[at : at + 40]!r}, the model's {theirs[at : at + 40]!r}",
                )
    except Exception as error:  # a template is somebody else's program; whatever it raises, it could not be compared
        return "warning", f"it could not be run: {type(error).__name__}: {str(error)[:100]}"
    return "ok", "the same text for a conversation and for a prompt"


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


_RULES: dict[str, Callable[[Tokenizer], Outcome]] = {
    "end of turn inside the loss": _end_of_turn,
    "training template equals generation template": _same_prompt,
    "no doubled opening token": _one_opening,
    "a document ends": _document_end,
    "padding is not an end": _padding,
    "our template writes what the model's own writes": _own_template,
}
