"""What a projection reads decides which of its columns are kept best; the text, its length and the kinds of file are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stilnovo.errors import InputError
from stilnovo.export.gguf_model import export_gguf
from stilnovo.export.importance import importance_of, mean_squares
from stilnovo.io.gguf_file import gguf_contents
from stilnovo.model.attention import Blocks, positions_of
from stilnovo.model.llama import Llama
from stilnovo.spec import ModelSpec

TEXT = "Nel mezzo del cammin di nostra vita mi ritrovai per una selva oscura, ché la diritta via era smarrita.\n" * 40


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": TEXT[i : i + 400]}) + "\n" for i in range(8)), encoding="utf-8")
    return path


def test_columns_weigh_by_the_mean_square_of_what_is_read(tiny: Llama) -> None:
    pieces = [[1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11, 12]]
    found = mean_squares(tiny, pieces)
    assert set(found) == {
        name for name, shape in tiny.config.weight_shapes().items() if len(shape) == 2 and "embed" not in name
    }
    with torch.no_grad():  # by hand: the head reads the final states
        tokens = torch.tensor([token for piece in pieces for token in piece])
        lengths = [len(piece) for piece in pieces]
        states: Tensor = tiny.hidden(tokens, positions_of(lengths), Blocks(lengths)).square().mean(0)
    torch.testing.assert_close(found["lm_head.weight"], states / states.mean(), rtol=1e-5, atol=1e-5)
    assert torch.equal(found["model.layers.0.self_attn.q_proj.weight"], found["model.layers.0.self_attn.v_proj.weight"])
    assert all(column.mean() == pytest.approx(1, abs=1e-3) for column in found.values())


def test_packing_changes_nothing(tiny: Llama) -> None:
    together, alone = mean_squares(tiny, [[1, 2, 3], [4, 5, 6]]), mean_squares(tiny, [[4, 5, 6], [1, 2, 3]])
    for name, column in together.items():
        torch.testing.assert_close(column, alone[name])


def test_a_file_says_by_what_its_columns_were_weighed(tiny_folder: Path, text: Path, tmp_path: Path) -> None:
    spec = ModelSpec(str(tiny_folder), quantization="none", device="cpu")
    made = export_gguf(spec, tmp_path / "out", type_name="q4_k_m", importance_text=text)
    fields = gguf_contents(tmp_path / "out" / made.file).fields
    assert made.importance_tokens > 256 and fields["quantize.imatrix.dataset"] == "text.jsonl"
    assert made.memory["predicted_peak_bytes"] > 0
    plain = export_gguf(spec, tmp_path / "plain", type_name="q4_k_m")
    assert (tmp_path / "out" / made.file).read_bytes()[-10_000:] != (tmp_path / "plain" / plain.file).read_bytes()[
        -10_000:
    ]


def test_too_little_text_and_types_without_blocks_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Ciao.")
    spec = ModelSpec(str(tiny_folder), quantization="none", device="cpu")
    with pytest.raises(InputError, match="too short"):
        importance_of(spec, short)
    with pytest.raises(InputError, match="--importance-text"):
        export_gguf(spec, tmp_path / "out", type_name="q8_0", importance_text=short)
    with pytest.raises(InputError, match=r"none\.txt"):
        export_gguf(spec, tmp_path / "out", type_name="q6_k", importance_text=tmp_path / "none.txt")
    assert not (tmp_path / "out").exists()
