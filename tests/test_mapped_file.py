"""Single tensors mapped from safetensors files: of every type, at every place, as the library reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stilnovo.model.mapped_file import TYPES, header_of, mapped_tensor


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
def test_what_is_mapped_is_what_the_library_reads(dtype: torch.dtype, tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {"scalar": (), "empty": (0, 3), "small": (7, 5), "large": (300, 700)}
    values = torch.randint(0, 2, (300 * 700,), generator=torch.Generator().manual_seed(1))
    tensors = {
        name: values[: torch.Size(shape).numel()].to(dtype).reshape(shape).clone() for name, shape in shapes.items()
    }
    path = tmp_path / "weights.safetensors"
    save_file({**tensors, "a byte": torch.ones(3, dtype=torch.uint8)}, path)
    header, begin = header_of(path)
    before = path.read_bytes()
    for name, right in load_file(path).items():
        found = mapped_tensor(path, header[name], begin)
        assert found.dtype == right.dtype
        assert found.shape == right.shape
        assert torch.equal(found.float(), right.float())
        found.zero_()  # in memory alone
    assert path.read_bytes() == before


def test_a_tensor_that_lies_askew_is_copied(tmp_path: Path) -> None:
    path, values = tmp_path / "weights", torch.randn(40_000)
    path.write_bytes(b"x" + values.numpy().tobytes())
    found = mapped_tensor(path, {"dtype": "F32", "shape": [200, 200], "data_offsets": [0, 160_000]}, 1)
    assert torch.equal(found.flatten(), values)
    assert found.data_ptr() % 4 == 0


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[", b"\x00" * 20])
def test_no_header_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises((ValueError, OSError)):
        header_of(tmp_path / "weights")
