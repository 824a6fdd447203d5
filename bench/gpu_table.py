"""What the card's benchmark found, as a table that fits a screen (80 × 24) and as figures for machines.

Needs: stilnovo.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

LINES, COLUMNS = 22, 79  # what a screen has, less the prompt and the line of JSON
GIB, MIB = 2**30, 2**20
Row = dict[str, Any]


def latest(rows: Sequence[Row]) -> list[Row]:
    """Rows of each part's last attempt, the run's own rows left out."""
    tries: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row["stage"], row["part"])
        tries[key] = max(tries.get(key, 1), row.get("attempt", 1))
    return [row for row in rows if row["stage"] != "run" and row.get("attempt", 1) == tries[row["stage"], row["part"]]]


def ends(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """The end of each part."""
    return {(row["stage"], row["part"]): row for row in latest(rows) if row.get("ended")}


def judged(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """The outcome of each part: that of its end, or of a row that differs."""
    found = {key: str(row["outcome"]) for key, row in ends(rows).items()}
    for row in latest(rows):
        key = (row["stage"], row["part"])
        if not row.get("ended") and row.get("outcome") not in ("ok", None) and found.get(key) == "ok":
            found[key] = row["outcome"]
    return found


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many parts of each stage came out how."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for (stage, _), outcome in judged(rows).items():
        found[stage][outcome] += 1
    return {stage: dict(counter) for stage, counter in found.items()}


def parts_that(rows: Sequence[Row], *outcomes: str) -> list[str]:
    """Parts with one of these outcomes, as `stage: part`."""
    return [f"{stage}: {part}" for (stage, part), outcome in judged(rows).items() if outcome in outcomes]


def failures(rows: Sequence[Row]) -> list[str]:
    """Parts that went wrong, each with its reason."""
    notes = {(row["stage"], row["part"]): row["note"] for row in latest(rows) if row.get("note")}
    fine = ("ok", "not here", "left out")
    return [
        f"{stage}: {part}: {outcome}: {notes.get((stage, part), '')}".rstrip(": ")
        for (stage, part), outcome in judged(rows).items()
        if outcome not in fine
    ]


def speeds(rows: Sequence[Row], stage: str, *names: str) -> dict[tuple[Any, ...], tuple[float, int]]:
    """Median tokens a second, and of how many, by the values of these columns."""
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in latest(rows):
        if row["stage"] == stage and row.get("tokens_per_second"):
            found[tuple(row.get(name) for name in names)].append(row["tokens_per_second"])
    return {key: (statistics.median(values), len(values)) for key, values in found.items()}


def figures(rows: Sequence[Row]) -> Row:
    """The figures of every stage; what was not measured is not in them."""
    steps = speeds(rows, "speeds", "tokens", "cap_bytes", "recompute", "kernels")
    both: list[Row] = []
    for tokens, cap in dict.fromkeys(key[:2] for key in steps):
        off, on = (steps.get((tokens, cap, False, kernels)) for kernels in (False, True))
        again = steps.get((tokens, cap, True, True)) or steps.get((tokens, cap, True, False))
        row: Row = {"tokens": tokens, "cap_bytes": cap}
        if off:
            row |= {"tokens_per_second_kernels_off": off[0], "n": off[1]}
        if on:
            row |= {"tokens_per_second_kernels_on": on[0], "n": on[1]}
        if again:
            row["all_recomputed_tokens_per_second"] = again[0]
        if off and on:
            row["ratio"] = on[0] / off[0]
        both.append(row)
    names = ("tokens", "cap_bytes", "predicted_bytes", "allocated_bytes", "reserved_bytes", "tokens_per_second")
    held = {
        stage: [
            {name: row.get(name) for name in names}
            for row in latest(rows)
            if row["stage"] == stage and "step_seconds" in row
        ]
        for stage in ("memory", "long")
    }
    parity = [row for row in latest(rows) if row["stage"] == "parity" and "gradient" in row]
    return {
        "speeds": both, **held,
        "parity": {"compared": len(parity), "worst_gradient": max((row["gradient"] for row in parity), default=None)},
        "decoding": [
            {"streams": streams, "way": way, "tokens_per_second": value[0]}
            for (streams, way), value in speeds(rows, "decoding", "streams", "way").items()
        ],
        "peers": [
            {"peer": peer, "tokens": tokens, "cap_bytes": cap, "tokens_per_second": value[0]}
            for (peer, tokens, cap), value in speeds(rows, "peers", "peer", "tokens", "cap_bytes").items()
        ],
    }  # fmt: skip


def summary(rows: Sequence[Row]) -> Row:
    """What the last row of a run says beside its own facts."""
    return {
        "counts": counts(rows), "figures": figures(rows), "left_out": parts_that(rows, "left out"),
        "failures": failures(rows),
    }  # fmt: skip


def _cap(row: Row) -> str:
    return "7.5 GiB" if row["cap_bytes"] else "no cap"


def _gib(size: float | None) -> str:
    return "–" if size is None else f"{size / GIB:.2f}" if size > GIB / 10 else f"{size / GIB:.4f}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _held(stage: str, rows: Iterable[Row]) -> list[str]:
    return [
        f"{stage:<9}{row['tokens']:>6,} tokens: allocated {_gib(row['allocated_bytes'])}, reserved"
        f" {_gib(row['reserved_bytes'])}, predicted {_gib(row['predicted_bytes'])} GiB;"
        f" {_rate(row['tokens_per_second'])}/s"
        for row in rows
    ]


def _speed_lines(found: Row) -> list[str]:
    lines = []
    for row in found["speeds"]:
        off, on = (row.get(f"tokens_per_second_kernels_{name}") for name in ("off", "on"))
        parts = [f"{_rate(off)} off, {_rate(on)} on" + (f" ({row['ratio']:.2f} ×)" if "ratio" in row else "")]
        if "all_recomputed_tokens_per_second" in row:
            parts.append(f"{_rate(row['all_recomputed_tokens_per_second'])} all recomputed")
        lines.append(f"speeds   {row['tokens']:>6,} {_cap(row)}: kernels {', '.join(parts)} tok/s")
    return lines


def _peer_lines(found: Row) -> list[str]:
    lengths: dict[tuple[int, str], list[str]] = defaultdict(list)
    for row in found["peers"]:
        lengths[row["tokens"], _cap(row)].append(f"{row['peer']} {_rate(row['tokens_per_second'])}")
    return [f"peers    {tokens:>6,} {cap}: {', '.join(peers)} tok/s" for (tokens, cap), peers in lengths.items()]


def _decoding_lines(found: Row) -> list[str]:
    ways: dict[str, dict[int, float]] = defaultdict(dict)
    for row in found["decoding"]:
        ways[row["way"]][row["streams"]] = row["tokens_per_second"]
    return [
        f"decoding {way}: "
        + ", ".join(f"{_rate(rate)} tok/s with {streams} at once" for streams, rate in sorted(by.items()))
        for way, by in ways.items()
    ]


def table(rows: Sequence[Row]) -> list[str]:
    """The table's lines."""
    machine: Row = {}
    for row in rows:
        if row["stage"] == "machine":
            machine |= row
    begun, found = next(row for row in rows if row["stage"] == "run"), figures(rows)
    hardware, versions = machine.get("hardware", {}), machine.get("versions", {})
    name = hardware.get("gpu", "no card: the figures mean nothing" if begun["device"] == "cpu" else "card unknown")
    lines = [
        f"{name}, torch {versions.get('torch', '?')}, {rows[-1].get('at', 0) / 60:.1f} of {begun['minutes']:g} minutes"
    ]
    for stage in ("starts", "parity"):
        by = counts(rows).get(stage)
        if by:
            worst = found["parity"]["worst_gradient"] if stage == "parity" else None
            more = "" if worst is None else f"; gradients within {100 * worst:.2g} %"
            lines.append(f"{stage:<9}" + ", ".join(f"{count} {outcome}" for outcome, count in by.items()) + more)
    lines += [*_held("memory", found["memory"]), *_speed_lines(found), *_held("long", found["long"])]
    lines += [*_decoding_lines(found), *_peer_lines(found)]
    wrong, missing = failures(rows), parts_that(rows, "left out")
    if missing:
        stages = Counter(part.partition(":")[0] for part in missing)
        wrong.append("left out, no time: " + ", ".join(f"{count} of {stage}" for stage, count in stages.items()))
    room = LINES - len(lines)
    if len(wrong) > room:
        wrong = [*wrong[: max(0, room - 1)], f"… and {len(wrong) - max(0, room - 1)} more in the file"]
    return [line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…" for line in [*lines, *wrong]][:LINES]
