"""A model with a sliding window, or a short context, never learns or evaluates more at once: said before it is opened."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stilnovo.data.prepare import prepare
from stilnovo.data.work import PreparationSettings
from stilnovo.errors import InputError
from stilnovo.plan.shape import config_from_json
from stilnovo.recipe import Recipe
from stilnovo.text.tokenizer import open_tokenizer
from stilnovo.train.dry_run import dry_run
from stilnovo.train.run import TrainingRun

WINDOW = 64
LONG = "parola " * 60


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "-"}), encoding="utf-8")
    return path


@pytest.fixture(params=["window", "context", "window beside layer types"])
def short_sighted(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with a limit of 64 tokens, and without its weights: whoever opens them fails."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").write_bytes(b"")
    mistral = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": WINDOW}
    write_config(folder, **{
        "window": mistral, "context": {"max_position_embeddings": WINDOW},
        "window beside layer types": {**mistral, "layer_types": ["sliding_attention", "full_attention"]},
    }[request.param])  # fmt: skip
    return folder


def write_rows(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(model: Path, path: Path, task: str = "text", **data: Any) -> Recipe:
    return Recipe.model_validate({
        "model": {"name": str(model), "quantization": "none", "device": "cpu"}, "lora": {"r": 2},
        "data": {"paths": [str(path)], "pack_tokens": 256, "held_out": 0, **data},
        "train": {"steps": 1, "task": task},
    })  # fmt: skip


ROWS: dict[str, dict[str, Any]] = {
    "text": {"text": LONG},
    "sft": {"prompt": "Racconta.", "completion": LONG},
    "dpo": {"prompt": "Racconta.", "chosen": LONG, "rejected": f"No: {LONG}"},
}


@pytest.mark.parametrize(("task", "more"), [("text", {}), ("text", {"rows": "truncated"}), ("sft", {}), ("dpo", {})])
def test_longer_documents_are_refused_before_the_model_is_opened(
    task: str, more: dict[str, str], short_sighted: Path, tmp_path: Path
) -> None:
    asked = recipe(short_sighted, write_rows(tmp_path, ROWS[task]), task, **more)
    for attempt in (lambda: TrainingRun(asked, tmp_path / "run"), lambda: dry_run(asked, tmp_path / "run")):
        with pytest.raises(InputError, match=r"(?s)longer than the model reads.*64 tokens.*data\.pack_tokens=64"):
            attempt()


def test_so_are_those_of_a_prepared_corpus(short_sighted: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path, ROWS["text"])
    prepare(PreparationSettings((str(source),)), open_tokenizer(str(short_sighted)), "m", tmp_path / "prepared")
    with pytest.raises(InputError, match="longer than the model reads"):
        TrainingRun(recipe(short_sighted, tmp_path / "prepared"), tmp_path / "run")


def test_rehearsal_counts_too(short_sighted: Path, tmp_path: Path) -> None:
    texts = tmp_path / "short.jsonl"
    texts.write_text(json.dumps({"text": "Breve."}) + "\n", encoding="utf-8")
    talks = write_rows(tmp_path, ROWS["sft"])
    asked = recipe(short_sighted, texts, rehearsal=[str(talks)], rehearsal_share=0.5)
    with pytest.raises(InputError, match="longer than the model reads"):
        TrainingRun(asked, tmp_path / "run")


@pytest.mark.parametrize("task", ["text", "sft"])
def test_the_advice_helps(task: str, short_sighted: Path, tmp_path: Path) -> None:
    asked = recipe(short_sighted, write_rows(tmp_path, ROWS[task]), task, pack_tokens=WINDOW)
    assert max(dry_run(asked, tmp_path / "run").data.corpus.packed.packs.length) <= WINDOW


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_held_out_rows_are_evaluated_within_the_window(task: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Short rows are learnt in long packs; a long one that is held out is read within the window all the same."""
    run = TrainingRun(recipe(tiny_folder, write_rows(tmp_path, ROWS[task]), task), tmp_path / "run")
    window = 120  # more than the prompt alone
    assert len(run.corpus.packed.documents[0]) > window
    run.model.config = replace(run.model.config, max_positions=window)
    held_out = _rows_of(run)
    read = list[int]()
    hidden = run.trainer.passes.hidden
    run.trainer.passes.hidden = lambda tokens, lengths: (read.extend(lengths), hidden(tokens, lengths))[1]  # type: ignore[method-assign]
    run.objective.evaluate(run.trainer.passes, held_out, run.tokenizer)
    assert 0 < max(read) <= window


def _rows_of(run: TrainingRun) -> tuple[Any, ...]:
    from stilnovo.data.conversations import read_conversations, read_preferences

    reader = read_preferences if run.recipe.train.task == "dpo" else read_conversations
    return tuple(reader(run.recipe.data.paths)[0])


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({"sliding_window": 64}, 64),
        ({"sliding_window": None}, 512),
        ({"sliding_window": "-"}, 512),
        ({"sliding_window": "-", "max_position_embeddings": 32_768}, 4096),
        ({"sliding_window": "-", "max_position_embeddings": "-"}, 4096),
        ({"sliding_window": 9000, "max_position_embeddings": "-"}, 9000),
    ],
)
def test_what_a_mistral_reads_at_once(changes: dict[str, Any], longest: int, tiny_folder: Path, tmp_path: Path) -> None:
    """As transformers reads it, with its defaults for what the file leaves out ("-")."""
    from transformers import MistralConfig

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    path = write_config(folder, architectures=["MistralForCausalLM"], model_type="mistral", **changes)
    assert config_from_json(path).max_positions == longest
    theirs = MistralConfig.from_pretrained(folder)
    assert min(theirs.max_position_embeddings, theirs.sliding_window or theirs.max_position_embeddings) == longest
