"""Load quiz files: a short YAML that names the columns of a table of questions.

    name: quiz                 # by default the file's own
    file: quiz.csv             # beside the YAML: JSON, JSONL, CSV or Parquet
    question: domanda          # a column
    choices: opzioni           # a column with a list, or a list of columns: [a, b, c, d]
    answer: risposta           # a letter, an index from 0 (`first_index: 1` counts from 1), or the text of the choice

or, for written answers, `prompt` (a column or a template such as "Traduci: {{frase}}") and `target` (a text, or a list
of right ones). Optional: id, group (what questions share, such as a passage), category, prompt (of a question with
choices), answer_is (letter, index or text, where a row could mean two), language (it, en), licence, source, version,
stop and max_tokens; examples (another file of such rows, for few-shot examples). `prompt` may hold several by name, the default first.

Protocol: 0-shot. Choices follow `Domanda: …\\nRisposta:` (`Question: …\\nAnswer:` in English) and a space, scored by
log-likelihood; accuracy by characters (`acc_norm`) and `acc`. Written answers are one line of at most 64 tokens, greedy;
exact match and F1 over words after SQuAD's normalisation (`stilnovo.benchmarks.grading`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stilnovo.benchmarks.dataset_files import Row, build
from stilnovo.benchmarks.grading import grade
from stilnovo.benchmarks.harness_yaml import beside, check_keys, one_of, value_of
from stilnovo.benchmarks.task import Decoding, Generation, Item, MultipleChoice, Request, Task
from stilnovo.errors import InputError
from stilnovo.io.rows import read_rows
from stilnovo.runlog import sha256_file

_CHOICE = ("question", "choices", "answer")
_WRITTEN = ("prompt", "target")
_KEYS = (
    "name", "file", *_CHOICE, *_WRITTEN, "group", "category", "id", "language", "licence", "license", "source",
    "version", "answer_is", "first_index", "stop", "max_tokens", "examples",
)  # fmt: skip
_PROMPTS = {"it": "Domanda: {}\nRisposta:", "en": "Question: {}\nAnswer:"}
_KINDS = ("letter", "index", "text")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def quiz_task(path: Path, settings: Mapping[str, Any]) -> Task:
    """Build a task from a quiz file.

    Raises:
        InputError: a key is unknown or missing, or its file is not there.
    """
    check_keys(path, settings, _KEYS)
    written = "target" in settings
    missing = [key for key in ("file", *(_WRITTEN if written else _CHOICE)) if not settings.get(key)]
    of_other_form = (
        ("question", "choices", "answer", "language", "answer_is", "first_index")
        if written
        else ("stop", "max_tokens", *(["language"] if settings.get("prompt") else []))
    )
    unused = [key for key in of_other_form if key in settings]
    if unused or missing:
        other = "target" if written else "prompt" if unused == ["language"] else "choices"
        fault = f": '{unused[0]}' does nothing beside '{other}'." if unused else f" lacks {', '.join(missing)}."
        raise InputError(
            f"{path.name}{fault}", f"Found: {', '.join(map(str, settings))}.",
            f"A quiz has file, {', '.join(_CHOICE)}; one with written answers file, {', '.join(_WRITTEN)}.",
        )  # fmt: skip
    for key, allowed in (("language", tuple(_PROMPTS)), ("answer_is", _KINDS), ("first_index", (0, 1))):
        one_of(path, settings, key, allowed, allowed[0])
    files = {"test": beside(path, str(settings["file"]))}
    if settings.get("examples"):
        files["train"] = beside(path, str(settings["examples"]))
    prompts = _prompts(path, settings.get("prompt"))

    def load(request: Request) -> Sequence[Item]:
        wording = {**settings, "prompt": prompts.get(request.prompt) or next(iter(prompts.values()), None)}
        file = files[request.split]
        make = partial(_written if written else _choice, wording)
        return build(read_rows(file), str(file), make, request.split)

    return Task(
        name=str(settings.get("name") or path.stem),
        version=str(settings.get("version", "1")),
        source=str(settings.get("source") or ""),
        licence=str(settings.get("licence") or settings.get("license") or ""),
        metrics=("exact_match", "f1") if written else ("acc_norm", "acc"),
        splits=("test",),
        load=load,
        grade=grade if written else None,
        categories=str(settings.get("category") or ""),
        files={str(file): sha256_file(file) for file in files.values()},
        prompts=tuple(prompts) if len(prompts) > 1 else (),
        example_splits=("train",) if "train" in files else (),
    )


def _prompts(path: Path, given: Any) -> dict[str, str]:
    """The prompts of a quiz by name, the default first; a single one has no name.

    Raises:
        InputError: they are neither a text nor texts by name.
    """
    prompts = given if isinstance(given, dict) else {"": given} if given else {}
    if isinstance(given, list) or not all(isinstance(text, str) and text for text in prompts.values()):
        raise InputError(f"{path.name}: prompt: {given!r} is neither a text nor texts by name.")
    return {str(name): text for name, text in prompts.items()}


def _choice(settings: Mapping[str, Any], row: Row, place: str) -> MultipleChoice:
    options = _options(settings, row)
    context = _PROMPTS[settings.get("language", "it")].format(_value(settings, row, "question"))
    return MultipleChoice(
        context=str(_value(settings, row, "prompt")) if settings.get("prompt") else context,
        endings=tuple(f" {option}" for option in options.values()),
        answer=list(options).index(_position(settings, _value(settings, row, "answer"), options)),
        **_names(settings, row, place),
    )


def _written(settings: Mapping[str, Any], row: Row, place: str) -> Generation:
    target, stop = _value(settings, row, "target"), settings.get("stop", "\n")
    references = tuple(map(str, target if isinstance(target, list) else [target]))
    how = Decoding(int(settings.get("max_tokens", 64)), (stop,) if isinstance(stop, str) else tuple(stop))
    context = str(_value(settings, row, "prompt"))
    return Generation(context=context, references=references, decoding=how, **_names(settings, row, place))


def _names(settings: Mapping[str, Any], row: Row, place: str) -> dict[str, Any]:
    """Id, cluster and category of a row."""
    given = {key: value_of(row, key, str(settings[key])) for key in ("id", "group", "category") if settings.get(key)}
    filled = {key: str(value) for key, value in given.items() if value is not None}
    id = filled.get("id") or str(row.get("id", place))
    return {"id": id, "cluster": filled.get("group", ""), "category": filled.get("category", "")}


def _value(settings: Mapping[str, Any], row: Row, key: str) -> Any:
    """Get a key's value for a row, from its column or template; never empty."""
    value = value_of(row, key, str(settings[key]))
    if value is None or not str(value).strip():
        raise ValueError(f"{key}: column '{settings[key]}' is empty")
    return value


def _options(settings: Mapping[str, Any], row: Row) -> dict[int, str]:
    """Choices by position; empty cells are skipped."""
    given = settings["choices"]
    column = isinstance(given, str)
    listed = _value(settings, row, "choices") if column else [value_of(row, "choices", str(name)) for name in given]
    if not isinstance(listed, list):
        raise ValueError(f"choices: column '{given}' holds no list; name one column a choice: [a, b, c]")
    options = {place: str(text) for place, text in enumerate(listed) if text is not None and str(text).strip()}
    if len(options) < 2:
        raise ValueError(f"choices: {len(options)} found; a question needs at least two")
    return options


def _position(settings: Mapping[str, Any], answer: Any, options: Mapping[int, str]) -> int:
    """Position of the right choice; the answer may be a letter, an index or the text."""
    text, first = str(answer).strip(), int(settings.get("first_index", 0))
    readings: dict[str, int | None] = {
        "text": next((place for place, option in options.items() if option.strip() == text), None),
        "letter": _LETTERS.find(text.upper()) if len(text) == 1 else None,
        "index": int(text) - first if text.isdecimal() else None,
    }
    kinds = [settings["answer_is"]] if "answer_is" in settings else ["index"] if isinstance(answer, int) else _KINDS
    positions = {kind: place for kind in kinds if (place := readings[kind]) in options}
    if not positions:
        raise ValueError(f"answer: {answer!r} is none of the {len(options)} choices")
    if len(set(positions.values())) > 1:
        raise ValueError(f"answer: {answer!r} may be {' or '.join(positions)}; say which with answer_is")
    return next(place for place in positions.values() if place is not None)
