"""Recipes: strict, whole, and every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from stilnovo import recipe as recipes
from stilnovo.errors import InputError


@pytest.mark.parametrize("name", recipes.shipped())
def test_shipped_recipes_load_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    loaded = recipes.load(name)
    (tmp_path / "r.yaml").write_text(loaded.to_yaml(), encoding="utf-8")
    assert recipes.load(tmp_path / "r.yaml") == loaded


@pytest.mark.parametrize("name", recipes.shipped())
def test_shipped_recipes_suit_a_cpu_or_say_what_does(name: str) -> None:
    """The 2024 report's own optimizer needs a card; the refusal names what runs without."""
    recipe = recipes.load(name)
    if name != "report2024-wikipedia":
        assert recipe.train.optimizer == "auto"
        recipes.refuse_ignored_keys(recipe, on_card=False)
        return
    with pytest.raises(InputError, match=r"--set train\.optimizer=auto"):
        recipes.refuse_ignored_keys(recipe, on_card=False)
    recipes.refuse_ignored_keys(recipe.changed({"train.optimizer": "auto"}), on_card=False)


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("lora: {rank: 8, alpha: -1}\ntrain: {epochs: many}\nextra: {}\n")
    with pytest.raises(InputError) as caught:
        recipes.load(path)
    text = str(caught.value)
    assert "problems: 4" in text
    assert all(word in text for word in ("lora.rank: unknown key", "lora.alpha", "train.epochs", "extra: unknown key"))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", ["", "- a\n", "a: [", "\x00"])
def test_not_a_recipe(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(InputError):
        recipes.load(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.betas", [1.5, 0.9]),
        ("train.betas", [0.9]),
        ("train.learning_rate", float("inf")),
        ("train.learning_rate", float("nan")),
        ("train.seed", -1),
        ("train.seed", 2**64),
        ("lora.projections", []),
        ("lora.projections", ["q_proj", "q_proj"]),
        ("lora.projections", ["w_proj"]),
        ("lora.r", 0),
        ("data.paths", []),
        ("data.held_out", 1.0),
        ("data.pack_tokens", 1),
        ("model.quantization", "int3"),
        ("train.steps", 0),
    ],
)
def test_values_that_no_run_could_use(key: str, value: object) -> None:
    with pytest.raises(InputError, match=key):
        recipes.load("demo").changed({key: value})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lora.target_modules", "lora.projections"), ("lora.lora_alpha", "lora.alpha"), ("lora_dropout", "lora.dropout"),
        ("train.per_device_train_batch_size", "train.batch_packs"), ("num_train_epochs", "train.epochs"),
        ("train.gradient_accumulation_steps", "train.accumulation"), ("max_seq_length", "data.pack_tokens"),
        ("learning_rate", "train.learning_rate"), ("data.learning_rate", "train.learning_rate"),
    ],
)  # fmt: skip
def test_keys_as_other_libraries_name_them(key: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"(?i)nearest:? {meant}\b"):
        recipes.load("demo").changed({key: 1})


def test_a_bad_item_of_a_list_is_one_problem() -> None:
    with pytest.raises(InputError, match=r"problems: 1\.") as caught:
        recipes.load("demo").changed({"lora.projections": ["w_proj"]})
    assert "at least 1 item" not in str(caught.value)


def test_a_rate_as_people_write_it(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("train: {learning_rate: 2e-4}\n")  # YAML 1.1 reads this as text
    assert recipes.load(tmp_path / "r.yaml").train.learning_rate == 2e-4


def test_a_loaded_recipe_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipes.load("demo").train.steps = 3  # type: ignore[misc]


def test_changes_are_checked() -> None:
    demo = recipes.load("demo")
    assert demo.changed({"train.steps": 3}).train.steps == 3
    with pytest.raises(InputError, match="no recipe key"):
        demo.changed({"training.steps": 3})
    with pytest.raises(InputError, match="unknown key"):
        demo.changed({"train.stepz": 3})
    with pytest.raises(InputError, match="There is no recipe"):
        recipes.load("nowhere")
