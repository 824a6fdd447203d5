"""The choice of how products are computed on a CPU: by what torch uses there, or by a setting."""

from __future__ import annotations

import pytest

from stilnovo.errors import InputError
from stilnovo.model import processor
from stilnovo.model.processor import (
    VARIABLE,
    WAYS,
    cpu_products,
    instruction_sets,
    linux_sets,
    planned_products,
    products_text,
)

WITH_BF16 = ("avx2", "avx512", "avx512_vnni", "avx512_bf16")


@pytest.mark.parametrize(
    ("has", "asked", "way"),
    [
        (WITH_BF16, None, "bf16"), (WITH_BF16, "", "bf16"), (WITH_BF16, "auto", "bf16"), (WITH_BF16, "int8", "int8"),
        (WITH_BF16, "fp32", "fp32"), (("avx2",), None, "int8"), (("avx2", "avx512"), "auto", "int8"), ((), None, "int8"),
        (("avx2",), "fp32", "fp32"),
    ],
)  # fmt: skip
def test_the_choice(has: tuple[str, ...], asked: str | None, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "instruction_sets", lambda: has)
    monkeypatch.delenv(VARIABLE, raising=False)
    if asked is not None:
        monkeypatch.setenv(VARIABLE, asked)
    assert cpu_products() == way


@pytest.mark.parametrize(
    ("has", "asked", "words"),
    [
        (("avx2",), "bf16", "needs a processor with avx512_bf16"),
        ((), "bf16", "needs a processor with avx512_bf16"),
        (WITH_BF16, "bf", "Did you mean bf16"),
        (WITH_BF16, "fastest", "set it to auto"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    has: tuple[str, ...], asked: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "instruction_sets", lambda: has)
    monkeypatch.setenv(VARIABLE, asked)
    with pytest.raises(InputError, match=words):
        cpu_products()


@pytest.mark.parametrize(
    ("level", "reported", "has"),
    [
        ("AVX2", {"avx2": True, "avx512_f": True, "avx512_bf16": True}, ("avx2",)),  # torch was told to use less
        ("AVX512", {"avx2": True, "avx512_f": True, "avx512_bf16": False}, ("avx2", "avx512")),
        ("DEFAULT", {"avx2": True}, ()),
    ],
)
def test_what_counts_is_what_torch_uses(
    level: str, reported: dict[str, bool], has: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: reported, raising=False)
    assert instruction_sets.__wrapped__() == has
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # an older torch: Linux's own list
    monkeypatch.setattr(processor, "linux_sets", lambda: {"avx2", "avx512", "avx512_bf16"})
    older = {"AVX2": ("avx2",), "AVX512": ("avx2", "avx512", "avx512_bf16"), "DEFAULT": ()}
    assert instruction_sets.__wrapped__() == older[level]


@pytest.mark.parametrize(
    ("limit", "has"),
    [
        ("AVX512_CORE", ("avx2", "avx512", "avx512_vnni")), ("avx2", ("avx2", "avx512", "avx512_vnni")),
        ("AVX512_CORE_BF16", WITH_BF16), ("DEFAULT", (*WITH_BF16, "amx")), ("", (*WITH_BF16, "amx")),
    ],
)  # fmt: skip
def test_what_onednn_may_not_use_is_not_there(
    limit: str, has: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    everything = {*WITH_BF16, "amx"}
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(processor, "_reported", lambda _: set(everything))
    monkeypatch.setattr(processor, "linux_sets", lambda: set(everything))
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert instruction_sets.__wrapped__() == has
    assert planned_products() == ("bf16" if "avx512_bf16" in has else "int8")  # torch is not asked
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", limit)  # its older name
    assert instruction_sets.__wrapped__() == has
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert planned_products() == "int8"


def test_this_machine_has_a_way_and_it_has_words() -> None:
    assert cpu_products() in WAYS
    assert all(products_text(way) for way in WAYS)  # type: ignore[arg-type]
    assert linux_sets() <= {"avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"}
