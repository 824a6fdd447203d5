"""Run lm-evaluation-harness tasks with our models.

    from lm_eval import simple_evaluate
    from stilnovo.scoring.harness import HarnessModel
    simple_evaluate(model=HarnessModel.open(ModelSpec("smollm2", quantization="none")), tasks=["arc_easy"])

The harness hands over all requests of one kind at once, the choices of a question beside each other. That is enough to
score them as we score our own tasks: endings of one context share it, and what all contexts of a task begin with, a
few-shot header, is read once. Where the model has no opening token, an empty context is the end-of-text token.

Unusual: special tokens are never parsed out of text here (`stilnovo.text.tokenizer`). The harness has a chat template rendered and
hands the text back; it is known again, with what in it people wrote, among those that were rendered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from os.path import commonprefix
from typing import Any

from stilnovo.benchmarks.harness_yaml import decoding
from stilnovo.benchmarks.task import Generation
from stilnovo.errors import InputError, needs
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_model
from stilnovo.scoring.boundary import check_finite
from stilnovo.scoring.encode import Context, Endings
from stilnovo.scoring.packed import TOKEN_BUDGET, answers
from stilnovo.scoring.perplexity import score_texts
from stilnovo.scoring.reading import ReadOptions
from stilnovo.scoring.written import write
from stilnovo.spec import ModelSpec
from stilnovo.text.template import Message, RenderedChat
from stilnovo.text.tokenizer import Tokenizer

with needs("lm_eval", "bench"):
    from lm_eval.api.model import LM


class HarnessModel(LM):  # type: ignore[misc]
    """A loaded model as an lm-evaluation-harness `LM`.

    Args:
        model: Any Llama, quantised or not, with or without adapter.
        tokenizer: Its tokeniser.
        token_budget: Most tokens in one forward pass.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, token_budget: int = TOKEN_BUDGET) -> None:
        super().__init__()
        self.model, self.tokenizer, self.token_budget = model, tokenizer, token_budget
        self._device = model.device
        self._rendered: dict[str, RenderedChat] = {}

    @classmethod
    def open(cls, spec: ModelSpec) -> HarnessModel:
        """Load a model for the harness; see `stilnovo.model.load.open_model`."""
        return cls(*open_model(spec))

    @property
    def tokenizer_name(self) -> str:
        """What names the tokeniser and its template in the harness's caches."""
        return self.tokenizer.fingerprint()

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The model's chat template, as the harness records it."""
        return self.tokenizer.jinja or ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation up to where the answer begins.

        Raises:
            InputError: the model has no template, its template refuses the turns, or the answer is to be begun here.
        """
        if self.tokenizer.chat is None or not add_generation_prompt:
            fault = (
                "The model has no chat template."
                if add_generation_prompt
                else "An answer cannot be begun for the model."
            )
            raise InputError(fault, next="Leave the chat template out.")
        turns = [Message(turn["role"], turn["content"]) for turn in chat_history]  # type: ignore[arg-type]
        rendered = self.tokenizer.chat.prompt(self.tokenizer.taken(turns))
        self._rendered[rendered.text] = rendered
        return rendered.text

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Score each (context, continuation): log-likelihood in nats, and whether greedy decoding would produce it."""
        firsts, questions = _questions(requests, self._rendered)
        scores: list[tuple[float, bool] | None] = [None] * len(requests)
        for batch in answers(self.model, self.tokenizer, questions, token_budget=self.token_budget):
            for index, answer in batch:
                pairs = zip(answer.loglikelihoods, answer.greedy, strict=True)
                for place, pair in enumerate(pairs, firsts[index]):
                    check_finite(f"request {place + 1:,}", pair[0])
                    scores[place] = pair
                    self.cache_hook.add_partial("loglikelihood", requests[place].args, pair)
        return [pair for pair in scores if pair is not None]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Score whole texts in nats, in consecutive windows of which the last one is full."""
        texts = [request.args[0] for request in requests]
        whole = [text for text in texts if text]
        if not whole:
            return [0.0] * len(texts)
        limit = self.model.config.max_positions
        options = ReadOptions(self.token_budget)
        nats = iter(score_texts(self.model, self.tokenizer, whole, window=limit, stride=limit, options=options).nats)
        return [-next(nats) if text else 0.0 for text in texts]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Generate after each context, up to a stop string of the request (excluded)."""
        items = [
            Generation(str(number), context, ("",), decoding(settings))
            for number, (context, settings) in enumerate(request.args for request in requests)
        ]
        texts = []
        prompts = {item.id: self._rendered.get(item.context, item.context) for item in items}
        batches = write(
            self.model, self.tokenizer, items, token_budget=self.token_budget, prompt=lambda item: prompts[item.id]
        )
        for batch in batches:
            for index, answer in batch:
                self.cache_hook.add_partial("generate_until", requests[index].args, answer.text)
                texts.append(answer.text)
        return texts


def _questions(requests: Sequence[Any], rendered: Mapping[str, RenderedChat]) -> tuple[list[int], list[Endings]]:
    """Group consecutive requests with one context and task, with the index of the first of each group.

    What the contexts of a task begin with is its header. A context that a chat template has `rendered` is taken as that.
    """

    def known(text: str, whole: str) -> Context:
        return replace(rendered[whole], text=text) if whole in rendered else text

    numbered = groupby(enumerate(requests), key=lambda entry: (str(entry[1].task_name), entry[1].args[0]))
    groups = [(task, context, list(entries)) for (task, context), entries in numbered]
    contexts: dict[str, list[str]] = defaultdict(list)
    for task, context, _ in groups:
        contexts[task].append(context)
    headers = {task: commonprefix(texts) if len(texts) > 1 else "" for task, texts in contexts.items()}  # noqa: RUF071
    questions = [
        Endings([(known(context, context), request.args[1]) for _, request in entries], known(headers[task], context))
        for task, context, entries in groups
    ]
    return [entries[0][0] for _, _, entries in groups], questions
