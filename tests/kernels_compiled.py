"""What test_kernels.py compiles without a card: every launch of every operator, ahead of time, for a generation of cards.

The launches are the launchers' own: `JITFunction.run` is replaced by one that notes its arguments. What comes back, one JSON line
a launch, is what the compiler says of the machine code: registers, stack, local and shared memory, and some instructions.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from stilnovo.model.kernels import dequantization, few_tokens, gates, norms, rotation, softmax

NAMES = {
    torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.int64: "i64", torch.uint8: "u8",
}  # fmt: skip


class Launches:
    """Notes launches instead of making them."""

    def __init__(self) -> None:
        self.seen: list[tuple[JITFunction, tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, function: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        assert (
            len(grid) in (1, 2)
            and all(0 < size < 2**31 for size in grid[:1])
            and all(size < 2**16 for size in grid[1:])
        )
        self.seen.append((function, args, options))


def calls(dtype: torch.dtype) -> Iterator[None]:
    """Every operator at the shapes of an 8B model, on tensors of the device `meta`, which the launchers only measure."""

    def empty(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    rows, width, inside = 256, 4096, 14_336
    x, weight, wide, single = empty(rows, width), empty(width), empty(rows, inside), empty(rows, dtype=torch.float32)
    norms.rms_norm(x, weight, 1e-5, x)
    norms.add_rms_norm(x, x, weight, 1e-5, x)
    norms.rms_norm_backward_(x, x, weight, 1e-5)
    norms.rms_norm_backward_add(x, x, weight, 1e-5, x)
    norms.rms_norm_backward_again(x, x, weight, 1e-5, x)
    gates.swiglu(wide, wide, wide)
    gates.swiglu_backward(wide, wide, wide)
    heads, table = empty(rows, 48 * 128)[:, : 40 * 128].view(rows, 40, 128), empty(rows, 1, 64)
    for back in (False, True):
        rotation.rotate(heads, table, table, back, heads)
    size, byte, number = width * inside, torch.uint8, torch.float32
    blocks = size // 64
    dequantization.dequantize_4bit(
        empty(size // 2, 1, dtype=byte), empty(blocks, dtype=byte), empty(16, dtype=number), empty(dtype=number),
        empty(blocks // 256, dtype=number), empty(256, dtype=number), empty(width, inside),
    )  # fmt: skip
    for bits in (8, 4):
        packed = empty(width, inside * bits // 8, dtype=byte)
        scale, zero = empty(width, inside // 64, dtype=torch.float16), empty(width, inside // 64, dtype=byte)
        dequantization.dequantize_affine(packed, scale, zero, bits, empty(width, inside))
        few_tokens.affine_product(empty(1, inside), packed, scale, zero, bits, empty(1, width))
    targets = empty(rows, dtype=torch.int64)
    for gradient in (True, False):
        softmax.softmax_whole(empty(rows, 128_256), targets, gradient, single)
        softmax.softmax_tile(empty(rows, 8192), targets, 8192, single, single, single, single, gradient)
    yield


def compiled(function: JITFunction, args: tuple[Any, ...], options: dict[str, Any], capability: int) -> dict[str, Any]:
    """Compile one launch for a generation of cards, and read the machine code's needs."""
    signature, constants, attributes = {}, {}, {}
    given = {**dict(zip(function.arg_names, args, strict=False)), **options}
    for index, name in enumerate(function.arg_names):
        value = given[name]
        if function.params[index].is_constexpr:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = f"*{NAMES[value.dtype]}"
            attributes[index,] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[index,] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constants, attributes)
    kept = {name: value for name, value in options.items() if name not in function.arg_names}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=kept)
    ptx = made.asm["ptx"]
    return {
        "kernel": function.__name__, **{name: constants[name] for name in constants}, **resources(made.asm["cubin"]),
        "shared_asked": made.metadata.shared, "fma": len(re.findall(r"\bfma\.rn\.f32", ptx)),
        "wide_loads": len(re.findall(r"ld\.global\S*\.v[24]", ptx)), "target": re.findall(r"\.target (\w+)", ptx)[0],
    }  # fmt: skip


def resources(cubin: bytes) -> dict[str, int]:
    """Registers a thread, and bytes of stack, shared and local memory, of a kernel's machine code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = dict(re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text))
    return {name.lower(): int(found[name]) for name in ("REG", "STACK", "SHARED", "LOCAL")}


def main(capability: int) -> None:
    launches = Launches()
    JITFunction.run = lambda self, *args, **options: launches(self, *args, **options)
    types = (torch.float16, torch.float32) if capability < 80 else (torch.bfloat16, torch.float16)
    for dtype in types:
        for _ in calls(dtype):
            pass
        for function, args, options in launches.seen:
            print(json.dumps({"dtype": NAMES[dtype], **compiled(function, args, options, capability)}), flush=True)
        launches.seen.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]))
