"""What a report is made of: frozen values, no behaviour.

Every section may be empty and is then left out of the page. Numbers are raw (bytes, seconds, shares between 0 and 1);
the page formats them. A number that is not finite is shown as "–" and never drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["better", "worse", "undecided"]
QuoteStatus = Literal["verified", "repaired", "unverified"]
AnswerKind = Literal["extractive", "written"]


@dataclass(frozen=True)
class Interval:
    """A measured value with the ends of its 95 % interval, all in the same unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class KeyFigures:
    """The tiles at the head of the page; the names are those of the demo's JSON line. What is None is left out.

    Accuracies are shares (0.533 is shown as 53.3 %), memory is in bytes, `seconds` is the whole run's wall time. Give
    the two verdicts wherever before and after are both known: a tile must not show noise as progress.
    """

    model: str
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    bits_per_byte_before: float | None = None
    bits_per_byte_after: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    bits_per_byte_verdict: Direction | None = None
    accuracy_verdict: Direction | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class VerdictRow:
    """One paired comparison, before against after, on the same `n` items.

    Values are given in `unit` and shown with `digits` decimals: for an accuracy pass percent and "%". `sentence` is the
    verdict in plain words. `difference` is after minus before with the interval of the *paired* difference, which alone
    decides: two intervals may overlap and the difference still be real. `chance` is what guessing would score, drawn as
    a dotted line. Verdicts of the same unit are drawn on the same axis.
    """

    name: str
    sentence: str
    before: Interval
    after: Interval
    unit: str
    n: int
    p: float | None
    direction: Direction
    digits: int = 3
    difference: Interval | None = None
    lower_is_better: bool | None = None
    chance: float | None = None
    note: str = ""


@dataclass(frozen=True)
class LossPoint:
    """One logged step: tokens seen so far, loss in nats per token, learning rate, and held-out loss if measured."""

    step: int
    tokens: int
    loss: float
    learning_rate: float | None = None
    held_out: float | None = None


@dataclass(frozen=True)
class MemoryItem:
    """One line of the memory ledger, in bytes; `measured` is None where the line cannot be measured on its own."""

    item: str
    predicted: int
    measured: int | None = None
    note: str = ""


@dataclass(frozen=True)
class QuantisationRow:
    """What one way of storing the weights costs: bits per weight, bits per byte of held-out text, size in bytes."""

    scheme: str
    bits_per_weight: float
    bits_per_byte: Interval
    bytes: int
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """One prompt continued by the base and by the tuned model with the same seed and settings."""

    prompt: str
    kind: str
    settings: str
    base: str
    tuned: str
    notes: str = ""
    language: str = "it"


@dataclass(frozen=True)
class QuoteRow:
    """A quotation, what became of its verification, where it stands, and the passage it was taken from."""

    text: str
    status: QuoteStatus
    citation: str
    passage: str = ""


@dataclass(frozen=True)
class Exchange:
    """A question to the library and its answer; `kind` says whether the model wrote it or it was cut from a passage."""

    question: str
    answer: str
    kind: AnswerKind
    quotes: tuple[QuoteRow, ...] = ()
    language: str = "it"


@dataclass(frozen=True)
class Imprint:
    """What every page says at its head, at its end and in its colophon. Only the first six fields are required.

    `headline` is one honest sentence about what was found; `method` and `limits` are paragraphs.
    """

    title: str
    headline: str
    created: str
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, str] = field(default_factory=dict)
    method: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportData(Imprint):
    """Everything the page shows.

    `memory_total` replaces the column sums where the peak is not the sum of its lines. `recipe` is the run's recipe as
    YAML text.
    """

    key: KeyFigures | None = None
    verdicts: tuple[VerdictRow, ...] = ()
    loss: tuple[LossPoint, ...] = ()
    memory: tuple[MemoryItem, ...] = ()
    memory_total: MemoryItem | None = None
    quantisation: tuple[QuantisationRow, ...] = ()
    pairs: tuple[Pair, ...] = ()
    conversation: tuple[Exchange, ...] = ()
    recipe: str = ""
