"""The README.md of what is passed on: an adapter's folder, an exported model's, a GGUF file's; metadata first, as the hub reads it.

No path of the machine is written, only the last part of its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from stilnovo.modelcard.provenance import Provenance, TrainingFacts, provenance, training_facts
from stilnovo.modelcard.terms import LicenceTerms, folder_card
from stilnovo.recipe import Recipe
from stilnovo.runlog import write_atomic

_FIGURES = {
    "loss_before": "loss without the adapter", "loss_after": "loss with it", "tokens": "tokens", "n": "rows",
    "accuracy_before": "accuracy without the adapter", "accuracy_after": "accuracy with it",
}  # fmt: skip


def adapter_card(folder: Path, base: str, recipe: Recipe | None, written: Sequence[str] = ()) -> str:
    """The card of an adapter's folder.

    Args:
        folder: The adapter's folder, or that of its run; what the run has written so far is told.
        base: The model that the adapter was learnt on.
        recipe: Its recipe; None: the run's, where there is one, with the data that the folder's own card lists.
        written: Lines on the adapter itself: how it is stored.
    """
    facts, given = training_facts(folder), recipe
    recipe = recipe or (facts.recipe if facts else None)
    origin = provenance(base, folder if given is None else None, recipe)
    name = origin.base_id or base
    use = [
        "```python", "from peft import AutoPeftModelForCausalLM", "",
        'model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")', "```", "",
        f"With stilnovo: `stilnovo chat --model {base if origin.base_id else origin.title} --adapter FOLDER`.",
    ]  # fmt: skip
    about = [
        f"A LoRA adapter for `{name if origin.base_id else origin.title}`, {'written' if recipe is None else 'trained'} by stilnovo "
        f"{version('stilnovo')}."
    ]
    sections = [("", about), *([("The adapter", _list(written))] if written else []), *_training(recipe, facts)]
    metadata = {
        "base_model_relation": "adapter",
        "library_name": "peft",
        "tags": ["stilnovo", "lora", "peft", "italian"],
    }
    return _card(f"LoRA adapter for {origin.title}", metadata, sections, origin, use)


def write_readme(folder: Path, card: str) -> bool:
    """Write a card as the README.md of a folder, atomically; one of somebody else stays, and False is returned."""
    path = folder / "README.md"
    if path.is_file():
        tags = folder_card(folder).get("tags")
        if not isinstance(tags, list) or "stilnovo" not in tags:
            return False
    write_atomic(path, card)
    return True


def model_card(
    origin: Provenance, made: Sequence[str], *, library: str = "transformers", use: Sequence[str] = ()
) -> str:
    """The card of an exported model.

    Args:
        origin: Where it comes from.
        made: Lines that say how it was made.
        library: What opens it, as the hub names it: `transformers` or `gguf`.
        use: Lines that show how it is opened; none: with transformers.
    """
    if not use:
        use = [
            "```python", "from transformers import pipeline", "",
            'write = pipeline("text-generation", model="FOLDER")',
            'print(write([{"role": "user", "content": "Chi era Dante?"}]))', "```", "",
            "With stilnovo: `stilnovo chat --model FOLDER`.",
        ]  # fmt: skip
    trained = origin.training is not None or bool(origin.data)
    title = f"{origin.title}, trained further" if trained else origin.title
    relation = {"base_model_relation": "finetune" if trained else "quantized" if library == "gguf" else "finetune"}
    metadata = {**relation, "library_name": library, "tags": ["stilnovo", *(["italian"] if origin.italian else [])]}
    recipe = origin.training.recipe if origin.training else None
    return _card(title, metadata, [("", _list(made)), *_training(recipe, origin.training)], origin, list(use))


def licence_files(origin: Provenance) -> dict[str, bytes]:
    """Files that go along with a copy, by name: the base's licence files, and a NOTICE where its licence asks for one."""
    files = {file.name: file.read_bytes() for file in origin.terms.files}
    if origin.terms.notices and not any(name.upper().startswith("NOTICE") for name in files):
        files["NOTICE"] = ("\n".join(origin.terms.notices) + "\n").encode()
    return files


def _card(
    title: str, metadata: dict[str, Any], sections: list[tuple[str, list[str]]], origin: Provenance, use: list[str]
) -> str:
    datasets = sorted({terms.repository for terms in origin.data if terms.repository})
    base = {"base_model": origin.base_id} if origin.base_id else {}
    relation = metadata.pop("base_model_relation")
    head: dict[str, Any] = {
        **base, **({"base_model_relation": relation} if base else {}), **origin.licence,
        **({"language": ["it"]} if "italian" in metadata["tags"] else {}),
        "pipeline_tag": "text-generation", **metadata,
    }  # fmt: skip
    if datasets:
        head["datasets"] = datasets
    if origin.licence != origin.base_licence:  # what the next card finds the base's own in
        head["base_license"] = origin.base_licence
    if origin.data:
        head["training_data"] = [_row(terms) for terms in origin.data]
    lines = _licence(origin, copied=metadata["library_name"] != "peft")
    parts = [*sections, *_data(origin.data), ("Licence", lines), ("How to open it", use)]
    body = "\n\n".join("\n".join([*([f"## {name}", ""] if name else []), *lines]) for name, lines in parts if lines)
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n# {title}\n\n{body}\n"


def _row(terms: LicenceTerms) -> dict[str, str]:
    row = {"name": terms.of, "license": terms.name, "link": terms.link, "repository": terms.repository}
    row["part"] = "weights" if terms.weights else None
    return {key: value for key, value in row.items() if value}


def _list(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _training(recipe: Recipe | None, facts: TrainingFacts | None) -> list[tuple[str, list[str]]]:
    """What was learnt and how, and what came of it as far as the run says."""
    if recipe is None:
        return []
    train, lora, data = recipe.train, recipe.lora, recipe.data
    length = f"{train.steps} steps" if train.steps else f"{train.epochs:g} epochs"
    lines = [
        f"Objective: {train.task}; {length}, batches of {train.batch_packs} × {train.accumulation} packs of {data.pack_tokens} tokens",
        f"Learning rate {train.learning_rate:g}, {train.schedule}; seed {train.seed}",
        f"LoRA: rank {lora.r}, α {lora.alpha:g}{' (rsLoRA)' if lora.rslora else ''}, dropout {lora.dropout:g}, on "
        f"{', '.join(lora.projections)}",
        f"Base kept in {recipe.model.quantization} meanwhile",
    ]
    if lora.quantization_aware != "none":
        lines.append(f"Learnt under a quantization to {lora.quantization_aware}")
    return [("Training", _list(lines)), *_outcome({} if facts is None else facts.figures)]


def _outcome(figures: dict[str, Any]) -> list[tuple[str, list[str]]]:
    lines = []
    if isinstance(first := figures.get("first_loss"), float) and isinstance(last := figures.get("last_loss"), float):
        lines.append(f"Loss of the first step {first:.3f}, of the last {last:.3f}, after {figures.get('steps')} steps")
    if isinstance(held := figures.get("held_out"), dict):
        said = [
            f"{_FIGURES.get(key, key)} {_number(value)}"
            for key, value in held.items()
            if isinstance(value, int | float)
        ]
        lines.append(f"On held-out rows: {', '.join(said)}")
    if isinstance(guard := figures.get("guard"), dict):
        lines.append(f"Guard against forgetting, {guard.get('evaluations')} evaluations: {guard.get('why')}")
    return [("Results", _list(lines))] if lines else []


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _data(data: Sequence[LicenceTerms]) -> list[tuple[str, list[str]]]:
    rows = [f"| {terms.of} | {_titled(terms)} |" for terms in data if not terms.weights]
    return [("Data", ["| data | licence |", "|---|---|", *rows])] if rows else []


def _titled(terms: LicenceTerms) -> str:
    return f"{terms.title} ({terms.link})" if terms.link else terms.title


def _licence(origin: Provenance, *, copied: bool) -> list[str]:
    """The terms of base and data in sentences; `copied`: whether the base's licence files lie beside the card."""
    base = origin.terms
    lines = [f"The base, {origin.title}, is under: {_titled(base)}{f', by {base.source}' if base.source else ''}."]
    lines += base.notices
    if base.name.startswith("llama"):
        family = base.name.replace("llama", "Llama ").strip()
        begins = "Llama 3" if base.name == "llama3" else "Llama"
        lines.append(
            f"Whoever passes this model on gives a copy of the {family} agreement along, shows the lines above, and lets its name "
            f"begin with “{begins}”; its acceptable use policy applies."
            if base.name != "llama2" else
            "Whoever passes this model on gives a copy of the Llama 2 agreement along; its acceptable use policy applies."
        )  # fmt: skip
    if base.repository and base.name != "apache-2.0":
        lines.append(f"What its makers ask beyond that stands on its card: https://huggingface.co/{base.repository}")
    if base.files and copied:
        lines.append(f"Copied from the base: {', '.join(file.name for file in base.files)}.")
    for terms in (terms for terms in origin.data if terms.weights):
        lines += [
            f"T{terms.of[1:]} is under: {_titled(terms)}.",
            *(line for line in terms.notices if line not in lines),
        ]
    lines += [f"No commercial use, by the terms of {terms.of}: {terms.title}." for terms in origin.non_commercial]
    if any(terms.name != origin.terms.name for terms in origin.data if not terms.weights):
        lines.append("The licences of the data are listed above; some ask for their authors to be named.")
    return _list(lines)
