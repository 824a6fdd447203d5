"""What of a bundle can be repeated on this machine: one line for everything that a number depends on.

Three kinds of things: what must be there (model, data, adapter), what decides the last bits (code, packages, processor,
threads), and what was never written down. Only the first can make a repetition impossible; the second say why one that
comes out otherwise does.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from stilnovo import hub
from stilnovo.bundle.contents import FACTS, TRAINED
from stilnovo.bundle.found_files import BUILT_IN, FoundFiles, absent, is_included
from stilnovo.bundle.zip_file import OpenedBundle
from stilnovo.errors import InputError
from stilnovo.progress import counted
from stilnovo.runlog import environment
from stilnovo.scoring.identity import code_sha256, model_sha256

State = Literal["same", "different", "found", "included", "missing", "not recorded"]


class _File(BaseModel):
    name: str
    bytes: int | None
    sha256: str
    member: str | None = None


class _Entry(BaseModel):
    use: str
    given: str
    kind: str
    files: list[_File]
    task_file: str = ""


class _Code(BaseModel):
    version: str | None
    commit: str | None
    source_sha256: str | None = None


class _Computing(BaseModel):
    variables: dict[str, str | None] = {}


class _Model(BaseModel):
    name: str | None
    model_id: str | None = None
    weights_sha256: str | None = None
    code_sha256: str | None = None


class _Facts(BaseModel):
    """What a stranger's facts must have to be read; what is not named here is shown only."""

    format: Literal[1]
    kind: Literal["evaluation", "training", "comparison", "sweep"]
    name: str
    date: str | None
    command: list[str]
    code: _Code
    versions: dict[str, str | None]
    hardware: dict[str, Any]
    computing: _Computing
    data: list[_Entry]
    model: _Model | None = None


@dataclass(frozen=True)
class CheckLine:
    """One thing that a run depends on: as it was recorded, as it is here, and what that means.

    `needed` says that nothing can be repeated while it is missing.
    """

    what: str
    recorded: str
    here: str
    state: State
    needed: bool = False

    @property
    def stops(self) -> bool:
        """Whether this makes a repetition impossible."""
        return self.needed and self.state in ("missing", "different")


@dataclass(frozen=True)
class BundleCheck:
    """A checked bundle: its facts, the lines, and the model's name on this machine, None where it is not here."""

    facts: dict[str, Any]
    lines: tuple[CheckLine, ...]
    model: str | None

    @property
    def obstacles(self) -> list[CheckLine]:
        """Lines that make a repetition impossible."""
        return [line for line in self.lines if line.stops]

    @property
    def changed(self) -> list[str]:
        """What is here otherwise than it was, of what decides the last bits."""
        return [line.what for line in self.lines if line.state == "different" and not line.needed]


def facts_of(bundle: OpenedBundle) -> dict[str, Any]:
    """A bundle's facts, once all its members are known to be whole.

    Raises:
        InputError: members are damaged, by name, or the facts are of another version.
    """
    if bundle.faults:
        raise InputError(
            f"{bundle.path} is damaged: {counted(len(bundle.faults), 'member')}.",
            "; ".join(f"{name}: {fault}" for name, fault in bundle.faults[:5]), "Get the file again, or make the bundle anew.",
        )  # fmt: skip
    facts: dict[str, Any] = bundle.json(FACTS)
    try:
        json.dumps(facts, ensure_ascii=False).encode()  # no half characters
        _Facts.model_validate(facts, strict=True)
    except ValueError as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "no UTF-8"}
        raise InputError(
            f"{bundle.path} has facts that this version does not read.",
            f"{'.'.join(map(str, first['loc'])) or 'All of them'}: {first['msg']}", "Update stilnovo, or make the bundle anew.",
        ) from error  # fmt: skip
    return facts


def check_bundle(
    bundle: OpenedBundle, found: FoundFiles, model: str | None, file_hash: Callable[[Path], str]
) -> BundleCheck:
    """Compare a bundle with this machine.

    Args:
        bundle: An opened one.
        found: Where its data are looked for.
        model: The model's name here; None: as the bundle calls it, if that is here without a network.
        file_hash: Hashes a file; big ones may be remembered.

    Raises:
        InputError: the bundle is damaged, or the model that was named is not here.
    """
    facts = facts_of(bundle)
    lines = [*_machine_lines(facts, environment())]
    name = None
    if (facts.get("model") or {}).get("served"):
        lines.append(CheckLine("model", f"{facts['model']['name']}, on a server", "cannot be told", "not recorded"))
    elif facts.get("model") and facts["kind"] != "sweep":
        name, line = _model_line(facts["model"], model, file_hash)
        lines.append(line)
    lines += [_data_line(entry, found, bundle) for entry in facts["data"] if entry["use"] != TRAINED]
    return BundleCheck(facts, tuple(lines), name)


def _machine_lines(facts: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[CheckLine]:
    code = facts["code"]
    if code.get("source_sha256") is not None:
        was, now = (
            f"{version} ({commit}), sources {sha[:12]}"
            for version, commit, sha in (
                (code["version"], code["commit"], code["source_sha256"]),
                (here["versions"].get("stilnovo"), here["commit"], here["source_sha256"]),
            )
        )
        yield CheckLine("stilnovo's code", was, now, _compared(code["source_sha256"], here["source_sha256"]))
    else:
        yield _line("stilnovo's commit", code.get("commit"), here["commit"])
    if scorer := (facts.get("model") or {}).get("code_sha256"):
        yield _line("the code that scores", scorer[:12], code_sha256()[:12])
    for name, version in facts["versions"].items():
        yield _line(name, version, here["versions"].get(name))
    hardware = facts["hardware"]
    for name in ("processor", "gpu", "system"):
        if name in hardware or name in here["hardware"]:
            yield _line(name, hardware.get(name), here["hardware"].get(name), none="none")
    for name, value in facts["computing"].items():
        if name == "variables":
            values = ({**dict.fromkeys(os.environ.keys() & value.keys()), **value}, here["computing"]["variables"])
            for variable in sorted(values[0].keys() | values[1].keys()):
                yield _line(variable, values[0].get(variable), values[1].get(variable), none="not set")
        else:
            yield _line(name.replace("_", " "), value, here["computing"].get(name), none="none")


def _compared(recorded: object, here: object) -> State:
    return "same" if recorded == here else "different"


def _line(what: str, recorded: object, here: object, none: str = "not recorded") -> CheckLine:
    if recorded is None and none == "not recorded":
        return CheckLine(what, none, str(here), "not recorded")
    shown = [none if value is None else str(value) for value in (recorded, here)]
    return CheckLine(
        what,
        shown[0],
        "not installed" if here is None and none == "not recorded" else shown[1],
        _compared(recorded, here),
    )


def _model_line(
    recorded: Mapping[str, Any], given: str | None, file_hash: Callable[[Path], str]
) -> tuple[str | None, CheckLine]:
    """Where the model is here, and whether its weights are the same."""
    name = given or next(filter(_is_here, filter(None, (recorded["name"], recorded.get("model_id")))), None)
    wanted = recorded.get("weights_sha256")
    called = f"{recorded['name']}{'' if wanted is None else f', sha256 {wanted[:12]}'}"
    if name is None:
        asked = recorded.get("model_id") or "NAME"
        return None, CheckLine("model", called, f"not here: add --model {asked}", "missing", needed=True)
    found = model_sha256(hub.find_model(name), file_hash)
    if wanted is None:
        return name, CheckLine("model", called, f"{name}, sha256 {found[:12]}", "not recorded")
    state: State = "same" if found == wanted else "different"
    return name, CheckLine("model", called, f"{name}, sha256 {found[:12]}", state, needed=True)


def _is_here(name: str) -> bool:
    """Whether a model is here, without asking the hub."""
    with contextlib.suppress(InputError):
        return hub.is_local(name)
    return False


def _data_line(entry: dict[str, Any], found: FoundFiles, bundle: OpenedBundle) -> CheckLine:
    what = f"{entry['use']} {entry['given']}"
    if entry["kind"] == BUILT_IN:
        return CheckLine(what, "a part of stilnovo", "a part of stilnovo", "same")
    recorded = counted(len(entry["files"]), "file")
    if len(entry["files"]) == 1:
        recorded = f"sha256 {entry['files'][0]['sha256'][:12]}"
    if not entry["files"]:
        state: State = "not recorded" if entry["use"] == "protected benchmark" else "missing"
        return CheckLine(what, "not written down", "cannot be told", state, needed=True)
    missing = absent(entry, found, bundle)
    if not missing:
        within = all(is_included(file, bundle) for file in entry["files"])
        where = "in the bundle" if within else "found by hash"
        return CheckLine(what, recorded, where, "included" if within else "found", needed=True)
    first = missing[0]
    other = found.same_name(first)
    if other is not None:
        return CheckLine(what, recorded, f"{first['name']} has another content", "different", needed=True)
    more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
    return CheckLine(what, recorded, f"{first['name']}{more} not found: add --data DIR", "missing", needed=True)
