"""Answer items by a model on a server, several at once: by the way that the server allows, or not at all.

Multiple choice is scored by the log-likelihoods of the endings wherever the server tells those of a prompt: the numbers are
those of the same model here. Where it tells only the likeliest next tokens, questions are scored whose endings are
single letters. A letter that is not among them is less likely than any that is, so the choice is certain as soon as one is;
the item says so (`BOUNDED`), since the other letters' numbers are bounds. Where no letter is among them nothing is known,
and the task is not scored. Other questions are never scored by a part of their numbers.

Written answers are continuations of the plain prompt where the server can, as here; else messages under its own chat
template. What a thinking model writes before its answer is cut off; it is given room for that, and its stop words are applied
to the answer alone.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from stilnovo.benchmarks.chat_form import ChatForm, choices
from stilnovo.benchmarks.items import Generation, Item, MultipleChoice
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.errors import NonFiniteScore, StilnovoError
from stilnovo.scoring.encode import Context, ending_windows, question_tokens
from stilnovo.scoring.packed import ModelAnswer, item_place
from stilnovo.scoring.server_model import ServedModel
from stilnovo.scoring.server_probe import THINKING_TOKENS, Abilities
from stilnovo.scoring.server_reply import first_token, served_text, was_shortened
from stilnovo.scoring.thinking import UNFINISHED
from stilnovo.scoring.written import encode_prompt, sampling_of
from stilnovo.text.template import Message

A = TypeVar("A")
B = TypeVar("B")
BOUNDED, FILTERED, SHORTENED = "bounded", "filtered", "shortened"
#: What is said of the items with such a remark.
REMARKS = {
    BOUNDED: "not all letters were among the likeliest tokens; the choice is certain, the numbers of the others are bounds",
    UNFINISHED: "the answer ended inside the model's thinking, and counts as empty",
    SHORTENED: "the server says that it read far fewer tokens than were sent: it has probably cut the prompt to its context",
    FILTERED: "the server's content filter withheld the answer, which counts as it came",
}
#: OpenAI takes no more stop words; the answer is cut at all of them here too.
MOST_STOPS = 4


class NotScored(StilnovoError):
    """A task cannot be scored over this server."""


@dataclass(frozen=True)
class Method:
    """How a task's items are answered: `choices` by `prompt`, `letters` or `chat letters`, `writing` by `plain` or `chat`.

    Empty where the task has no such items; `detail` is the way of `prompt`, or how many tokens are told; `form` makes
    conversations of items wherever the server's chat template is used, None where it is not.
    """

    choices: str = ""
    writing: str = ""
    detail: str = ""
    form: ChatForm | None = None

    def __str__(self) -> str:
        said = {
            "prompt": f"log-likelihoods of the endings ({self.detail})",
            "letters": f"letters among the {self.detail} likeliest next tokens",
            "chat letters": f"letters among the {self.detail} likeliest first tokens of a chat answer, under the server's template",
            "plain": "written answers to the plain prompt",
            "chat": "written answers to a conversation, under the server's template",
        }
        under = " after the server's template" if self.choices == "prompt" and self.form is not None else ""
        parts = [said[self.choices] + under] if self.choices else []
        return "; ".join([*parts, *([said[self.writing]] if self.writing else [])])


def method_of(task: str, items: Sequence[Item], abilities: Abilities, how: Prompting) -> Method:
    """The way in which a task's items are answered over a server, under its chat template where `how` says so.

    Raises:
        NotScored: there is none; says why.
    """
    asked = [item for item in items if isinstance(item, MultipleChoice)]
    way, detail = "", ""
    chat = bool(how.chat_template)
    if chat and not abilities.chat:
        raise NotScored(f"{task} cannot be asked under a chat template: {abilities.why_not.get('chat')}.")
    if asked and abilities.prompt and (abilities.renders or not chat):
        way, detail = "prompt", abilities.prompt
    elif asked:
        counts = {"letters": 0 if chat else abilities.likeliest, "chat letters": abilities.chat_likeliest}
        way = next((name for name, count in counts.items() if count), "")
        reason = "under its chat template" if abilities.prompt else abilities.why_not["prompt"]
        why = f"the server tells no log-probabilities of a prompt ({reason})"
        if not all(map(_lettered, asked)):
            raise NotScored(f"{task} needs log-likelihoods of whole endings, and {why}.")
        if not way:
            raise NotScored(f"{task} needs log-probabilities, and {why}, nor those of the likeliest tokens.")
        detail = str(counts[way])
    writes = len(asked) < len(items)
    writing = ("plain" if abilities.plain and not chat else "chat") if writes else ""
    return Method(way, writing, detail, how.chat if chat or "chat" in f"{way} {writing}" else None)


@dataclass(frozen=True)
class ServerScorer:
    """Answers items, as many at once as `concurrency` says; a `Scorer`."""

    model: ServedModel
    abilities: Abilities
    method: Method
    task: str
    concurrency: int = 1

    def __call__(self, items: Sequence[Item], seed: int) -> Iterator[list[tuple[int, ModelAnswer]]]:
        """Yield (index, answer) lists as answers come.

        Raises:
            NonFiniteScore: a log-probability is no finite number.
            NotScored: an item cannot be scored in this way.
            StilnovoError: the server does not answer an item, after all tries.
        """
        together = at_once_of(self.model, self.method, self.concurrency)
        for index, answer in at_once(partial(self._answer, seed), items, together):
            yield [(index, answer)]

    def _answer(self, seed: int, item: Item) -> ModelAnswer:
        place = item_place(item.id, self.task)
        with named(place):
            if isinstance(item, Generation):
                return self._write(item, seed)
            answer = self._prompted(item) if self.method.choices == "prompt" else self._lettered(item)
        if not all(map(math.isfinite, answer.loglikelihoods)):
            raise NonFiniteScore(
                place, next(log for log in answer.loglikelihoods if not math.isfinite(log)), served=True
            )
        return answer

    def _prompted(self, item: MultipleChoice) -> ModelAnswer:
        model, way = self.model, self.abilities.prompt
        if model.tokenizer is None:
            return ModelAnswer(tuple(self._sum_of_text(*pair) for pair in item.pairs))
        pairs: list[tuple[Context, str]] = [*item.pairs]
        if self.method.form is not None:
            contexts = {text: model.rendered(self.method.form.conversation(item, text)) for text, _ in item.pairs}
            pairs = [(contexts[text], ending) for (text, _), ending in zip(item.pairs, choices(item), strict=True)]
        limit = model.context - 2  # the last token is predicted, and one more is written
        sequences = question_tokens(model.tokenizer, pairs)
        spans, counts = [], []
        for tokens, start in sequences:
            whole = [(0, len(tokens) - 1, max(start, 1))]
            parts = whole if len(tokens) - 1 <= limit else ending_windows(len(tokens), max(start, 1), limit)
            spans += [(tokens[begin : stop + 1], first - begin) for begin, stop, first in parts]
            counts.append(len(parts))
        logs = iter(model.ending_logs(spans, way))
        sums = tuple(sum(sum(next(logs)) for _ in range(count)) for count in counts)
        return ModelAnswer(sums, max(len(tokens) - 1 for tokens, _ in sequences) > limit)

    def _sum_of_text(self, context: str, ending: str) -> float:
        stem = context.rstrip()
        if not stem:
            raise NotScored(
                "A question begins with its endings, and the server has no /tokenize to open them with a token."
            )
        logs = self.model.prompt_logs(context + ending, self.abilities.prompt)
        return sum(logs[min(self.model.tokens_of_text(stem), len(logs) - 1) :])

    def _lettered(self, item: MultipleChoice) -> ModelAnswer:
        if self.method.choices == "letters":
            stem = item.context.rstrip()
            reply = self.model.complete(self._prompt(stem), 1, logprobs=int(self.method.detail))
            tops = first_token(reply)
            endings = [item.context[len(stem) :] + ending for ending in item.endings]
            found = [tops.get(ending) for ending in endings]
        else:
            count = int(self.method.detail)
            reply = self.model.converse(self._turns(item), 1, logprobs=True, top_logprobs=count)
            tops = first_token(reply)
            letters = [ending.strip() for ending in item.endings]
            found = [
                max((tops[token] for token in (letter, f" {letter}") if token in tops), default=None)
                for letter in letters
            ]
        told = [log for log in found if log is not None]
        lowest = min(tops.values(), default=0.0)
        if not told or (len(told) < len(found) and max(told) <= lowest):
            raise NotScored(
                f"none of its letters is among the {len(tops)} likeliest tokens, or only the last of these."
            )
        bounds = tuple(math.nextafter(lowest, -math.inf) if log is None else log for log in found)
        remark = SHORTENED if was_shortened(reply, item.context) else BOUNDED if len(told) < len(found) else ""
        return ModelAnswer(bounds, remark=remark)

    def _write(self, item: Generation, seed: int) -> ModelAnswer:
        how, chat = sampling_of(item, seed), self.method.writing == "chat"
        thinks = chat and self.abilities.thinks
        most = item.decoding.max_tokens + (THINKING_TOKENS if thinks else 0)
        stop = {} if thinks or not how.stop else {"stop": list(how.stop[:MOST_STOPS])}
        settings = {"temperature": how.temperature, "top_p": how.top_p, "seed": how.seed, **stop}
        prompt: str | list[int] = item.context
        cut = False
        if chat:
            reply = self.model.converse(self._turns(item), most, **settings)
        else:
            if self.model.tokenizer is not None:
                prompt, cut = encode_prompt(self.model.tokenizer, item, self.model.context)
            reply = self.model.complete(prompt, most, **settings)
        written = served_text(reply)
        text = written.text
        for word in how.stop:
            text = text.split(word, 1)[0] if word else text
        shortened = SHORTENED if isinstance(prompt, str) and was_shortened(reply, item.context) else ""
        remark = FILTERED if written.finish == "content_filter" else UNFINISHED if written.unfinished else shortened
        return ModelAnswer((), cut, text, remark=remark)

    def _turns(self, item: Item) -> list[Message]:
        assert self.method.form is not None, "a chat has a form"
        return self.method.form.conversation(item)

    def _prompt(self, text: str) -> str | list[int]:
        """A text as it is sent: as tokens where the server has a tokeniser."""
        tokenizer = self.model.tokenizer
        return text if tokenizer is None else tokenizer.opening + tokenizer.encode(text)


def at_once_of(model: ServedModel, method: Method, wanted: int) -> int:
    """How many items are answered at once: token by token, no more than llama.cpp has slots, each of which keeps one beginning."""
    return min(wanted, model.slots or wanted) if method.detail == "step" else wanted


class named:
    """Context manager that puts the item's name before what the server's error says."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, NotScored):
            raise NotScored(f"{self.place}: {error.what}") from error
        if isinstance(error, StilnovoError) and not isinstance(error, NonFiniteScore):
            told = " ".join(f"{error.what} {error.found}".split())
            ahead = "What was answered is kept: the same command goes on from there."
            raise StilnovoError(f"The server did not answer {self.place}.", told, error.next or ahead) from error


def at_once(work: Callable[[A], B], tasks: Sequence[A], workers: int) -> Iterator[tuple[int, B]]:
    """Do `work` on every task, some at once; yields (index, result) as they come.

    After an error nothing new is begun; what was being done is awaited and yielded before the error is raised. Threads are
    daemons: an interruption waits for none of them.
    """
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, B | None, BaseException | None]] = queue.SimpleQueue()
    for index in range(len(tasks)):
        pending.put(index)
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                index = pending.get_nowait()
            except queue.Empty:
                break
            try:
                done.put((index, work(tasks[index]), None))
            except BaseException as error:  # raised where the results are read
                ended.set()
                done.put((index, None, error))
        done.put((-1, None, None))

    running = min(workers, len(tasks))
    for _ in range(running):
        threading.Thread(target=run, daemon=True).start()
    failure: BaseException | None = None
    try:
        while running:
            index, result, error = done.get()
            failure = failure or error
            running -= index < 0
            if index >= 0 and error is None:
                yield index, result  # type: ignore[misc]  # where there is no error there is a result
        if failure is not None:
            raise failure
    finally:
        ended.set()


def _lettered(item: MultipleChoice) -> bool:
    """Whether a question's choice can be told from the next token: single letters or digits after one context."""
    lone = all(len(ending.strip()) == 1 and ending.strip().isalnum() for ending in item.endings)
    distinct = len({ending.strip() for ending in item.endings}) == len(item.endings)
    return lone and distinct and not (item.contexts or item.labels) and len(set(item.lengths)) < 2
