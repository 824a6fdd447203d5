"""A sweep: one model under many scalings of its adapters, with gains and possible losses of each.

Gained is bits per byte of held-out text. Lost may be: answers to benchmarks, the likelihood of a chat's answers, other
texts (English, say), and the form of an answer (`form.py`). The base is loaded once; adapters are put on, scaled
(`model/scaling.py`) and taken off again. Everything is stored item by item in the answer cache under an identity that
names the scaling beside the adapter's content, so that an interrupted sweep goes on where it stopped and no answer is
taken for that of another scaling. What the differences mean is said in `tradeoff.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stilnovo.benchmarks.task import Selection
from stilnovo.data.conversations import Conversation
from stilnovo.forgetting.form import MAX_NEW_TOKENS, AnswerForm, Prompt, choose_prompts, write_answers
from stilnovo.generate.generator import Generator
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.model.scaling import Scaling, scaled
from stilnovo.progress import counted
from stilnovo.scoring.answer_cache import AnswerCache, ModelCache, Progress
from stilnovo.scoring.chat_answers import fitting, score_conversations
from stilnovo.scoring.evaluate import evaluate
from stilnovo.scoring.identity import Identity
from stilnovo.scoring.packed import TOKEN_BUDGET
from stilnovo.scoring.perplexity import HeldOutScore, score_texts
from stilnovo.scoring.positions import PositionScores, score_positions
from stilnovo.scoring.reading import ReadOptions
from stilnovo.scoring.result import TaskResult
from stilnovo.text.tokenizer import Tokenizer

BASE = "base"


@dataclass(frozen=True)
class Probes:
    """Evaluation data of a sweep, the same for every setting; only `held_out` is needed.

    `conversations` fit the model's context; `protected` are further texts by name; with `positions`, the base and every
    adapter that is tried whole also read the held-out text by position (`positions.py`).
    """

    held_out: Sequence[str]
    selections: Sequence[Selection] = ()
    protected: Mapping[str, Sequence[str]] = field(default_factory=dict)
    conversations: Sequence[Conversation] = ()
    prompts: Sequence[Prompt] = ()
    max_new_tokens: int = MAX_NEW_TOKENS
    positions: bool = False

    @property
    def items(self) -> int:
        """Number of items of one setting."""
        asked = [selection.items for selection in self.selections]
        return sum(map(len, (self.held_out, *self.protected.values(), *asked, self.conversations, self.prompts)))


def fitted(
    probes: Probes, prompts: int, seed: int, tokenizer: Tokenizer, context: int, note: Callable[[str], None]
) -> Probes:
    """Keep the conversations that fit the model's context, and draw prompts from them; `note` reports the others."""
    fit = fitting(probes.conversations, tokenizer, context)
    if len(fit) < len(probes.conversations):
        longer = len(probes.conversations) - len(fit)
        verb = "is" if longer == 1 else "are"
        note(f"{counted(longer, 'conversation')} {verb} longer than the context and {verb} left out.")
    return replace(probes, conversations=fit, prompts=choose_prompts(prompts, fit, seed) if prompts else ())


@dataclass(frozen=True)
class ScaleAnswers:
    """The answers of one setting to the probes, item by item."""

    held_out: HeldOutScore
    tasks: dict[str, TaskResult]
    protected: dict[str, HeldOutScore]
    chat: HeldOutScore | None
    answers: tuple[AnswerForm, ...]
    positions: PositionScores | None = None


@dataclass(frozen=True)
class SweepCandidate:
    """An adapter by name, the identity of the model that carries it whole, and the scalings to try."""

    name: str
    path: Path
    identity: Identity
    scalings: tuple[Scaling, ...]


@dataclass(frozen=True)
class Sweep:
    """Results of a sweep: the base's answers, and those of every adapter under every scaling but 0, which is the base."""

    base: ScaleAnswers
    points: dict[tuple[str, Scaling], ScaleAnswers]


def identity_under(whole: Identity, scaling: Scaling) -> Identity:
    """The identity of answers under a scaling; that of the adapter itself where nothing is scaled."""
    return whole if scaling == Scaling(1, 1) else replace(whole, protocol={**whole.protocol, "scaling": str(scaling)})


def run_sweep(
    model: Llama,
    tokenizer: Tokenizer,
    base: Identity,
    candidates: Sequence[SweepCandidate],
    probes: Probes,
    cache: AnswerCache,
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Progress | None = None,
) -> Sweep:
    """Evaluate the base and every adapter under each of its scalings.

    Args:
        model: The base, without an adapter; without one again at the end.
        tokenizer: Its tokeniser.
        base: The base's identity.
        candidates: The adapters.
        probes: What is asked.
        cache: Where answers are looked up and stored.
        token_budget: Most tokens in one forward pass.
        progress: Called with (what, items done, items in all) over the whole sweep.

    Raises:
        InputError: an adapter cannot be read or does not fit the model.
    """
    settings = 1 + sum(not scaling.is_base for candidate in candidates for scaling in candidate.scalings)
    points: dict[tuple[str, Scaling], ScaleAnswers] = {}

    def measured(name: str, identity: Identity, before: int) -> ScaleAnswers:
        def report(what: str, done: int) -> None:
            if progress is not None:
                progress(f"{name}: {what}", before * probes.items + done, settings * probes.items)

        return measure(
            model, tokenizer, probes, ModelCache(cache, identity), token_budget=token_budget, progress=report
        )

    first = measured(BASE, base, 0)
    for candidate in candidates:
        lora.load(model, candidate.path)
        try:
            for scaling in candidate.scalings:
                if not scaling.is_base:
                    with scaled(model, scaling):
                        points[candidate.name, scaling] = measured(
                            f"{candidate.name} {scaling}", identity_under(candidate.identity, scaling), 1 + len(points)
                        )
        finally:
            lora.detach(model)
    return Sweep(first, points)


def measure(
    model: Llama,
    tokenizer: Tokenizer,
    probes: Probes,
    cache: ModelCache,
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Callable[[str, int], None] | None = None,
) -> ScaleAnswers:
    """Evaluate the current model on all probes; `progress` is called with (what, items done)."""
    before = 0

    def report(what: str, done: int, total: int) -> None:
        nonlocal before
        if progress is not None:
            progress(what, before + done)
        before += total if done == total else 0

    options = ReadOptions(token_budget, report, cache)
    result = evaluate(model, tokenizer, probes.selections, texts=probes.held_out, model_name="", options=options)
    assert result.text is not None, "there is a held-out text"
    protected = {
        name: score_texts(model, tokenizer, texts, options=options) for name, texts in probes.protected.items()
    }
    chat = (
        score_conversations(model, tokenizer, probes.conversations, options=options) if probes.conversations else None
    )
    answers = write_answers(
        Generator(model, tokenizer, products="fp32"), probes.prompts, max_new_tokens=probes.max_new_tokens, cache=cache, progress=report
    ) if probes.prompts else ()  # fmt: skip
    by_position = probes.positions and "scaling" not in cache.identity.protocol
    options = ReadOptions(token_budget, cache=cache)
    positions = score_positions(model, tokenizer, probes.held_out, options=options) if by_position else None
    return ScaleAnswers(result.text, result.tasks, protected, chat, answers, positions)
