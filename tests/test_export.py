"""An exported folder: its logits are base and adapter's, others open it, the next training begins where the last ended."""

from __future__ import annotations

import errno
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from conftest import SPECIALS, TINY, write_byte_tokenizer, write_weights
from stilnovo.cli.main import app
from stilnovo.errors import InputError, StilnovoError
from stilnovo.export import merged as exporting
from stilnovo.export.folder import _rope_scaling, companions
from stilnovo.export.merged import export_model, write_safetensors
from stilnovo.hub import ModelFiles
from stilnovo.model import lora
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.model.load import open_checkpoint, open_model
from stilnovo.model.quantize import quantized_linear
from stilnovo.model.rotary import RotaryTable
from stilnovo.modelcard.provenance import provenance
from stilnovo.plan.rope import RopeScaling
from stilnovo.plan.shape import LoraConfig
from stilnovo.recipe import Recipe
from stilnovo.recipe_sections import Scheme
from stilnovo.spec import SCHEMES, ModelSpec, training_recipe
from stilnovo.text.template import LLAMA3_JINJA, LLAMA3_SPECIALS, Message
from stilnovo.text.tokenizer import from_folder, open_tokenizer
from stilnovo.train.run import TrainingRun

SMOLLM2 = ModelSpec("smollm2", quantization="none")
TOKENS = torch.tensor([3, 40, 99, 7, 200, 31, 5, 258, 17, 60])
MESSAGES = (Message("system", "Rispondi in breve."), Message("user", "Chi è Dante?"))


def our_logits(model: Llama) -> Tensor:
    with torch.no_grad():
        return model(TOKENS, positions_of([len(TOKENS)]), Blocks([len(TOKENS)]))


def their_logits(folder: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        found: Tensor = model(TOKENS[None]).logits[0]
    return found.float()


def opened(folder: Path, scheme: Scheme = "none", adapter: Path | None = None) -> Llama:
    return open_model(ModelSpec(str(folder), quantization=scheme, adapter=adapter, device="cpu"))[0]


def write_adapter(base: Path, folder: Path, config: LoraConfig, size: float = 0.1) -> Path:
    model = opened(base)
    lora.attach(model, config)
    generator = torch.Generator().manual_seed(1)
    for module in lora.adapters(model).values():
        module.lora_B.data = size * torch.randn(module.lora_B.shape, generator=generator)
    lora.save(model, config, folder, str(base))
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the second layer's attention only: most projections have none."""
    config = LoraConfig(r=4, alpha=6.0, projections=("q_proj", "v_proj", "down_proj"), first_layer=1)
    return write_adapter(tiny_folder, tmp_path_factory.mktemp("lora") / "adapter", config)


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# — What the folder computes —


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_folder_is_the_base_with_its_adapter_on(
    scheme: Scheme, tiny_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    made = export_model(
        ModelSpec(str(tiny_folder), adapter=adapter, quantization=scheme), tmp_path / "m", dtype=torch.float32
    )
    expected = our_logits(opened(tiny_folder, scheme, adapter))
    assert (expected - our_logits(opened(tiny_folder, scheme))).abs().max() > 0.05  # the adapter is seen at all
    assert (our_logits(opened(tmp_path / "m")) - expected).abs().max() <= 1e-4
    assert (their_logits(tmp_path / "m") - expected).abs().max() <= 1e-4
    assert made.merged == 3 and made.tensors == 2 * 9 + 2
    assert made.arrived == pytest.approx(1, abs=1e-4)
    assert sum(tensor.nbytes for tensor in load_file(tmp_path / "m" / "model.safetensors").values()) == made.size


def test_the_base_is_rounded_before_the_adapter_is_added(tiny_folder: Path, adapter: Path, tmp_path: Path) -> None:
    export_model(ModelSpec(str(tiny_folder), adapter=adapter, quantization="nf4"), tmp_path / "m", dtype=torch.float32)
    name = "model.layers.1.self_attn.q_proj"
    stored = load_file(tiny_folder / "model.safetensors")[f"{name}.weight"]
    learnt = load_file(adapter / "adapter_model.safetensors")
    a, b = (learnt[f"base_model.model.{name}.{which}.weight"] for which in ("lora_A", "lora_B"))
    update = 6.0 / math.sqrt(4) * b @ a
    written = load_file(tmp_path / "m" / "model.safetensors")
    right = quantized_linear(stored, "nf4").dense(torch.float32) + update
    for wrong in (stored + update, quantized_linear(stored + update, "nf4").dense(torch.float32)):
        assert (written[f"{name}.weight"] - wrong).abs().max() > 1e-3
    assert torch.allclose(written[f"{name}.weight"], right, atol=1e-6)
    # A projection without an adapter is rounded too; what no scheme touches is not.
    other = load_file(tiny_folder / "model.safetensors")
    plain = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(written[plain], quantized_linear(other[plain], "nf4").dense(torch.float32))
    assert torch.equal(written["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_round_the_sum_once(dtype: str, tiny_folder: Path, adapter: Path, tmp_path: Path) -> None:
    kind = exporting.checked_dtype(dtype)
    export_model(
        ModelSpec(str(tiny_folder), adapter=adapter, quantization="nf4"), tmp_path / "whole", dtype=torch.float32
    )
    export_model(ModelSpec(str(tiny_folder), adapter=adapter, quantization="nf4"), tmp_path / "half", dtype=kind)
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    assert list(whole) == list(half)
    assert all(torch.equal(half[name], whole[name].to(kind)) for name in whole)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == kind


def test_an_update_below_the_types_steps_is_said_to_be_lost(tiny_folder: Path, tmp_path: Path) -> None:
    coarse = tmp_path / "coarse"
    shutil.copytree(tiny_folder, coarse)
    weights = load_file(coarse / "model.safetensors")
    save_file(
        {name: t.to(torch.bfloat16) for name, t in weights.items()}, coarse / "model.safetensors", {"format": "pt"}
    )
    light = write_adapter(coarse, tmp_path / "light", LoraConfig(r=4, alpha=4.0), size=1e-5)
    lost = export_model(
        ModelSpec(str(coarse), adapter=light, quantization="none"), tmp_path / "a", dtype=torch.bfloat16
    ).arrived
    kept = export_model(
        ModelSpec(str(coarse), adapter=light, quantization="none"), tmp_path / "b", dtype=torch.float32
    ).arrived
    assert lost is not None and kept is not None
    assert lost < 0.5 and kept > 0.95


# — Files —


def test_shards_hold_what_one_file_holds(tiny_folder: Path, adapter: Path, tmp_path: Path) -> None:
    one = export_model(
        ModelSpec(str(tiny_folder), adapter=adapter, quantization="none"), tmp_path / "one", dtype=torch.float16
    )
    many = export_model(
        ModelSpec(str(tiny_folder), adapter=adapter, quantization="none"),
        tmp_path / "many",
        dtype=torch.float16,
        shard_bytes=40_000,
    )
    assert one.files == ("model.safetensors",) and len(many.files) > 2
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == many.size == one.size
    whole, seen = load_file(tmp_path / "one" / "model.safetensors"), set()
    for file in many.files:
        part = load_file(tmp_path / "many" / file)
        assert sum(t.nbytes for t in part.values()) <= 40_000 or len(part) == 1
        for name, tensor in part.items():
            assert index["weight_map"][name] == file and torch.equal(tensor, whole[name])
            seen.add(name)
    assert seen == set(whole) == set(index["weight_map"])
    assert torch.equal(our_logits(opened(tmp_path / "many")), our_logits(opened(tmp_path / "one")))
    assert torch.equal(their_logits(tmp_path / "many"), their_logits(tmp_path / "one"))
    # And a sharded folder is a source like any other.
    again = export_model(
        ModelSpec(str(tmp_path / "many"), quantization="none"), tmp_path / "again", dtype=torch.float16
    )
    assert again.arrived is None and again.merged == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "one" / "model.safetensors"
    ).read_bytes()


def test_an_untied_head_is_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_weights(source, replace(TINY, vocab_size=259))
    write_byte_tokenizer(source, SPECIALS, eos_token="<|im_end|>")
    (source / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}), encoding="utf-8")
    export_model(ModelSpec(str(source), quantization="none"), tmp_path / "m", dtype=torch.float32)
    assert torch.equal(our_logits(opened(tmp_path / "m")), our_logits(opened(source)))
    assert (their_logits(tmp_path / "m") - our_logits(opened(source))).abs().max() <= 1e-4
    assert "chat_template" not in json.loads((tmp_path / "m" / "tokenizer_config.json").read_text(encoding="utf-8"))


def test_tokeniser_and_template_go_along(tiny_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_folder, source)
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = settings.pop("chat_template")
    (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    (source / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": None}), encoding="utf-8")
    export_model(ModelSpec(str(source), quantization="none"), tmp_path / "m")
    ours, before = from_folder(tmp_path / "m"), from_folder(source)
    assert ours.fingerprint() == before.fingerprint()
    written = json.loads((tmp_path / "m" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert written["chat_template"] == template and written["eos_token"] == "<|im_end|>"
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    turns = [{"role": m.role, "content": m.content} for m in MESSAGES]
    rendered = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert rendered == ours.render(MESSAGES, generation=True)
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "# source" in card and "license: unknown" in card and str(tmp_path) not in card


def test_a_document_opens_for_others_as_for_us(tmp_path: Path) -> None:
    """A rank file or a GGUF of Llama 3 says that texts open with a token; `tokenizer.json` must say it too."""
    source = tmp_path / "source"
    source.mkdir()
    begin, end = LLAMA3_SPECIALS[0], "<|eot_id|>"
    write_weights(source, replace(TINY, vocab_size=256 + len(LLAMA3_SPECIALS)))
    write_byte_tokenizer(source, LLAMA3_SPECIALS, bos_token=begin, eos_token=end, chat_template=LLAMA3_JINJA)
    files = ModelFiles("source", "folder", source)
    reader, tokenizer = open_checkpoint(files)
    (source / "tokenizer.json").unlink()
    texts = companions(
        files, reader, tokenizer, torch.float32, ModelSpec(str(source), quantization="none"), provenance(str(source))
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes(texts[name])
    theirs, ours = AutoTokenizer.from_pretrained(source), from_folder(source)
    assert theirs("Così è.")["input_ids"] == ours.document("Così è.")[:-1]
    assert ours.document("Così è.") == tokenizer.document("Così è.")
    turns = [{"role": m.role, "content": m.content} for m in (Message("user", "Ciao"), Message("assistant", "Salve"))]
    ids = theirs.apply_chat_template(turns, return_dict=False)
    assert ids == ours.render([Message("user", "Ciao"), Message("assistant", "Salve")], generation=False)
    assert ids.count(ours.bos_id) == 1


def test_the_folder_ends_where_a_training_taught_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base's own end stays, the template's joins it; what else the base says of its sampling is taken over."""
    source = tmp_path / "source"
    source.mkdir()
    specials = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    write_weights(source, replace(TINY, vocab_size=256 + len(specials)))
    write_byte_tokenizer(
        source, specials, bos_token=specials[0], eos_token="<|end_of_text|>", chat_template=LLAMA3_JINJA
    )
    said: dict[str, Any] = {"eos_token_id": 1, "bos_token_id": 0, "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    (source / "generation_config.json").write_text(json.dumps({**said, "_from_model_config": True}), encoding="utf-8")
    export_model(ModelSpec(str(source), quantization="none"), tmp_path / "m", dtype=torch.float32)
    read = {
        path.name: path.read_text(encoding="utf-8")
        for path in (tmp_path / "m").iterdir()
        if path.suffix != ".safetensors"
    }
    generation = json.loads(read["generation_config.json"])
    assert generation == {**said, "eos_token_id": [1, 4]}
    config = json.loads(read["config.json"])
    assert config["eos_token_id"] == [1, 4] and config["dtype"] == config["torch_dtype"] == "float32"
    assert read["chat_template.jinja"] == LLAMA3_JINJA
    assert json.loads(read["special_tokens_map.json"]) == {"bos_token": specials[0], "eos_token": "<|end_of_text|>"}
    # transformers stops at the taught token.
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    assert model.generation_config.eos_token_id == [1, 4]
    after = {token: torch.eye(model.config.vocab_size)[token] for token in (70, 71, 4)}
    ends = iter((70, 71, 4, 70))
    monkeypatch.setattr(model.lm_head, "forward", lambda hidden: after[next(ends)].expand(1, 1, -1))
    asked = torch.tensor([[0, 2, 60]])
    written = model.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=8, do_sample=False)
    assert written.tolist() == [[0, 2, 60, 70, 71, 4]]


def test_llama_31s_stretching_is_recognised_in_a_gguf_files_divisors() -> None:
    plain = replace(TINY, head_dim=64, rope_theta=500_000.0)
    for factor in (8.0, 32.0):
        stretched = RotaryTable(replace(plain, rope_scaling=RopeScaling(factor, 1.0, 4.0, 8192))).frequencies
        divisors = tuple((RotaryTable(plain).frequencies / stretched).tolist())
        found = _rope_scaling(replace(plain, rope_factors=divisors))
        assert found is not None
        assert found["rope_type"] == "llama3" and found["factor"] == pytest.approx(factor)
        assert found["original_max_position_embeddings"] == 8192
    with pytest.raises(InputError, match="rotary scaling"):
        _rope_scaling(replace(plain, rope_factors=tuple(float(1 + n) for n in range(32))))


def test_the_writers_files_are_the_librarys(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 5), "a": torch.randn(7), "è": torch.zeros(2, 0), "c": torch.randn(2, 3, 4)}
    shapes = [(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
    counts = list(
        write_safetensors(tmp_path / "x.safetensors", shapes, torch.bfloat16, lambda name, shape: tensors[name])
    )
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensor.to(torch.bfloat16)) for name, tensor in tensors.items())
    assert sum(counts) == sum(tensor.nbytes for tensor in read.values())
    assert int.from_bytes((tmp_path / "x.safetensors").read_bytes()[:8], "little") % 8 == 0


# — One stage after another —


def recipe(model: str, task: str, data: Path, steps: int, **more: Any) -> Recipe:
    return Recipe().changed(
        {
            "model.name": model, "model.quantization": "none", "model.device": "cpu", "train.task": task, "train.steps": steps,
            "data.paths": [str(data)], "data.pack_tokens": 256, "data.held_out": 0, "lora.r": 4, "lora.alpha": 4.0,
            "train.batch_packs": 8, "train.schedule": "constant", "train.warmup_ratio": 0, "train.learning_rate": 3e-3,
            "train.engine": "plain", **more,
        }
    )  # fmt: skip


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_the_next_stage_begins_where_the_last_ended(tiny_folder: Path, tmp_path: Path) -> None:
    talks, pairs = tmp_path / "talks.jsonl", tmp_path / "pairs.jsonl"
    turns = [
        [{"role": "user", "content": f"Quanto fa {n} più uno?"}, {"role": "assistant", "content": f"Fa {n + 1}."}]
        for n in range(6)
    ]
    talks.write_text("".join(json.dumps({"messages": t}) + "\n" for t in turns), encoding="utf-8")
    rows = [{"prompt": t[0]["content"], "chosen": t[1]["content"], "rejected": "Non lo so."} for t in turns]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    # Every step sees all conversations, so the loss of step 5 is that of the model which 4 steps have made.
    TrainingRun(recipe(str(tiny_folder), "sft", talks, 5), tmp_path / "five").train()
    TrainingRun(recipe(str(tiny_folder), "sft", talks, 4), tmp_path / "first").train()
    assert losses(tmp_path / "first") == losses(tmp_path / "five")[:4]
    out = tmp_path / "stage1"
    arguments = ["export", "--model", str(tiny_folder), "--adapter", str(tmp_path / "first" / "adapter")]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out), "--dtype", "float32", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["quantization"] == "none" and said["merged"] == 14
    TrainingRun(recipe(str(out), "sft", talks, 1), tmp_path / "second").train()
    assert losses(tmp_path / "second")[0] == pytest.approx(losses(tmp_path / "five")[4], rel=1e-5)
    assert losses(tmp_path / "second")[0] < 0.99 * losses(tmp_path / "first")[0]
    # And the preferences: the reference is the first stage's result, the loss begins at log 2.
    TrainingRun(recipe(str(out), "dpo", pairs, 3), tmp_path / "third").train()
    assert losses(tmp_path / "third")[0] == pytest.approx(math.log(2), rel=1e-5)
    assert losses(tmp_path / "third")[-1] < math.log(2)
    export_model(
        ModelSpec(str(out), adapter=tmp_path / "third" / "adapter", quantization="none"),
        tmp_path / "stage2",
        dtype=torch.float32,
    )
    expected = our_logits(opened(out, adapter=tmp_path / "third" / "adapter"))
    assert (their_logits(tmp_path / "stage2") - expected).abs().max() <= 1e-4


def test_the_scheme_is_the_runs_own(tiny_folder: Path, adapter: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(adapter, run / "adapter")
    assert training_recipe(run / "adapter") is None
    (run / "recipe.yaml").write_text(
        Recipe().changed({"model.quantization": "int4", "lora.quantization_aware": "int8"}).to_yaml(), encoding="utf-8"
    )
    base = ["export", "--model", str(tiny_folder), "--dtype", "float32", "--json"]
    for where, more, scheme, told in (
        (run / "adapter", [], "int4", "was trained on the base in int4"),
        (run / "adapter", ["--quantization", "nf4"], "nf4", "trained on the base in int4, and is used on it in nf4"),
        (adapter, [], "none", "does not say beside which quantization"),
    ):
        out = tmp_path / f"{scheme}-out"
        result = CliRunner().invoke(app, [*base, "--adapter", str(where), "--out", str(out), *more])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout.splitlines()[-1])["quantization"] == scheme
        assert told in result.stderr and ("quantization to int8" in result.stderr) == (where != adapter)
        assert (our_logits(opened(out)) - our_logits(opened(tiny_folder, scheme, where))).abs().max() <= 1e-4  # type: ignore[arg-type]


# — What is refused, and what is left behind —


def test_a_folder_that_holds_something_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out in ("full", "file"):
        with pytest.raises(InputError, match=r"is not empty|is a file"):
            export_model(ModelSpec(str(tiny_folder), quantization="none"), tmp_path / out)
    with pytest.raises(InputError, match="is not empty"):
        export_model(ModelSpec(str(tiny_folder), quantization="none"), tiny_folder)
    assert files_of(tmp_path) == {"full", "file"} and files_of(tmp_path / "full") == {"mine.txt"}
    (tmp_path / "empty").mkdir()
    export_model(ModelSpec(str(tiny_folder), quantization="none"), tmp_path / "empty")
    assert "model.safetensors" in files_of(tmp_path / "empty")


def test_bad_input_leaves_nothing(tiny_folder: Path, adapter: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "deep" / "out", tmp_path / "other"
    other.mkdir()
    write_weights(other, replace(TINY, vocab_size=259, intermediate_size=128))
    write_byte_tokenizer(other, SPECIALS, eos_token="<|im_end|>")
    for model, with_adapter, shard_bytes, said in (
        (other, adapter, 5, "does not fit this model"),
        (tiny_folder, tmp_path, 5, "no adapter"),
        (tmp_path / "nowhere", None, 5, "no model"),
        (tiny_folder, None, 0, "size"),
    ):
        with pytest.raises(InputError, match=said):
            export_model(ModelSpec(str(model), with_adapter, "none"), out, shard_bytes=shard_bytes)
    with pytest.raises(InputError, match="bfloat16, float16, float32"):
        exporting.checked_dtype("int8")
    for bad in (["--dtype", "int8"], ["--quantization", "nf5"], ["--shard-gigabytes", "-1"]):
        result = CliRunner().invoke(app, ["export", "--model", str(tiny_folder), "--out", str(out), *bad])
        assert isinstance(result.exception, InputError) and result.exception.exit_code == 2
    assert files_of(tmp_path) == {"other"}


def test_what_fails_midway_leaves_nothing(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stilnovo.model.weights import SafetensorsReader

    read = SafetensorsReader.tensor
    failure: list[BaseException] = []

    def failing(self: SafetensorsReader, name: str, shape: tuple[int, ...]) -> Tensor:
        if name == "model.layers.1.mlp.up_proj.weight":
            raise failure[-1]
        return read(self, name, shape)

    monkeypatch.setattr(SafetensorsReader, "tensor", failing)
    for error, seen in ((KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "full"), StilnovoError)):
        failure.append(error)
        with pytest.raises(seen):
            export_model(ModelSpec(str(tiny_folder), quantization="none"), tmp_path / "deep" / "out")
        assert files_of(tmp_path) == set()


def test_room_is_looked_for_first(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(StilnovoError, match="no room"):
        export_model(ModelSpec(str(tiny_folder), quantization="none"), tmp_path / "deep" / "out", dtype=torch.float32)
    assert files_of(tmp_path) == set()


def test_a_value_beyond_the_type_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_folder, source)
    weights = load_file(source / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.up_proj\.weight holds values that float16 cannot"):
        export_model(ModelSpec(str(source), quantization="none"), tmp_path / "m", dtype=torch.float16)
    export_model(ModelSpec(str(source), quantization="none"), tmp_path / "m", dtype=torch.bfloat16)


# — The embedded model —


def test_the_tokeniser_of_a_gguf_file_is_opened_by_others(smollm2_gguf: Path, tmp_path: Path) -> None:
    files = ModelFiles("smollm2", "gguf", smollm2_gguf)
    reader, before = open_checkpoint(files)
    for name, text in companions(files, reader, before, torch.bfloat16, SMOLLM2, provenance("smollm2")).items():
        (tmp_path / name).write_bytes(text)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), from_folder(tmp_path)
    assert ours.fingerprint() == before.fingerprint()
    assert ours.pad_id == before.pad_id and ours.jinja == before.jinja and ours.turn_end_ids == before.turn_end_ids
    for text in ("Nel mezzo del cammin di nostra vita", "l'Àncora costò 1 234,50 €\n\n\tPerché?", "日本 🐎  fine "):
        assert theirs(text)["input_ids"] == ours.encode(text) == before.encode(text)
    asked = [Message("system", "Breve."), Message("user", "E Giotto?")]
    talks = ([Message("user", "Chi è Dante?")], [*asked, Message("assistant", "Un pittore.")])
    for talk in talks:
        turns = [{"role": m.role, "content": m.content} for m in talk]
        for generation in (False, True):
            ids = theirs.apply_chat_template(turns, add_generation_prompt=generation, return_dict=False)
            assert ids == ours.render(talk, generation=generation) == before.render(talk, generation=generation)
    assert theirs.eos_token_id == ours.eos_id


@pytest.mark.slow
def test_a_gguf_file_becomes_a_folder(smollm2: tuple[Llama, Any], tmp_path: Path) -> None:
    export_model(ModelSpec("smollm2", quantization="none"), tmp_path / "m", dtype=torch.float32)
    expected = our_logits(smollm2[0])
    assert torch.equal(our_logits(opened(tmp_path / "m")), expected)
    assert (their_logits(tmp_path / "m") - expected).abs().max() <= 1e-3
    assert open_tokenizer(str(tmp_path / "m")).fingerprint() == smollm2[1].fingerprint()
