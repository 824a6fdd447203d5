"""The plan: ledger sums, choices within budgets, what is refused, and the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from typer.testing import CliRunner

from conftest import TINY
from stilnovo.cli.main import app
from stilnovo.data import corpora
from stilnovo.data.batches import Batch
from stilnovo.engine.stack import TrainingEngine
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.llama import Llama, random_source
from stilnovo.plan import cards
from stilnovo.plan.cards import CARDS, GIB, bytes_of
from stilnovo.plan.choice import Budget, Wishes, best, fits, leaner, leanest, longest, plan_for
from stilnovo.plan.ledger import ledger
from stilnovo.plan.levers import Levers, all_layers
from stilnovo.plan.shape import LLAMA_3_8B, SMOLLM2_135M, LoraConfig, config_from_numbers, lora_parameters
from stilnovo.plan.sizes import Run, saved_bytes
from stilnovo.plan.speed import ObjectiveCost, matrix_weights, speed
from stilnovo.recipe import Recipe, load
from stilnovo.train.objectives.base import objective_of
from stilnovo.train.objectives.text import NextToken
from stilnovo.train.passes import Passes

RUN = Run(config=LLAMA_3_8B, lora=LoraConfig(r=32), tokens=2048)
CARD = CARDS["rtx-4060"]
EIGHT = Budget(8 * GIB, 32 * GIB)


def test_the_shapes_arithmetic_is_the_known_one() -> None:
    assert LLAMA_3_8B.parameters() == 8_030_261_248
    assert lora_parameters(LLAMA_3_8B, LoraConfig(r=32)) == 83_886_080
    assert SMOLLM2_135M.parameters() == 134_515_008
    sizes = {item.name: item.size for item in ledger(RUN, Levers(layers=all_layers("keep", 32))).items}
    # 4 bits, a byte for 64 weights, 4 bytes for 64 · 256 of them, and the code tables
    assert sizes["frozen projections"] == pytest.approx(6_979_321_856 * (1 / 2 + 1 / 64 + 4 / 16384), rel=1e-4)
    assert sizes["embedding"] == sizes["head"] == 128_256 * 4096 * 2


@pytest.mark.parametrize("tokens", [512, 2048, 8192, 32_768])
@pytest.mark.parametrize("ram", [16, 32, 64])
def test_the_best_plan_fits_and_no_simple_one_that_fits_is_faster(tokens: int, ram: int) -> None:
    budget, run = Budget(8 * GIB, ram * GIB), replace(RUN, tokens=tokens)
    plan = best(run, budget, CARD)
    assert plan is not None
    assert fits(plan, budget)
    assert plan.peak == plan.ledger.peak + plan.fragmentation <= 7.5 * GIB
    for choice in ("keep", "offload", "attention", "recompute"):
        for inputs in ("card", "host"):
            simple = plan_for(run, Levers(layers=all_layers(choice, 32), inputs=inputs), CARD)  # type: ignore[arg-type]
            if fits(simple, budget):
                assert plan.speed.seconds <= simple.speed.seconds * 1.01


def test_spare_room_buys_back_recomputation() -> None:
    plan = best(RUN, EIGHT, CARD)
    assert plan is not None
    assert plan.speed.times_n <= 4.4
    small = best(RUN, Budget(4 * GIB, 8 * GIB), CARD)
    assert small is not None
    assert small.speed.times_n > plan.speed.times_n


def test_the_longest_context_is_the_longest() -> None:
    reach = longest(RUN, EIGHT, CARD)
    assert reach >= 64_000
    assert longest(RUN, Budget(8 * GIB, 64 * GIB), CARD) >= 100_000
    assert best(replace(RUN, tokens=reach), EIGHT, CARD) is not None or fits(
        leanest(replace(RUN, tokens=reach), CARD), EIGHT
    )
    assert not fits(leanest(replace(RUN, tokens=reach + 128), CARD), EIGHT)


def test_leaner_needs_an_eighth_less_and_ends() -> None:
    plan = best(replace(RUN, tokens=8192), EIGHT, CARD)
    seen = 0
    while plan is not None:
        following = leaner(plan, EIGHT, CARD)
        if following is not None:
            assert following.peak <= plan.peak * 7 / 8 + 1
        plan, seen = following, seen + 1
    assert 2 <= seen < 12


def test_flops_of_the_floor_and_of_full_recomputation() -> None:
    n = matrix_weights(RUN)
    assert n == 6_979_321_856 + 128_256 * 4096
    keep = speed(RUN, Levers(layers=all_layers("keep", 32)), CARD)
    again = speed(RUN, Levers(layers=all_layers("recompute", 32)), CARD)
    low = 7 * 83_886_080
    attention = 7 * 4096 * 2048 * 32
    assert keep.flops_per_token == pytest.approx(4 * n + low + attention)
    # all but the down projection, and attention's two products
    assert again.flops_per_token - keep.flops_per_token == pytest.approx(
        2 * (6_979_321_856 - 32 * 4096 * 14336) + 2 * 4096 * 2048 * 32
    )


def flops_of(batch: Batch, objective: Any, layers: int, first: int, levers: Levers) -> tuple[float, float]:
    """FLOPs a token of a real step, by torch's counter: in products of matrices, and in (causal) attention."""
    model = Llama(replace(TINY, layers=layers), random_source(3, std=0.1))
    model.requires_grad_(False)
    lora.attach(model, LoraConfig(r=4, first_layer=first))
    passes = Passes(model, TrainingEngine(model, levers), levers.loss_chunk)

    def in_place(_self: Any, a: Any, b: Any, **_: Any) -> int:
        return 2 * int(a[0] * a[1] * b[1])

    def ahead(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    def back(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(grad, q, k, v))

    aten = torch.ops.aten
    known = {
        aten.addmm_: in_place, aten._scaled_dot_product_flash_attention_for_cpu: ahead,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: back,
    }  # fmt: skip
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        objective(passes, batch)[0].backward()
    counts = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
    attention = sum(count for name, count in counts.items() if "attention" in name)
    tokens = batch.targets.numel()
    return (sum(counts.values()) - attention) / tokens, attention / 2 / tokens


def batch_of(pieces: int, length: int, learnt: int, anchored: tuple[int, ...] = ()) -> Batch:
    """`pieces` of one length, of which the last `learnt` targets count."""
    tokens = torch.arange(pieces * length) % 97
    counts = torch.arange(length).repeat(pieces) >= length - learnt
    return Batch(tokens, tokens.roll(-1), (length,) * pieces, None if learnt == length else counts, anchored)


CASES: dict[str, tuple[dict[str, Any], Batch, float]] = {
    "text": ({}, batch_of(8, 96, 96), 1.0),
    "sft": ({"train.task": "sft"}, batch_of(8, 96, 24), 0.25),
    "dpo": ({"train.task": "dpo"}, batch_of(8, 96, 24), 0.25),
    "both": ({"train.rehearse_by": "both"}, batch_of(8, 96, 96, (1, 6)), 1.0),
    "anchor": ({"train.rehearse_by": "anchor"}, batch_of(8, 96, 96, (1, 6)), 1.0),
}


@pytest.mark.parametrize("tile", [None, 40])
@pytest.mark.parametrize("choice", ["keep", "recompute"])
@pytest.mark.parametrize("name", list(CASES))
def test_flops_are_those_that_torch_counts(
    name: str, choice: Any, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every objective: what it costs beside the plain step to the last product, the whole as near as the ledger's."""
    monkeypatch.setenv("STILNOVO_CPU", "fp32")  # the counter knows torch's own products alone
    changes, batch, learnt = CASES[name]
    if batch.anchored:
        changes = {**changes, "data.rehearsal": ["chat"], "data.rehearsal_share": len(batch.anchored) / 8}
    recipe, layers = Recipe().changed(changes), 8
    levers = Levers(layers=all_layers(choice, layers), head_tile=tile, loss_chunk=64)
    run = Run(config=replace(TINY, layers=layers), lora=LoraConfig(r=4, first_layer=2), scheme="none", tokens=768)
    found = sum(flops_of(batch, objective_of(recipe).loss(), layers, 2, levers))
    plain = sum(flops_of(batch_of(8, 96, 96), NextToken(), layers, 2, levers))
    expected = speed(run, levers, CARD, 96, objective_of(recipe).cost(learnt)).flops_per_token
    beside = speed(run, levers, CARD, 96).flops_per_token
    assert found - plain == pytest.approx(expected - beside, rel=1e-6)
    assert found == pytest.approx(expected, rel=0.03)
    if name == "dpo":
        assert expected > 1.2 * speed(run, levers, CARD, 96, ObjectiveCost(learnt=learnt)).flops_per_token


def test_the_plan_of_dpo_counts_its_reference() -> None:
    """anita-dpo on the 8B shape: sides of 1,024 tokens, read once more by all 32 layers, and half of them answers."""
    code, out = invoke("--recipe", "anita-dpo", "--vram", "24GB", "--learnt", "0.5", "--json")
    found, beside = json.loads(out.splitlines()[-1]), 2 * 6_979_321_856 + 32 * 2 * 4096 * 1024
    assert code == 0 and "adapter off" in out
    head, low = 2 * 128_256 * 4096, 2 * 83_886_080  # rank 64
    recomputed = [layer for layer in found["levers"]["layers"] if layer in ("recompute", "attention")]
    again = len(recomputed) * (2 * (6_979_321_856 // 32 - 4096 * 14336))
    again += found["levers"]["layers"].count("recompute") * 2 * 4096 * 1024
    step = 4 * 6_979_321_856 + 7 * low + 32 * 7 * 4096 * 1024 + again
    assert found["flops_per_token"] == pytest.approx(step + beside + 3 * 0.5 * head)
    assert found["objective"] == {"learnt": 0.5, "base": 1.0, "compared": 0.5, "anchored": 0.0}


def test_what_is_saved_grows_with_the_choice() -> None:
    sizes = [
        saved_bytes(RUN, Levers(layers=all_layers(choice, 32)), 0)  # type: ignore[arg-type]
        for choice in ("recompute", "attention", "keep")
    ]
    assert sizes == [2048 * 4096 * 2 * units for units in (1, 2, 11.5)]


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * GIB), ("7.5 GiB", 7.5 * GIB), ("12000mb", 12000 * 2**20), ("8g", 8 * GIB)]
)
def test_sizes(text: str, size: float) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["8", "GB", "-8GB", "8 apples"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(InputError, match="is not a size"):
        bytes_of(text)


def test_shapes_by_numbers() -> None:
    shape = config_from_numbers("hidden=4096,layers=32,heads=32,kv_heads=8,ffn=14336,vocab=128256")
    assert shape.parameters() == 8_030_261_248
    for wrong in ("hidden=64", "hidden=64,layers=2,heads=3,kv_heads=2,ffn=8,vocab=9", "hidden", "colour=3,hidden=64"):
        with pytest.raises(InputError, match="describes no Llama"):
            config_from_numbers(wrong)


def test_measured_cards(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({"card": {
        "name": "x", "flops": 1e13, "memory": 8 * GIB, "memory_speed": 3e11, "link_speed": 1e10, "bf16": True,
    }}))  # fmt: skip
    assert cards.measured(path).measured
    one = json.loads(path.read_text())
    rows = [{"stage": "run"}, {"card": {**one["card"], "name": "before"}}, one, {"card": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "cut o')
    assert cards.measured(path).name == one["card"]["name"]
    path.write_text("{}")
    with pytest.raises(InputError, match="does not hold a measured card"):
        cards.measured(path)
    with pytest.raises(InputError, match="not known"):
        cards.named("voodoo")


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *arguments])
    if isinstance(result.exception, InputError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None, result.output
    return result.exit_code, result.output


def test_the_command_prints_every_item_and_one_json_line() -> None:
    code, out = invoke("--vram", "8GB", "--ram", "32GB", "--tokens", "4096", "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert {"longest_context_tokens", "peak_bytes", "host_bytes", "flops_per_token", "items"} <= set(found)
    card = sum(item["bytes"] for item in found["items"] if item["place"] == "card")
    assert card <= found["peak_bytes"] <= found["budget_bytes"] == 7.5 * GIB
    assert sum(item["bytes"] for item in found["items"] if item["place"] == "host") == found["host_bytes"]
    assert all(item["name"] in out for item in found["items"])
    assert "not a measurement" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tokens", "200000"), "do not fit"),
        (("--tokens", "65536", "--ram", "8GB"), "do not fit"),
        (
            (
                "--vram",
                "1GB",
            ),
            "do not fit",
        ),
        (
            (
                "--vram",
                "lots",
            ),
            "not a size",
        ),
        (("--tokens", "0"), "at least 1"),
        (("--model", "nowhere"), "shape of 'nowhere'"),
        (("--head", "int3"), "no output head"),
        (("--card", "voodoo"), "not known"),
    ],
)
def test_the_command_refuses(arguments: tuple[str, ...], message: str) -> None:
    code, out = invoke(*arguments)
    assert code == 2
    assert message in out
    assert len(out.splitlines()) <= 3


def test_what_does_not_fit_says_what_would() -> None:
    _, out = invoke("--tokens", "200000")
    assert "At most 10" in out or "At most 9" in out
    assert "GiB on the host" in out


def test_a_plan_imports_no_torch() -> None:
    code = (
        "import sys\nfrom stilnovo.cli.main import app\nfrom stilnovo.recipe import shipped\nfrom typer.testing import CliRunner\n"
        "for name in shipped():\n"
        "    result = CliRunner().invoke(app, ['plan', '--recipe', name, '--vram', '24GB'])\n"
        "    assert result.exit_code == 0, result.output\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_tied_model_keeps_its_table_on_the_card() -> None:
    run = Run(config=SMOLLM2_135M, lora=LoraConfig(r=8), tokens=512)
    plan = best(run, Budget(2 * GIB, 8 * GIB), CARD, Wishes())
    assert plan is not None
    assert (plan.levers.embedding, plan.levers.head) == ("card", "dense")


def test_one_epoch_of_wikipedia_is_forecast_in_days() -> None:
    code, out = invoke("--days", "3", "--json")
    assert code == 0
    assert "all of wikipedia-it, an estimate" in out and " days." in out and "a forecast" in out
    figures = json.loads(out.splitlines()[-1])
    assert 1.2e9 < figures["epoch_tokens"] < 1.6e9, "4.7 GB at 0.29 tokens a byte"
    assert 14 < figures["hours_per_epoch"] / 24 < 60, "weeks"
    step = 2048 * load("wikipedia-it").train.accumulation
    assert figures["seconds_per_step"] == pytest.approx(step / figures["tokens_per_second"])
    assert figures["steps_in_days"] == int(3 * 86_400 / figures["seconds_per_step"])
    assert f"--steps {figures['steps_in_days']}" in out


def test_what_an_epoch_is_assumed_to_be_is_said() -> None:
    assert "an example: give your own, which" in invoke("--recipe", "anita-sft")[1]
    assert "One epoch of 5,000,000 tokens (as given)" in invoke("--epoch-tokens", "5e6")[1]
    assert "--days 3" in invoke()[1] and "--days 3" not in invoke("--epoch-tokens", "5e6")[1]
    assert invoke("--days", "0")[0] == 2
    rehearsal = json.loads(invoke("--recipe", "rehearsal", "--json")[1].splitlines()[-1])
    assert rehearsal["epoch_tokens"] == pytest.approx(1.4e9 / (1 - 0.125))


@pytest.mark.parametrize(
    ("vocabulary", "tokens"), [(49_152, 1.6e9), (128_256, 1.4e9), (32_000, 1.6e9), (256_000, 1.4e9)]
)
def test_tokens_of_a_corpus_depend_on_the_vocabulary(vocabulary: int, tokens: float) -> None:
    assert corpora.tokens_of("wikipedia-it", vocabulary) == pytest.approx(tokens)
    assert corpora.tokens_of("anita-sft", vocabulary) is None
    assert corpora.tokens_of("mine.jsonl", vocabulary) is None


def test_documents_are_no_longer_than_the_model_reads(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shape = LLAMA_3_8B
    settings = {
        "architectures": ["MistralForCausalLM"], "vocab_size": shape.vocab_size, "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "max_position_embeddings": 8192,
        "sliding_window": 4096,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    refused = CliRunner().invoke(app, ["plan", "--model", str(folder), "--document", "5000"])
    assert isinstance(refused.exception, InputError)
    assert all(words in str(refused.exception) for words in ("5,000", "4,096"))
    said = [
        CliRunner().invoke(app, ["plan", "--model", str(folder), "--tokens", "16384", *document, "--json"]).stdout
        for document in ((), ("--document", "4096"))
    ]
    assert "the model reads 4,096 at once" in said[0]
    assert (
        json.loads(said[0].splitlines()[-1])["flops_per_token"]
        == json.loads(said[1].splitlines()[-1])["flops_per_token"]
    )


def planned(*arguments: str) -> dict[str, Any]:
    code, out = invoke("--tokens", "64", "--json", *arguments)
    assert code == 0, out
    return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]


def test_a_gguf_file_and_a_folder_are_planned_by_their_own_shape(
    tiny_folder: Path, smollm2_gguf: Path, tmp_path: Path
) -> None:
    items = planned("--model", "smollm2")["items"]
    copy = tmp_path / "any name.gguf"
    copy.symlink_to(smollm2_gguf)
    assert planned("--model", str(copy))["items"] == items
    numbers = "hidden=64,layers=2,heads=4,kv_heads=2,head_dim=16,ffn=96,vocab=259,tied=1"
    assert planned("--model", str(tiny_folder))["items"] == planned("--shape", numbers)["items"] != items
    (tmp_path / "cut.gguf").write_bytes(smollm2_gguf.read_bytes()[:20_000])
    (tmp_path / "other.gguf").write_bytes(b"PK" + bytes(50))
    for name, words in (("cut.gguf", "truncated"), ("other.gguf", "not a GGUF file"), ("none.gguf", "is not known")):
        code, out = invoke("--model", str(tmp_path / name))
        assert code == 2
        assert words in out
        assert len(out.splitlines()) <= 3


def test_of_a_hub_model_the_config_alone_is_fetched(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[tuple[str, str, bool]] = []
    shutil.copy(tiny_folder / "config.json", tmp_path)

    def fetch(repository: str, name: str, *, local_files_only: bool = False) -> str:
        asked.append((repository, name, local_files_only))
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    assert planned("--model", "owner/name")["items"] == planned("--model", str(tiny_folder))["items"]
    assert asked == [("owner/name", "config.json", True), ("owner/name", "config.json", False)]


def test_a_hub_model_without_network_or_without_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for error, words in (
        (httpx.ConnectError("no route"), "could not be reached"),
        (LocalEntryNotFoundError("cannot find it, outgoing traffic is disabled"), "could not be reached"),
        (EntryNotFoundError("404"), "has no config.json"),
    ):

        def fails(*_: object, error: Exception = error, **__: object) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fails)
        code, out = invoke("--model", "owner/name")
        assert code == 2
        assert words in out
        assert len(out.splitlines()) == 3


def test_planning_a_file_imports_no_torch(smollm2_gguf: Path) -> None:
    code = (
        "import sys\nfrom stilnovo.cli.main import app\nfrom typer.testing import CliRunner\n"
        f"result = CliRunner().invoke(app, ['plan', '--model', {str(smollm2_gguf)!r}])\n"
        "print(result.exit_code, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0 False"
