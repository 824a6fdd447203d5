"""Answers and quotations measured on real books: the right section, the right sentence, and no false mark.

Three parts. *Answers*: the questions of a half of `bench/questions/`, three passages shown of each, those that are *sure*, and
questions that no work answers. *Scope*: questions about the library and its records (`scope_answers.py`). *Verification*: 4,000
quotations of some sixty kinds made from that library with a seed (`claims.py`), whose truth is known. A false one must never be
marked verified nor put right; a true variant should be recognised.

    python bench/quotations.py [--split test|dev] [--library FILE] [--count 4000] [--misses] [--write FILE]

The half is the held-out one, whose misses nobody reads: `--misses` shows those of the other. A FILE with vectors
(`stilnovo library embed`) is searched by meaning too. Intervals are grouped by work. The last line is one JSON object.
`fit_chooser.py --ablation` shows what each part of the choice is worth.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from claim_stock import Claim, plain_words
from claims import COUNT, SEED, claims
from gold import ANSWERABLE, UNANSWERABLE, Gold, asked, overlaps
from scope_answers import questions_library, scope_answers
from stilnovo.chat.extract import SHOWN, extract
from stilnovo.chat.quotes import Quote, verify
from stilnovo.library.store import Library
from stilnovo.progress import Progress
from stilnovo.statistics.estimates import Estimate, mean
from true_claims import SAME_WORDING, TRUE

T = TypeVar("T")


def shown(label: str, things: Sequence[T]) -> Iterator[T]:
    """The things, with progress on stderr."""
    with Progress(label, len(things)) as progress:
        for done, thing in enumerate(things):
            progress.update(done)
            yield thing


def _accepted(claim: Claim, quote: Quote) -> bool:
    """Whether a false claim got past: its words are shown as the source's, without those of the source that deny them."""
    return quote.sound and not (claim.needs and f" {claim.needs.lower()} " in f" {_spaced(quote.shown)} ")


def _spaced(text: str) -> str:
    return " ".join(re.findall(r"\w+|[?!]", text.lower()))


def _recognised(claim: Claim, quote: Quote) -> bool:
    """Whether a true claim is known for what it is: the words shown are those that it was made from."""
    made_from, words = plain_words(claim.original, exact=False), plain_words(quote.text, exact=False)
    return quote.sound and f" {' '.join(made_from)} " in f" {' '.join(words)} "


def judge(library: Library, made: list[Claim]) -> dict[str, Any]:
    """What the verifier says of claims, beside their truth: `false_verified` and `false_repairs` must be 0."""
    by_kind: dict[str, Counter[str]] = {}
    past: dict[str, list[str]] = {"verified": [], "repaired": []}
    false_shown, missed, recognised, true_claims = [], [], Counter[str](), Counter[str]()
    for claim in shown("verify", made):
        text = library.text(claim.section.work)
        quote: Quote = verify(claim.claimed, claim.section, text)
        kind = claim.kind if claim.kind in TRUE or not claim.true else "true by chance"
        by_kind.setdefault(kind, Counter())[quote.status] += 1
        if quote.sound and quote.text != text[quote.start : quote.end]:
            false_shown.append(claim)
        if not claim.true and _accepted(claim, quote):
            past[quote.status].append(f"{claim.kind}: {claim.claimed!r} of {claim.original!r}: {quote.shown!r}")
        if claim.kind in TRUE:
            true_claims[claim.kind] += 1
            recognised[claim.kind] += _recognised(claim, quote)
            if not _recognised(claim, quote):
                missed.append(f"{claim.kind}: {claim.claimed!r} of {claim.original!r}")
    same = sum((by_kind[kind] for kind in SAME_WORDING if kind in by_kind), Counter[str]())
    false = Counter(claim.kind for claim in made if not claim.true)
    return {
        "kinds": len(false) + len(true_claims),
        "false_kinds": len(false),
        "total": len(made),
        "false_claims": false.total(),
        "false_verified": len(past["verified"]),
        "false_repairs": len(past["repaired"]),
        "true_recognised": round(recognised.total() / max(1, true_claims.total()), 4),
        "claims": len(made),
        "verified": sum(counts["verified"] for counts in by_kind.values()),
        "false_verifications": len(past["verified"]),
        "shown_that_is_not_the_source": len(false_shown),
        "false_claims_repaired": len(past["repaired"]),
        "true_variants_recognised": {kind: round(recognised[kind] / n, 4) for kind, n in true_claims.items()},
        "same_wording_verified": round(same["verified"] / max(1, same.total()), 4),
        "by_kind": {kind: dict(counts) for kind, counts in by_kind.items()},
        "examples_repaired": past["repaired"][:8],
        "examples_false": past["verified"][:8],
        "examples_missed": missed[:8],
    }


def false_verifications(library: Library | None = None, count: int = COUNT, seed: int = SEED) -> dict[str, Any]:
    """Verification measured on adversarial quotations, so many of all kinds together: see `judge`."""
    if library is not None:
        return judge(library, claims(library, count, seed))
    with questions_library(None) as made:
        return judge(made, claims(made, count, seed))


def answers(library: Library, split: str) -> dict[str, Any]:
    """The questions of a half: right section and sentence among those shown, and of the sure ones; by work, for intervals."""
    gold, rows, times = Gold(library), [], list[float]()
    for row in shown("ask", asked(ANSWERABLE, split)):
        begun = time.process_time()
        found = extract(library, row["question"])
        times.append(time.process_time() - begun)
        places = gold.places(row)
        right = [
            q.section is not None and overlaps(places, q.section.work.id, q.start, q.end) for q in found.quotes[:SHOWN]
        ]
        sections = [q.section is not None and q.section.id in gold.sections(places) for q in found.quotes[:SHOWN]]
        rows.append({
            "id": row["id"], "question": row["question"], "work": row["work"], "section_right": any(sections),
            "sentence_in_three": any(right), "first_right": any(right[:1]), "sure": found.sure,
            "characters": sum(q.end - q.start for q in found.quotes[:SHOWN]), "text": found.text[:240],
        })  # fmt: skip
    kept = [{**row, "sure": extract(library, row["question"]).sure} for row in asked(UNANSWERABLE, split)]
    return {"asked": rows, "unanswerable": kept, "seconds": times}


def figures(found: dict[str, Any]) -> dict[str, Estimate]:
    """Shares with their intervals, grouped by work."""
    rows, kept = found["asked"], found["unanswerable"]

    def share(of: Sequence[dict[str, Any]], key: str) -> Estimate:
        return mean([float(row[key]) for row in of], [row["work"] for row in of], shares=True)

    sure = [row for row in rows if row["sure"]]
    made = {key: share(rows, key) for key in ("section_right", "sentence_in_three", "first_right")}
    made["sure_share"] = share(rows, "sure")
    if sure:
        made["sure_right"] = share(sure, "first_right")
    back = [{"work": row.get("work") or row["id"], "back": not row["sure"]} for row in kept]
    return {**made, "unanswerable_kept_back": share(back, "back")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("test", "dev"), default="test")
    parser.add_argument("--library", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--misses", action="store_true", help="Show what was not right, of the dev half.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Keep the whole result as JSON.")
    options = parser.parse_args()
    if options.misses and options.split == "test":
        parser.error("The misses of the held-out half are not shown; add --split dev.")
    with questions_library(options.library) as library:
        found, scope = answers(library, options.split), scope_answers(library, options.split)
        vectors = library.searching() is not None
        checked = false_verifications(library, options.count, options.seed)
    estimates = figures(found)
    for name, one in estimates.items():
        print(f"{name:<24} {one.value:.3f}  [{one.low:.3f}, {one.high:.3f}]  n = {one.n}")
    if options.misses:
        for row in found["asked"]:
            if not row["sentence_in_three"]:
                print(json.dumps(row, ensure_ascii=False))
    print(json.dumps(checked, ensure_ascii=False, indent=1))
    line = {
        **{name: round(one.value, 4) for name, one in estimates.items()},
        "scope_right": round(scope["right"] / max(1, scope["questions"]), 4), "scope_questions": scope["questions"],
        "questions_held_out" if options.split == "test" else "questions_dev": len(found["asked"]),
        "works": len({row["work"] for row in found["asked"]}), "unanswerable": len(found["unanswerable"]),
        "sure": sum(row["sure"] for row in found["asked"]),
        "characters_shown": round(sum(row["characters"] for row in found["asked"]) / max(1, len(found["asked"]))),
        "median_seconds": round(sorted(found["seconds"])[len(found["seconds"]) // 2], 3), "vectors": vectors,
        "false_verifications": checked["false_verified"], "false_repairs": checked["false_repairs"],
    }  # fmt: skip
    if options.write:
        from stilnovo.runlog import environment, write_atomic

        whole = {"what": "quotations", "command": sys.argv, **environment(), **line, "verification": checked}
        write_atomic(options.write, json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
