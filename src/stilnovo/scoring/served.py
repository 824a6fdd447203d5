"""Evaluate a model behind an OpenAI-compatible server: what can be scored, and scored through the answer cache.

Items, hashes, metrics and grades are those of a model of our own, so that the two can be compared item by item. What the
server cannot is said before anything is asked, and left out of the result with the reason. Answers are cached under the
model's name there and its fingerprint (`server_probe.py`), whatever the address: where another model has been put behind
the name, earlier answers are not used, and where one is put there meanwhile nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from stilnovo.benchmarks.items import item_sha256
from stilnovo.benchmarks.prompting import Prompting
from stilnovo.benchmarks.protocol import STILNOVO, Protocol
from stilnovo.benchmarks.task import Selection
from stilnovo.errors import InputError, NonFiniteScore, StilnovoError
from stilnovo.progress import counted
from stilnovo.remote import ServerConnection
from stilnovo.runlog import environment
from stilnovo.scoring.answer_cache import Answer, AnswerCache, ModelCache, answered
from stilnovo.scoring.evaluate import announcements, over_all, run_tasks
from stilnovo.scoring.identity import Identity, code_sha256
from stilnovo.scoring.packed import TOKEN_BUDGET
from stilnovo.scoring.perplexity import (
    TEXT,
    HeldOutScore,
    HeldOutTexts,
    groups_of,
    texts_sha256,
    what_text_can_show,
    windows,
)
from stilnovo.scoring.reading import ReadOptions, document_place, opened
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.scoring.server_answers import (
    REMARKS,
    Method,
    NotScored,
    ServerScorer,
    at_once,
    method_of,
    named,
)
from stilnovo.scoring.server_model import ServedModel
from stilnovo.scoring.server_probe import THINKING_TOKENS, Abilities, probe, same_model
from stilnovo.scoring.written import check_context

AS_SERVED = "as served"  # quantization and dtype, where the server does not tell
_FINGERPRINTS, _MOST_FINGERPRINTS = "fingerprints", 20  # as named in the cache, and how many are remembered of a name
Note = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """A model on a server: the address, its name there (None for the only one), tokens of context, requests at once."""

    url: str
    model: str | None = None
    context: int | None = None
    concurrency: int = 4


def evaluate_served(
    served: Served,
    protocol: Protocol,
    how: Prompting,
    selections: Sequence[Selection],
    texts: HeldOutTexts,
    settings: dict[str, Any],
    answers: AnswerCache,
    note: Note,
    progress: Callable[[str, int, int], None],
) -> EvaluationResult:
    """Score the served model on the selected items and held-out texts, as far as its server can.

    Args:
        served: Where it is.
        protocol: Only the default: the server decides on weights and opening token.
        how: Whether the server's chat template is used, and its form.
        selections: From `stilnovo.benchmarks.task.select`.
        texts: Held-out documents; empty for none.
        settings: Recorded; `text` names the texts.
        answers: The cache.
        note: Called with what the server can and cannot.
        progress: Called with (what is scored, items done, items in all).

    Raises:
        InputError: another protocol is asked for, the server has no such model, or can score nothing of what is asked.
        StilnovoError: the server does not answer, or its model changed meanwhile.
    """
    _check_protocol(protocol)
    began, text_name = time.perf_counter(), ", ".join(settings["text"]) or None
    with ServerConnection(served.url) as server:
        model = ServedModel(server, served.model, served.context)
        abilities, marks = probe(model)
        sizes = {part.label: len(part.items) * part.repeats for part in selections} | {TEXT: len(texts)}
        options = ReadOptions(progress=over_all(sizes, progress))
        plan = _Plan(served, model, abilities, _known(answers, model, marks, note), answers, options)
        plan.choose(selections, texts, how)
        told = [part for part in selections if part.task.name in plan.methods]
        for line in (*server_lines(plan.about()), *announcements(told, answers, plan.setting)):
            note(line)
        if TEXT in plan.methods:
            note(f"{text_name}: {what_text_can_show(texts)}.")
        plan.check_something_left()
        tasks = plan.tasks(selections, note)
        scores = plan.texts(texts) if TEXT in plan.methods else None
        plan.check_something_left()
        if not same_model(marks, probe(model)[1], one_run=True):
            plan.forget()
            raise StilnovoError(
                f"The model behind {model.name} changed during the evaluation.",
                "It goes on with the same texts in another way than at first; nothing of this run is kept.",
                "Run it again.",
            )
    return EvaluationResult(
        model=model.name,
        quantization=plan.identity.quantization,
        adapter=None,
        tasks=tasks,
        text=scores,
        text_name=text_name if scores is not None else None,
        seconds=time.perf_counter() - began,
        settings=settings
        | {"protocol": {"name": protocol.name, "differs": []}, "server": plan.about(), **plan.template()},
        environment=environment(),
        identity=asdict(replace(plan.identity, protocol={**plan.identity.protocol, **plan.ways()})),
        command=list(sys.argv),
    )


def _check_protocol(protocol: Protocol) -> None:
    if protocol.name != STILNOVO.name:
        raise InputError(
            f"--protocol {protocol.name} cannot be kept over a server.",
            "It sets the quantization and the opening token, which are the server's.",
            "Leave --protocol out.",
        )


@dataclass
class _Plan:
    """What is scored of a served model, and how; and what is not."""

    served: Served
    model: ServedModel
    abilities: Abilities
    marks: dict[str, Any]
    answers: AnswerCache
    options: ReadOptions
    methods: dict[str, Method] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """The served model's identity; its answers are kept by method beside it (`cache`)."""
        digest = hashlib.sha256(json.dumps(self.marks, sort_keys=True).encode()).hexdigest()
        kind = str(self.model.facts.get("model_ftype", AS_SERVED))
        return Identity(digest, None, kind, AS_SERVED, "server", {"served_model": self.model.name}, code_sha256())

    @property
    def setting(self) -> str:
        """What a speed depends on."""
        return f"{self.model.name} at {self.served.url}, {self.served.concurrency} at once"

    def cache(self, method: Method) -> ModelCache:
        """The cached answers by one method."""
        form = {} if method.form is None else {"chat_form": asdict(method.form)}
        identity = replace(self.identity, protocol={**self.identity.protocol, "method": str(method), **form})
        return ModelCache(self.answers, identity, self.setting)

    def choose(self, selections: Sequence[Selection], texts: Sequence[str], how: Prompting) -> None:
        """Choose a method for every task and text, or say why there is none.

        Raises:
            InputError: a task's answers do not fit into the model's context.
        """
        for name, parts in by_task(selections).items():
            try:
                self.methods[name] = method_of(
                    name, [item for part in parts for item in part.items], self.abilities, how
                )
            except NotScored as error:
                self.refused[name] = error.what
                continue
            if (tokenizer := self.model.tokenizer) is not None:
                for part in parts:
                    check_context(part, tokenizer, self.model.context)
        if texts and (why := self._unread()):
            self.refused[TEXT] = f"{TEXT} needs log-probabilities of whole documents, and {why}."
        elif texts:
            self.methods[TEXT] = Method("prompt", detail=self.abilities.prompt)

    def _unread(self) -> str:
        """Why no text can be read; empty where it can."""
        if not self.abilities.prompt:
            return f"the server tells none of a prompt ({self.abilities.why_not['prompt']})"
        if self.model.tokenizer is None:
            return "without /tokenize the server cannot be sent windows of tokens"
        return (
            ""
            if self.model.tokenizer.can_open
            else "the model has neither an opening token nor an end-of-text token that is known here"
        )

    def check_something_left(self) -> None:
        """Refuse an evaluation of which nothing can be scored."""
        if not self.methods:
            raise InputError(
                "The server can score nothing of this.",
                next(iter(self.refused.values()), ""),
                "Serve the model with llama.cpp or vLLM, or choose other --tasks.",
            )

    def tasks(self, selections: Sequence[Selection], note: Note) -> dict[str, TaskResult]:
        """Score the tasks that can be, one after the other."""
        results: dict[str, TaskResult] = {}
        for name, parts in by_task(selections).items():
            if (method := self.methods.get(name)) is None:
                continue
            scorer = ServerScorer(self.model, self.abilities, method, name, self.served.concurrency)
            try:
                options = replace(self.options, cache=self.cache(method))
                results |= run_tasks(scorer, parts, options, note, method.form.sha256 if method.form else item_sha256)
            except NotScored as error:
                del self.methods[name]
                self.refused[name] = error.what
                note(f"Not scored: {error.what}")
        return results

    def texts(self, texts: HeldOutTexts) -> HeldOutScore:
        """Read the held-out texts in the windows of our own models (`perplexity.score_texts`)."""
        tokenizer, way = self.model.tokenizer, self.abilities.prompt
        assert tokenizer is not None
        window = min(TOKEN_BUDGET, self.model.context - 2)
        stride = max(1, window // 2)

        def read(index: int) -> Answer:
            with named(document_place(TEXT, index)):
                tokens = opened(tokenizer, texts[index])
                parts = windows(len(tokens), window, stride)
                spans = [(tokens[start : stop + 1], first - start) for start, stop, first in parts]
                logs = [log for part in self.model.ending_logs(spans, way) for log in part]
                if not math.isfinite(sum(logs)):
                    raise NonFiniteScore(document_place(TEXT, index), served=True)
                return {"nats": -sum(logs), "count": len(logs)}

        def ask(missing: list[int]) -> Iterator[tuple[list[int], list[Answer]]]:
            for place, answer in at_once(read, missing, self.served.concurrency):
                yield [missing[place]], [answer]

        hashes = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
        version, cache = f"window {window}, stride {stride}", self.cache(self.methods[TEXT])
        rows = answered(cache, TEXT, version, hashes, partial(document_place, TEXT), ask, self.options.progress)
        sizes, counts = (len(text.encode("utf-8")) for text in texts), (row["count"] for row in rows)
        nats = tuple(row["nats"] for row in rows)
        return HeldOutScore(
            nats, tuple(sizes), tuple(counts), texts_sha256(texts), window, stride, groups=groups_of(texts)
        )

    def ways(self) -> dict[str, str]:
        """How each task was answered, as `compare` shows it beside another run."""
        return {f"way of {name}": str(method) for name, method in self.methods.items()}

    def template(self) -> dict[str, Any]:
        """The setting of a result that says under which chat template tasks were asked; empty where none was."""
        form = next((method.form for method in self.methods.values() if method.form is not None), None)
        if form is None:
            return {}
        digest = self.model.facts.get("chat_template", "not told")
        return {"chat_template": {"template": "the server's", "sha256": digest, **form.settings()}}

    def forget(self) -> None:
        """Remove all answers of this model from the cache."""
        for method in self.methods.values():
            self.answers.forget(self.cache(method).identity)

    def about(self) -> dict[str, Any]:
        """What a result says of the server."""
        return {
            "url": self.served.url, "program": self.model.facts["program"], "answers_as": sorted(set(self.model.answers_as.values())),
            "methods": {name: str(method) for name, method in self.methods.items()}, "not_scored": dict(self.refused),
            "context": self.model.context if self.model.context_known else None, "concurrency": self.served.concurrency,
            "tokenizer": "the server's" if self.model.tokenizer is not None else "none: prompts are sent as text",
            "thinking_tokens": THINKING_TOKENS if self.abilities.thinks else 0, "system_fingerprint": self.model.system_fingerprint,
            "fingerprint": self.identity.weights_sha256[:12], "facts": self.model.facts, "model": self.model.name,
        }  # fmt: skip


def by_task(selections: Sequence[Selection]) -> dict[str, list[Selection]]:
    """Selections by the name of their task: one a prompt."""
    grouped: dict[str, list[Selection]] = {}
    for selection in selections:
        grouped.setdefault(selection.task.name, []).append(selection)
    return grouped


def server_lines(about: dict[str, Any]) -> list[str]:
    """Describe what a server was asked, and how, for people; one line each."""
    program = f" ({about['program']})" if about["program"] else ""
    other = [name for name in about["answers_as"] if name != about["model"]]
    named_so = f"; it answers as {', '.join(other)}" if other else ""
    lines = [f"Served model {about['model']} at {about['url']}{program}{named_so}."]
    lines += [f"{name}: {method}." for name, method in about["methods"].items()]
    lines += [f"Not scored: {reason}" for reason in about["not_scored"].values()]
    if about["thinking_tokens"]:
        lines.append(
            f"The model thinks before it answers: {about['thinking_tokens']:,} tokens more are allowed, and only what follows is graded."
        )
    return lines


def remark_lines(tasks: Iterable[TaskResult]) -> list[str]:
    """Count the items of which something must be said; one line a task and remark."""
    counts = Counter((task.name, item.remark) for task in tasks for item in task.items if item.remark)
    return [
        f"{name}, {counted(count, 'item')}: {REMARKS.get(remark, remark)}." for (name, remark), count in counts.items()
    ]


def _known(answers: AnswerCache, model: ServedModel, marks: dict[str, Any], note: Note) -> dict[str, Any]:
    """The fingerprint under which the model's earlier answers are kept: a known one, or this, which is then known."""
    names = Identity("", None, AS_SERVED, AS_SERVED, "server", {"served_model": model.name})
    found = next(iter(answers.find(names, _FINGERPRINTS, "1", [_FINGERPRINTS])), None)
    known = found["known"] if found else []
    for earlier in known:
        if same_model(earlier, marks):
            return dict(earlier)
    if known:
        note(
            f"Another model answers as {model.name} than earlier, or with other settings: its earlier answers are not used."
        )
    answers.keep(names, _FINGERPRINTS, "1", [(_FINGERPRINTS, {"known": [*known, marks][-_MOST_FINGERPRINTS:]})])
    return marks
