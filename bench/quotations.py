"""Answers and quotations measured on real books: the right section, the right sentence, and no false mark.

Two parts. *Answers*: the questions of `bench/questions/` over the library in `../shared/data/library` (or `--library`).
*Verification*: 1,000 quotations made from that library with a seed, of kinds whose truth is known by how they are made; what
chance makes true (a changed word that restores another sentence) is found by a brute-force comparison of word lists,
which shares no code with the verifier. A false one must never be marked verified; a true variant should be recognised.

    python bench/quotations.py [--split dev|test] [--library FILE] [--count 1000] [--write]

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stilnovo.chat.extract import extract
from stilnovo.chat.quotes import Quote, verify
from stilnovo.chat.units import units
from stilnovo.library.read import files_in, read
from stilnovo.library.records import Chapter, Passage
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.progress import Progress

T = TypeVar("T")
HERE = Path(__file__).parent
TEXTS = HERE.parents[1] / "shared" / "data" / "library"
SEED, COUNT = 20261125, 1000
#: A quotation is made of a sentence with so many words.
WORDS = range(6, 31)


@dataclass(frozen=True)
class Claim:
    """A quotation made from `original`, in `section`; `true` is whether its words stand in the source, in this order."""

    kind: str
    claimed: str
    original: str
    section: Chapter
    true: bool


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


# Truth by brute force: lists of words, cut and compared in the plainest way.


def plain_words(text: str, exact: bool) -> list[str]:
    """Words of a text: letters, digits and apostrophes; `exact` keeps case and accents, else both are dropped."""
    text = unicodedata.normalize("NFC", text)
    for invisible in "\u00ad\u200b\u200c\u200d\u2060\ufeff":
        text = text.replace(invisible, "")
    for apostrophe in "’‘ʼ`´":
        text = text.replace(apostrophe, "'")
    found = re.findall(r"[^\W_]+", text)
    if exact:
        return found
    return ["".join(c for c in unicodedata.normalize("NFKD", w.lower()) if not unicodedata.combining(c)) for w in found]


def stands(claimed: str, source: str, exact: bool) -> bool:
    """Whether the claimed words stand in the source one after the other."""
    needle, hay = plain_words(claimed, exact), plain_words(source, exact)
    size = len(needle)
    return size > 0 and any(hay[i : i + size] == needle for i in range(len(hay) - size + 1))


# Ways of getting a quotation wrong, and of writing a right one otherwise. Each takes the sentence's words.

Change = Callable[[random.Random, list[str], "Stock"], list[str] | str | None]


@dataclass
class Stock:
    """What wrong words are taken from: the library's own vocabulary, names and sentences."""

    vocabulary: list[str]
    names: list[str]
    sentences: list[tuple[Passage, str]]


def _at(draw: random.Random, words: list[str]) -> int:
    return draw.randrange(1, len(words) - 1)


def changed(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return [*words[:place], draw.choice(stock.vocabulary), *words[place + 1 :]]


def inserted(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return [*words[:place], draw.choice(stock.vocabulary), *words[place:]]


def dropped(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return words[:place] + words[place + 1 :]


def swapped(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return [*words[:place], words[place + 1], words[place], *words[place + 2 :]]


def negated(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    place = _at(draw, words)
    return [*words[:place], "non", *words[place:]]


def joined(draw: random.Random, words: list[str], stock: Stock) -> str:
    """The first half of one sentence, the second of another, as if they followed each other."""
    other = draw.choice(stock.sentences)[1].split()
    mark = draw.choice([" ", " / ", " … ", " [...] "])
    return " ".join(words[: len(words) // 2]) + mark + " ".join(other[len(other) // 2 :])


def elsewhere(draw: random.Random, words: list[str], stock: Stock) -> str:
    """A true sentence of another work."""
    return draw.choice(stock.sentences)[1]


def invented(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    return [draw.choice(stock.vocabulary) for _ in range(draw.randrange(6, 12))]


def renamed(draw: random.Random, words: list[str], stock: Stock) -> list[str] | None:
    places = [i for i, word in enumerate(words) if i and word[:1].isupper() and word.isalpha() and len(word) > 3]
    if not places:
        return None
    place = draw.choice(places)
    return [*words[:place], draw.choice(stock.names), *words[place + 1 :]]


def renumbered(draw: random.Random, words: list[str], stock: Stock) -> str | None:
    text = " ".join(words)
    found = re.search(r"\d+", text)
    if found:
        return text[: found.start()] + str(int(found.group()) + draw.randrange(1, 9)) + text[found.end() :]
    numbers = ["due", "tre", "quattro", "cinque", "sei", "sette", "otto", "dieci", "venti", "trenta", "cento", "mille"]
    places = [i for i, word in enumerate(words) if word in numbers]
    if not places:
        return None
    place = draw.choice(places)
    return " ".join([*words[:place], draw.choice([n for n in numbers if n != words[place]]), *words[place + 1 :]])


def ending(draw: random.Random, words: list[str], stock: Stock) -> list[str] | None:
    """Another ending: *amava* for *amavo*, the smallest lie there is."""
    places = [
        i for i, word in enumerate(words) if word.isalpha() and len(word) > 4 and word[-1] in "aeio" and word.islower()
    ]
    if not places:
        return None
    place = draw.choice(places)
    vowel = draw.choice([v for v in "aeio" if v != words[place][-1]])
    return [*words[:place], words[place][:-1] + vowel, *words[place + 1 :]]


def homoglyph_lie(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    """A changed word, with letters of another alphabet over the whole."""
    return " ".join(changed(draw, words, stock)).translate(str.maketrans("aeopc", "аеорс")).split()


FALSE: dict[str, Change] = {
    "changed": changed, "inserted": inserted, "dropped": dropped, "swapped": swapped, "negated": negated, "joined": joined,
    "elsewhere": elsewhere, "invented": invented, "renamed": renamed, "renumbered": renumbered, "ending": ending,
    "homoglyph_lie": homoglyph_lie,
}  # fmt: skip


def exact(draw: random.Random, words: list[str], stock: Stock) -> list[str]:
    return words


def line_breaks(draw: random.Random, words: list[str], stock: Stock) -> str:
    return "".join(word + draw.choice([" ", "\n", "  ", "\u00a0", "\n\n"]) for word in words)


def typographic(draw: random.Random, words: list[str], stock: Stock) -> str:
    text = " ".join(words)
    if "’" in text:
        text = text.replace("’", "'")
    else:
        text = text.replace("'", "’")
    text = text.replace("…", "...") if "…" in text else text.replace("...", "…")
    for pair in ("«“", "»”", "–—"):
        text = text.replace(pair[0], "\0").replace(pair[1], pair[0]).replace("\0", pair[1])
    return text


def zero_width(draw: random.Random, words: list[str], stock: Stock) -> str:
    text = list(" ".join(words))
    for _ in range(4):
        text.insert(draw.randrange(1, len(text)), draw.choice("\u200b\u200c\u200d\u2060\u00ad\ufeff"))
    return "".join(text)


def decomposed(draw: random.Random, words: list[str], stock: Stock) -> str:
    return unicodedata.normalize("NFD", " ".join(words))


def dotted(draw: random.Random, words: list[str], stock: Stock) -> str:
    return draw.choice(["…{}", "... {} …", "{}…", "[...] {}"]).format(" ".join(words).rstrip(".,;:!?… "))


def upper(draw: random.Random, words: list[str], stock: Stock) -> str:
    return " ".join(words).upper()


def bare(draw: random.Random, words: list[str], stock: Stock) -> str:
    """No accent, no punctuation, no capital."""
    return " ".join(plain_words(" ".join(words), exact=False))


def homoglyphs(draw: random.Random, words: list[str], stock: Stock) -> str:
    return " ".join(words).translate(str.maketrans("aeopc", "аеорс"))


#: Kind → how a true quotation is written; those in SAME_WORDING must be verified, the others at least put right.
TRUE: dict[str, Change] = {
    "exact": exact, "line_breaks": line_breaks, "typographic": typographic, "zero_width": zero_width,
    "decomposed": decomposed, "dotted": dotted, "upper": upper, "bare": bare, "homoglyphs": homoglyphs,
}  # fmt: skip
SAME_WORDING = ("exact", "line_breaks", "typographic", "zero_width", "decomposed", "dotted")


def stock_of(library: Library, draw: random.Random, passages: int = 1500) -> Stock:
    numbers = [number for (number,) in library.connection.execute("SELECT id FROM passages ORDER BY id")]
    sentences, vocabulary, names = [], Counter[str](), Counter[str]()
    for passage in library.passages(sorted(draw.sample(numbers, min(passages, len(numbers))))):
        for start, end in units(passage):
            sentence = passage.text[start:end]
            if len(plain_words(sentence, exact=True)) in WORDS:
                sentences.append((passage, sentence))
            words = sentence.split()
            vocabulary.update(word for word in words if word.isalpha() and word.islower() and len(word) > 3)
            names.update(word for word in words[1:] if word.isalpha() and word[0].isupper() and len(word) > 3)
    return Stock(sorted(vocabulary), sorted(names), sentences)


def claims(library: Library, count: int = COUNT, seed: int = SEED) -> list[Claim]:
    """Quotations of every kind in turn, false and true, with their truth; the same for the same library and seed."""
    draw = random.Random(seed)
    stock = stock_of(library, draw)
    kinds = {**FALSE, **TRUE}
    made: list[Claim] = []
    turn = 0
    while len(made) < count:
        kind = list(kinds)[turn % len(kinds)]
        passage, sentence = draw.choice(stock.sentences)
        source = library.text(passage.section.work)[passage.section.body : passage.section.end]
        words = sentence.split()
        result = kinds[kind](draw, words, stock) if len(words) > 4 else None
        if result is None:
            continue
        turn += 1
        claimed = result if isinstance(result, str) else " ".join(result)
        true = kind in TRUE or stands(claimed, source, exact=False)
        made.append(Claim(kind, claimed, sentence, passage.section, true))
    return made


def judge(library: Library, made: list[Claim]) -> dict[str, Any]:
    """What the verifier says of claims, beside their truth."""
    by_kind: dict[str, Counter[str]] = {}
    false_verified, false_shown, false_repaired = [], [], []
    for claim in shown("verify", made):
        text = library.text(claim.section.work)
        source = text[claim.section.body : claim.section.end]
        quote: Quote = verify(claim.claimed, claim.section, text)
        kind = claim.kind if claim.kind in TRUE or not claim.true else "true by chance"
        by_kind.setdefault(kind, Counter())[quote.status] += 1
        if quote.sound and quote.text != text[quote.start : quote.end]:
            false_shown.append(claim)
        if quote.status == "verified" and not stands(_own(claim.claimed), source, exact=True):
            false_verified.append(claim)
        if quote.status == "repaired" and not claim.true:
            false_repaired.append(claim)
    recognised = {
        kind: round(1 - by_kind[kind]["unverified"] / by_kind[kind].total(), 4) for kind in TRUE if kind in by_kind
    }
    same = sum((by_kind[kind] for kind in SAME_WORDING if kind in by_kind), Counter())
    return {
        "claims": len(made),
        "false_claims": sum(not claim.true for claim in made),
        "verified": sum(counts["verified"] for counts in by_kind.values()),
        "false_verifications": len(false_verified),
        "shown_that_is_not_the_source": len(false_shown),
        "false_claims_repaired": len(false_repaired),
        "true_variants_recognised": recognised,
        "same_wording_verified": round(same["verified"] / max(1, same.total()), 4),
        "by_kind": {kind: dict(counts) for kind, counts in by_kind.items()},
        "examples_repaired": [claim.claimed for claim in false_repaired[:5]],
        "examples_false": [claim.claimed for claim in false_verified[:5]],
    }


def _own(claimed: str) -> str:
    """A claim without marks of omission at its ends, which are the quoter's."""
    return re.sub(r"\[?(?:…|\.\.\.)\]?", " ", claimed)


def false_verifications(library: Library | None = None, count: int = COUNT, seed: int = SEED) -> dict[str, Any]:
    """Verification measured on adversarial quotations: `false_verifications` must be 0; see `judge` for the rest."""
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
            answer_quotation=sentence, sure=found.sure, sure_and_right=found.sure and sentence, refused=not found.found,
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
        counts["false_answers" if found.sure else "nearest_passage" if found.found else "refused"] += 1
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
    drop = ("misses", "wrong", "by_kind", "examples_repaired", "examples_false")
    line = {
        k: {n: v for n, v in part.items() if n not in drop} if isinstance(part, dict) else part
        for k, part in result.items()
    }
    print(json.dumps({**line, "false_verifications": checked["false_verifications"]}, ensure_ascii=False))


if __name__ == "__main__":
    main()
