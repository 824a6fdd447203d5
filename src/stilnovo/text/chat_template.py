"""Render conversations with the model's own chat template, the Jinja program among its files, and find each turn in the text.

The template sees the messages as they are, so that the text is what transformers renders, whatever the template does with
them. It is somebody else's program: it runs in Jinja's sandbox, and what it raises becomes an error with the turn.

Unusual: who wrote which part is found by rendering once more with a sign in place of each content (a *skeleton*, kept for each
order of roles). Where the text is the skeleton with the contents put in, trimmed or not, every place is known exactly. Where a
template looks into contents (it drops an earlier answer's reasoning, say), the texts of the conversation's beginnings tell.
Blocks marked `{% generation %}` count before both.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from stilnovo.errors import InputError
from stilnovo.text.sandbox import BLOCK_SIGNS, compiled
from stilnovo.text.section_encoder import disjoint, masked, spellings
from stilnovo.text.template import (
    LLAMA3_JINJA,
    SMOLLM2_JINJA,
    Message,
    RenderedChat,
    RenderedTurn,
    Role,
    common_beginning,
)

# Signs are taken from Unicode's last private plane: one a message for skeletons, others where no content holds them.
_FIRST_SIGN, _SIGNS = 0x100000, 0xF000
_FREE = [chr(code) for code in range(0x10F800, 0x10FF00)]
_SIGN = re.compile(f"[{chr(_FIRST_SIGN)}-{chr(_FIRST_SIGN + _SIGNS - 1)}]")
_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_KNOWN = {"chatml": SMOLLM2_JINJA, "llama3": LLAMA3_JINJA}
_PROBE: tuple[tuple[str, str], ...] = (
    ("system", " Sii breve. "),
    ("user", "Ciao\n"),
    ("assistant", " Salve"),
    ("user", "E poi?"),
)
_UNUSABLE = "Texts without turns need no template: train on a corpus of texts, or give evaluate its --text."

Span = tuple[int, int]
Spoken = tuple[str, str]  # role, content


REFUSED = "refused by the chat template"  # as a reason for which a row of data is left out


class TemplateRefusal(InputError):
    """A model's chat template that cannot render a conversation, or any."""


@dataclass(frozen=True)
class _Skeleton:
    """A rendering with signs: what stands before each sign, and behind the last; the message of each sign; turns by offset."""

    text: str
    literals: tuple[str, ...]
    order: tuple[int, ...]
    offsets: dict[int, Span] = field(
        default_factory=dict
    )  # by message: how far a turn goes before and behind its words

    def places(self, text: str, contents: Sequence[str]) -> list[Span] | None:
        """Where the contents stand in a text, in the skeleton's order; None where the text is not the skeleton filled."""
        if not text.startswith(self.literals[0]):
            return None
        at, found = len(self.literals[0]), list[Span]()
        for number, behind in zip(self.order, self.literals[1:], strict=True):
            last, content = len(found) + 1 == len(self.order), contents[number]
            for words in (content, content.strip(), content.rstrip(), content.lstrip()):
                end = at + len(words)
                if (
                    text.startswith(words, at)
                    and text.startswith(behind, end)
                    and (not last or end + len(behind) == len(text))
                ):
                    found.append((at, end))
                    at = end + len(behind)
                    break
            else:
                return None
        return found if at == len(text) else None


@dataclass(frozen=True)
class _Rendering:
    """What one run of the template gave: its text, `{% generation %}` blocks, and where contents stand if that is known."""

    text: str
    blocks: tuple[Span, ...] = ()
    inert: tuple[Span, ...] = ()
    skeleton: _Skeleton | None = None


class ChatTemplate:
    """A model's chat template.

    Args:
        source: The Jinja program.
        variables: The special tokens that it may write, by transformers' names (`bos_token`, `eos_token`, …).
        tokens: Spellings of the tokeniser's added tokens: what ends a turn is one of them.
        controls: Those that no content may hold, the special ones; others (`<think>`, say) an assistant writes itself.
    """

    def __init__(
        self, source: str, variables: Mapping[str, str], tokens: Collection[str], controls: Collection[str] = ()
    ) -> None:
        self.source, self.variables, self.controls = source, dict(variables), frozenset(controls)
        self.tokens = frozenset(token for token in tokens if not token.isspace())
        self._spelt, self._forbidden = spellings(self.tokens), spellings(self.controls)
        self._skeletons: dict[tuple[tuple[Role, ...], bool], _Skeleton | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "variables": self.variables,
            "tokens": self.tokens,
            "controls": self.controls,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a compiled template cannot be copied

    def prompt(self, messages: Sequence[Message]) -> RenderedChat:
        """Render a conversation up to where the assistant's answer begins.

        Raises:
            TemplateRefusal: with the template's own message and the turn.
        """
        run = self._rendered(messages, generation=True)
        if run.skeleton is not None and messages and len(messages) - 1 not in run.skeleton.order:
            raise TemplateRefusal(
                "The model's chat template leaves out what is said.", f"It writes {run.text[:80]!r}.", _UNUSABLE
            )
        return RenderedChat(run.text, run.inert)

    def conversation(self, messages: Sequence[Message]) -> RenderedChat:
        """Render a whole conversation and find its turns.

        Raises:
            TemplateRefusal: with the template's own message and the turn.
        """
        run = self._rendered(messages, generation=False)
        answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
        if run.skeleton is not None:
            turns = self._placed(messages, run.skeleton, run.inert)
        else:
            turns = self._compared(messages, run)
        if run.blocks:
            others = [turn for turn in turns if turn.message not in answers]
            turns = sorted([*others, *self._marked(run, answers, turns)], key=lambda turn: turn.message)
        spoken = [turn for turn in turns if messages[turn.message].role == "assistant"]
        cuts = frozenset(turn.start for turn in spoken)
        last = turns[-1] if turns and turns[-1].message == len(messages) - 1 else None
        closed = messages[-1].role != "assistant" or (
            last is not None and self._spelt.search(run.text, last.words_end) is not None
        )
        return RenderedChat(run.text, run.inert, tuple(turns), cuts, closed)

    @cached_property
    def family(self) -> str:
        """`chatml` or `llama3` where the template writes what SmolLM2's or Llama 3's does, else `own`."""
        return next((name for name, source in _KNOWN.items() if self._writes_like(ChatTemplate(source, {}, ()))), "own")

    def _writes_like(self, other: ChatTemplate) -> bool:
        probes = ((_PROBE, False), (_PROBE[1:], False), (_PROBE[:2], True), (_PROBE[1:2], True))
        try:
            return all(self._run(turns, last).text == other._run(turns, last).text for turns, last in probes)
        except Exception:  # as in `_rendered`
            return False

    def takes(self, messages: Sequence[Message]) -> bool:
        """Whether the template renders a prompt for these turns."""
        try:
            self.prompt(messages)
        except TemplateRefusal:
            return False
        return True

    def left_out(self, roles: Sequence[Role]) -> list[int]:
        """Numbers of the turns of a prompt of which the template writes nothing, whatever they say."""
        skeleton = self._skeleton(tuple(roles), True)
        return [] if skeleton is None else [turn for turn in range(len(roles)) if turn not in skeleton.order]

    def turn_end(self) -> str | None:
        """The token that ends an assistant's turn: the first that the template writes behind its words; None for none."""
        skeleton = self._skeleton(("user", "assistant"), False)
        found = (
            self._spelt.search(skeleton.text.rpartition(chr(_FIRST_SIGN + 1))[2])
            if skeleton and 1 in skeleton.order
            else None
        )
        return found[0] if found else None

    def written(self, *, generation: bool = True) -> set[str]:
        """The added tokens with which the template opens and ends turns; without `generation`, those of whole conversations.

        The opening of a generation may already begin the answer (`<think>`): such a token is the assistant's own.
        """
        tokens = {self.turn_end()} - {None}
        asked: tuple[tuple[Role, ...], ...] = (("user",), ("system", "user"), ("user", "assistant", "user"))
        for roles in asked:
            skeleton = self._skeleton(roles, generation)
            tokens |= set(self._spelt.findall(skeleton.text)) if skeleton else set()
        return {token for token in tokens if token}

    def _rendered(self, messages: Sequence[Message], *, generation: bool) -> _Rendering:
        turns = _spoken(messages)
        try:
            run = self._run(turns, generation)
            skeleton = self._skeleton(tuple(message.role for message in messages), generation)
            places = None if skeleton is None else skeleton.places(run.text, [content for _, content in turns])
            if places is not None:
                return _Rendering(run.text, run.blocks, tuple(places), skeleton)
            if not any(self._forbidden.search(content) for _, content in turns):
                return run
            # Signs around each control token that a content spells tell it from the template's own.
            begin, end = _absent(turns, 2)
            enclosed = [
                (role, self._forbidden.sub(lambda token: f"{begin}{token[0]}{end}", words)) for role, words in turns
            ]
            return _without_signs(self._run(enclosed, generation), begin, end)
        except Exception as error:  # a template is somebody else's program: whatever it raises, it is its refusal
            raise self._refusal(messages, error) from error

    def _run(self, turns: Sequence[Spoken], generation: bool) -> _Rendering:
        program, marks = compiled(self.source), list[str]()
        if _BLOCK.search(self.source):
            marks = _absent(turns, 2)
        text = program.render(
            messages=[{"role": role, "content": content} for role, content in turns], tools=None, documents=None,
            add_generation_prompt=generation, **self.variables, **{BLOCK_SIGNS: marks},
        )  # fmt: skip
        if not marks:
            return _Rendering(text)
        blocks, bare, opened = list[Span](), "", list[int]()
        for part in re.split(f"([{marks[0]}{marks[1]}])", text):
            if part == marks[0]:
                opened.append(len(bare))
            elif part == marks[1]:
                blocks += [(opened.pop(), len(bare))] if opened else []
            else:
                bare += part
        return _Rendering(bare, tuple(sorted(span for span in blocks if span[0] < span[1])))

    def _skeleton(self, roles: tuple[Role, ...], generation: bool) -> _Skeleton | None:
        """The rendering with signs; None where the template refuses it."""
        key = (roles, generation)
        if key not in self._skeletons:
            if len(self._skeletons) >= 4096:
                self._skeletons.clear()
            try:
                signs = [(role, chr(_FIRST_SIGN + number % _SIGNS)) for number, role in enumerate(roles)]
                text = self._run(signs, generation).text
            except Exception:  # as in `_rendered`; the rendering with the contents will tell, or succeed
                self._skeletons[key] = None
            else:
                order = tuple(ord(sign) - _FIRST_SIGN for sign in _SIGN.findall(text))
                self._skeletons[key] = _Skeleton(text, tuple(_SIGN.split(text)), order)
        return self._skeletons[key]

    def _placed(self, messages: Sequence[Message], skeleton: _Skeleton, places: Sequence[Span]) -> list[RenderedTurn]:
        roles = tuple(message.role for message in messages)
        turns = dict[int, RenderedTurn]()
        for number, (start, end) in zip(skeleton.order, places, strict=True):
            if number in turns:
                continue  # written twice: the first place is the turn's
            if number not in skeleton.offsets:
                skeleton.offsets[number] = self._offsets(roles, skeleton, number)
            before, behind = skeleton.offsets[number]
            turns[number] = RenderedTurn(number, start - before, end, end + behind)
        return [turns[number] for number in sorted(turns)]

    def _offsets(self, roles: tuple[Role, ...], skeleton: _Skeleton, number: int) -> Span:
        """How far a turn goes before and behind its words."""
        sign = chr(_FIRST_SIGN + number)
        at = skeleton.text.index(sign)
        before, (head, behind) = 0, (skeleton.text[:at], skeleton.text[at + 1 :])
        alone = self._skeleton(roles[: number + 1], False)
        closing = _SIGN.split(behind)[0]
        if alone is not None and sign in alone.text:
            last = alone.text[alone.text.index(sign) + 1 :]
            if closing.startswith(last) or self._spelt.search(common_beginning(closing, last)):
                closing = common_beginning(closing, last)  # else the template ends its last turn with another token
        token = self._spelt.search(closing)
        if roles[number] != "assistant":
            spelt = [match.end() for match in self._spelt.finditer(head)]
            words = max([*spelt, *(match.end() for match in _SIGN.finditer(head)), 0])
            return at - words, token.end() if token else len(closing)
        prompt = self._skeleton(roles[:number], True)
        if prompt is not None and head.startswith(prompt.text):
            before = len(head) - len(prompt.text)
        return before, token.end() if token else len(closing)

    def _compared(self, messages: Sequence[Message], run: _Rendering) -> list[RenderedTurn]:
        """Find the answers by what changes in the text when another word stands in place of each."""
        turns, behind, tokens = list[RenderedTurn](), 0, masked(run.text, run.inert)
        ending = self.turn_end()
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            other = replace(message, content=chr(_FIRST_SIGN))
            changed = self._tried([*messages[:number], other, *messages[number + 1 :]], generation=False)
            if changed is None or changed == run.text:
                continue  # the template leaves this answer out
            first = len(common_beginning(run.text, changed))
            words_end = len(run.text) - len(common_beginning(run.text[first:][::-1], changed[first:][::-1]))
            prompt = self._tried(messages[:number], generation=True) or ""
            opened = len(common_beginning(run.text, prompt))
            if opened < len(prompt):  # another prompt; what is alike ends before the token in which they part
                opened = next((m.start() for m in self._spelt.finditer(prompt) if m.start() < opened < m.end()), opened)
            start = opened if prompt and behind <= opened <= first else max(first, behind)
            at = run.text.find(message.content.strip() or "\0", start, max(words_end, start))
            if at >= 0 and opened < len(prompt):  # what is written before depends on the answer, which begins here
                start = at
            closing = list(self._spelt.finditer(tokens, max(words_end, start))) if ending else []
            token = next((m for m in closing if m[0] == ending), next(iter(closing), None))
            place, end = token.span() if token else (words_end, words_end)
            turns.append(RenderedTurn(number, start, max(place, start), max(end, start)))
            behind = turns[-1].end
        return turns

    def _marked(self, run: _Rendering, answers: Sequence[int], found: Sequence[RenderedTurn]) -> Iterator[RenderedTurn]:
        """The answers as far as blocks mark them: a block may hold the answer's header too, or what follows its end."""
        whole = [turn for turn in found if turn.message in answers]
        marked = list(zip(answers, run.blocks, strict=False))  # where not all were found, the blocks stand in order
        if len(whole) == len(answers):
            inside = [
                (turn.message, (max(start, turn.start), min(end, turn.end)))
                for turn in whole
                for start, end in run.blocks
            ]
            marked = [(number, span) for number, span in inside if span[0] < span[1]]
        for number, (start, end) in marked:
            yield RenderedTurn(number, start, start + self._words(run.text[start:end]), end)

    def _tried(self, messages: Sequence[Message], *, generation: bool) -> str | None:
        try:
            return self._run(_spoken(messages), generation).text
        except Exception:  # as in `_rendered`
            return None

    def _words(self, block: str) -> int:
        """How many characters of a block are words: up to the token that ends the turn."""
        found = [match for match in self._spelt.finditer(block) if not block[match.end() :].strip()]
        return found[0].start() if found else len(block)

    def _refusal(self, messages: Sequence[Message], error: Exception) -> TemplateRefusal:
        """Describe why the template renders no text, naming the first turn that it does not take."""
        from jinja2 import TemplateSyntaxError

        if isinstance(error, TemplateSyntaxError):
            return TemplateRefusal(
                "The model's chat template is no valid Jinja.", f"Line {error.lineno}: {error.message}", _UNUSABLE
            )
        said = str(error).strip()[:300] or type(error).__name__
        if self._tried([Message("user", "?")], generation=True) is None:
            return TemplateRefusal("The model's chat template cannot be used.", f"It says: {said}", _UNUSABLE)
        turn = next(
            (n for n in range(1, len(messages) + 1) if self._tried(messages[:n], generation=False) is None), None
        )
        place = f"turn {turn}, {messages[turn - 1].role}: " if turn else ""
        advice = "Change the turns as the template says."
        if turn == 1 and messages[0].role == "system":
            advice = "Leave the system turn out, or put its words at the beginning of the first question."
        return TemplateRefusal("The model's chat template refuses the conversation.", f"{place}{said}", advice)


def _without_signs(run: _Rendering, begin: str, end: str) -> _Rendering:
    """Take out the signs around control tokens; what they enclosed is inert, or what follows a sign that lost its other."""
    signs = [match.start() for match in re.finditer(f"[{begin}{end}]", run.text)]
    bare = run.text.replace(begin, "").replace(end, "")
    inert, opened = list[Span](), None
    for before, at in enumerate(signs):
        if run.text[at] == begin:
            opened = at - before
        else:
            inert.append((at - before, at - before + 1) if opened is None else (opened, at - before))
            opened = None
    blocks = tuple((start - bisect_left(signs, start), stop - bisect_left(signs, stop)) for start, stop in run.blocks)
    return _Rendering(bare, blocks, tuple(disjoint(span for span in inert if span[0] < len(bare))))


def _spoken(messages: Sequence[Message]) -> list[Spoken]:
    return [(message.role, message.content) for message in messages]


def _absent(turns: Sequence[Spoken], count: int) -> list[str]:
    """Characters that no content holds."""
    free = (sign for sign in _FREE if not any(sign in content for _, content in turns))
    return [next(free) for _ in range(count)]
