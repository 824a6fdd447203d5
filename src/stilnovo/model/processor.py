"""What this processor can do, and the one choice of how products are computed on it.

Four ways, by name:
- `fp16`: activations in fp32, weights kept a second time in fp16; for writing with models whose copy is small.
- `bf16`: activations in bf16, 4-bit weights multiplied as they are stored (bitsandbytes' fused product); where the
  processor has avx512_bf16.
- `int8`: activations in bf16, weights kept a second time in 8 bits, one scale a row, for writing; everywhere else.
- `fp32`: every matrix dequantised to fp32 for its product: the reference, whose numbers all processors share.

Training computes in bf16 under `bf16` (`stilnovo.model.load.step_dtype`), else in fp32.

`STILNOVO_CPU` forces one of them. Evaluation asks for `fp32` by itself, so that its scores do not depend on the machine.

A training's products in fp32 are oneDNN's (`stilnovo.engine.matmul`) except under `fp32`, whose numbers stay as they were.

Unusual: what counts is what torch uses, not what the processor has: with `ATEN_CPU_CAPABILITY=avx2` a processor with AVX-512 is
taken for one without, with `ONEDNN_MAX_CPU_ISA=AVX512_CORE` for one without bf16, and another machine's path can be tried on
this one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from stilnovo.errors import InputError, did_you_mean
from stilnovo.plan.account import SMALL_BYTES

CpuProducts = Literal["fp16", "bf16", "int8", "fp32"]

VARIABLE = "STILNOVO_CPU"
WAYS = ("fp16", "bf16", "int8", "fp32")
#: Our names of instruction sets, by torch's; Linux calls them in /proc/cpuinfo as we do, AVX-512 and AMX excepted.
_SETS = {
    "avx2": "avx2", "avx512_f": "avx512", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16", "amx_bf16": "amx",
}  # fmt: skip
_LINUX = {"avx512f": "avx512", "amx_bf16": "amx"}
#: Limits of oneDNN, which multiplies in bf16 for torch, that leave it without.
_BELOW_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
_BELOW_AMX = (*_BELOW_BF16, "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")


@cache
def instruction_sets() -> tuple[str, ...]:
    """Instruction sets that torch uses here, of avx2, avx512, avx512_vnni, avx512_bf16 and amx."""
    import torch

    level = torch.backends.cpu.get_cpu_capability()
    if level not in ("AVX2", "AVX512"):
        return ()
    there = _reported(torch) - _hidden()
    return tuple(name for name in _SETS.values() if name in there and (level == "AVX512" or name == "avx2"))


def _reported(torch: Any) -> set[str]:
    if hasattr(torch.cpu, "get_capabilities"):
        reported = torch.cpu.get_capabilities()
        return {ours for theirs, ours in _SETS.items() if reported.get(theirs)}
    return linux_sets()


def _hidden() -> set[str]:
    """Instruction sets that oneDNN was told not to use."""
    limit = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").strip().upper()
    return {name for name, below in (("avx512_bf16", _BELOW_BF16), ("amx", _BELOW_AMX)) if limit in below}


def linux_sets() -> set[str]:
    """Instruction sets by our names that Linux lists in /proc/cpuinfo; none on other systems."""
    listing = Path("/proc/cpuinfo")
    flags = listing.read_text(encoding="utf-8").split() if listing.exists() else []
    return {_LINUX.get(flag, flag) for flag in flags} & set(_SETS.values())


def chosen_way(variable: str, ways: Sequence[str], purpose: str) -> str:
    """What an environment variable chooses: one of `ways`, or `auto`, also where it is not set.

    Raises:
        InputError: when it names none of them.
    """
    asked, known = os.environ.get(variable, "").strip() or "auto", ("auto", *ways)
    if asked not in known:
        raise InputError(
            f"{variable} names no way to {purpose}: {asked!r}.", f"There are {', '.join(known)}.",
            did_you_mean(asked, known, f"Leave {variable} unset, or set it to auto."),
        )  # fmt: skip
    return asked


def cpu_products(weights: int | None = None) -> CpuProducts:
    """How products are computed on this processor: what `STILNOVO_CPU` says, else the fastest way that it has.

    Args:
        weights: How many weights the matrices of the model have that is to write; None for other work, which keeps no copies.

    Raises:
        InputError: when the variable names no way, or one that this processor has not.
    """
    asked, sets = chosen_way(VARIABLE, WAYS, "compute"), instruction_sets()
    if asked == "auto":
        return _fastest(sets, weights)
    needed = {"bf16": "avx512_bf16", "fp16": "avx2"}.get(asked)
    if needed is not None and needed not in sets:
        raise InputError(
            f"{VARIABLE}={asked} needs a processor with {needed}.",
            f"torch uses {', '.join(sets) or 'no vector instructions that it names'} here.",
            f"Set {VARIABLE} to auto, int8 or fp32.",
        )
    return cast(CpuProducts, asked)


def planned_products(weights: int | None = None) -> CpuProducts:
    """How products will be computed (`cpu_products`), without asking torch: by what `STILNOVO_CPU` says and Linux lists."""
    asked = os.environ.get(VARIABLE, "").strip()
    return cast(CpuProducts, asked) if asked in WAYS else _fastest(_expected_sets(), weights)


def _expected_sets() -> set[str]:
    """What `instruction_sets` will find, by Linux's list and the limits that torch and oneDNN were given."""
    level = os.environ.get("ATEN_CPU_CAPABILITY", "").strip().lower()
    most = {"default": set[str](), "avx2": {"avx2"}}.get(level, set(_SETS.values()))
    return (linux_sets() - _hidden()) & most


def onednn_products() -> bool:
    """Whether a training step's fp32 products are oneDNN's: where torch has them with vectors, but not under `STILNOVO_CPU=fp32`."""
    return os.environ.get(VARIABLE, "").strip() != "fp32" and _has_onednn()


@cache
def _has_onednn() -> bool:
    import torch

    there = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and "avx2" in instruction_sets()


def _fastest(sets: Collection[str], weights: int | None) -> CpuProducts:
    """The fastest way of a processor with these instruction sets; `weights` as for `cpu_products`."""
    if weights is not None and 2 * weights <= SMALL_BYTES and "avx2" in sets:
        return "fp16"
    return "bf16" if "avx512_bf16" in sets else "int8"


def products_text(way: CpuProducts) -> str:
    """Say what a way of computing means, for a person."""
    return {
        "fp16": "trains in fp32; writes with weights in fp16",
        "bf16": "trains in bf16; writes in bf16 with fused products of 4-bit weights, small models with weights in fp16",
        "int8": "trains in fp32; writes with weights in 8 bits, small models with weights in fp16",
        "fp32": "trains and writes in fp32, dequantising each matrix",
    }[way]
