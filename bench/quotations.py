"""Answers and quotations measured on real books: the right section, the right sentence, and no false mark.

Two parts. *Answers*: the questions of `bench/questions/` over the library in `../shared/data/library` (or `--library`).
*Verification*: 4,000 quotations of some sixty kinds made from that library with a seed (`claims.py`), whose truth is known. A
false one must never be marked verified nor put right; a true variant should be recognised.

    python bench/quotations.py [--split dev|test] [--library FILE] [--count 4000] [--write FILE]

The last line is one JSON object.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from claim_stock import Claim, plain_words
from claims import COUNT, SEED, claims
from stilnovo.chat.extract import extract
from stilnovo.chat.quotes import Quote, verify
from stilnovo.library.read import files_in, read
from stilnovo.library.records import Chapter
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.progress import Progress
from true_claims import SAME_WORDING, TRUE

T = TypeVar("T")
HERE = Path(__file__).parent
TEXTS = HERE.parents[1] / "shared" / "data" / "library"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / "questions" / name).read_text(encoding="utf-8").splitlines()]


@contextmanager
def real_library(path: Path | None = None) -> Iterator[Library]:
    """The library named, or one made of the real texts for as long as it is needed."""
    if path is not None:
        with Library.open(path) as library:
            yield library
        return
    if not TEXTS.is_dir():
        sys.exit(
            f"This needs the real texts in {TEXTS.name}/ beside the project; they are not shipped. Or name a --library."
        )
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "libri.sqlite") as library:
        for file in files_in([TEXTS]):
            library.add(read(file))
        yield library


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
    with real_library() as made:
        return judge(made, claims(made, count, seed))


def _holds(section: Chapter, library: Library, span: str) -> bool:
    return verify(span, section, library.text(section.work)).status == "verified"


def answers(library: Library, split: str) -> dict[str, Any]:
    """The questions of a split: right section among the passages found, right section and sentence in the answer."""
    asked = [row for row in rows("literature.jsonl") if row["split"] == split]
    counts, misses, times = Counter[str](), [], []
    for row in shown("ask", asked):
        hits = [_holds(hit.passage.section, library, row["span"]) for hit in search(library, row["question"], 10)]
        begun = time.perf_counter()
        found = extract(library, row["question"])
        times.append(time.perf_counter() - begun)
        quote = found.quotes[0] if found.quotes else None
        section = quote.section if quote else None
        right = bool(section and _holds(section, library, row["span"]))
        sentence = False
        if right and quote and section:
            gold = verify(row["span"], section, library.text(section.work))
            # The span may stand several times in a section: the quotation is right when it holds or meets one of them.
            inside = verify(row["span"], section, library.text(section.work)[: quote.end]).status == "verified"
            sentence = (gold.start < quote.end and quote.start < gold.end) or (inside and row["span"] in quote.shown)
        counts.update(
            section_at_1=any(hits[:1]), section_at_5=any(hits[:5]), section_at_10=any(hits), answer_section=right,
            answer_quotation=sentence, sure=found.sure, sure_and_right=found.sure and sentence, refused=not found.quotes,
        )  # fmt: skip
        if not sentence:
            misses.append({"id": row["id"], "question": row["question"], "section": right, "sure": found.sure,
                           "quote": quote.shown[:160] if quote else "", "citation": quote.citation if quote else ""})  # fmt: skip
    times.sort()
    return {"questions": len(asked), **counts, "median_ms": round(times[len(times) // 2] * 1000, 1), "misses": misses}


def refusals(library: Library) -> dict[str, Any]:
    """The unanswerable questions: how many get an answer without reserve, which is false; how many only a nearest passage."""
    counts, wrong = Counter[str](), []
    for row in rows("unanswerable.jsonl"):
        found = extract(library, row["question"])
        counts["false_answers" if found.sure else "nearest_passage" if found.quotes else "refused"] += 1
        if found.sure:
            wrong.append({"question": row["question"], "answer": found.text[:200]})
    names = ("false_answers", "nearest_passage", "refused")
    return {"questions": len(rows("unanswerable.jsonl")), **{name: counts[name] for name in names}, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--library", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--write", type=Path, metavar="FILE", help="Keep the whole result as JSON.")
    options = parser.parse_args()
    with real_library(options.library) as library:
        answered, refused = answers(library, options.split), refusals(library)
        checked = false_verifications(library, options.count, options.seed)
    for name, part in (("answers", answered), ("unanswerable", refused), ("verification", checked)):
        print(f"\n{name}")
        for key, value in part.items():
            print(
                f"  {key}: {json.dumps(value, ensure_ascii=False, indent=2) if isinstance(value, list | dict) else value}"
            )
    result = {"split": options.split, "answers": answered, "unanswerable": refused, "verification": checked}
    if options.write:
        from stilnovo.runlog import environment, write_atomic

        whole = {"what": "quotations", "command": sys.argv, **environment(), **result}
        write_atomic(options.write, json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    drop = ("misses", "wrong", "by_kind", "examples_repaired", "examples_false", "examples_missed")
    line = {
        k: {n: v for n, v in part.items() if n not in drop} if isinstance(part, dict) else part
        for k, part in result.items()
    }
    print(json.dumps({**line, "false_verifications": checked["false_verified"]}, ensure_ascii=False))


if __name__ == "__main__":
    main()
