"""The README.md of a bundle: what is in it and how it is checked, in plain words."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from stilnovo.progress import bytes_text, counted

_WHAT = {
    "training": "a training: recipe, log of every step, figures", "evaluation": "an evaluation: scores and the answer to every item",
    "comparison": "a comparison of two evaluations, and both of them", "sweep": "an evaluation of an adapter at several scales",
}  # fmt: skip


def letter(facts: dict[str, Any]) -> str:
    """The text, from the facts of the bundle."""
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    code, model = facts["code"], facts.get("model") or {}
    yield f"# {facts['name']}\n"
    yield f"This file holds {_WHAT[facts['kind']]}. It was made by stilnovo {code['version'] or 'of an unknown version'}, "
    yield f"commit {code['commit'] or 'unknown'}, on {facts['date'] or 'an unknown day'}, with:\n"
    yield f"    {shlex.join(facts['command']) or 'a command that was not written down'}\n"
    yield "To see what can be repeated on your machine, and to repeat it:\n"
    yield "    stilnovo bundle check FILE --data DIR"
    yield "    stilnovo bundle check FILE --data DIR --run\n"
    yield "`MANIFEST.json` lists every member with its sha256, `bundle.json` the facts, `run/` the run's own files without paths, host "
    yield "names or keys of the machine that it ran on.\n"
    if model.get("name"):
        origin = f", {model['model_id']}" if model.get("model_id") not in (None, model["name"]) else ""
        yield f"Model: {model['name']}{origin}, quantization {model.get('quantization')}; its weights are not included."
        yield f"Their sha256: {model.get('weights_sha256') or 'not written down'}.\n"
    yield from _data(facts.get("data", []))
    if facts.get("licences"):
        yield "\nLicences, where they are known:\n"
        yield from (f"- {terms['of']}: {terms['name']}" for terms in facts["licences"])
    if facts.get("results"):
        yield "\nResults:\n"
        yield from (f"- {name}: {value:.6g}" for name, value in facts["results"].items() if value is not None)


def _data(entries: list[dict[str, Any]]) -> Iterator[str]:
    if entries:
        yield "What it read:\n"
    for entry in entries:
        size = sum(file["bytes"] or 0 for file in entry["files"])
        held = (
            "a part of stilnovo" if entry["kind"] == "built in" else "included" if entry["included"] else "not included"
        )
        files = f", {counted(len(entry['files']), 'file')}, {bytes_text(size)}" if entry["files"] else ""
        yield f"- {entry['use']}: {entry['given']} ({entry['kind']}{files}; {held})"
