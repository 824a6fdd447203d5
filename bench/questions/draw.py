"""Draw the dev and the test half of the classroom's questions by a seed, once, before anything is tuned on them.

Of each work's questions one half is *dev*, on which rules and confidences may be fitted, the other *test*; of an odd number
the larger half is *test*. Unanswerable questions are halved over works and outside, those of scope kind by kind. What is
drawn depends on the ids and `SEED` alone, not on what stood in `split`: drawing again changes nothing. `literature.jsonl` and
`unanswerable.jsonl` keep what they say: they have been looked at.

    python bench/questions/draw.py [--check]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 19
HERE = Path(__file__).parent
Row = dict[str, Any]
#: Which files are drawn together, and what groups their questions: each group is halved by itself. Of Dante's three parts each is
#: a work of its own here, as a section of verse is called *Inferno, Canto V*.
DRAWN: dict[str, Callable[[Row], str]] = {
    "classroom_[ab].jsonl": lambda row: row["work"] + (row["section"].partition(",")[0] if row["verses"] else ""),
    "classroom_unanswerable_[ab].jsonl": lambda _: "",
    "scope_[ab].jsonl": lambda row: row["kind"],
}


def halves(rows: list[Row], group: Callable[[Row], str]) -> dict[str, str]:
    """Map the id of each question to its half; every group is halved by itself."""
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        groups[group(row)].append(row["id"])
    drawn: dict[str, str] = {}
    for name, ids in groups.items():
        shuffled = sorted(ids)
        random.Random(f"{SEED} {name}").shuffle(shuffled)
        test = (len(shuffled) + 1) // 2
        drawn.update({id_: "test" if place < test else "dev" for place, id_ in enumerate(shuffled)})
    return drawn


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Write nothing; fail if a split is not the one drawn.")
    options = parser.parse_args()
    wrong = 0
    for pattern, group in DRAWN.items():
        files = {path: read(path) for path in sorted(HERE.glob(pattern))}
        drawn = halves([row for rows in files.values() for row in rows], group)
        for path, rows in files.items():
            wrong += sum(row["split"] != drawn[row["id"]] for row in rows)
            if not options.check:
                lines = (json.dumps({**row, "split": drawn[row["id"]]}, ensure_ascii=False) for row in rows)
                path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        print(f"{pattern}: {sum(half == 'test' for half in drawn.values())} of {len(drawn)} are held out")
    if options.check and wrong:
        sys.exit(f"{wrong} questions do not stand in the half that is drawn for them: run it without --check.")


if __name__ == "__main__":
    main()
