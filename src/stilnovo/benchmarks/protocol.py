"""The conditions of an evaluation as one object, and what differs between two sets of them.

Unusual: a result says under which protocol it was made and, line by line, what differs from the default and why that
matters; the same differences, one at a time, are measured by `bench/protocols.py`.

* `stilnovo`, the default: the weights as asked for, the model's own opening token, subsets drawn at random over the
  groups of a benchmark, current task versions.
* `report2024`: as the report of 2024 ran lm-evaluation-harness (commit 7785577, transformers 4.45): `load_in_4bit=True`
  alone, which means FP4 and not NF4; no opening token, since that was the harness's default; `--limit 0.20`, the first
  fifth of every file, rounded up; versions arc_it 2.0 and hellaswag_it 1.0.
* `anita2024`: as LLaMAntino-3-ANITA's own figures were made, which the report compared with: bfloat16, no opening token,
  all items, arc_it 1.0 with its fifth choice of one blank.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stilnovo.benchmarks.task import Draw, Selection, Task, select
from stilnovo.benchmarks.tasks import OLDER
from stilnovo.errors import InputError
from stilnovo.recipe import Scheme
from stilnovo.text.tokenizer import Tokenizer

EFFECTS_FILE = Path(__file__).with_name("protocol_effects.json")
Opening = Literal["model", "none", "always"]


@dataclass(frozen=True)
class Protocol:
    """One way to evaluate.

    Attributes:
        name: As typed after `--protocol`.
        quantization: Of the weights, unless asked otherwise.
        opening: Token before every prompt: `model` where the model has one, `none` never, `always` also where the model
            has none (its end-of-text token then).
        share: Of the items of a task that lm-evaluation-harness has; None for all.
        first: Whether a subset is simply the first items.
        versions: Task → version, where not the current one.
        tasks: What is asked when nothing is named.
    """

    name: str
    quantization: Scheme = "none"
    opening: Opening = "model"
    share: float | None = None
    first: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()

    def tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokeniser with this protocol's opening token; the given one is left as it is."""
        if self.opening == "model" or (self.opening == "always" and tokenizer.bos_id is not None):
            return tokenizer
        changed = copy.copy(tokenizer)
        changed.bos_id = None if self.opening == "none" else tokenizer.end_of_text_id
        return changed

    def task(self, task: Task) -> Task:
        """The task in the version that this protocol asks for."""
        version = self.versions.get(task.name, task.version)
        return task if version == task.version else OLDER[f"{task.name}@{version}"]

    def select(
        self,
        task: Task,
        data_dir: Path | None = None,
        split: str | None = None,
        draw: Draw = Draw(),  # noqa: B008 - frozen
        *,
        shots: int | None = None,
        download: bool = False,
    ) -> Selection:
        """As `stilnovo.benchmarks.task.select`, under this protocol; an explicit limit comes before its share."""
        if draw.limit is None and task.reference:
            draw = replace(draw, limit=self.share)
        return select(self.task(task), data_dir, split, draw, shots=shots, download=download, first=self.first)

    def identity(self) -> dict[str, str]:
        """What changes an answer to the same item, for the cache; quantisation and versions are named there already."""
        return {"opening": self.opening}


STILNOVO = Protocol("stilnovo")
REPORT2024 = Protocol(
    "report2024",
    quantization="fp4",
    opening="none",
    share=0.20,
    first=True,
    tasks=("arc_it", "hellaswag_it", "invalsi_report_written"),
)
ANITA2024 = Protocol(
    "anita2024", opening="none", versions={"arc_it": "1.0"}, tasks=("arc_it", "hellaswag_it", "mmlu_it")
)
PROTOCOLS = {protocol.name: protocol for protocol in (STILNOVO, REPORT2024, ANITA2024)}


def find_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        InputError: there is none of that name (with the nearest).
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1, cutoff=0.4)
        raise InputError(
            f"There is no protocol '{name}'.",
            f"Did you mean {near[0]}?" if near else "",
            f"Choose from: {', '.join(PROTOCOLS)}.",
        )
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Difference:
    """One way in which an evaluation was not the default one; `effect` is what it did to SmolLM2, where measured."""

    what: str
    here: str
    default: str
    why: str
    effect: str = ""


def measured_effects() -> dict[str, str]:
    """What `bench/protocols.py` last measured, in words, by the name of the difference; empty before it has run."""
    if not EFFECTS_FILE.is_file():
        return {}
    record = json.loads(EFFECTS_FILE.read_text(encoding="utf-8"))
    said = {}
    for effect in record["effects"]:
        low, high = (100 * bound for bound in effect["interval"])
        said[effect["key"]] = (
            f"{record['model']}, {effect['words']}: {100 * effect['difference']:+.1f} points of {record['metric']} "
            f"({low:+.1f} to {high:+.1f}; {effect['n']} items of {effect['task']}, {record['date']})"
        )
    return said


def differences(
    protocol: Protocol, quantization: str, tokenizer: Tokenizer, selections: Sequence[Selection]
) -> list[Difference]:
    """What differs from the default protocol in a run with these settings; nothing that makes no difference."""
    found = []
    if quantization != STILNOVO.quantization:
        why = "Cruder weights; FP4's sixteen values fit normally distributed weights less well than NF4's."
        found.append(Difference("quantization", quantization, STILNOVO.quantization, why))
    own, used = tokenizer.bos_id, protocol.tokenizer(tokenizer).bos_id
    if own != used:
        why = "Llama 3 was trained with an opening token before every document."
        found.append(Difference("opening token", _token(used), _token(own), why))
    for selection in selections:
        task = selection.task
        if f"{task.name}@{task.version}" in OLDER:
            why = "Absent options are scored as a choice of one blank."
            found.append(Difference(f"version of {task.name}", task.version, "the current one", why))
        if selection.first:
            here = f"the first {len(selection.items):,} of {selection.available:,}"
            why = "The first items are no sample: HellaSwag's first third is ActivityNet only."
            found.append(Difference(f"items of {task.name}", here, "all, or drawn at random", why))
        elif len(selection.items) < selection.available:
            here = f"{len(selection.items):,} of {selection.available:,}, seed {selection.seed}"
            found.append(Difference(f"items of {task.name}", here, "all", "Fewer items, wider intervals."))
        if selection.other_split:
            why = "The split that is measured elsewhere is not this one."
            found.append(Difference(f"split of {task.name}", selection.split, task.splits[0], why))
        if selection.shots != task.shots:
            why = "Examples change what is measured."
            found.append(Difference(f"examples of {task.name}", str(selection.shots), str(task.shots), why))
    effects = measured_effects()
    return [replace(one, effect=effects.get(_key(one), "")) for one in found]


def _key(difference: Difference) -> str:
    return f"quantization {difference.here}" if difference.what == "quantization" else difference.what


def record(protocol: Protocol, found: Sequence[Difference]) -> dict[str, Any]:
    """What a result keeps of its protocol."""
    return {"name": protocol.name, "differs": [asdict(difference) for difference in found]}


def _token(token: int | None) -> str:
    return "none" if token is None else f"token {token}"
