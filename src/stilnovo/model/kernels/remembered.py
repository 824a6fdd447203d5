"""Whether the kernels agree with torch on a card, tried once and remembered in the user's cache.

The answer holds for one card's name and capability, one torch, one Triton, one driver and one text of our kernels: each change
is another file, `kernels/HASH.json` in the cache. A file that is damaged or of another form is as good as none, and a cache
that cannot be written is no error: the trial is repeated by the next process.

Unusual: the trial runs in a child process. A kernel that reads beyond its memory leaves its process without a card.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from stilnovo.errors import StilnovoError
from stilnovo.runlog import cache_folder, write_atomic

PATIENCE = 300.0  # seconds: each kernel is compiled for each type and width
PROGRAM = """
import json, sys
from stilnovo.model.kernels import parity
json.dump(parity.errors(int(sys.argv[1])), sys.stdout)
"""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parity:
    """What a trial of all kernels found.

    Attributes:
        passed: Whether every kernel agrees with its formula.
        reason: Why not.
        errors: Largest relative error by operator.
        lasting: Whether a later trial would find the same: not where memory ran out.
    """

    passed: bool
    reason: str = ""
    errors: dict[str, float] | None = None
    lasting: bool = True


def agreed(device: torch.device) -> bool:
    """Whether the kernels passed their trial on this card; the first time it is made, and what came of it is logged."""
    try:
        parity = _read(_path(facts(device)))
    except Exception as error:  # a Triton that is installed and cannot be imported
        log.warning("The Triton kernels are not used: %s: %s", type(error).__name__, error)
        return False
    if parity is None:
        log.info("The Triton kernels are tried on this card, once (it takes up to a minute).")
        parity = trial(device)
        if not parity.passed:
            log.warning(
                "The Triton kernels are not used: %s Training is slower, nothing else. stilnovo doctor tries them again.",
                parity.reason,
            )
    return parity.passed


def trial(device: torch.device) -> Parity:
    """Try all kernels on this card now, in a process of its own, and remember the outcome."""
    parity = _outcome(device)
    if parity.lasting:
        try:
            known = facts(device)
            write_atomic(_path(known), json.dumps({"facts": known, "parity": asdict(parity)}, indent=1) + "\n")
        except (StilnovoError, OSError, ImportError) as error:
            log.debug("The kernels' trial is not remembered: %s", error)
    return parity


def facts(device: torch.device) -> dict[str, str]:
    """What an outcome holds for."""
    import triton

    driver: Any = torch._C._cuda_getDriverVersion()  # type: ignore[attr-defined]
    return {
        "card": torch.cuda.get_device_name(device),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "torch": torch.__version__, "triton": triton.__version__, "driver": str(driver), "kernels": _source(),
    }  # fmt: skip


def _source() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _path(known: dict[str, str]) -> Path:
    name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "kernels" / f"{name}.json"


def _read(path: Path) -> Parity | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["parity"]
        parity = Parity(**stored)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return parity if isinstance(parity.passed, bool) and isinstance(parity.reason, str) else None


def _outcome(device: torch.device) -> Parity:
    index = torch.cuda.current_device() if device.index is None else device.index
    package = str(Path(__file__).parents[3])  # the child must find the package that we are
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-c", PROGRAM, str(index)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, env=env)
    except subprocess.TimeoutExpired:
        return Parity(False, f"their trial did not end within {PATIENCE:g} seconds.")
    except OSError as error:
        return Parity(False, f"their trial did not start ({error}).", lasting=False)
    if done.returncode == 0:
        try:
            return Parity(True, errors={name: float(value) for name, value in json.loads(done.stdout).items()})
        except (ValueError, AttributeError, TypeError):
            return Parity(False, "their trial ended without an answer.")
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return Parity(False, f"{last[:300].rstrip('.')}.", lasting="out of memory" not in done.stderr.lower())
