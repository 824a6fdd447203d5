"""Evaluate a loaded model on several tasks and a held-out text, through the answer cache.

What a subset could show is known before anything runs (`expectation`), so that nobody waits an hour for an answer the
items could not give. With a cache, every pass is kept as soon as it is done, and what an earlier run answered is not
asked again (`answer_cache.py`): an interrupted evaluation is continued by the same command. What is cached is the
model's own answer; metrics and grades are computed from it each time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import accumulate
from typing import Any

from stilnovo import dist
from stilnovo.benchmarks.corpus_metrics import expected_counts, is_corpus_metric, item_metric
from stilnovo.benchmarks.task import METRIC_NAMES, Generation, Item, MultipleChoice, Selection, item_sha256
from stilnovo.model.budget import use_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import ModelCheckpoint, choose_device
from stilnovo.plan.account import SCORED_TOKENS, Command, ModelUse
from stilnovo.progress import counted, seconds_text
from stilnovo.runlog import environment
from stilnovo.scoring.answer_cache import Answer, AnswerCache, Progress, answered
from stilnovo.scoring.asking import askings, is_drawn, joined, task_result
from stilnovo.scoring.chat_prompts import ChatPrompts
from stilnovo.scoring.packed import ModelAnswer, answers, item_place
from stilnovo.scoring.perplexity import score_texts
from stilnovo.scoring.reading import DEFAULTS, ReadOptions
from stilnovo.scoring.result import EvaluationResult, TaskResult
from stilnovo.scoring.written import plain_prompt, write
from stilnovo.spec import ModelSpec
from stilnovo.statistics.corpus_level import CorpusMeasure, estimate, smallest_visible
from stilnovo.statistics.estimates import FEWEST_UNITS, Floats
from stilnovo.statistics.power import ASSUMED_DISCORDANCE, expected_reach, smallest_visible_difference
from stilnovo.text.tokenizer import Tokenizer

#: From items, and a seed for answers that are drawn, to (index, answer) lists, in any order.
Scorer = Callable[[Sequence[Item], int], Iterator[list[tuple[int, ModelAnswer]]]]
_GRADED = ("mc2", "f1", "rouge1_precision")  # scores between right and wrong
_TIMING_SECONDS = 5.0  # after which a speed is believed


def evaluate(
    model: Llama,
    tokenizer: Tokenizer,
    selections: Sequence[Selection],
    *,
    texts: Sequence[str] = (),
    text_name: str | None = None,
    model_name: str,
    quantization: str = "none",
    adapter: str | None = None,
    settings: dict[str, Any] | None = None,
    options: ReadOptions = DEFAULTS,
    note: Callable[[str], None] | None = None,
    short_windows: bool = False,
    chat: ChatPrompts | None = None,
) -> EvaluationResult:
    """Evaluate a model on the selected items and held-out texts.

    Under `torchrun` every process scores its share of the items with its own copy of the model, the first one the texts,
    and all of them have the whole result.

    Args:
        model: A loaded model; used as it is, adapter included.
        tokenizer: Its tokeniser.
        selections: From `stilnovo.benchmarks.task.select`.
        texts: Held-out documents, none for no bits per byte.
        text_name: What they are called in the result.
        model_name: How the model was asked for; like `quantization`, `adapter` and `settings` only recorded.
        quantization: See `model_name`.
        adapter: See `model_name`.
        settings: See `model_name`.
        options: Token budget, progress (by task name) and cache.
        note: Called with a line about what the whole set would take, once the speed is known.
        short_windows: Whether the texts are also read in windows of 64 tokens, as the report of 2024 did.
        chat: The model's chat template, under which the items are asked; without one they are plain text.
    """
    began = time.perf_counter()
    scorer = partial(_answers, model, tokenizer, token_budget=options.token_budget, chat=chat)
    tasks = run_tasks(scorer, selections, options, note, chat.sha256 if chat else item_sha256)
    reads = bool(texts) and dist.is_first()
    text = score_texts(model, tokenizer, texts, short_windows=short_windows, options=options) if reads else None
    return EvaluationResult(
        model=model_name,
        quantization=quantization,
        adapter=adapter,
        tasks=tasks,
        text=dist.same(text),
        text_name=text_name,
        seconds=time.perf_counter() - began,
        settings=(settings or {})
        | {"token_budget": options.token_budget}
        | ({"chat_template": chat.settings()} if chat else {}),
        environment=environment(),
        identity=asdict(options.cache.identity) if options.cache is not None else None,
        command=list(sys.argv),
    )


def speed_setting(spec: ModelSpec) -> str:
    """Describe what a speed depends on: model, quantisation, adapter, device and machine."""
    hardware = environment()["hardware"]
    machine = ", ".join(str(hardware[key]) for key in ("processor", "cores", "gpu") if key in hardware)
    processes = f" in {dist.world_size()} processes" if dist.world_size() > 1 else ""
    return f"{spec.model} in {spec.quantization}{' with adapter' if spec.adapter else ''}, {spec.device}{processes}: {machine}"


def scoring_use(
    command: Command, checkpoint: ModelCheckpoint, selections: Sequence[Selection], chat: ChatPrompts | None = None
) -> ModelUse:
    """What scoring does with a model: passes of the usual size; written answers keep twice as many tokens at once."""
    tokenizer, items = checkpoint.tokenizer, [item for selection in selections for item in selection.items]
    writes = any(isinstance(item, Generation) for item in items)
    if chat is not None:
        most = max((len(tokenizer.encode_rendered(header)) for header in set(map(chat.header, items))), default=0)
    else:
        most = max((len(tokenizer.encode(header)) for header in {item.header for item in items} if header), default=0)
    tokens = 2 * SCORED_TOKENS if writes else SCORED_TOKENS
    cached = max(tokens if writes else 0, min(most, checkpoint.config.max_positions))
    return use_of(command, checkpoint.spec, checkpoint.config, choose_device(checkpoint.spec.device), tokens, cached)


def announcements(selections: Sequence[Selection], answers: AnswerCache, setting: str) -> Iterator[str]:
    """Describe what is evaluated in place of what was meant, and what each selection can show at the speed of the `setting`."""
    for selection in {part.task.name: part for part in reversed(selections)}.values():
        if selection.instead_of:
            yield f"{selection.task.name}: no split {selection.instead_of} here; evaluating {selection.split}."
        if not selection.known:
            yield f"{selection.task.name}: {selection.task.source}."
        yield expectation(selection, answers.speed(setting, selection.task.name))


def over_all(sizes: Mapping[str, int], progress: Progress) -> Progress:
    """Progress over everything that is scored (name → items), from that of each part; of several processes the first one's."""
    before = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))

    def report(name: str, done: int, total: int) -> None:
        if dist.is_first():
            progress(f"{name} {done:,}/{total:,}", before[name] + done, sum(sizes.values()))

    return report


def expectation(selection: Selection, items_per_second: float | None = None) -> str:
    """Describe what a selection can and cannot show, before the run; with a speed also the time for all items."""
    n, task = len(selection.items), selection.task
    how = "simply the first ones" if selection.first else f"drawn at random, seed {selection.seed}"
    share = f"{n:,} of {counted(selection.available, 'item')} ({100 * n / selection.available:.0f} %, {how})"
    part = f"all {counted(n, 'item')}" if n == selection.available else share
    apart, alike = (100 * reach for reach in expected_reach(n, selection.clusters))
    known = f"±{apart:.1f} points" + (
        f", ±{alike:.1f} if the items of a group are answered alike" if alike > apart else ""
    )
    graded = ", if each were right or wrong" if task.metric in _GRADED else ""
    expected = expected_counts(task.metric, selection.items)
    if expected is not None:
        found = estimate(*expected, selection.clusters)
        known, graded = (
            f"±{50 * (found.high - found.low):.1f} points",
            ", if three of four answers to each class are right",
        )
    elif is_corpus_metric(task.metric):
        graded = f", for {METRIC_NAMES[item_metric(task.metrics)]}; that of {METRIC_NAMES[task.metric]} stands beside the score"
    clusters, left = selection.clusters, selection.available - n
    groups = len(set(clusters or ()))
    never = sum(isinstance(item, MultipleChoice) and item.repeats_an_option for item in selection.items)
    prompts, repeats = selection.prompts_asked, selection.repeats
    seconds = seconds_text((left or n) * prompts * repeats / items_per_second) if items_per_second else ""
    rounds = [f"{prompts} prompts"] * (prompts > 1) + [f"{repeats} repeats of written answers"] * (repeats > 1)
    grouped = f", at best: the items lie in {groups:,} group{'' if groups == 1 else 's'} that may change together"
    with_all = f". With all {counted(selection.available, 'item')}, {_visible(selection.available)}"
    return "".join([
        f"{task.name} {task.version}, split {selection.split}: {part}{', with '.join(['', *rounds])}. The score will be known to about ",
        f"{known}; against another run on the same items, {_visible(n, clusters, expected)} can be seen ",
        f"(80 % power, {100 * ASSUMED_DISCORDANCE:.0f} % of answers changing{graded})",
        grouped if groups else "",
        f", and fewer than {FEWEST_UNITS} can show no change at all" if 0 < groups < FEWEST_UNITS else "",
        with_all if left and not groups and expected is None else "",
        f"{'. All items' if groups else '; they'} take {seconds} more" if left and seconds else "",
        f". It takes at most about {seconds}" if seconds and not left else "",
        f". {counted(never, 'item')} can never be right: the answer repeats an option before it" if never else "",
        ".",
    ])  # fmt: skip


def _visible(
    n: int, clusters: Sequence[str] | None = None, expected: tuple[CorpusMeasure, Floats] | None = None
) -> str:
    if expected is None:
        share = smallest_visible_difference(n, clusters=clusters)
    else:
        share = smallest_visible(*expected, ASSUMED_DISCORDANCE, clusters)
    return "no change" if share >= 1 else f"nothing under {100 * share:.0f} points"


def run_tasks(
    scorer: Scorer,
    selections: Sequence[Selection],
    options: ReadOptions,
    note: Callable[[str], None] | None = None,
    key: Callable[[Item], str] = item_sha256,
) -> dict[str, TaskResult]:
    """Answer and score selections (`run_task`), one result a task: several prompts of one task are joined."""
    prompts: dict[str, list[TaskResult]] = {}
    for selection in selections:
        prompts.setdefault(selection.task.name, []).append(run_task(scorer, selection, options, note, key))
    return {name: joined(results) for name, results in prompts.items()}


def run_task(
    scorer: Scorer,
    selection: Selection,
    options: ReadOptions,
    note: Callable[[str], None] | None = None,
    key: Callable[[Item], str] = item_sha256,
) -> TaskResult:
    """Answer and score what is asked of a selection, through the answer cache; `run_tasks` joins several prompts of a task.

    Args:
        scorer: From items and the seed of drawn answers to lists of (index, answer), one after every pass.
        selection: The items.
        options: Progress (by task name) and cache.
        note: Called with a line about what the whole set would take, once the speed is known.
        key: Hash of an item as it is asked, by which its answer is found again.
    """
    task, asked, cache = selection.task, askings(selection), options.cache
    began = time.perf_counter()
    cached, left = len(asked), selection.available - len(selection.items)
    timed = note is not None and left and not (cache and cache.answers.speed(cache.setting, task.name))

    def ask(missing: list[int]) -> Iterator[tuple[list[int], list[Answer]]]:
        nonlocal cached
        cached -= sum(dist.gather(len(missing)))
        for group in scorer([asked[index].item for index in missing], selection.seed):
            yield [missing[index] for index, _ in group], [asdict(answer) for _, answer in group]

    def progress(name: str, done: int, total: int) -> None:
        nonlocal timed
        spent = time.perf_counter() - began
        if note is not None and timed and done > cached and spent >= _TIMING_SECONDS:
            rest = seconds_text(left * selection.repeats * spent / (done - cached))
            note(f"{name}: at this speed all {counted(selection.available, 'item')} would take {rest} more.")
            timed = False
        if options.progress is not None:
            options.progress(selection.label, done, total)

    drawn = any(is_drawn(item) for item in selection.items)
    version = f"{task.version}, seed {selection.seed}" if drawn else task.version

    def place(index: int) -> str:
        return item_place(asked[index].item.id, task.name)

    hashes = [key(asking.item) for asking in asked]
    rows = answered(cache, task.name, version, hashes, place, ask, progress, shared=True)
    given = [
        ModelAnswer(tuple(row["loglikelihoods"]), row["truncated"], row["text"], remark=row.get("remark", ""))
        for row in rows
    ]
    result = task_result(selection, asked, given, time.perf_counter() - began, cached)
    if cache is not None and result.items_per_second and result.seconds >= _TIMING_SECONDS:
        cache.answers.keep_speed(cache.setting, task.name, result.items_per_second)
    return result


def _answers(
    model: Llama,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    seed: int,
    *,
    token_budget: int,
    chat: ChatPrompts | None,
) -> Iterator[list[tuple[int, ModelAnswer]]]:
    """Answer by log-likelihood or generation; yields (index, answer) lists after every pass."""
    choices = {index: item for index, item in enumerate(items) if isinstance(item, MultipleChoice)}
    written = {index: item for index, item in enumerate(items) if isinstance(item, Generation)}
    questions = map(chat.endings, choices.values()) if chat else list(choices.values())
    prompt = chat.prompt if chat else plain_prompt
    for indices, passes in (
        (list(choices), answers(model, tokenizer, questions, token_budget=token_budget)),
        (
            list(written),
            write(model, tokenizer, list(written.values()), seed=seed, token_budget=token_budget, prompt=prompt),
        ),
    ):
        for group in passes if indices else ():
            yield [(indices[place], answer) for place, answer in group]
