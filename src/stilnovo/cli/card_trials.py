"""The trials of a training step's parts on the card (`stilnovo.trials.parts`), in a process that may break.

`stilnovo doctor` starts this file as a program, reads a line for each part and goes on after what ends the process: a
kernel that is broken, or one that never comes back.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

PATIENCE = 360.0  # seconds that the trials may take: they compile kernels


def try_card(device: str = "cuda", patience: float = PATIENCE, program: Sequence[str] = ()) -> dict[str, Any]:
    """Try the parts on a device; each one's outcome, and what will be used.

    Args:
        device: Where.
        patience: Seconds after which a process is given up; what it was at has failed.
        program: What runs the trials in place of this file.

    Returns:
        `trials`, a list of `stilnovo.trials.trial.Trial` as objects, and `uses`, see there.
    """
    command = [*(program or (sys.executable, "-m", "stilnovo.cli.card_trials")), device]
    trials: list[dict[str, Any]] = []
    uses: dict[str, str] = {}
    while True:
        lines, ending = _lines([*command, *(trial["name"] for trial in trials)], patience)
        begun = None
        for line in lines:
            if "begin" in line:
                begun = line["begin"]
            elif "uses" in line:
                uses = line["uses"]
            else:
                trials.append(line)
                begun = None
        if begun is None:
            if ending:  # it did not even begin
                trials.append(_broken("start", ending))
            return {"trials": trials, "uses": uses}
        trials.append(_broken(begun, ending or "it ended without an answer"))


def _broken(name: str, note: str) -> dict[str, Any]:
    return {"name": name, "outcome": "fails", "note": note, "figures": {}, "seconds": 0.0}


def _lines(command: Sequence[str], patience: float) -> tuple[list[dict[str, Any]], str]:
    """What a process printed, and how it ended badly; empty where it ended well."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=patience)
        out, ending = done.stdout, "" if done.returncode == 0 else _ending(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as late:
        out, ending = late.stdout or b"", f"no answer within {patience:g} s"
    lines = out.decode(errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")], ending


def _ending(status: int, errors: bytes) -> str:
    if status < 0:
        return f"it ends the process ({signal.Signals(-status).name})"
    last = errors.decode(errors="replace").strip().splitlines() or [""]
    return f"exit status {status}: {last[-1][:200]}"


def main(device: str, *done: str) -> None:
    """Try the parts that are not done yet; prints a line before each and one after."""
    import torch

    from stilnovo.trials import parts

    where = torch.device(device)
    for name in parts.trials(where):
        if name not in done:
            print(json.dumps({"begin": name}), flush=True)
            print(json.dumps(asdict(parts.attempt(name, where))), flush=True)
    print(json.dumps({"uses": parts.uses(where)}), flush=True)  # last: the kernels are used as their trial went


if __name__ == "__main__":
    main(*sys.argv[1:])
