"""Questions of scope and about the library, graded: does the answer hold what `right` says (see `bench/questions/README.md`)?

    python bench/scope_answers.py [--split dev|test] [--library FILE]

Prints what is not right and one JSON object. `bench/quotations.py` calls `scope_answers`.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stilnovo.chat.extract import extract
from stilnovo.chat.extracted import Extract
from stilnovo.library.read import read
from stilnovo.library.records import Work
from stilnovo.library.store import Library
from stilnovo.text.italian import fold, words

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "questions"))
from check import TEXTS, rows, texts  # noqa: E402

ONES = ("zero", "un", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove", "dieci", "undici", "dodici")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(text: str) -> str:
    return f" {' '.join(words(text))} "


def _in(name: str, text: str) -> bool:
    return _plain(name) in _plain(text)


def _alike(one: str, other: str) -> bool:
    """Whether two titles are of copies of one work: *Pinocchio*, *Le avventure di Pinocchio*."""
    return _plain(one).strip() in _plain(other) or _plain(other).strip() in _plain(one)


def _named(said: str, works: list[Work], asked: str) -> set[str]:
    """Titles that an answer names, longest first, without those that the question names apart."""
    text, named = _plain(said), set()
    for title in sorted({work.title for work in works}, key=len, reverse=True):
        if _plain(title) in text:
            named.add(title)
            text = text.replace(_plain(title), " ")
    return {title for title in named if not _in(title, asked)}


def _says_number(text: str, number: int) -> bool:
    said = words(text)
    in_words = ONES[number] if number < len(ONES) else ""
    return str(number) in said or in_words in said or (number == 1 and bool({"una", "uno"} & set(said)))


def holds(key: str, row: dict[str, Any], found: Extract, works: list[Work]) -> bool:
    """Whether an answer holds one thing that is right: see `bench/questions/README.md`."""
    right, text, value = row["right"], found.text, row["right"][key]
    for quote in reversed(found.quotes):  # an author is named by an answer, not by the citation of a sentence
        text = text[: quote.answer_start] + text[quote.answer_end :]
    quotes = [quote for quote in found.quotes if quote.section and quote.status == "verified"]
    if key == "author":
        authors = {work.author for work in works if work.author and _in(work.author, text)}
        denied = {name for name in authors if _in(name.split()[-1], row["question"])}
        return bool(authors & set(_listed(value))) and authors - denied <= set(_listed(value))
    if key == "titles":
        named = _named(text, works, row["question"])
        return all(any(_alike(t, n) for n in named) for t in value) and all(
            any(_alike(t, n) for t in value) for n in named
        )
    simple = {
        "year": lambda: str(value) in words(text),
        "titles_at_least": lambda: len(_named(text, works, "")) >= value,
        "count": lambda: any(_says_number(text, number) for number in _listed(value)),
        "title": lambda: _in(value, text),
        "from_work": lambda: not found.sure and any(_in(title, found.text) for title in _listed(value)),
        "nothing": lambda: (
            not found.sure and (not found.quotes or bool(re.search(r"\bnon (?:c'è|ci sono|trovo|ha)\b", text)))
        ),
    }
    if key in simple:
        return simple[key]()
    if key in ("first", "last"):
        inside = [
            quote for quote in quotes
            if quote.section and quote.section.work.title in _listed(right["work"]) and quote.section.label in _listed(right["section"])
        ]  # fmt: skip
        return any(_in(said, quote.text) for quote in inside for said in _listed(value))
    if key == "from_author":
        begins = [fold(word) for word in right["word_any"]]
        mine = all(quote.section and quote.section.work.author in _listed(value) for quote in quotes)
        return (
            bool(quotes)
            and mine
            and any(form.startswith(b) for quote in quotes for form in words(quote.text) for b in begins)
        )
    return True  # said of the others


def scope_answers(library: Library, split: str) -> dict[str, Any]:
    """Ask every question of a half; how many there are, how many are right, by kind, and those that are not."""
    asked = [row for part in rows("scope_*.jsonl").values() for row in part if row["split"] == split]
    works, kinds, right, misses = library.works(), Counter[str](), Counter[str](), []
    for row in asked:
        found = extract(library, row["question"])
        wrong = [key for key in row["right"] if not holds(key, row, found, works)]
        kinds[row["kind"]] += 1
        right[row["kind"]] += not wrong
        if wrong:
            misses.append({"id": row["id"], "question": row["question"], "wrong": wrong, "answer": found.text[:240]})
    by_kind = {kind: f"{right[kind]} of {kinds[kind]}" for kind in kinds}
    return {"questions": len(asked), "right": right.total(), "by_kind": by_kind, "misses": misses}


@contextmanager
def questions_library(path: Path | None) -> Iterator[Library]:
    """The library named, or one of the texts that the questions are about."""
    if path is not None:
        with Library.open(path) as library:
            yield library
        return
    if not (TEXTS / "library").is_dir():
        sys.exit(
            f"This needs the real texts in {TEXTS.name}/ beside the project; they are not shipped. Or name a --library."
        )
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "libri.sqlite") as library:
        for file in texts(TEXTS):
            library.add(read(file))
        yield library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--library", type=Path, metavar="FILE", help="A library with these works.")
    options = parser.parse_args()
    with questions_library(options.library) as library:
        result = scope_answers(library, options.split)
    for miss in result.pop("misses") if options.split == "dev" else (result.pop("misses"), [])[1]:
        print(json.dumps(miss, ensure_ascii=False))
    print(
        json.dumps(
            {**result, "scope_right": round(result["right"] / max(1, result["questions"]), 4)}, ensure_ascii=False
        )
    )


if __name__ == "__main__":
    main()
