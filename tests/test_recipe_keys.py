"""Every recipe key has an effect or is refused by name: all keys, in a training on the CPU and in the plan of a card."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from conftest import CHATML, SPECIALS, TINY, write_byte_tokenizer, write_weights
from stilnovo.errors import InputError
from stilnovo.forgetting.guard import guard_callback
from stilnovo.generate.generator import sample_answers
from stilnovo.model import lora
from stilnovo.model.llama import Llama
from stilnovo.plan.adapter import frozen_ranks
from stilnovo.plan.cards import CARDS, GIB
from stilnovo.plan.choice import Budget, best, wishes_of
from stilnovo.plan.shape import LLAMA_3_8B, LoraConfig, adapter_of, config_from_json
from stilnovo.plan.sizes import Run
from stilnovo.plan.speed import speed
from stilnovo.recipe import Recipe, ignored_keys, keys, load, plain_reason, refuse_ignored_keys, shipped, value_of
from stilnovo.recipe_sections import OBJECTIVES
from stilnovo.runlog import RunFolder
from stilnovo.train.objectives.base import objective_of
from stilnovo.train.run import TrainingRun

GUARD = {"guard.every": 2, "guard.tasks": ["sample_questions"], "guard.items": 8, "guard.texts": ["PROTECTED"]}
REHEARSAL = {"data.rehearsal": ["CHATS"], "data.pack_tokens": 160}
LOSING = {**GUARD, "train.learning_rate": 0.05, "guard.tolerance_percent": 0, "train.steps": 6}
RISING = {"train.learning_rate": 0.5, "train.steps": 8, "train.evaluate_every": 1}
#: For each key: a recipe in which it may act, and the value to which it is changed. FILES are names of files made below.
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "model.name": ({}, "OTHER"), "model.quantization": ({}, "int8"), "model.device": ({}, "cuda:9"), "model.adapter": ({}, "ADAPTER"),
    "lora.r": ({}, 8), "lora.alpha": ({}, 64.0), "lora.dropout": ({}, 0.3), "lora.rslora": ({}, False),
    "lora.projections": ({}, ["q_proj", "v_proj"]), "lora.upper_share": ({}, 0.5), "lora.quantization_aware": ({}, "int4"),
    "data.paths": ({}, ["CHATS"]), "data.pack_tokens": ({}, 32), "data.rows": ({"data.pack_tokens": 32}, "truncated"),
    "data.completion_only": ({"train.task": "sft", "data.paths": ["PROMPTS"]}, False),
    "data.held_out": ({}, 0.5), "data.max_documents": ({}, 10),
    "data.comprehension": ({"data.paths": ["sample"], "data.max_documents": 6}, 0.5), "data.rehearsal": ({}, ["CHATS"]),
    "data.rehearsal_share": (REHEARSAL, 0.4), "train.task": ({"data.paths": ["CHATS"]}, "sft"),
    "train.steps": ({}, 2), "train.epochs": ({"train.steps": None}, 2.0), "train.batch_packs": ({}, 1),
    "train.accumulation": ({}, 2), "train.learning_rate": ({}, 1e-3), "train.schedule": ({}, "linear"),
    "train.warmup_ratio": ({}, 0.5), "train.warmup_steps": ({}, 2), "train.final_ratio": ({}, 0.5),
    "train.weight_decay": ({}, 0.5), "train.betas": ({}, [0.5, 0.5]), "train.clip_norm": ({}, 0.01),
    "train.optimizer": ({}, "adamw8bit"), "train.rehearse_by": (REHEARSAL, "both"),
    "train.kl_weight": ({**REHEARSAL, "train.rehearse_by": "both"}, 5.0),
    "train.beta": ({"train.task": "dpo", "data.paths": ["PAIRS"], "data.pack_tokens": 512}, 0.5),
    "train.gradient_checkpointing": ({}, True), "train.engine": ({}, "plain"), "train.loss_chunk": ({}, 16),
    "train.evaluate_every": ({}, 2), "train.evaluation_tokens": ({}, 200), "train.patience": (RISING, 1),
    "train.samples": ({}, ["Chi sei?"]), "train.sample_tokens": ({"train.samples": ["Chi sei?"]}, 3),
    "train.trackers": ({}, ["tensorboard", "trackio"]),
    "train.checkpoint_every": ({}, 1), "train.checkpoint_minutes": ({}, 1e-9),
    "train.keep_checkpoints": ({"train.checkpoint_every": 1}, 1), "train.seed": ({}, 7), "train.deterministic": ({}, True),
    "guard.every": (GUARD, 1), "guard.tasks": (GUARD, ["sample_completions"]), "guard.items": (GUARD, 4),
    "guard.texts": (GUARD, ["OTHERS"]), "guard.documents": (GUARD, 10), "guard.data_dir": (GUARD, "/no/such/folder"),
    "guard.tolerance_points": (GUARD, 9.0), "guard.tolerance_percent": (GUARD, 9.0), "guard.alpha": (GUARD, 0.2),
    "guard.on_loss": (LOSING, "stop"),
}  # fmt: skip
#: What a plan does not depend on: the same code on a CPU and on a card, so that the training here shows its effect.
NOT_PLANNED = {
    "model.name", "model.device", "lora.alpha", "lora.rslora", "data.paths", "data.rows", "data.held_out", "data.completion_only",
    "data.max_documents",
    "data.comprehension", "train.steps", "train.epochs", "train.accumulation", "train.learning_rate", "train.schedule",
    "train.warmup_ratio", "train.warmup_steps", "train.final_ratio", "train.weight_decay", "train.betas", "train.clip_norm",
    "train.kl_weight", "train.beta", "train.trackers", "train.checkpoint_minutes",
    "train.checkpoint_every", "train.keep_checkpoints", "train.seed", "train.evaluate_every", "train.evaluation_tokens",
    "train.patience", "train.samples", "train.sample_tokens", "train.deterministic",
    *(key for key in CASES if key.startswith("guard.")),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("rows")
    texts = [{"text": f"Testo numero {n}: " + "parola " * (3 + n % 7)} for n in range(40)]
    chats = [
        {"instruction": f"Conta fino a {n}.", "output": "uno due " * (n % 3 + 1), "text": f"{n}."} for n in range(40)
    ]
    pairs = [{"prompt": f"Il numero {n}?", "chosen": f"Sì, {n}.", "rejected": f"No, {n + 1}."} for n in range(24)]
    protected = [{"text": f"{n}: " + "ЯЖФЩ" * (2 + n % 5)} for n in range(30)]
    prompts = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs]
    rows = {
        "TEXTS": texts,
        "CHATS": chats,
        "PAIRS": pairs,
        "PROMPTS": prompts,
        "PROTECTED": protected,
        "OTHERS": protected[::-2],
    }
    for name, lines in rows.items():
        (folder / f"{name.lower()}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    other = tmp_path_factory.mktemp("other-model")
    write_weights(other, replace(TINY, vocab_size=256 + len(SPECIALS), tie_embeddings=True, max_positions=512), std=0.2)
    write_byte_tokenizer(other, SPECIALS, eos_token="<|im_end|>", chat_template=CHATML)
    earlier = Llama(config_from_json(tiny_folder / "config.json"))
    lora.attach(earlier, config := LoraConfig(r=2))
    for module in lora.adapters(earlier).values():
        module.lora_B.data += 0.1
    lora.save(earlier, config, adapter := tmp_path_factory.mktemp("earlier"), "tiny")
    return {name: str(folder / f"{name.lower()}.jsonl") for name in rows} | {
        "TINY": str(tiny_folder),
        "ADAPTER": str(adapter),
        "OTHER": str(other),
    }


def described(files: dict[str, str], changes: dict[str, Any]) -> Recipe:
    """A recipe of a few steps on the tiny model, changed."""
    base = {
        "model.name": "TINY", "model.device": "cpu", "lora.r": 4, "data.paths": ["TEXTS"], "data.pack_tokens": 64,
        "train.steps": 4, "train.learning_rate": 3e-3, "guard.documents": 8 if "guard.every" in changes else 20,
    }  # fmt: skip

    def named(value: Any) -> Any:
        return [named(item) for item in value] if isinstance(value, list) else files.get(str(value), value)

    return Recipe().changed({key: named(value) for key, value in {**base, **changes}.items()})


def effects(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What a training leaves behind, without what the clock decides, and without the recipe itself."""
    if recipe.guard.every is None:
        run, rule = TrainingRun(recipe, folder, sampler=sample_answers), []
    else:
        run = TrainingRun(recipe, folder, make_callback=guard_callback(recipe, folder))
        rule = run.callback.rule()  # type: ignore[union-attr]
    run.train()
    timed = ("seconds", "tokens_per_second", "memory_bytes", "evaluation_seconds")
    metrics = [{name: value for name, value in row.items() if name not in timed} for row in RunFolder(folder).metrics()]
    guard = [re.sub(r'"seconds": [^,}]*', "", json.dumps(run.trainer.guard_summary())), rule]
    if (folder / "guard.jsonl").exists():
        guard.append(re.sub(r'"seconds": [^,}]*', "", (folder / "guard.jsonl").read_text()))
    return {
        "metrics": metrics, "guard": guard, "levers": None if run.plan is None else asdict(run.plan.levers),
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "held out": len(run.corpus.held_out), "adapter": (folder / "adapter" / "adapter_config.json").read_text(),
        "weights": (folder / "adapter" / "adapter_model.safetensors").read_bytes(),
    }  # fmt: skip


def test_every_key_has_a_case() -> None:
    assert set(CASES) == set(keys())
    assert set(CASES) >= NOT_PLANNED


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, Any]]:
    """Effects of recipes that several keys start from."""
    return {}


@pytest.mark.parametrize("key", list(CASES))
def test_a_key_acts_in_a_training_or_is_refused(
    key: str, files: dict[str, str], known: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, other = CASES[key]
    monkeypatch.setattr("stilnovo.train.trackers.find_spec", lambda name: None)  # no tracker's package is installed
    before, after = described(files, changes), described(files, {**changes, key: other})
    assert value_of(before, key) != value_of(after, key)
    if key in {"model.device", "guard.data_dir", "train.trackers"}:
        with pytest.raises(InputError, match=key.partition(".")[2]):
            effects(after, tmp_path / "after")
        return
    if before.to_yaml() not in known:
        known[before.to_yaml()] = effects(before, tmp_path / "before")
    unlike = effects(after, tmp_path / "after") != known[before.to_yaml()]
    assert unlike == (key != "train.deterministic")  # which a processor's steps are in any case


def planned(recipe: Recipe) -> str:
    """All that `stilnovo plan` says of a card: levers, ledger and forecast."""
    refuse_ignored_keys(recipe, on_card=True)
    if reason := plain_reason(recipe):
        raise InputError(f"{reason} has no plan.")
    adapter, tokens = adapter_of(recipe.lora, 32), recipe.data.pack_tokens * recipe.train.batch_packs
    ranks = frozen_ranks(Path(recipe.model.adapter), LLAMA_3_8B) if recipe.model.adapter else ()
    run = Run(config=LLAMA_3_8B, lora=adapter, scheme=recipe.model.quantization, tokens=tokens, frozen=ranks)
    card, objective = CARDS["rtx-4060"], objective_of(recipe)
    plan = best(run, Budget(8 * GIB, 32 * GIB), card, wishes_of(recipe.train))
    assert plan is not None
    cost = speed(run, plan.levers, card, objective.document_tokens(tokens), objective.cost(0.5))
    return repr((plan.levers, plan.ledger, cost))


@pytest.mark.parametrize("key", [key for key in CASES if key not in NOT_PLANNED])
def test_a_key_acts_in_the_plan_of_a_card_or_is_refused(key: str, files: dict[str, str]) -> None:
    changes, other = CASES[key]
    small = {"data.pack_tokens": 2048, **{name: value for name, value in changes.items() if name != "data.pack_tokens"}}
    other = {"data.pack_tokens": 1024, "model.quantization": "int4", "train.optimizer": "adamw"}.get(key, other)
    recipe = described(files, {**small, key: other})
    if key in {"train.engine", "lora.dropout", "lora.quantization_aware"}:
        with pytest.raises(InputError, match=key):
            planned(recipe)
    else:
        assert planned(recipe) != planned(described(files, small))


@pytest.mark.parametrize("key", sorted(NOT_PLANNED))
def test_what_is_not_planned_is_the_same_on_every_device(key: str, files: dict[str, str]) -> None:
    changes, other = CASES[key]
    assert planned(described(files, changes)) == planned(described(files, {**changes, key: other}))


IGNORED: list[tuple[dict[str, Any], str]] = [
    ({"train.beta": 0.3}, "train.beta needs train.task: dpo"),
    ({"train.task": "dpo", "data.rehearsal": ["x"]}, "data.rehearsal needs train.task: text or sft"),
    ({"train.task": "sft", "data.comprehension": 0.5}, "data.comprehension needs train.task: text"),
    ({"data.rehearsal_share": 0.5}, "data.rehearsal_share needs data.rehearsal"),
    ({"train.rehearse_by": "both"}, "train.rehearse_by needs data.rehearsal"),
    ({"data.rehearsal": ["x"], "train.kl_weight": 2}, "train.kl_weight needs train.rehearse_by: anchor or both"),
    ({"train.schedule": "constant", "train.final_ratio": 0}, "train.final_ratio needs train.schedule"),
    ({"train.optimizer": "paged_adamw8bit"}, "train.optimizer needs a card"),
    ({"train.sample_tokens": 3}, "train.sample_tokens needs train.samples"),
    ({"data.held_out": 0, "train.evaluate_every": 3}, "train.evaluate_every needs data.held_out or train.samples"),
    ({"data.held_out": 0, "train.patience": 3}, "train.patience needs data.held_out"),
    ({"data.held_out": 0, "train.evaluation_tokens": 3}, "train.evaluation_tokens needs data.held_out"),
    ({"train.evaluate_every": 0, "train.patience": 3}, "train.patience needs train.evaluate_every above 0"),
    ({"train.evaluate_every": 0, "train.samples": ["x"]}, "train.samples needs train.evaluate_every above 0"),
    ({"guard.alpha": 0.1}, "guard.alpha needs guard.every"),
    ({"guard.every": 5, "guard.texts": ["x"], "guard.items": 3}, "guard.items needs guard.tasks"),
    ({"guard.every": 5, "guard.tasks": ["x"], "guard.tolerance_percent": 3}, "guard.tolerance_percent needs guard.texts"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), IGNORED, ids=[message for _, message in IGNORED])
def test_a_key_that_would_have_no_effect_is_refused(changes: dict[str, Any], message: str) -> None:
    recipe = Recipe().changed(changes)
    with pytest.raises(InputError, match=re.escape(message)):
        refuse_ignored_keys(recipe, on_card=False)
    if "a card" in message:
        refuse_ignored_keys(recipe, on_card=True)


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_have_no_idle_key(name: str) -> None:
    refuse_ignored_keys(load(name), on_card=True)


def test_keys_of_objectives_exist() -> None:
    named = {key for entry in OBJECTIVES.values() for key in entry.keys}
    assert named <= set(keys()) and set(ignored_keys(Recipe(), on_card=False)) <= set(keys())
