"""Check a tokeniser and its chat template for mistakes that spoil a training.

These mistakes do not stop a training; they spoil it. A model whose end of turn lies outside the loss never learns to
stop; a padding token that equals the end is masked together with it; a doubled opening token is a state the model never
saw; a training template that differs from the generation template teaches answers to prompts that will not come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from stilnovo.errors import InputError
from stilnovo.text.chat_template import TemplateRefusal
from stilnovo.text.template import Message, common_beginning
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
    """Run all rules: those of documents, then those of a conversation of two questions."""
    return [*_run(tokenizer, _OF_DOCUMENTS), *_run(tokenizer, _OF_CONVERSATIONS)]


def check(tokenizer: Tokenizer, *, conversations: bool = True) -> list[Finding]:
    """Run `lint` before a training and return the warnings; for texts alone, what spoils conversations is a warning too.

    Raises:
        InputError: when a rule is broken, with every broken one.
    """
    needed = lint(tokenizer) if conversations else _run(tokenizer, _OF_DOCUMENTS)
    broken = [f"{finding.rule}: {finding.text}" for finding in needed if finding.level == "error"]
    if broken:
        raise InputError(
            f"The chat template ({tokenizer.template}) is not fit for training.", " · ".join(broken),
            "See `stilnovo doctor --model NAME`; train on plain text, or give a model whose tokeniser is whole.",
        )  # fmt: skip
    return [finding for finding in lint(tokenizer) if finding.level != "ok"]


def _run(tokenizer: Tokenizer, rules: dict[str, Callable[[Tokenizer], Outcome]]) -> list[Finding]:
    findings = list[Finding]()
    for name, rule in rules.items():
        try:
            findings.append(Finding(name, *rule(tokenizer)))
        except TemplateRefusal as refusal:  # the other rules of conversations would say the same
            return [*findings, Finding(name, "error", f"{refusal.what} {refusal.found}")]
        except InputError as error:
            findings.append(Finding(name, "error", " ".join(filter(None, (error.what, error.found)))))
    return findings


def _probe(tokenizer: Tokenizer) -> Sequence[Message]:
    """The conversation that is tried: without its system turn where the template refuses one or leaves it out."""
    try:
        return PROBE if PROBE[0].content in tokenizer.rendered(PROBE).text else PROBE[1:]
    except InputError:
        return PROBE[1:]


def _renders(tokenizer: Tokenizer) -> Outcome:
    if tokenizer.chat is None:
        return "ok", "the model has no chat template; texts follow each other"
    probe = _probe(tokenizer)
    text = tokenizer.rendered(probe).text
    if lost := [turn.content for turn in probe if turn.content not in text]:
        return "error", f"the template leaves out {lost[0]!r}"
    if probe is not PROBE:
        if tokenizer.chat.takes(PROBE[:2]):
            left = (
                "the template leaves a system turn out of conversations that end with an answer: it is not learnt from"
            )
            return "warning", f"{left}; put its words at the beginning of the first question"
        return "warning", "the template refuses a system turn: conversations that have one are refused"
    if "strftime_now" in tokenizer.chat.source:
        return (
            "warning",
            "the template may write the day's date; SOURCE_DATE_EPOCH fixes it for a training that is to be repeated",
        )
    added = tokenizer.rendered(PROBE[1:]).text.partition(PROBE[1].content)[0]
    return "ok", f"a conversation without a system turn begins {added[:120]!r}"


def _end_of_turn(tokenizer: Tokenizer) -> Outcome:
    probe = _probe(tokenizer)
    ids, learnt = tokenizer.supervised(probe)
    runs = [
        [token for token, _ in run]
        for taken, run in groupby(zip(ids, learnt, strict=True), lambda pair: pair[1])
        if taken
    ]
    ends = [next((token for token in run if token in tokenizer.turn_end_ids), None) for run in runs]
    turns = sum(turn.role == "assistant" for turn in probe)
    if tokenizer.turn_end_id is None:
        rendered = tokenizer.rendered(probe)
        closing = rendered.text[rendered.turns[-1].words_end : rendered.turns[-1].end].strip() if rendered.turns else ""
        if tokenizer.chat is not None and closing:
            return "error", f"the template has no end: {closing[:40]!r} is no token of this vocabulary"
        what = "no chat template" if tokenizer.chat is None else "the chat template ends an answer with no token"
        return (
            "error" if ends[-1:] in ([], [None]) else "warning",
            f"{what}: only the last turn ends, with the end-of-text; fit for plain text, not for conversations",
        )
    if None in ends or len(ends) != turns:
        return "error", f"{len(ends) - ends.count(None)} of {turns} assistant's turns end inside the loss"
    return "ok", f"all {turns} turns end with {tokenizer.special_text(ends[0])}, which is learnt"


def _same_prompt(tokenizer: Tokenizer) -> Outcome:
    probe = _probe(tokenizer)
    for position, turn in enumerate(probe):
        if turn.role == "assistant":
            prompt = tokenizer.render(probe[:position], generation=True)
            ids, learnt = tokenizer.supervised(probe[: position + 1])
            start = len(ids) - learnt[::-1].index(False, learnt[::-1].index(True)) if any(learnt) else len(ids)
            if ids[:start] != prompt:
                seen, given = tokenizer.spelt(ids[:start]), tokenizer.spelt(prompt)
                if seen == given:
                    joined = "generation reads what came before as one text, training each answer from where it begins"
                    return "warning", f"before turn {position + 1} the same text is cut into other tokens: {joined}"
                alike = len(common_beginning(seen, given))
                what = f"training reads {seen[alike:][-40:]!r} where generation reads {given[alike:][-40:]!r}"
                return "error", f"before turn {position + 1} {what}"
    return "ok", "what comes before an answer is the same, token by token"


def _document_opening(tokenizer: Tokenizer) -> Outcome:
    if tokenizer.bos_id is None:
        return "ok", "the model uses none"
    count = tokenizer.document(f"{tokenizer.special_text(tokenizer.bos_id)} Ciao").count(tokenizer.bos_id)
    return "ok" if count == 1 else "error", f"it stands {count} time(s) in a document"


def _chat_opening(tokenizer: Tokenizer) -> Outcome:
    spelt = tokenizer.chat.variables.get("bos_token") if tokenizer.chat else None
    if not spelt:
        return "ok", "the chat template can write none"
    if 2 * spelt in tokenizer.rendered(_probe(tokenizer)).text:
        return "error", f"the chat template writes {2 * spelt}"
    return "ok", f"the chat template does not write {spelt} twice"


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


_OF_DOCUMENTS: dict[str, Callable[[Tokenizer], Outcome]] = {
    "one opening token in a document": _document_opening,
    "a document ends": _document_end,
    "padding is not an end": _padding,
}
_OF_CONVERSATIONS: dict[str, Callable[[Tokenizer], Outcome]] = {
    "the chat template renders a conversation": _renders,
    "end of turn inside the loss": _end_of_turn,
    "training template equals generation template": _same_prompt,
    "no doubled opening token": _chat_opening,
}
