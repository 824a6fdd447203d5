"""Load lm-evaluation-harness task YAML: the subset that a task over local files needs.

Multiple choice and written answers over JSON, JSONL, CSV or Parquet: columns or Jinja templates for the prompt, the
choices and the target, few-shot examples, and the metrics acc, acc_norm and exact_match. Contexts, continuations and
metrics are the harness's own on the same file (tests/test_task_file_reference.py); a key outside of this is refused by name.
Examples are drawn with the harness's own seed, over all rows of the split in their order.
"""

from __future__ import annotations

import ast
import random
import re
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from stilnovo.benchmarks.dataset_files import Row, build
from stilnovo.benchmarks.task import Decoding, FewShot, Generation, Item, Metric, MultipleChoice, Request, Task
from stilnovo.errors import InputError, did_you_mean
from stilnovo.io.rows import read_rows
from stilnovo.runlog import sha256_file

MOST_TOKENS = 256  # written where a task sets no limit, as the harness does
_SEED = 1234  # that the harness draws examples with
_SPLITS = ("test_split", "validation_split", "training_split")
_KEYS = (
    "task", "dataset_path", "dataset_kwargs", *_SPLITS, "fewshot_split", "output_type", "doc_to_text", "doc_to_choice",
    "doc_to_target", "description", "target_delimiter", "fewshot_delimiter", "num_fewshot", "fewshot_config",
    "generation_kwargs", "metric_list", "metadata", "tag", "group", "task_alias", "dataset_name", "repeats", "filter_list",
    "should_decontaminate", "doc_to_decontamination_query",
)  # fmt: skip
_REFUSED = (  # the harness's own, which would change a prompt or a score
    "process_docs", "process_results", "doc_to_image", "doc_to_audio", "gen_prefix", "use_prompt", "unsafe_code",
    "custom_dataset", "include",
)  # fmt: skip
_METRICS: dict[str, tuple[Metric, ...]] = {"multiple_choice": ("acc", "acc_norm"), "generate_until": ("exact_match",)}
_GENERATION = ("until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature", "top_p")
_GRADING = ("ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore")


def harness_task(path: Path, settings: Mapping[str, Any]) -> Task:
    """Build a task from lm-evaluation-harness YAML; data files are relative to the YAML.

    Raises:
        InputError: a key or a value is not supported, or a data file is missing.
    """
    fewshot, generation = settings.get("fewshot_config") or {}, settings.get("generation_kwargs") or {}
    for given, known in ((settings, _KEYS), (fewshot, ("sampler",)), (generation, _GENERATION)):
        check_keys(path, given, known)
    one_of(path, fewshot, "sampler", ("default", "first_n"), "default")
    kind = one_of(path, settings, "output_type", tuple(_METRICS), "generate_until")
    one_of(path, settings, "dataset_path", ("json", "csv", "parquet"))
    one_of(path, settings, "repeats", (1,), 1)
    filters = settings.get("filter_list")
    harmless = [
        chain
        for chain in filters or ()
        if isinstance(chain, dict) and chain.get("filter") == [{"function": "take_first"}]
    ]
    if filters is not None and (not harmless or filters != harmless):
        raise InputError(f"{path.name}: 'filter_list' is not supported with other filters than take_first.")
    files = _data_files(path, settings.get("dataset_kwargs") or {})
    named = [str(settings[key]) for key in _SPLITS if settings.get(key)]
    splits = tuple(dict.fromkeys(named))
    # without a word, examples come from the training split, else validation, else test, as in the harness
    fewshot_split = str(settings.get("fewshot_split") or (named or [""])[-1])
    for split in filter(None, (*splits, fewshot_split)):
        one_of(path, {"split": split}, "split", tuple(files))
    needed = ["doc_to_text", "doc_to_target", *(["doc_to_choice"] if kind == "multiple_choice" else [])]
    missing = [key for key in ("task", *needed) if settings.get(key) is None] + ([] if splits else ["test_split"])
    if missing:
        raise InputError(f"{path.name} lacks {', '.join(missing)}.", next="Add what is missing.")
    shots = int(settings.get("num_fewshot") or 0)
    metrics, grading = _metrics(
        path, settings.get("metric_list") or [{"metric": name} for name in _METRICS[kind]], kind
    )
    metadata = settings.get("metadata") or {}

    def load(request: Request) -> list[Item]:
        rows = [row for file in files[request.split] for row in read_rows(file)]
        pool = [row for file in files[fewshot_split] for row in read_rows(file)] if request.shots else []
        prompt = _Prompt(
            settings, pool, request.shots, f"{', '.join(map(str, files[fewshot_split]))}, split {fewshot_split}"
        )
        return build(_whole(rows), ", ".join(map(str, files[request.split])), prompt.item, request.split)

    return Task(
        name=str(settings["task"]),
        version=str(metadata.get("version", "1")),
        source=str(metadata.get("source") or ""),
        licence=str(metadata.get("licence") or metadata.get("license") or ""),
        metrics=metrics,
        splits=splits,
        load=load,
        shots=shots,
        shots_rule=f"rows of the split {fewshot_split}, as lm-evaluation-harness takes them",
        grade=grading,
        files={str(file): sha256_file(file) for paths in files.values() for file in paths},
    )


class _Prompt:
    """Formats rows as items, few-shot examples included."""

    def __init__(self, settings: Mapping[str, Any], pool: Sequence[Row], shots: int, origin: str) -> None:
        self.settings, self.pool, self.shots, self.origin = settings, _whole(pool), shots, origin
        # as in the harness: in a split that `fewshot_split` does not name, a row may be its own example
        self.with_itself = settings.get("fewshot_split") == settings.get("test_split")
        self.delimiter = settings.get("target_delimiter", " ")
        self.between = settings.get("fewshot_delimiter", "\n\n")
        self.first = (settings.get("fewshot_config") or {}).get("sampler") == "first_n"
        self.random = random.Random(_SEED)

    def item(self, row: Row, place: str) -> Item:
        """Format a row as a question after its few-shot examples."""
        description = self.settings.get("description")
        before = FewShot(
            str(value_of(row, "description", description)) if description else "",
            tuple(map(self._example, self._examples(row))), self.delimiter, self.between,
        )  # fmt: skip
        name, context = str(row.get("id") or place), before.text + self._text(row)
        choices, target = self._choices(row), self._target(row)
        if self.settings.get("output_type") != "multiple_choice":
            references = (
                [choices[_index(target, choices)]] if choices else target if isinstance(target, list) else [target]
            )
            how = {"until": [self.between], **(self.settings.get("generation_kwargs") or {})}
            return Generation(name, context, tuple(map(str, references)), decoding(how), few_shot=before)
        return MultipleChoice(
            id=name,
            context=context,
            endings=tuple(f"{self.delimiter}{choice}" for choice in choices),
            answer=_index(target, choices),
            header=before.text if self.first else "",
            lengths=tuple(map(len, choices)),
            few_shot=before,
        )

    def _examples(self, row: Row) -> list[Row]:
        """The few-shot examples of a row, never itself."""

        def others(rows: Iterable[Row]) -> Iterator[Row]:
            return (other for other in rows if not self.with_itself or other != row)

        if self.first or not self.shots:
            examples = list(islice(others(self.pool), self.shots))
        else:
            examples = list(others(self._sample(self.pool, self.shots + self.with_itself)))[: self.shots]
            if len(examples) < self.shots:  # the row stands in the pool more than once
                examples = self._sample(list(others(self.pool)), self.shots)
        if len(examples) < self.shots:
            raise ValueError(f"there are only {len(examples)} examples for {self.shots} shots")
        return examples

    def _sample(self, rows: Sequence[Row], count: int) -> list[Row]:
        return self.random.sample(rows, min(count, len(rows)))

    def _example(self, row: Row) -> tuple[str, str]:
        try:
            choices, target = self._choices(row), self._target(row)
            answer = choices[_index(target, choices)] if choices else target[0] if isinstance(target, list) else target
            return self._text(row), str(answer)
        except (ValueError, LookupError) as error:
            place = f"Row {self.pool.index(row) + 1} of the few-shot examples of task {self.settings['task']}"
            raise InputError(f"{place} cannot be used: {error}.", f"File: {self.origin}") from error

    def _text(self, row: Row) -> str:
        text = value_of(row, "doc_to_text", str(self.settings["doc_to_text"]))
        if not isinstance(text, str):
            raise ValueError(f"doc_to_text: {text!r} is not text")
        return text

    def _choices(self, row: Row) -> list[str]:
        given = self.settings.get("doc_to_choice")
        if given is None:
            return []
        choices = list(given.values()) if isinstance(given, dict) else given
        if isinstance(given, str):
            column = value_of(row, "doc_to_choice", given)
            choices = column if given in row else _literal(column)
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise ValueError(f"doc_to_choice: {choices!r} is not a list of texts")
        if len(choices) < 2:
            raise ValueError(f"doc_to_choice: {len(choices)} choices; a question needs at least two")
        return choices

    def _target(self, row: Row) -> Any:
        given = self.settings["doc_to_target"]
        target = value_of(row, "doc_to_target", given) if isinstance(given, str) else given
        if not isinstance(target, str) or given in row:
            return target
        listed = len(target) > 1 and target[0] + target[-1] == "[]"
        return _literal(target) if listed or (target.isdigit() and self.settings.get("doc_to_choice")) else target


def decoding(settings: Mapping[str, Any]) -> Decoding:
    """Convert the harness's generation_kwargs; it samples only with `do_sample`."""
    until = settings.get("until") or []
    stop = (until,) if isinstance(until, str) else tuple(until)
    return Decoding(
        max_tokens=int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or MOST_TOKENS),
        stop=tuple(text for text in stop if text),
        temperature=float(settings.get("temperature") or 1.0) if settings.get("do_sample") else 0.0,
        top_p=float(settings.get("top_p") or 1.0),
    )


def _index(target: Any, choices: Sequence[str]) -> int:
    if isinstance(target, str) and (target in choices or target.isdigit()):
        target = choices.index(target) if target in choices else int(target)
    if not isinstance(target, int) or not 0 <= target < len(choices):
        raise ValueError(f"doc_to_target: {target!r} is no index below {len(choices)} and none of the choices")
    return int(target)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _whole(rows: Sequence[Row]) -> list[Row]:
    """Give every row all columns, absent ones as None, as `datasets` does."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in columns} for row in rows]


def _data_files(path: Path, given: Mapping[str, Any]) -> dict[str, list[Path]]:
    check_keys(path, given, ("data_files",))
    listed = given.get("data_files")
    splits: Mapping[str, Any] = listed if isinstance(listed, dict) else {"train": listed}
    if not all(splits.values()):
        raise InputError(f"{path.name} names no data file.", next="Add dataset_kwargs: {data_files: {test: FILE}}.")
    lists = {str(split): [names] if isinstance(names, str) else names for split, names in splits.items()}
    return {split: [beside(path, str(name)) for name in names] for split, names in lists.items()}


def beside(path: Path, name: str) -> Path:
    """Resolve a data file relative to its task file.

    Raises:
        InputError: it is not there.
    """
    file = path.parent / name
    if not file.is_file():
        raise InputError(f"{path.name} names a data file that is not there.", f"Not found: {file}")
    return file


def check_keys(path: Path, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Reject unknown keys, suggesting the nearest known one.

    Raises:
        InputError: there is one.
    """
    for key in map(str, given):
        if key not in known:
            known_keys = f"Supported: {', '.join(known)}."
            hint = "It would change what is asked or how it is scored." if key in _REFUSED else did_you_mean(key, known)
            raise InputError(f"{path.name}: key '{key}' is not supported.", hint, known_keys)


@cache
def _template(text: str) -> Template:
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = lambda value, pattern, new, count=0: re.sub(pattern, new, value, count=count)
    return environment.from_string(text)


def value_of(row: Row, key: str, expression: str) -> Any:
    """Resolve an expression for a row: the column of that name, or a rendered Jinja template.

    Raises:
        ValueError: it is neither; names the key and what is wrong.
    """
    if expression in row:
        return row[expression]
    if expression.isidentifier():
        hint = did_you_mean(expression, row, f"There are: {', '.join(map(str, row))}")
        raise ValueError(f"{key}: there is no column '{expression}' ({hint[0].lower()}{hint[1:]})")
    try:
        return _template(expression).render(row)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{key}: {error}") from error


def _metrics(
    path: Path, listed: Iterable[Mapping[str, Any]], kind: str
) -> tuple[tuple[Metric, ...], Callable[[str, Generation], Mapping[Metric, float]] | None]:
    metrics: list[Metric] = []
    how: dict[str, Any] = {}
    for entry in listed:
        check_keys(path, entry, ("metric", "aggregation", "higher_is_better", *_GRADING))
        name = one_of(path, entry, "metric", _METRICS[kind])
        one_of(path, entry, "aggregation", ("mean",), "mean")
        metrics += [metric for metric in get_args(Metric) if metric == name]
        how |= {key: entry[key] for key in _GRADING if key in entry}

    def grade(written: str, item: Generation) -> dict[Metric, float]:
        wanted = {_plain(reference, **how) for reference in item.references}
        return {"exact_match": float(_plain(written, **how) in wanted)}

    return tuple(metrics), grade if kind == "generate_until" else None


def _plain(
    text: str,
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
    ignore_numbers: bool = False,
    regexes_to_ignore: Sequence[str] = (),
) -> str:
    for pattern in regexes_to_ignore or ():
        text = re.sub(pattern, "", text)
    gone = (string.punctuation if ignore_punctuation else "") + (string.digits if ignore_numbers else "")
    return (text.lower() if ignore_case else text).translate(str.maketrans("", "", gone))


def one_of(path: Path, given: Mapping[str, Any], key: str, allowed: Sequence[Any], usual: Any = None) -> str:
    """Get a setting that must be one of the allowed values, `usual` where it is not given.

    Raises:
        InputError: it is another.
    """
    value = given.get(key, usual)
    if value not in allowed:
        choices = f"Choose from: {', '.join(map(str, allowed))}."
        raise InputError(f"{path.name}: {key} '{value}' is not supported.", next=choices)
    return str(value)
