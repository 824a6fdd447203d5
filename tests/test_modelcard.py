"""Licences and terms: read from cards, licence files and known names, carried to every card, told where they forbid something."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from conftest import TINY, write_weights
from stilnovo import hub
from stilnovo.cli.main import app
from stilnovo.export.gguf_model import export_gguf
from stilnovo.export.merged import export_model
from stilnovo.model import lora
from stilnovo.model.load import open_model
from stilnovo.modelcard.provenance import provenance
from stilnovo.modelcard.readme import adapter_card, licence_files, model_card
from stilnovo.modelcard.terms import front_matter, terms_of_data, terms_of_model
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe import Recipe
from stilnovo.spec import ModelSpec


def card_of(folder: Path) -> dict[str, Any]:
    return front_matter((folder / "README.md").read_text(encoding="utf-8"))


def readme(folder: Path, **metadata: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(metadata)}---\n# A card\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def absent() -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(huggingface_hub, "get_session", absent)


# — What stands under which licence —


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("anita", "llama3"), ("smollm2", "apache-2.0"), ("anita-4bit", "llama3"), ("meta-llama/Llama-3.2-1B", "llama3.2"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3"), ("mistralai/Mistral-7B-v0.3", "apache-2.0"),
        ("somebody/something", "unknown"),
    ],
)  # fmt: skip
def test_models_known_by_name(name: str, licence: str) -> None:
    assert terms_of_model(name).name == licence


@pytest.mark.parametrize(
    ("metadata", "licence", "link"),
    [
        ({"license": "mit"}, "mit", "opensource.org"),
        ({"license": "cc-by-nc-4.0"}, "cc-by-nc-4.0", "creativecommons.org/licenses/by-nc/4.0/"),
        ({"license": "other", "license_name": "house rules", "license_link": "LICENSE"}, "house rules", "LICENSE"),
        ({"license": "unknown", "base_model": "swap-uniba/LLaMAntino-3-ANITA-8B-Inst-DPO-ITA"}, "llama3", "llama3"),
        ({"license": ["cc-by-sa-3.0", "gfdl"]}, "cc-by-sa-3.0, gfdl", ""),
        ({"language": "it"}, "unknown", ""),
    ],
)
def test_a_folder_says_its_licence_in_its_card(
    metadata: dict[str, Any], licence: str, link: str, tmp_path: Path
) -> None:
    found = terms_of_model(str(readme(tmp_path, **metadata)))
    assert found.name == licence and link in found.link


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT\n", "llama3"), ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n", "llama3.1"),
        ("LLAMA 2 COMMUNITY LICENSE AGREEMENT", "llama2"),
        ("                Apache License\n           Version 2.0, January 2004\n", "apache-2.0"),
        ("Permission is hereby granted, free of charge, to any person", "mit"),
        ("Attribution-NonCommercial-ShareAlike 4.0 International", "cc-by-nc-sa-4.0"),
        ("Creative Commons Attribution 4.0 International Public License", "cc-by-4.0"), ("Our house, our rules.", "other"),
    ],
)  # fmt: skip
def test_a_licence_file_is_recognised_and_goes_along(text: str, licence: str, tmp_path: Path) -> None:
    (tmp_path / "LICENSE.txt").write_text(text, encoding="utf-8")
    (tmp_path / "USE_POLICY.md").write_text("Do no harm.", encoding="utf-8")
    origin = provenance(str(tmp_path))
    assert origin.terms.name == licence
    carried = licence_files(origin)
    assert carried["LICENSE.txt"] == text.encode() and carried["USE_POLICY.md"] == b"Do no harm."
    assert ("NOTICE" in carried) == licence.startswith("llama")


def test_data_say_their_licence_beside_them(tmp_path: Path) -> None:
    own = readme(tmp_path / "mine", license="cc-by-nc-4.0") / "rows.jsonl"
    own.write_text("{}", encoding="utf-8")
    filed = tmp_path / "filed"
    filed.mkdir()
    (filed / "LICENSE").write_text("MIT License", encoding="utf-8")
    (filed / "rows.jsonl").write_text("{}", encoding="utf-8")
    silent = tmp_path / "silent" / "deep" / "deeper" / "rows.jsonl"
    silent.parent.mkdir(parents=True)
    silent.write_text("{}", encoding="utf-8")
    mirror = tmp_path / "mirror" / "wikimedia" / "wikipedia" / "20231101.it" / "a.parquet"
    mirror.parent.mkdir(parents=True)
    mirror.write_bytes(b"")
    cached = (
        readme(tmp_path / "datasets--owner--corpus" / "snapshots" / "abc", license="cc-by-4.0") / "data" / "b.jsonl"
    )
    cached.parent.mkdir()
    cached.write_text("{}", encoding="utf-8")
    names = [
        "sample",
        "wikipedia-it",
        str(own),
        str(filed / "rows.jsonl"),
        str(silent),
        str(mirror),
        str(cached),
        str(own),
    ]
    found = [(terms.name, terms.repository, terms.non_commercial) for terms in terms_of_data(names)]
    assert found == [
        ("apache-2.0", None, False), ("CC BY-SA 3.0 and GFDL", "wikimedia/wikipedia", False), ("cc-by-nc-4.0", None, True),
        ("mit", None, False), ("unknown", None, False), ("cc-by-4.0", "owner/corpus", False),
    ]  # fmt: skip
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "manifest.json").write_text(
        json.dumps({"settings": {"sources": [str(own), "sample"]}}), encoding="utf-8"
    )
    assert [terms.name for terms in terms_of_data([str(prepared)])] == ["cc-by-nc-4.0", "apache-2.0"]


@pytest.mark.parametrize("seed", range(20))
def test_only_what_forbids_commercial_use_is_said_to(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    parts = ["by", *[part for part in ("nc", "sa") if draw.random() < 0.5]]
    licence = draw.choice(
        [f"cc-{'-'.join(parts)}-4.0", f"CC {'-'.join(parts).upper()} 4.0", "ncsa", "mit", "Concise Terms"]
    )
    data = readme(tmp_path, license=licence)
    origin = provenance("anita", None, Recipe().changed({"data.paths": [str(data)]}))
    forbids = "-nc" in licence.lower()
    assert bool(origin.non_commercial) == forbids
    assert any("no commercial use" in warning for warning in origin.warnings()) == forbids
    assert origin.licence == (
        {"license": "other", "license_name": f"llama3-and-{licence.lower().replace(' ', '-')}"}
        if forbids else {"license": "llama3"}
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "no card", "---\n: [\n---\n", "---\n- a\n---\n", "---\nlicense: mit\n", "\ufeff---\nlicense: mit\n---"]
)
def test_cards_that_cannot_be_read_say_nothing(text: str) -> None:
    assert front_matter(text) == ({"license": "mit"} if text.startswith("\ufeff") else {})


# — The cards —


def test_a_card_on_llama_shows_what_its_licence_asks() -> None:
    origin = provenance("anita", None, Recipe().changed({"data.paths": ["wikipedia-it", "anita-sft"]}))
    text = model_card(origin, ["Made so."])
    card = front_matter(text)
    assert card["base_model"] == "swap-uniba/LLaMAntino-3-ANITA-8B-Inst-DPO-ITA" and card["license"] == "llama3"
    assert card["datasets"] == ["Chat-Error/wizard_alpaca_dolly_orca", "wikimedia/wikipedia"]
    assert card["language"] == ["it"] and card["library_name"] == "transformers" and "stilnovo" in card["tags"]
    for words in (
        "Built with Meta Llama 3",
        "Copyright © Meta Platforms",
        "“Llama 3”",
        "CC BY-SA 3.0 and GFDL",
        "Made so.",
    ):
        assert words in text
    assert any("No licence is stated for Chat-Error" in warning for warning in origin.warnings())


def test_an_adapters_card_names_its_base_and_what_it_learnt(tmp_path: Path) -> None:
    recipe = Recipe().changed({"model.name": "smollm2", "data.paths": ["sample"], "lora.r": 8})
    text = adapter_card(tmp_path, "smollm2", recipe, ["Stored with α 22.6."])
    card = front_matter(text)
    assert card["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct" and card["base_model_relation"] == "adapter"
    assert (
        card["license"] == "apache-2.0"
        and card["library_name"] == "peft"
        and {"stilnovo", "lora", "peft"} <= {*card["tags"]}
    )
    for words in ("Stored with α 22.6.", "rank 8", "built into stilnovo", "AutoPeftModelForCausalLM"):
        assert words in text
    assert "base_model" not in front_matter(adapter_card(tmp_path, str(tmp_path), None))  # the hub knows no paths


def trained_run(base: Path, run: Path, data: Path) -> Path:
    """A run folder as a training leaves it, without the training."""
    model = open_model(ModelSpec(str(base), quantization="none", device="cpu"))[0]
    lora.attach(model, LoraConfig(r=2))
    lora.save(model, LoraConfig(r=2), run / "adapter", str(base))
    recipe = Recipe().changed({"model.name": str(base), "model.quantization": "none", "data.paths": [str(data)]})
    (run / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    figures = {
        "first_loss": 3.25,
        "last_loss": 2.5,
        "steps": 7,
        "held_out": {"n": 4, "loss_before": 3.0, "loss_after": 2.75},
    }
    (run / "train.json").write_text(json.dumps(figures), encoding="utf-8")
    return run / "adapter"


def test_the_terms_travel_from_folder_to_folder(tiny_folder: Path, tmp_path: Path) -> None:
    """A training on CC BY-NC data says so at its export, and at every one that follows."""
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    readme(base, license="mit", base_model="somebody/base")
    (base / "LICENSE").write_text("MIT License", encoding="utf-8")
    data = readme(tmp_path / "corpus", license="cc-by-nc-4.0")
    adapter = trained_run(base, tmp_path / "run", data)
    asked = ["export", "--model", str(base), "--adapter", str(adapter), "--out", str(tmp_path / "one"), "--json"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["licence"] == "mit" and said["non_commercial"] and said["data_licences"] == {"corpus": "cc-by-nc-4.0"}
    assert "corpus is under CC BY-NC 4.0: no commercial use" in " ".join(result.stderr.split())
    card, text = card_of(tmp_path / "one"), (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert card["license_name"] == "mit-and-cc-by-nc-4.0" and str(tmp_path) not in text
    assert (tmp_path / "one" / "LICENSE").read_text(encoding="utf-8") == "MIT License"
    for words in ("Loss of the first step 3.250, of the last 2.500", "loss with it 2.75", "sha256"):
        assert words in text
    # The adapter alone, copied without its run, and what is exported from the export: both still know.
    alone = tmp_path / "copied"
    shutil.copytree(adapter, alone)
    (alone / "README.md").write_text(adapter_card(adapter, str(base), None), encoding="utf-8")
    shutil.rmtree(data)
    for number, spec in enumerate(
        (ModelSpec(str(base), alone, "none"), ModelSpec(str(tmp_path / "one"), None, "none"))
    ):
        export_model(spec, tmp_path / f"next-{number}", dtype=torch.float32)
        assert card_of(tmp_path / f"next-{number}")["training_data"][0]["license"] == "cc-by-nc-4.0"


def test_an_adapter_of_others_stands_under_its_own_terms(tiny_folder: Path, tmp_path: Path) -> None:
    """What its card says goes into every card that follows; what it does not say is told."""
    base, adapter = tmp_path / "base", tmp_path / "theirs"
    shutil.copytree(tiny_folder, base)
    readme(base, license="apache-2.0")
    trained_run(base, tmp_path / "run", tmp_path)
    shutil.copytree(tmp_path / "run" / "adapter", adapter)
    silent = provenance(str(base), adapter)
    assert silent.licence == {"license": "apache-2.0"}
    assert any("No licence is stated for the adapter theirs" in warning for warning in silent.warnings())
    readme(adapter, license="cc-by-nc-4.0", datasets=["wikimedia/wikipedia", "owner/unknown"])
    export_model(ModelSpec(str(base), adapter, "none"), tmp_path / "one", dtype=torch.float32)
    shutil.rmtree(adapter)
    export_model(ModelSpec(str(tmp_path / "one"), None, "none"), tmp_path / "two", dtype=torch.float32)
    for folder in (tmp_path / "one", tmp_path / "two"):
        card, text = card_of(folder), (folder / "README.md").read_text(encoding="utf-8")
        assert card["license_name"] == "apache-2.0-and-cc-by-nc-4.0" and "language" not in card
        assert card["datasets"] == ["owner/unknown", "wikimedia/wikipedia"]
        assert "No commercial use, by the terms of the adapter theirs: CC BY-NC 4.0" in text
        assert "The adapter theirs is under: CC BY-NC 4.0" in text and "| the adapter" not in text
    trained = Recipe().changed({"model.name": str(base), "model.adapter": str(adapter), "data.paths": ["sample"]})
    readme(adapter, license="llama3")
    below = provenance(str(base), None, trained)  # a training on it contains it
    assert below.licence["license_name"] == "apache-2.0-and-llama3"
    assert "Built with Meta Llama 3" in model_card(below, ["Made so."])


@pytest.mark.parametrize(
    "licence", [{"license": "llama3"}, {"license": "mit"}, {"license": "other", "license_name": "own-terms"}, {}]
)
def test_the_bases_terms_stay_the_same_from_card_to_card(licence: dict[str, Any], tmp_path: Path) -> None:
    base, first = readme(tmp_path / "0", **licence), ""
    data = readme(tmp_path / "corpus", license="cc-by-nc-4.0")
    (base / "LICENSE").write_text("The terms.", encoding="utf-8")
    for number in range(3):
        origin = provenance(str(tmp_path / str(number)), None, Recipe().changed({"data.paths": [str(data)]}))
        made = model_card(origin, ["Made so."]).replace(f"{number}, trained further", "0, trained further")
        lines = made.split("## Licence")[1].split("##")[0].replace(f"The base, {number}", "The base, 0")
        assert number == 0 or (lines.count("Built with") == first.count("Built with") and "-and-" not in lines)
        first = first or lines
        below = tmp_path / str(number + 1)
        below.mkdir()
        (below / "README.md").write_text(made, encoding="utf-8")
        (below / "LICENSE").write_text("The terms.", encoding="utf-8")
        assert card_of(below)["license_name"].count("cc-by-nc-4.0") == 1
    assert {**provenance(str(tmp_path / "3")).base_licence, "license_link": 0} == {
        "license": "unknown",
        **licence,
        "license_link": 0,
    } or not licence  # without any word the file beside it is all that is known


def test_a_gguf_file_carries_its_terms_with_its_card_and_without(tiny_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    readme(base, license="llama3")
    adapter = trained_run(base, tmp_path / "run", readme(tmp_path / "corpus", license="cc-by-nc-4.0"))
    file = tmp_path / "one" / export_gguf(ModelSpec(str(base), adapter, "none"), tmp_path / "one", type_name="f16").file
    beside = provenance(str(file))
    assert beside.terms.name == "llama3" and [terms.name for terms in beside.data] == ["cc-by-nc-4.0"]
    (tmp_path / "one" / "README.md").unlink()
    alone = provenance(str(file))
    assert alone.terms.name == "llama3-and-cc-by-nc-4.0" and alone.non_commercial
    assert alone.licence == {"license": "other", "license_name": "llama3-and-cc-by-nc-4.0"}


def test_an_adapters_card_names_no_file_that_is_not_beside_it(tmp_path: Path) -> None:
    base = readme(tmp_path / "base", license="mit")
    (base / "LICENSE").write_text("MIT License", encoding="utf-8")
    recipe = Recipe().changed({"model.name": str(base), "data.paths": ["sample"]})
    assert "Copied from" not in adapter_card(tmp_path, str(base), recipe)
    assert "Copied from the base: LICENSE" in model_card(provenance(str(base), None, recipe), [])
    assert "trained by stilnovo" not in adapter_card(tmp_path, str(base), None)


def test_a_card_of_the_hub_is_asked_for_where_a_model_is_named_by_its_id(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, bool]] = []

    def known(repository: str, kind: str = "model", *, fetch: bool) -> str:
        asked.append((repository, fetch))
        return "---\nlicense: gemma\n---\n"

    monkeypatch.setattr("stilnovo.modelcard.terms.hub_readme", known)
    assert terms_of_model("owner/name").name == "gemma" and asked == [("owner/name", True)]
    write_weights(readme(tmp_path, base_model="other/base"), TINY)
    assert terms_of_model(str(tmp_path)).name == "gemma" and asked[-1] == (
        "other/base",
        False,
    )  # no network for a folder
    assert hub.hub_readme("owner/name", fetch=False) is None


def test_a_card_is_fetched_once_and_only_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Answer:
        text = "---\nlicense: mit\n---\n"

        def raise_for_status(self) -> Answer:
            return self

    asked: list[str] = []

    class Session:
        def get(self, url: str, **_: object) -> Answer:
            asked.append(url)
            return Answer()

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    assert hub.hub_readme("owner/name", fetch=False) is None and not asked
    assert terms_of_model("owner/name").name == "mit" and len(asked) == 1 and "owner/name" in asked[0]
    assert terms_of_data(["owner/corpus"])[0].name == "mit" and "datasets/owner/corpus" in asked[1]
