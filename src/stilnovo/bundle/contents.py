"""What goes into a bundle: the facts of a run in one JSON object, its own files, and where asked for its adapter and data.

Facts are those that the run wrote when it was made. What an older run did not write (files of its data, hashes of weights) is
looked up where it still lies, and is said to have been found only when the bundle was made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stilnovo.benchmarks.known_files import KNOWN
from stilnovo.bundle.letter import letter
from stilnovo.bundle.private import Scrubber
from stilnovo.bundle.zip_file import Source
from stilnovo.data.inputs import file_entry, input_files, recipe_inputs
from stilnovo.errors import InputError, reported
from stilnovo.modelcard.provenance import provenance
from stilnovo.recipe import Recipe
from stilnovo.recipe import load as load_recipe
from stilnovo.runlog import json_text, sha256_file
from stilnovo.scoring.result import FILE_NAME, EvaluationResult, load_result

FACTS, README = "bundle.json", "README.md"
TRAINED = "trained adapter"  # what a training made, and no input of it
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_TRAINING = ("manifest.json", "recipe.yaml", "metrics.jsonl", "train.json", "guard.jsonl", "status.json")
_KINDS = {FILE_NAME: "evaluation", "comparison.json": "comparison", "sweep.json": "sweep", "recipe.yaml": "training"}


@dataclass
class Contents:
    """Facts and members of a bundle in the making."""

    facts: dict[str, Any]
    members: dict[str, Source] = field(default_factory=dict)


def kind_of_run(run: Path) -> str:
    """Which kind of run a folder holds: evaluation, comparison, sweep or training.

    Raises:
        InputError: it holds none.
    """
    if not run.is_dir():
        raise InputError(f"There is no folder {run}.", next="Name the folder of a run; `stilnovo runs` lists them.")
    found = [kind for name, kind in _KINDS.items() if (run / name).is_file()]
    if not found:
        raise InputError(
            f"{run} holds no run.", f"None of {', '.join(_KINDS)} is in it.",
            "Name the folder that train, evaluate, compare --out or sweep wrote.",
        )  # fmt: skip
    return found[0]


def contents_of(
    run: Path, *, with_data: bool = False, with_adapter: bool = False, root: Path | None = None
) -> Contents:
    """Collect a bundle's members from a run folder; nothing of it is changed.

    Args:
        run: The folder of a training, an evaluation, a comparison or a sweep.
        with_data: Whether the files that it read are packed too.
        with_adapter: Whether the weights of its adapter are.
        root: Paths below this folder stay, relative to it; by default the current one.

    Raises:
        InputError: the folder holds no run, or one of its files is damaged.
    """
    scrub = Scrubber(root or Path.cwd())
    kind = kind_of_run(run)
    make: Callable[[Path, Scrubber], Contents] = {
        "evaluation": _evaluation, "training": _training, "comparison": _comparison, "sweep": _sweep
    }[kind]  # fmt: skip
    contents = make(run, scrub)
    facts = {"format": 1, "kind": kind, "name": run.resolve().name, **contents.facts}
    wanted = {"data": with_data, "adapter": with_adapter}
    facts["data"] = [
        _packed(entry, wanted["adapter" if "adapter" in entry["use"] else "data"], contents.members, scrub)
        for entry in facts.get("data", [])
    ]
    facts = scrub.value(facts)
    return Contents(facts, {**contents.members, FACTS: _json(facts), README: letter(facts).encode()})


def _packed(entry: dict[str, Any], wanted: bool, members: dict[str, Source], scrub: Scrubber) -> dict[str, Any]:
    """An entry of the data without its paths; where it is wanted, its unchanged files become members named by their hash."""
    files = []
    for file in entry["files"]:
        path: Path | None = file.get("path")
        known = {key: value for key, value in file.items() if key != "path"}
        if path is not None and path.name == ADAPTER_FILES[0] and wanted:  # it names its base, perhaps by a path
            known["member"] = f"adapter/{file['sha256'][:16]}/{path.name}"
            members[known["member"]] = _json(scrub.value(_read_json(path)))
        elif wanted and path is not None and path.is_file() and sha256_file(path) == file["sha256"]:
            known["member"] = f"data/{file['sha256']}"
            own = (
                entry["kind"] == "prepared corpus" and path.suffix == ".json"
            )  # its settings name model and sources by path
            members[known["member"]] = _json(scrub.value(_read_json(path))) if own else path
        files.append(known)
    return {**entry, "files": files, "included": bool(files) and all("member" in file for file in files)}


def _json(value: Any) -> bytes:
    return (json_text(value, indent=1) + "\n").encode()


def _read_json(path: Path) -> dict[str, Any]:
    with reported(f"{path} cannot be read.", errors=(OSError, ValueError, RecursionError)):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content


def _common(made: dict[str, Any], command: list[str], scrub: Scrubber) -> dict[str, Any]:
    """What every run says of the program and the machine that made it."""
    versions = made.get("versions", {})
    return {
        "date": made.get("date"), "command": scrub.command([str(word) for word in command]),
        "code": {
            "version": versions.get("stilnovo"), "commit": made.get("commit"), "source_sha256": made.get("source_sha256")
        },
        "versions": {name: version for name, version in versions.items() if name != "stilnovo"},
        "hardware": made.get("hardware", {}), "computing": made.get("computing", {}),
    }  # fmt: skip


def _with_paths(
    entries: Iterable[dict[str, Any]], names: Iterable[str | Path], known: bool
) -> Iterator[dict[str, Any]]:
    """Entries of inputs with the paths where their files still lie; what was not `known` was found at packing."""
    for entry, name in zip(entries, names, strict=False):
        path = Path(name).expanduser()
        files = [{**file, "path": path / file["name"] if path.is_dir() else path} for file in entry["files"]]
        yield {**entry, "files": files, **({} if known else {"found": "when the bundle was made"})}


def _training(run: Path, scrub: Scrubber) -> Contents:
    manifest, recipe = _read_json(run / "manifest.json"), load_recipe(run / "recipe.yaml")
    values = recipe.model_dump(mode="json")
    scrub.learn([manifest, values])
    members: dict[str, Source] = {}
    for name in (name for name in _TRAINING if (run / name).is_file()):
        members[f"run/{name}"] = _cleaned(run / name, scrub)
    guarded = recipe.guard.texts if recipe.guard.every else ()
    names = [*recipe.data.paths, *recipe.data.rehearsal, *guarded]
    recorded = manifest.get("inputs")
    data = list(_with_paths(_found_inputs(recipe) if recorded is None else recorded, names, recorded is not None))
    if recipe.guard.every:
        data += [
            {"use": "protected benchmark", "given": task, "kind": _benchmark_kind(task), "files": []}
            for task in recipe.guard.tasks
        ]
    folders = {TRAINED: run / "adapter", "frozen adapter": run / "frozen_adapter"}
    data += [_adapter(folder, use) for use, folder in folders.items() if (folder / ADAPTER_FILES[1]).is_file()]
    figures = _read_json(run / "train.json") if (run / "train.json").is_file() else {}
    origin = provenance(recipe.model.name, None, recipe)
    facts = {
        **_common(manifest, manifest.get("command", []), scrub),
        "model": {
            "name": recipe.model.name, "quantization": recipe.model.quantization, "device": recipe.model.device,
            "computes_in": manifest.get("computes_in"), "licence": origin.terms.name,
            **{key: manifest.get(key) for key in ("model_id", "model_revision", "weights_sha256", "frozen_adapter_sha256")},
        },
        "seeds": {"train.seed": recipe.train.seed}, "deterministic": recipe.train.deterministic,
        "levers": manifest.get("levers"), "data_sha256": manifest.get("data_sha256"), "data": data,
        "licences": [{"of": terms.of, "name": terms.name, "link": terms.link} for terms in origin.data],
        "results": {key: value for key, value in figures.items() if isinstance(value, int | float)},
    }  # fmt: skip
    return Contents(facts, members)


def _found_inputs(recipe: Recipe) -> list[dict[str, Any]]:
    """The inputs of a run that did not write them down, where they are still there."""
    try:
        return recipe_inputs(recipe)
    except InputError:
        return [
            {"use": "training data", "given": Path(name).name, "kind": "unknown", "files": []}
            for name in recipe.data.paths
        ]


def _cleaned(path: Path, scrub: Scrubber) -> bytes:
    """A run's own file without what is private."""
    with reported(f"{path} cannot be read.", errors=(OSError, ValueError, RecursionError)):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".yaml":
            return yaml.safe_dump(scrub.value(yaml.safe_load(text)), sort_keys=False, allow_unicode=True).encode()
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            return "".join(json_text(scrub.value(row)) + "\n" for row in rows).encode()
        content = json.loads(text)
    if isinstance(content, dict) and isinstance(content.get("command"), list):
        content["command"] = scrub.command(content["command"])
    return _json(scrub.value(content))


def _adapter(folder: Path, use: str) -> dict[str, Any]:
    files = [
        {**file_entry(folder / name), "path": folder / name} for name in ADAPTER_FILES if (folder / name).is_file()
    ]
    return {"use": use, "given": folder.name, "kind": "adapter", "files": files}


def _evaluation(run: Path, scrub: Scrubber) -> Contents:
    result = load_result(run)
    content = _read_json(run / FILE_NAME)
    scrub.learn([content.get("settings"), content.get("command"), content.get("model"), content.get("adapter")])
    settings, identity = result.settings, result.identity or {}
    model = next((entry for entry in result.inputs if entry["use"] == "model"), {})
    texts = [entry for entry in result.inputs if entry["use"] == "held-out text"]
    names = settings.get("text") or []
    if names and not texts:
        try:
            texts = [{**entry, "found": "when the bundle was made"} for entry in input_files(names, "held-out text")]
        except InputError:
            texts = [
                {"use": "held-out text", "given": Path(name).name, "kind": "unknown", "files": []} for name in names
            ]
    data = [*_benchmarks(result), *_with_paths(texts, names, known=True)]
    if result.adapter:
        data.append(_evaluated_adapter(Path(result.adapter).expanduser(), identity.get("adapter_sha256")))
    facts = {
        **_common(result.environment, result.command, scrub),
        "model": {
            "name": result.model, "quantization": result.quantization, "device": settings.get("device"),
            "served": bool(settings.get("server")),
            "computes_in": settings.get("dtype"), "weights_sha256": identity.get("weights_sha256"),
            "code_sha256": identity.get("code_sha256"), "model_id": model.get("model_id"),
            "model_revision": model.get("model_revision"), "adapter_sha256": identity.get("adapter_sha256"),
        },
        "seeds": {"seed": settings.get("seed")}, "data": data,
        "licences": [{"of": task.name, "name": task.licence, "link": task.source} for task in result.tasks.values()],
        "results": {
            f"{name} {metric}": task.score(metric).value for name, task in result.tasks.items() for metric in task.metrics
        } | ({} if result.text is None else {"bits per byte": result.text.bits_per_byte().value}),
    }  # fmt: skip
    return Contents(facts, {f"run/{FILE_NAME}": _cleaned(run / FILE_NAME, scrub)})


def _evaluated_adapter(folder: Path, recorded: str | None) -> dict[str, Any]:
    """The adapter of an evaluation, where it still is the one that was evaluated; else its hash alone."""
    from stilnovo.scoring.identity import adapter_sha256

    try:
        same = adapter_sha256(folder) == recorded
    except InputError:
        same = False
    return (
        _adapter(folder, "adapter")
        if same
        else {"use": "adapter", "given": folder.name, "kind": "adapter", "files": []}
    )


def _benchmark_kind(task: str) -> str:
    return "built in" if task.startswith("sample_") else "unknown"


def _benchmarks(result: EvaluationResult) -> Iterator[dict[str, Any]]:
    """The files of each task: below the data folder as it was, or beside the user's own task file."""
    own = result.settings.get("task_files") or {}
    data_dir = Path(result.settings["data_dir"]).expanduser() if result.settings.get("data_dir") else None
    for name, task in result.tasks.items():
        known: dict[str, Any] = {
            "use": "benchmark",
            "given": name,
            "kind": "files" if task.files else _benchmark_kind(name),
        }
        root = Path(own[name]).parent if name in own else data_dir
        if name in own:
            known |= {"kind": "task file", "task_file": Path(own[name]).name}
        yield {**known, "files": [_located(file, digest, root, name) for file, digest in task.files.items()]}


def _located(file: str, digest: str, root: Path | None, task: str) -> dict[str, Any]:
    """A file of a benchmark: its place below `root` where it is found there unchanged, else where benchmarks have it."""
    if root is not None and root.is_dir():
        for path in sorted(Path(here) / file for here, _, names in os.walk(root) if file in names):
            if sha256_file(path) == digest:
                return {**file_entry(path, root), "path": path}
    return {"name": f"{KNOWN.get(digest, (task, ''))[0]}/{file}", "bytes": None, "sha256": digest}


def _comparison(run: Path, scrub: Scrubber) -> Contents:
    content = _read_json(run / "comparison.json")
    scrub.learn(content)
    members: dict[str, Source] = {"run/comparison.json": _cleaned(run / "comparison.json", scrub)}
    for side in ("before", "after"):
        path = Path(content[side]).expanduser()
        file = path / FILE_NAME if path.is_dir() else path
        load_result(file)  # it must be whole
        scrub.learn(_read_json(file).get("settings"))
        members[f"run/{side}/{FILE_NAME}"] = _cleaned(file, scrub)
    results = {name: task["difference"] for name, task in content.get("tasks", {}).items()}
    return Contents({**_common(content, content.get("command", []), scrub), "results": results}, members)


def _sweep(run: Path, scrub: Scrubber) -> Contents:
    content = _read_json(run / "sweep.json")
    scrub.learn(content)
    data = [
        {**_adapter(Path(folder).expanduser(), "adapter"), "given": name}
        for name, folder in content.get("adapters", {}).items()
    ]
    for name in content.get("held_out", []):
        try:
            found = input_files([name], "held-out text")
        except InputError:
            found = [{"use": "held-out text", "given": Path(name).name, "kind": "unknown", "files": []}]
        data += list(_with_paths(found, [name], known=False))
    facts = {
        **_common(content, content.get("command", []), scrub), "data": data, "seeds": {"seed": content.get("seed")},
        "model": {"name": content.get("model"), "quantization": content.get("quantization")},
        "results": {},
    }  # fmt: skip
    return Contents(facts, {"run/sweep.json": _cleaned(run / "sweep.json", scrub)})
