"""How long `stilnovo --help` takes beyond Python's own start (contract: 0.25 s); prints one JSON object.

Both are started in turn, so that a busy machine slows both alike; medians are compared.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from stilnovo.runlog import environment


def seconds(arguments: list[str]) -> float:
    """Wall clock of one start."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    commands = {
        "python": ["-c", "pass"],
        "help": ["-m", "stilnovo.cli.main", "--help"],
        "import": ["-c", "import stilnovo"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):  # the first of each fills the disk's cache and is left out
        for name, arguments in commands.items():
            taken[name].append(seconds(arguments))
    medians = {name: statistics.median(values[1:]) for name, values in taken.items()}
    beyond = {f"{name}_beyond_python": medians[name] - medians["python"] for name in ("help", "import")}
    record = {"runs": runs, "median_seconds": medians, **beyond, "contract_seconds": 0.25}
    print(json.dumps({**environment(), "command": " ".join(["python", *sys.argv]), **record}))


if __name__ == "__main__":
    main()
