"""Graphics cards: compute, memory and link speed from their makers' sheets, for a forecast of the time.

Arithmetic is dense 16-bit tensor-core throughput with fp32 accumulation (NVIDIA's architecture papers: Turing 2018,
GA102 2020, Ada 2022, Hopper 2022). `REACHED` is the share of it that a good training loop reaches: torchtune's published
2,413 tokens a second for 8B QLoRA on an RTX 4090 come to 0.69 of the sheet. A measured card needs no sheet
(`measured`, from a file that `make bench-gpu` wrote).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from stilnovo.errors import InputError

GB = 10**9
GIB = 2**30
REACHED = 0.69


@dataclass(frozen=True)
class Card:
    """One card: arithmetic in FLOP/s, its memory in bytes and bytes/s, the link to the host in bytes/s."""

    name: str
    flops: float
    memory: int
    memory_speed: float
    link_speed: float
    bf16: bool = True
    measured: bool = False


def _card(name: str, teraflops: float, gib: int, memory_gb_s: int, link_gb_s: int, *, bf16: bool = True) -> Card:
    return Card(name, REACHED * teraflops * 1e12, gib * GIB, memory_gb_s * GB, link_gb_s * GB, bf16)


#: Links: about four fifths of the bus's nominal speed (PCIe 3 or 4, 8 or 16 lanes).
CARDS = {
    card.name: card
    for card in (
        _card("rtx-2070", 29.9, 8, 448, 12, bf16=False), _card("rtx-2080", 40.3, 8, 448, 12, bf16=False),
        _card("t4", 65.0, 16, 320, 12, bf16=False), _card("rtx-3060-ti", 32.4, 8, 448, 24),
        _card("rtx-3070", 40.6, 8, 448, 24), _card("rtx-3090", 71.0, 24, 936, 24), _card("rtx-4060", 30.2, 8, 272, 12),
        _card("l4", 121.0, 24, 300, 24), _card("rtx-4090", 165.2, 24, 1008, 24), _card("h100", 989.0, 80, 3350, 50),
    )
}  # fmt: skip
DEFAULT = "rtx-4060"
CPU = Card("this CPU", 1e11, 0, 2e10, 1e10)


def named(name: str) -> Card:
    """Look up a GPU by name.

    Raises:
        InputError: for an unknown one.
    """
    if name in CARDS:
        return CARDS[name]
    raise InputError(
        f"The card {name!r} is not known.", next=f"Known: {', '.join(CARDS)}; or --measured FILE of `make bench-gpu`."
    )


def measured(path: Path) -> Card:
    """Load a GPU's speeds as `make bench-gpu` measured them.

    Raises:
        InputError: when the file holds no such measurement.
    """
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))["card"]
        return Card(
            str(figures["name"]), float(figures["flops"]), int(figures["memory"]), float(figures["memory_speed"]),
            float(figures["link_speed"]), bool(figures["bf16"]), measured=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold a measured card.", f"{type(error).__name__}: {error}", "Run: make bench-gpu"
        ) from error


_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def bytes_of(text: str) -> int:
    """Parse a memory size: `8GB`, `7.5GiB`, `24576MiB`.

    A card sold as 8 GB has 8 GiB, and so has memory sold in GB: both spellings mean 2³⁰ here.

    Raises:
        InputError: when it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([kmgt])(?:i?b)?\s*", text, re.IGNORECASE)
    if match is None:
        raise InputError(f"{text!r} is not a size.", next="Write 8GB, 7.5GiB or 12000MB.")
    return round(float(match[1].replace(",", ".")) * _UNITS[match[2].lower()])
