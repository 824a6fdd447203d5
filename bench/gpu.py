"""The 8B training step and writing on a CUDA card, in stages inside a budget of minutes; no checkpoint, no network, no installation.

Each part runs in a child process with its own limit, and its rows are in the file as soon as they are measured (JSON lines):
whatever hangs, crashes or runs out of memory costs its own time and no more. The most valuable comes first; what no longer
fits into the budget is left out by name. `--resume` goes on in a file, `--plan` prints stages and their budgets as JSON.

a starts    does each part work on this card: 4-bit weights and products, attention, pinned memory, kernels, captured graphs
b parity    every lever, kernels off and on, against autograd in fp32
c memory    an RTX 4060's own plan (8 GB, host 32 GB) under a 7.5 GiB cap: allocated, reserved, predicted
d speeds    tokens/s at 2,048, 4,096 and 8,192, capped and not, kernels off and on in turn
e long      65,536 tokens in one document under that plan
f decoding  tokens/s while writing, one text and eight
g peers     the same step by TRL and by Unsloth, where they are installed

`--tiny-cpu` runs the same lines on a tiny shape without a card; its rows say so and its figures mean nothing. This file needs
Python alone; its children need what bench/README.md lists. The last line is one JSON object.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import gpu_table
from gpu_runner import Journal, Part, Row, Runner, whole_rows

HERE = Path(__file__).resolve().parent
CAP = int(7.5 * 2**30)
STAGES = {
    "starts": "does each part work on this card?", "parity": "does every lever compute the same?",
    "memory": "what does an RTX 4060's plan hold?", "speeds": "how fast is the step, kernels off and on?",
    "long": "does the longest context run?", "decoding": "how fast is writing?", "peers": "how fast are the others?",
}  # fmt: skip
#: The most that a stage may take, as a share of all: what hangs in an early one leaves time for the others.
SHARES = {"starts": 0.25, "parity": 0.25, "memory": 0.25, "speeds": 0.5, "long": 0.3, "decoding": 0.3, "peers": 1.0}
LETTERS = dict(zip("abcdefg", STAGES, strict=True))
UNSLOTH = ("unsloth", "unsloth, offload_layers", "unsloth, offload_layers and tiled MLP")
KERNELS = "Triton kernels"  # the trial of all of them
LAST = 4.0  # seconds kept for the table


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything; nothing runs longer [9]")
    parser.add_argument("--stages", default="a,b,c,d,e,f,g", help="letters or names, with commas")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[2048, 8192, 4096], help="lengths of the speeds, in this order"
    )
    parser.add_argument("--steps", type=int, default=3, help="counted steps of a turn [3]")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contestant [2]")
    parser.add_argument("--longest", type=int, default=65_536, help="tokens of stage e [65536]")
    parser.add_argument("--host-memory", metavar="SIZE", help="of the machine, where it says less than it has: 128GB")
    parser.add_argument("--commit", help="of this checkout, where there is no repository to ask")
    parser.add_argument("--unsloth-python", help="Python of an environment that has Unsloth")
    parser.add_argument("--tiny-cpu", action="store_true", help="dry run of the logic without a card")
    parser.add_argument("--out", type=Path, help="file of results [results/gpu_llama3-8b_CARD_DATE.jsonl]")
    parser.add_argument(
        "--resume", action="store_true", help="go on in --out: what is finished there is not done again"
    )
    parser.add_argument("--plan", action="store_true", help="print the stages and their budgets as JSON")
    options = parser.parse_args()
    names = [LETTERS.get(name.strip(), name.strip()) for name in options.stages.split(",") if name.strip()]
    if unknown := [name for name in names if name not in STAGES]:
        parser.error(
            f"there is no stage {', '.join(unknown)}; there are {', '.join(f'{a} {b}' for a, b in LETTERS.items())}"
        )
    if not 0 < options.minutes < 24 * 60 or min(options.tokens) < 64 or options.rounds < 1 or options.steps < 1:
        parser.error("--minutes must be above 0, --tokens at least 64, --rounds and --steps at least 1")
    if options.host_memory and not re.fullmatch(r"\d+(\.\d+)? ?[GT]i?B", options.host_memory, re.IGNORECASE):
        parser.error(f"--host-memory {options.host_memory} is no size: write 128GB")
    if options.resume and (options.out is None or not options.out.is_file()):
        parser.error("--resume needs the file that --out names")
    if options.out is not None and options.out.exists() and not options.resume:
        parser.error(f"{options.out} exists: go on in it with --resume, or name another file")
    options.chosen = [name for name in STAGES if name in names]
    options.device, options.shape = ("cpu", "tiny") if options.tiny_cpu else ("cuda", "8b")
    return options


class Stages:
    """The parts of every stage, in the order of their value.

    Args:
        options: The command line.
        machine: What the first part found: names of what can be tried, and the card.
        folder: Where the peers' checkpoint goes.
    """

    def __init__(self, options: argparse.Namespace, machine: Row, folder: Path) -> None:
        self.options, self.machine, self.folder = options, machine, folder
        self.base: Row = {
            "device": options.device, "shape": options.shape, "host_memory": options.host_memory, "card": machine.get("card"),
        }  # fmt: skip
        self.kernels = [False, True] if machine.get("kernels", True) else [False]

    def groups(self, stage: str) -> list[list[Part]]:
        """Its parts, in groups that share a process."""
        found: list[list[Part]] = getattr(self, stage)()
        return found

    def part(self, stage: str, name: str, call: str, seconds: float, limit: float, **job: Any) -> Part:
        """One part with the job that all have."""
        return Part(stage, name, call, {**self.base, **job}, seconds, limit)

    def starts(self) -> list[list[Part]]:
        """Each trial, and each kernel; last the kernels' own trial, whose outcome is remembered."""
        names = self.machine.get("trials", ["each trial"])
        first = [name for name in names if name != KERNELS]
        last = [self.part("starts", name, "gpu_starts:trial", 3, 150, trial=name) for name in names if name == KERNELS]
        kernels = [
            self.part("starts", f"kernel {name}", "gpu_starts:kernel", 3, 90, kernel=name)
            for name in self.machine.get("kernels", ["of each name"] if not self.machine else [])
        ]
        return [
            [self.part("starts", name, "gpu_starts:trial", 3, 60, trial=name) for name in first],
            kernels,
            last,
        ]

    def parity(self) -> list[list[Part]]:
        """Each lever, first without kernels."""
        names = self.machine.get("levers", ["each lever"])
        return [
            [
                self.part("parity", f"{name}{', kernels' * on}", "gpu_parity:parity", 3, 60, lever=name, kernels=on)
                for name in names
            ]
            for on in self.kernels
        ]

    def memory(self) -> list[list[Part]]:
        """The small card's plan, a process for each: an allocator that others have used is no measure."""
        lengths = sorted({min(self.options.tokens), max(self.options.tokens)})
        return [
            [
                self.part(
                    "memory", f"{tokens:,} tokens", "gpu_step:memory", 12, 90, tokens=tokens, cap=CAP, small_card=True,
                    kernels=on, steps=2,
                )
            ]
            for tokens in lengths
            for on in self.kernels[-1:]
        ]  # fmt: skip

    def speeds(self) -> list[list[Part]]:
        """Capped before uncapped, each length by itself; then the plan that recomputes every layer, as others do, uncapped."""
        ends = sorted({min(self.options.tokens), max(self.options.tokens)})
        wanted = [(tokens, cap, False) for tokens in self.options.tokens for cap in (CAP, None)]
        job = {"steps": self.options.steps, "rounds": self.options.rounds}
        return [
            [
                self.part(
                    "speeds", f"{tokens:,} tokens, {'7.5 GiB' if cap else 'no cap'}{', all recomputed' * recompute}",
                    "gpu_step:speeds", 15, 120, tokens=tokens, cap=cap, recompute=recompute,
                    kernels=self.kernels[-1:] if recompute else self.kernels, **job,
                )
            ]
            for tokens, cap, recompute in [*wanted, *((tokens, None, True) for tokens in ends)]
        ]  # fmt: skip

    def long(self) -> list[list[Part]]:
        """One document."""
        tokens = self.options.longest
        job = {
            "tokens": tokens,
            "cap": CAP,
            "small_card": True,
            "one_document": True,
            "kernels": self.kernels[-1],
            "steps": 1,
        }
        return [[self.part("long", f"{tokens:,} tokens", "gpu_step:memory", 40, 240, **job)]]

    def decoding(self) -> list[list[Part]]:
        """Each way of writing."""
        lengths = (4, 12) if self.options.tiny_cpu else (16, 80)
        return [
            [
                self.part(
                    "decoding", f"{way}, {streams} at once", "gpu_decoding:decoding", 10, 60, way=way, streams=streams,
                    kernels=self.kernels[-1],
                    tokens=lengths, rounds=3,
                )
            ]
            for way in self.machine.get("ways", ["each way"])
            for streams in (1, 8)
        ]  # fmt: skip

    def peers(self) -> list[list[Part]]:
        """The checkpoint, then each peer by turns of length; its Python is that which has it."""
        contestants = dict.fromkeys(UNSLOTH, self.options.unsloth_python) if self.options.unsloth_python else {}
        if all(importlib.util.find_spec(name) for name in ("trl", "peft", "datasets")):
            contestants = {"trl": sys.executable, **contestants}
        model = {"model": str(self.folder / "model")}
        write = self.part("peers", "checkpoint", "gpu_peers:write_checkpoint", 20, 90, **model)
        rows = []
        for tokens in sorted({min(self.options.tokens), max(self.options.tokens)}):
            for cap in (CAP, None):
                for name, python in contestants.items():
                    part = self.part(
                        "peers", f"{name}, {tokens:,} tokens, {'7.5 GiB' if cap else 'no cap'}", "gpu_peers:peer", 25, 120,
                        peer=name, tokens=tokens, cap=cap, steps=self.options.steps + 1, **model,
                    )  # fmt: skip
                    rows.append([Part(**{**vars(part), "python": python})])
        return [[write], *rows] if rows else []


def plan_of(options: argparse.Namespace) -> Row:
    """The stages and their budgets, for machines."""
    stages = Stages(options, {}, Path())
    rows = []
    for name in options.chosen:
        parts = [part for group in stages.groups(name) for part in group]
        rows.append(
            {
                "stage": name, "question": STAGES[name], "seconds": sum(part.seconds for part in parts),
                "limit_seconds": SHARES[name] * options.minutes * 60,
                "parts": [{"part": part.name, "seconds": part.seconds, "limit_seconds": part.limit} for part in parts],
            }
        )  # fmt: skip
    return {
        "minutes": options.minutes,
        "cap_bytes": CAP,
        "device": options.device,
        "shape": options.shape,
        "stages": rows,
    }


def opened(options: argparse.Namespace, started: float) -> Journal:
    """The file of results with its first row; says why it cannot be written."""
    place = options.out
    if place is None:
        where = Path(tempfile.gettempdir()) if options.tiny_cpu else HERE.parent / "results"
        name = f"gpu_llama3-8b_{card_name()}_{datetime.now(UTC):%Y-%m-%d_%H%M%S}.jsonl"
        place = where / name
    try:
        journal = Journal(place, started)
    except OSError as error:
        refuse(f"{place} cannot be written: {error.strerror}.\nName another file with --out.")
    if options.resume and (other := of_another(journal.rows, options)):
        refuse(f"{place} is of {other}.\nName another file with --out.")
    first = {
        "stage": "run", "part": "begin", "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "minutes": options.minutes, "device": options.device,
        "shape": options.shape, "python": platform.python_version(), "stages": options.chosen,
    }  # fmt: skip
    journal.append({**first, **({"commit": options.commit} if options.commit else {})})
    return journal


def refuse(text: str) -> NoReturn:
    """Say what is wrong with the input, and end."""
    print(text, file=sys.stderr)
    sys.exit(2)


def of_another(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """What another machine or shape a file's rows are of; empty where it can be gone on with."""
    begun = next((row for row in rows if row.get("stage") == "run"), {})
    if begun.get("device") != options.device:
        return "a dry run without a card" if begun.get("device") == "cpu" else "a card" if begun else "something else"
    gpu = found_machine(rows).get("hardware", {}).get("gpu")
    here = card_name()
    return f"another card: {gpu}" if gpu and here != "card" and slug(gpu) != here else ""


def slug(name: str) -> str:
    """A name as a file's name has it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def card_name() -> str:
    """The card as the driver names it, for the file's name; `card` where it does not answer."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        found = ""
    return slug(found.strip().partition("\n")[0]) or "card"


def shown(row: Row) -> None:
    """A row as it comes, on stderr."""
    if row.get("ended"):
        note = f": {row['note']}" if row.get("note") else ""
        print(
            f"{row['at']:7.1f} s  {row['stage']:<9}{row['part']}: {row['outcome']}{note}"[:160],
            file=sys.stderr,
            flush=True,
        )


def run(options: argparse.Namespace, runner: Runner, folder: Path) -> Iterator[str]:
    """Run the machine's part, then every stage; yields the name of a stage before it begins."""
    base = {"device": options.device, "shape": options.shape}
    yield "machine"
    runner.again("machine")  # a file may be gone on with on another day: what the machine is, is asked each time
    runner.run([Part("machine", "machine", "gpu_starts:machine", base, 5, 120)])
    machine = found_machine(runner.journal.rows)
    if machine.get("outcome") == "no card":
        return
    stages = Stages(options, machine, folder)
    for name in options.chosen:
        yield name
        until = time.monotonic() + SHARES[name] * options.minutes * 60
        for group in stages.groups(name):
            runner.run(group, until)


def found_machine(rows: Sequence[Row]) -> Row:
    """What the last machine's rows say, together."""
    facts: Row = {}
    for row in rows:
        if row["stage"] == "machine" and not row.get("ended"):
            facts |= {name: value for name, value in row.items() if value is not None}
    return facts


def stopped(_signal: int, _frame: FrameType | None) -> None:
    """A request to end is as Ctrl-C."""
    raise KeyboardInterrupt


def main() -> None:
    """All stages; ends with a table and one JSON line."""
    options, started = arguments(), time.monotonic()
    if options.plan:
        print(json.dumps(plan_of(options)))
        return
    signal.signal(signal.SIGTERM, stopped)
    journal = opened(options, started)
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as name:
        runner = Runner(
            journal,
            started + options.minutes * 60 - LAST,
            Path(name),
            shown,
            ("torch", "gpu_step"),
            ahead=(os.cpu_count() or 1) > 4,
        )
        try:
            for stage in run(options, runner, Path(name)):
                print(f"{time.monotonic() - started:7.1f} s  {stage} …", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            interrupted = True
            for number in (signal.SIGINT, signal.SIGTERM):  # the end is written, whoever else asks
                signal.signal(number, signal.SIG_IGN)
        finally:
            runner.stop()
    machine = found_machine(journal.rows)
    if machine.get("outcome") == "no card":
        journal.close()
        if len(whole_rows(journal.path)) < 4 and not options.resume:
            os.unlink(journal.path)
        refuse(f"This benchmark needs a CUDA card.\n{machine['note']}.\nWithout one: --tiny-cpu.")
    last = {
        "stage": "run", "part": "end", "interrupted": interrupted, "seconds": round(time.monotonic() - started, 1),
        "file": str(journal.path), "device": options.device, "shape": options.shape,
    }  # fmt: skip
    try:  # the rows are there whatever becomes of their summary
        last |= gpu_table.summary(journal.rows)
        lines = gpu_table.table(journal.rows)
    except Exception as error:
        last["summary_failed"] = repr(error)
        lines = [f"{len(journal.rows)} rows; their summary failed: {error!r}"]
    last = journal.append(last)
    journal.close()
    print("\n".join(lines))
    print(json.dumps(last))
    sys.exit(130 if interrupted else 0)


if __name__ == "__main__":
    main()
