"""Atomic checkpoints: written beside their place, checksummed, then renamed, so that a kill at any moment spoils none.

A checkpoint holds the adapter (PEFT's format), the optimizer's states, the random states, the position in the data and
the step. Resuming from it repeats the uninterrupted run: on a processor to the last bit; on a card only with
`train.deterministic`, for there attention's backward adds up in an order that no two runs share. A damaged newest checkpoint
is passed over for the one before, and said so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from stilnovo.errors import InputError
from stilnovo.runlog import disk_errors, sha256_file, write_atomic


def save(folder: Path, step: int, state: dict[str, Any], keep: int, best: Collection[int] = ()) -> Path:
    """Write `folder/step-N/` and remove all but the newest `keep`. Returns its path.

    `best` are the steps to which the training may go back; of every checkpoint that stays, its best ones stay too.
    """
    target, partial = folder / f"step-{step}", folder / f".step-{step}.partial"
    with disk_errors(target):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _write_state(partial / "state.pt", state)
            write_atomic(
                partial / "checkpoint.json",
                json.dumps(
                    {"step": step, "best": sorted(best), "sha256": {"state.pt": sha256_file(partial / "state.pt")}}
                ),
            )
            shutil.rmtree(target, ignore_errors=True)
            os.replace(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    saved = steps(folder)
    bests = {kept for newer in saved[-keep:] for kept in _best_of(folder / f"step-{newer}")}
    for old in set(saved[:-keep]) - bests:
        shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    return target


def _noted(path: Path) -> dict[str, Any]:
    """Read `checkpoint.json`; empty where it is damaged."""
    try:
        noted = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _best_of(path: Path) -> list[int]:
    """Read the steps to which a checkpoint may go back; earlier versions noted at most one."""
    best = _noted(path).get("best")
    return best if isinstance(best, list) else [] if best is None else [best]


def _write_state(path: Path, state: dict[str, Any]) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:
        # On a full disk torch complains of its archive; the disk's own error lies beneath.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def steps(folder: Path) -> list[int]:
    """List the steps of the checkpoints in a folder, in order; damaged ones too."""
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return sorted(int(name) for name in names if name.isdigit())


def way_on(folder: Path) -> str:
    """Say from which step a run with these checkpoints goes on."""
    saved = steps(folder)
    return f"Continue from step {saved[-1]} with --resume." if saved else "There is no checkpoint yet: start anew."


def check_any(folder: Path) -> None:
    """Check that a folder holds a whole checkpoint, without loading it.

    Raises:
        InputError: when it does not.
    """
    saved = steps(folder)
    if not any(_is_whole(folder / f"step-{step}") for step in reversed(saved)):
        raise _none([f"step-{step}" for step in saved], folder)


def newest(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Load the newest whole checkpoint; also returns the names of damaged ones that were skipped.

    Raises:
        InputError: when there is none.
    """
    damaged: list[str] = []
    for step in reversed(steps(folder)):
        if (state := _read(folder / f"step-{step}")) is not None:
            return state, damaged
        damaged.append(f"step-{step}")
    raise _none(damaged, folder)


def _none(damaged: list[str], folder: Path) -> InputError:
    why = f"Damaged: {', '.join(damaged)}." if damaged else "The folder holds none."
    return InputError(
        f"There is no checkpoint to resume from in {folder}.", why, "Start anew in another folder (--out)."
    )


def at(folder: Path, step: int) -> dict[str, Any]:
    """Load the checkpoint of one step.

    Raises:
        InputError: when there is no whole checkpoint of it.
    """
    state = _read(folder / f"step-{step}")
    if state is None:
        raise InputError(
            f"The checkpoint of step {step} is missing or damaged in {folder}.",
            f"There are: {', '.join(map(str, steps(folder))) or 'none'}.",
            "Start anew in another folder (--out).",
        )
    return state


def _is_whole(path: Path) -> bool:
    try:
        return bool(_noted(path)["sha256"]["state.pt"] == sha256_file(path / "state.pt"))
    except (OSError, KeyError, TypeError):
        return False


def _read(path: Path) -> dict[str, Any] | None:
    """Load a checkpoint; None where it is not whole."""
    if not _is_whole(path):
        return None
    state: dict[str, Any] = torch.load(path / "state.pt", weights_only=True, map_location="cpu")
    return state


def random_state(device: torch.device) -> dict[str, Any]:
    """Get the states of torch's random generators, of the CPU and of the device."""
    card = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **card}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore `random_state`; a card's is left out on another kind of device, where the run goes on with other numbers."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":  # a run may go on on a processor
        torch.cuda.set_rng_state(state["cuda"], device)
