"""Graphics cards: compute, memory and link speed from their makers' sheets, for a forecast of the time.

A card is found by the name that its driver gives, word by word: an L40S is no L4, a laptop's chip not the desktop's. What the table
(`card_table.py`) lacks is derived from what the driver says of it: multiprocessors, clocks, width of the bus.
Sheets promise more than programs reach. Products of matrices are taken at `REACHED` of the sheet, memory at `READ`, attention at
`ATTENTION`; elsewhere in `plan/` all speeds are those that are reached. A measured card needs no sheet (`measured`).
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stilnovo.errors import InputError
from stilnovo.plan.card_table import ROWS

GB = 10**9
GIB = 2**30
#: Share of the sheet's dense 16-bit arithmetic that large products reach, by generation: 0.9 of the most that was ever measured
#: (S. Bekman, Machine Learning Engineering, "Maximum achievable matmul FLOPS": A100 85.9 %, H100 and H200 80.3 %, B200 77.6 %);
#: GeForce cards are near their sheet, which names the clock that they hold.
REACHED = {8.0: 0.77, 9.0: 0.72, 10.0: 0.70}
REACHED_ELSEWHERE = 0.85
READ = 0.9  # of the memory's nominal speed
#: Share of the sheet that flash attention 2 reaches (Dao 2023: 225 of 312 TFLOP/s on an A100, 335 of 989 on an H100).
ATTENTION = {8.0: 0.6, 9.0: 0.34, 10.0: 0.17}
ATTENTION_ELSEWHERE = 0.6
LANE = {3: 0.8, 4: 1.6, 5: 3.1}  # GB/s that a lane of PCI Express reaches, about four fifths of its nominal speed
#: FLOPs that a multiprocessor does in a clock, dense 16-bit products with fp32 sums; those of GeForce cards, others twice as many.
PER_CLOCK = {7.0: 1024, 7.5: 512, 8.0: 2048, 8.6: 512, 8.9: 512, 9.0: 4096, 10.0: 8192, 10.3: 8192, 12.0: 512}
_HALVED = (7.5, 8.6, 8.9, 12.0)  # generations whose GeForce cards have half the rate
_WITHOUT_TENSOR_CORES = re.compile(r"\b(gtx|mx\d+|t[4-6]00|t1000|t1200)\b")


@dataclass(frozen=True)
class Card:
    """One card, with the speeds that programs reach.

    Attributes:
        flops: FLOP/s of large products in 16 bits with sums in fp32.
        memory: Bytes.
        memory_speed, link_speed: Bytes a second of its memory, and to and from the host.
        bf16: Whether it computes in bf16.
        measured: Whether the speeds were measured here.
        capability: Generation (compute capability).
        attention: FLOP/s of attention; 0: as products.
        derived: Whether the speeds were derived because the table does not know it.
    """

    name: str
    flops: float
    memory: int
    memory_speed: float
    link_speed: float
    bf16: bool = True
    measured: bool = False
    capability: float = 8.9
    attention: float = 0.0
    derived: bool = False

    @property
    def attention_flops(self) -> float:
        """FLOP/s of attention."""
        return self.attention or self.flops


def _card(name: str, teraflops: float, gib: float, memory_gb_s: float, bus: tuple[int, int], capability: float) -> Card:
    generation, lanes = bus
    sheet = teraflops * 1e12
    return Card(
        name, REACHED.get(capability, REACHED_ELSEWHERE) * sheet, round(gib * GIB), READ * memory_gb_s * GB,
        LANE[generation] * lanes * GB, bf16=capability >= 8, capability=capability,
        attention=ATTENTION.get(capability, ATTENTION_ELSEWHERE) * sheet,
    )  # fmt: skip


def _read(rows: str) -> dict[str, Card]:
    cards = {}
    for line in rows.strip().splitlines():
        name, teraflops, gib, speed, bus, capability = line.split()
        generation, lanes = bus.split("x")
        cards[name] = _card(
            name, float(teraflops), float(gib), float(speed), (int(generation), int(lanes)), float(capability)
        )
    return cards


CARDS = _read(ROWS)
DEFAULT = "rtx-4060"
CPU = Card("this CPU", 1e11, 0, 2e10, 1e10, capability=0.0)

_NOISE = {
    "nvidia",
    "geforce",
    "tesla",
    "gpu",
    "generation",
    "graphics",
    "edition",
    "workstation",
    "server",
    "hbm3",
    "hbm3e",
}
_FORM = re.compile(r"^(pcie|sxm\d?)$")
_SIZE = re.compile(r"^\d+gb$")
SAME_MEMORY = 0.15  # by which what a driver says may differ from the sheet


def words_of(name: str) -> frozenset[str]:
    """The words of a card's name that tell it from others: `NVIDIA GeForce RTX 4060 Ti` has rtx, 4060 and ti."""
    return frozenset(re.findall(r"[a-z0-9.]+", name.lower().replace("max-q", "maxq"))) - _NOISE


def find(name: str, memory: int = 0) -> Card | None:
    """The card that the table has under its driver's name; None where it has none.

    Args:
        name: `NVIDIA A100-SXM4-80GB`, or as the table has it.
        memory: Bytes that it has; 0: not known. One with another memory is another card, whatever its name.
    """
    words = words_of(name)
    sizes = {word for word in words if _SIZE.match(word)}
    for unsaid in (set(), {word for word in words if _FORM.match(word)}):
        wanted = words - sizes - unsaid
        alike = [
            card for card in CARDS.values()
            if {word for word in words_of(card.name) if not _SIZE.match(word)} == wanted
            and (not memory or abs(card.memory - memory) <= SAME_MEMORY * card.memory)
            and (memory or not sizes or f"{card.memory / GIB:.0f}gb" in sizes)
        ]  # fmt: skip
        if alike:
            return min(alike, key=lambda card: abs(card.memory - (memory or card.memory)))
    return None


def derived(
    name: str, capability: tuple[int, int], multiprocessors: int, memory: int, clock: float = 0.0, memory_speed: float = 0.0
) -> Card:  # fmt: skip
    """A card that the table lacks, from what its driver says.

    Args:
        name: As the driver gives it.
        capability: Its compute capability.
        multiprocessors: How many it has.
        memory: Bytes.
        clock: Of the multiprocessors in Hz; 0: not known, 1.5 GHz are assumed.
        memory_speed: Nominal bytes a second; 0: not known, 11 GB/s a multiprocessor are assumed, an RTX 4060's share.
    """
    generation = capability[0] + capability[1] / 10
    known = max((each for each in PER_CLOCK if each <= generation), default=7.0)
    rate = PER_CLOCK[known] * (1 if known not in _HALVED or "geforce" in name.lower() else 2)
    if _WITHOUT_TENSOR_CORES.search(name.lower()):
        rate = 256
    teraflops = multiprocessors * (clock or 1.5e9) * rate / 1e12
    speed = (memory_speed or 11e9 * multiprocessors) / GB
    bus = (3 if generation < 8 else 4 if generation < 10 else 5, 8 if multiprocessors < 40 else 16)
    return replace(_card(name, teraflops, memory / GIB, speed, bus, known), derived=True, capability=generation)


def named(name: str) -> Card:
    """Look up a GPU by its name, as the table has it or as its driver gives it.

    Raises:
        InputError: for an unknown one.
    """
    if name in CARDS:
        return CARDS[name]
    if (card := find(name)) is not None:
        return card
    near = difflib.get_close_matches(name.lower(), CARDS, n=8, cutoff=0.3) or [DEFAULT]
    raise InputError(
        f"The card {name!r} is not known.",
        f"Like it: {', '.join(near)}; {len(CARDS)} are known.",
        "Name one of them, or give --measured FILE of `make bench-gpu`.",
    )


def measured(path: Path) -> Card:
    """Load a GPU's speeds as `make bench-gpu` measured them: the last `card` in a file of JSON lines, or of one JSON object.

    Raises:
        InputError: when the file holds no such measurement.
    """
    try:
        figures = _last_card(path.read_text(encoding="utf-8"))
        known = find(str(figures["name"]), int(figures["memory"]))
        return Card(
            str(figures["name"]), float(figures["flops"]), int(figures["memory"]), float(figures["memory_speed"]),
            float(figures["link_speed"]), bool(figures["bf16"]), measured=True,
            capability=float(figures.get("capability", known.capability if known else 8.9)),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold a measured card.", f"{type(error).__name__}: {error}", "Run: make bench-gpu"
        ) from error


def _last_card(text: str) -> dict[str, Any]:
    try:
        objects = [json.loads(text)]
    except ValueError:
        objects = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # cut off
                objects.append(json.loads(line))
    found = [one["card"] for one in objects if isinstance(one, dict) and isinstance(one.get("card"), dict)]
    if not found:
        raise ValueError("no object in it has a card")
    return dict(found[-1])


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
