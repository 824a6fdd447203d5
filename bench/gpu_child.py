"""A child of `gpu_runner.py`: runs its parts one after another and writes every row as soon as it is there.

It leaves after a part that failed, since what a failure leaves behind (memory, a broken CUDA context) would meet the next. Before
a part's limit it writes down where it is, for the case that it hangs there. It ends when its parent does.

Needs: stilnovo.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError")


def outcome_of(error: BaseException) -> str:
    """`out of memory` or `failed`."""
    return "out of memory" if type(error).__name__ in OUT_OF_MEMORY or "out of memory" in str(error) else "failed"


def note_of(error: BaseException) -> str:
    """The last line of the traceback, and where it happened."""
    line = traceback.format_exception_only(error)[-1].strip() or type(error).__name__
    if (
        len(lines := str(error).strip().splitlines()) > 1
    ):  # the first line says what, the last often only where to read on
        line = f"{type(error).__name__}: {lines[0]}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return line[:300] + place


def end_with(parent: int) -> None:
    """End this process when its parent is gone: nobody would kill it at its limit."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def run(part: dict[str, Any], until: float, write: Any) -> bool:
    """Run one part; whether it went well."""
    write({"begin": part["name"]})
    started, end = time.monotonic(), {"outcome": "ok", "note": ""}
    limit = min(part["limit"], until - started)
    faulthandler.dump_traceback_later(max(0.2, 0.9 * limit), file=sys.stderr)
    try:
        module, _, name = part["call"].partition(":")
        call = getattr(importlib.import_module(module), name)
        for row in call({**part["job"], "until": started + 0.8 * limit}):
            write({"row": row})
    except Exception as error:
        traceback.print_exc()
        end = {"outcome": outcome_of(error), "note": note_of(error)}
    finally:
        faulthandler.cancel_dump_traceback_later()
    write({"end": {**end, "seconds": round(time.monotonic() - started, 2)}})
    return end["outcome"] == "ok"


def main() -> None:
    """Import what parts need, wait for the job, run its parts until one fails or there is no time for the next."""
    place, parent, *modules = sys.argv[1:]
    faulthandler.enable()
    threading.Thread(target=end_with, args=(int(parent),), daemon=True).start()
    for name in modules:
        with contextlib.suppress(Exception):  # the part that needs it says what is wrong
            importlib.import_module(name)
    if not sys.stdin.readline():
        return
    job = json.loads(Path(place).read_text())
    with Path(job["out"]).open("a", encoding="utf-8", buffering=1) as file:

        def write(event: dict[str, Any]) -> None:
            file.write(json.dumps(event, default=str) + "\n")
            file.flush()

        for part in job["parts"]:
            if job["until"] - time.monotonic() < part["seconds"] or not run(part, job["until"], write):
                break
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # taking a large program apart takes seconds, and can hang


if __name__ == "__main__":
    main()
