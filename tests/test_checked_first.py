"""What can be known to be wrong is told before a model's weights are read, by every command.

The readers of weights are replaced by ones that fail the test; each command gets one bad input among good ones.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from stilnovo.cli.main import COMMANDS, app
from stilnovo.errors import InputError
from stilnovo.model import lora
from stilnovo.model.load import ModelCheckpoint, open_model
from stilnovo.plan.shape import LoraConfig
from stilnovo.spec import ModelSpec

LONG = "parola " * 400
HELD_OUT = "una riga di testo\n" * 20


@pytest.fixture(scope="module")
def good(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad inputs of every kind."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(tiny_folder, folder / "model")
    llama, _ = open_model(ModelSpec(str(tiny_folder), quantization="none", device="cpu"))
    config = LoraConfig(r=2, alpha=4.0, projections=("q_proj",))
    lora.attach(llama, config)
    lora.save(llama, config, folder / "adapter", "model")
    shutil.copytree(folder / "adapter", folder / "no_weights")
    (folder / "no_weights" / "adapter_model.safetensors").unlink()
    shutil.copytree(folder / "adapter", folder / "other")
    settings = json.loads((folder / "other" / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "other" / "adapter_config.json").write_text(json.dumps(settings | {"r": 3}), encoding="utf-8")
    shutil.copytree(folder / "adapter", folder / "dora")
    (folder / "dora" / "adapter_config.json").write_text(json.dumps(settings | {"use_dora": True}), encoding="utf-8")
    # A tokenizer with an id more than the embedding has rows.
    shutil.copytree(tiny_folder, folder / "short_rows")
    config_file = folder / "short_rows" / "config.json"
    shape = json.loads(config_file.read_text(encoding="utf-8"))
    config_file.write_text(json.dumps(shape | {"vocab_size": shape["vocab_size"] - 1}), encoding="utf-8")
    weights = load_file(tiny_folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-1].clone()
    save_file(weights, folder / "short_rows" / "model.safetensors")
    # A weight of another shape, and a file that was cut short, behind whole ones.
    shutil.copytree(tiny_folder, folder / "other_shape")
    (folder / "other_shape" / "config.json").write_text(
        json.dumps(shape | {"intermediate_size": shape["intermediate_size"] + 8}), encoding="utf-8"
    )
    shutil.copytree(tiny_folder, folder / "cut_short")
    weights = load_file(tiny_folder / "model.safetensors")
    last = {name: weights.pop(name) for name in ("model.norm.weight",)}
    (folder / "cut_short" / "model.safetensors").unlink()
    places = dict.fromkeys(weights, "a.safetensors") | dict.fromkeys(last, "b.safetensors")
    save_file(weights, folder / "cut_short" / "a.safetensors")
    save_file(last, folder / "cut_short" / "b.safetensors")
    whole = (folder / "cut_short" / "b.safetensors").read_bytes()
    (folder / "cut_short" / "b.safetensors").write_bytes(whole[:-8])
    index = json.dumps({"weight_map": places})
    (folder / "cut_short" / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    # A model that reads 64 tokens: by its context, and by its attention window.
    for name, change in (("context64", {"max_position_embeddings": 64}), ("window64", {"sliding_window": 64})):
        shutil.copytree(tiny_folder, folder / name)
        kind = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"} if "window" in name else {}
        (folder / name / "config.json").write_text(json.dumps(shape | change | kind), encoding="utf-8")
    shutil.copytree(tiny_folder, folder / "strange")
    strange = json.loads((folder / "strange" / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "strange" / "tokenizer_config.json").write_text(
        json.dumps(strange | {"chat_template": "[INST] {{ x }} [/INST]"}), encoding="utf-8"
    )
    (folder / "text.txt").write_text(HELD_OUT, encoding="utf-8")
    (folder / "empty.txt").write_text("", encoding="utf-8")
    (folder / "task.yaml").write_text("task: [", encoding="utf-8")
    chat = {"messages": [{"role": "user", "content": "Chi sei?"}, {"role": "assistant", "content": "Un libro."}]}
    (folder / "chat.jsonl").write_text((json.dumps(chat) + "\n") * 12, encoding="utf-8")
    chat["messages"][0]["content"] = LONG
    (folder / "long_chat.jsonl").write_text((json.dumps(chat) + "\n") * 12, encoding="utf-8")
    (folder / "file").write_text("x", encoding="utf-8")
    return folder


@pytest.fixture
def poisoned(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The inputs in the working folder, with readers of weights that fail."""
    reached: list[str] = []

    def poison(*arguments: Any, **options: Any) -> Any:
        reached.append("weights")
        raise AssertionError("weights were read")

    for place in ("load.build", "weights.SafetensorsReader.tensor", "weights.GGUFReader.tensor"):
        monkeypatch.setattr(f"stilnovo.model.{place}", poison)
    monkeypatch.setattr("stilnovo.api.model_sha256", poison)  # as slow as reading them
    monkeypatch.setenv("STILNOVO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STILNOVO_LIBRARY", str(tmp_path / "library.sqlite"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = tmp_path / "work"
    shutil.copytree(good, work)
    monkeypatch.chdir(work)
    yield work
    assert not reached


MODEL = ("--model", "model", "--quantization", "none")
GENERATE, CHAT, ASK = ("generate", "ciao", *MODEL), ("chat", *MODEL), ("ask", "Chi spense il faro?", *MODEL)
SERVE = ("serve", *MODEL, "--port", "0")
EVALUATE = ("evaluate", *MODEL, "--text", "text.txt")
SWEEP = ("sweep", *MODEL, "--held-out", "text.txt", "--tasks", "none")
EXPORT = ("export", *MODEL)
TRAIN = ("train", *MODEL, "--data", "text.txt", "--set", "data.held_out=0", "--steps", "2")
GUARDED = (*TRAIN, "--set", "guard.every=1")

ADAPTERS = [
    (folder, words)
    for folder, words in (
        ("absent", "no adapter in absent"), ("no_weights", "has no weights"), ("other", "does not fit"),
        ("dora", "use_dora=True"), ("model", "no adapter in model"),
    )
]  # fmt: skip
WITH_ADAPTER = [
    (*command, "--adapter", folder, *more)
    for command, more in (
        (GENERATE, ()), (CHAT, ()), (ASK, ()), (SERVE, ()), (EVALUATE, ()), (EXPORT, ("--out", "o")),
    )
    for folder, _ in ADAPTERS
]  # fmt: skip
ADAPTER_WORDS = [words for _ in range(6) for _, words in ADAPTERS]

MODELS = [
    (name, command, words)
    for name, words in (
        ("short_rows", "258 rows"), ("absent", "no model 'absent'"),
        ("strange", "chat template leaves out what is said"), ("other_shape", "gate_proj.weight has an unexpected shape"),
        ("cut_short", "b.safetensors cannot be read"),
    )
    for command in (GENERATE, CHAT, ASK, SERVE, (*SWEEP, "--adapter", "adapter"), (*EXPORT, "--out", "o"), TRAIN)
    if name != "strange" or command in (GENERATE, CHAT, ASK, SERVE)  # the others need no conversation
]  # fmt: skip

CASES = [
    *zip(WITH_ADAPTER, ADAPTER_WORDS, strict=True),
    *((tuple(name if part == "model" else part for part in command), words) for name, command, words in MODELS),
    *(((*SWEEP, "--adapter", folder), words) for folder, words in ADAPTERS),
    *(((*TRAIN, "--adapter", folder), words) for folder, words in ADAPTERS if folder != "no_weights"),
    (tuple("short_rows" if part == "model" else part for part in EVALUATE), "258 rows"),
    # what does not fit into context or window
    *((("generate", LONG, "--model", name), "the model reads 64") for name in ("context64", "window64")),
    *((("ask", LONG, "--model", name), "the model reads 64") for name in ("context64", "window64")),
    *((("chat", "--model", name), "the model reads 64") for name in ("context64", "window64")),
    *((("serve", "--model", name, "--port", "0"), "the model reads 64") for name in ("context64", "window64")),
    (("generate", LONG, *MODEL), "the model reads 512"),
    ((*CHAT, "--max-new-tokens", "512"), "the model reads 512"),
    # settings
    ((*GENERATE, "--temperature", "nan"), "--temperature nan"),
    ((*GENERATE, "--max-new-tokens", "0"), "cannot be used"),
    ((*CHAT, "--top-p", "0"), "cannot be used"),
    ((*GENERATE, "--device", "tpu"), "no device"),
    ((*EVALUATE, "--limit", "inf"), "--limit inf"),
    ((*CHAT, "--system-file", "absent"), "system prompt absent"),
    ((*ASK, "--system-file", "empty.txt"), "is empty"),
    ((*SERVE, "--system-file", "empty.txt"), "is empty"),
    # files
    ((*CHAT, "--library", "absent.sqlite"), "absent.sqlite"),
    ((*ASK, "--library", "absent.sqlite"), "absent.sqlite"),
    (("evaluate", *MODEL, "--text", "absent.txt"), "absent.txt"),
    (("evaluate", *MODEL, "--text", "empty.txt"), "empty.txt"),
    ((*EVALUATE, "--tasks", "arc_i"), "no task 'arc_i'"),
    ((*EVALUATE, "--tasks", "arc_it"), "arc_it"),
    ((*EVALUATE, "--tasks", "arc_it", "--data-dir", "absent"), "absent"),
    ((*EVALUATE, "--task-file", "absent.yaml"), "absent.yaml"),
    ((*EVALUATE, "--task-file", "task.yaml"), "task.yaml"),
    ((*EVALUATE, "--protocol", "report2025"), "report2025"),
    (("sweep", *MODEL, "--adapter", "adapter", "--held-out", "absent.txt"), "absent.txt"),
    ((*SWEEP, "--adapter", "adapter", "--chat", "absent.jsonl"), "absent.jsonl"),
    ((*SWEEP, "--adapter", "adapter", "--protect", "x=absent.txt"), "absent.txt"),
    ((*SWEEP, "--adapter", "adapter", "--scales", "2"), "2"),
    ((*GUARDED, "--set", "guard.texts=[absent.jsonl]"), "absent.jsonl"),
    ((*GUARDED, "--set", "guard.texts=[long_chat.jsonl]"), "no assistant tokens within the first 512 tokens"),
    ((*GUARDED, "--set", "guard.tasks=[arc_it]", "--set", "guard.data_dir=absent"), "absent"),
    ((*GUARDED, "--set", "guard.tasks=[arc_i]"), "no task 'arc_i'"),
    ((*TRAIN, "--set", "data.rehearsal=[absent.jsonl]"), "absent.jsonl"),
    ((*TRAIN, "--set", "train.learning_rate=.inf"), "train.learning_rate"),
    (("train", *MODEL, "--data", "text.txt", "--epochs", "inf"), "--epochs inf"),
    (("train", *MODEL, "--data", "text.txt", "--set", "train.epochs=.inf"), "train.epochs"),
    (("train", *MODEL, "--data", "text.txt", "--set", "train.epochs=.nan"), "train.epochs"),
    (("train", *MODEL, "--data", "absent.txt"), "absent.txt"),
    (("demo", "--model", "absent", "--out", "o"), "no model 'absent'"),
    (("demo", "--model", "short_rows", "--out", "o"), "258 rows"),
    # where the result goes
    *(((*command, "--out", "file"), "file") for command in (
        EVALUATE, (*SWEEP, "--adapter", "adapter"), EXPORT, TRAIN, ("demo", "--model", "model"),
    )),
    *(((*command, "--out", "file/inside"), "file") for command in (
        EVALUATE, (*SWEEP, "--adapter", "adapter"), EXPORT, TRAIN, ("demo", "--model", "model"),
    )),
    ((*SWEEP, "--adapter", "adapter", "--save", "recommended", "file/inside"), "file"),
    ((*EXPORT, "--out", "model"), "not empty"),
    (("prepare", "text.txt", "--model", "model", "--benchmarks", "absent", "--out", "o"), "no file absent"),
    (("prepare", "absent.txt", "--model", "model", "--out", "o"), "absent.txt"),
    (("prepare", "text.txt", "--model", "absent", "--out", "o"), "no model 'absent'"),
    (("prepare", "text.txt", "--model", "model", "--out", "file/inside"), "file"),
    (("compare", "absent", "absent"), "no evaluation"),
    (("plan", "--days", "inf"), "--days inf"),
    (("plan", "--epoch-tokens", "nan"), "--epoch-tokens nan"),
    (("plan", "--adapter", "absent"), "no adapter in absent"),
    ((*EXPORT, "--out", "o", "--dtype", "int8"), "int8"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=lambda value: " ".join(value)[:90] if value else "")
def test_bad_input_is_told_before_weights_are_read(poisoned: Path, arguments: tuple[str, ...], words: str) -> None:
    before = set(poisoned.rglob("*"))
    result = CliRunner().invoke(app, arguments, input="ciao\n")
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    error = result.exception
    assert words in str(error)
    assert error.next or error.found, "it says what was found, or what to do"
    assert set(poisoned.rglob("*")) == before, "nothing was written, nothing is gone"


def test_a_port_in_use_is_told_before_weights_are_read(poisoned: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = CliRunner().invoke(app, ("serve", *MODEL, "--port", str(other.getsockname()[1])))
    assert isinstance(result.exception, InputError)
    assert "--port 0" in str(result.exception)
    assert not list(poisoned.parent.glob("library.sqlite*")), "no library was made for a service that cannot be"


def test_a_question_that_the_library_refuses_needs_no_weights(poisoned: Path) -> None:
    """What is too long for the model with its passages is told from the tokenizer and the model's shape alone."""
    result = CliRunner().invoke(app, ("ask", LONG, "--model", "window64", "--library", "sample"))
    assert isinstance(result.exception, InputError)


def test_every_command_that_opens_a_model_is_tried() -> None:
    tried = {arguments[0] for arguments, _ in CASES}
    without = {"doctor", "models", "data", "runs", "quotes", "library", "report", "bundle"}
    assert tried | without == {name for section in COMMANDS.values() for name in section}


def test_ids_beyond_the_embedding(good: Path, tmp_path: Path) -> None:
    """Tokens that text or template make are refused; a special token that nothing uses, as for padding, is not."""
    shutil.copytree(good / "model", tmp_path / "padded")
    file = tmp_path / "padded" / "tokenizer.json"
    definition = json.loads(file.read_text(encoding="utf-8"))
    token = {
        "id": 259,
        "content": "<|pad|>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    for special in (True, False):
        written = definition | {"added_tokens": [*definition["added_tokens"], token | {"special": special}]}
        file.write_text(json.dumps(written), encoding="utf-8")
        if special:
            assert ModelCheckpoint(ModelSpec(str(tmp_path / "padded"), device="cpu")).config.vocab_size == 259
        else:
            with pytest.raises(InputError, match=r"259 \('<\|pad\|>'\); the model's embedding has 259 rows"):
                ModelCheckpoint(ModelSpec(str(tmp_path / "padded"), device="cpu"))
