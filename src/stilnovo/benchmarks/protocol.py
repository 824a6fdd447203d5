"""Evaluation protocols: the conditions of published results, and how a run differs from the default.

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
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from stilnovo.benchmarks.task import Draw, Selection, Task, select
from stilnovo.benchmarks.tasks import OLDER
from stilnovo.errors import InputError, did_you_mean
from stilnovo.recipe_sections import Scheme
from stilnovo.text.tokenizer import Tokenizer

EFFECTS_FILE = Path(__file__).with_name("protocol_effects.json")
Opening = Literal["model", "none", "always"]


@dataclass(frozen=True)
class Protocol:
    """Conditions of an evaluation.

    Attributes:
        name: As typed after `--protocol`.
        quantization: Of the weights, unless asked otherwise (`scheme`).
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

    def scheme(self, given: str | None) -> str | None:
        """The quantization that is asked for; None where the default protocol leaves it to the adapter and to what fits."""
        return given or (None if self.name == "stilnovo" else self.quantization)

    def task(self, task: Task) -> Task:
        """Get the task in this protocol's version."""
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
        prompt: str = "",
    ) -> Selection:
        """Load and sample a task under this protocol; an explicit limit takes precedence over its share."""
        if draw.limit is None and task.reference:
            draw = replace(draw, limit=self.share)
        task = self.task(task)
        return select(task, data_dir, split, draw, shots=shots, download=download, first=self.first, prompt=prompt)

    def identity(self) -> dict[str, str]:
        """Settings that change an answer to the same item, for the cache key."""
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
    """Look up a protocol by name.

    Raises:
        InputError: there is none of that name (with the nearest).
    """
    if name not in PROTOCOLS:
        hint = did_you_mean(name, PROTOCOLS, cutoff=0.4)
        raise InputError(f"There is no protocol '{name}'.", hint, f"Choose from: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Difference:
    """A deviation from the default protocol; `effect` is its measured effect on SmolLM2, if any."""

    what: str
    here: str
    default: str
    why: str
    effect: str = ""


def measured_effects() -> dict[str, str]:
    """Effects that `bench/protocols.py` last measured, in words, by difference; empty before it has run."""
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
    """List how a run with these settings differs from the default protocol."""
    openings = (tokenizer.bos_id, protocol.tokenizer(tokenizer).bos_id)
    own, used = ("none" if token is None else f"token {token}" for token in openings)
    rows = [
        ("quantization", quantization, STILNOVO.quantization,
         "Cruder weights; FP4's sixteen values fit normally distributed weights less well than NF4's."),
        ("opening token", used, own, "Llama 3 was trained with an opening token before every document."),
    ]  # fmt: skip
    for selection in selections:
        task, n = selection.task, len(selection.items)
        older = f"{task.name}@{task.version}" in OLDER
        items, usual, why = "all", "all", "Fewer items, wider intervals."
        if selection.first:
            items, usual = f"the first {n:,} of {selection.available:,}", "all, or drawn at random"
            why = "The first items are no sample: HellaSwag's first third is ActivityNet only."
        elif n < selection.available:
            items = f"{n:,} of {selection.available:,}, seed {selection.seed}"
        rows += [
            (f"version of {task.name}", task.version, "the current one" if older else task.version,
             "Absent options are scored as a choice of one blank."),
            (f"items of {task.name}", items, usual, why),
            (f"split of {task.name}", selection.split, task.splits[0],
             "The split that is measured elsewhere is not this one."),
            (f"examples of {task.name}", str(selection.shots), str(task.shots), "Examples change what is measured."),
        ]  # fmt: skip
    effects, keys = measured_effects(), {"quantization": f"quantization {quantization}"}
    return [
        Difference(*row, effects.get(keys.get(row[0], row[0]), "")) for row in dict.fromkeys(rows) if row[1] != row[2]
    ]
