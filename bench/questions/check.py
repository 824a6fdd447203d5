"""Check the questions against the books: every span is where it is said to be, and every right answer is in the records.

The questions are written by people, the grading trusts them: a span with a wrong letter would count every answer as wrong. Nothing of the
answering is imported here, only what reads and stores the books.

    python bench/questions/check.py [--texts FOLDER]

Prints what is wrong, then how many questions there are by file, kind and work; ends with 1 where anything is wrong. The texts are those
in `../shared/data`, which are not shipped.

Needs: stilnovo.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stilnovo.library.read import files_in, read
from stilnovo.library.records import Chapter, Work
from stilnovo.library.store import Library

HERE = Path(__file__).parent
TEXTS = HERE.parents[2] / "shared" / "data"
#: Works that are in the folder of TEI files alone; the others of that folder have a copy among the plain texts.
ONLY_TEI = ("IT18961_DAnnunzio_Le-Vergini-delle-Rocce.xml", "IT19000_DAnnunzio_Il-fuoco.xml")
LONGEST = 14  # words of a span, so that no text of the books is in the project
HELD_OUT, HELD_OUT_WORKS = 150, 40  # answerable questions of the test half, and their works
#: What a right answer of a question of scope may say; README.md has the meaning of each.
RIGHT = {"author", "year", "titles", "titles_at_least", "count", "work", "section", "title", "first", "last"}
RIGHT |= {"from_author", "word_any", "from_work", "nothing"}

Row = dict[str, Any]


def texts(folder: Path) -> list[Path]:
    """The files of the library that the questions are about."""
    return [*files_in([folder / "library"]), *(folder / "library_tei" / name for name in ONLY_TEI)]


def rows(pattern: str, folder: Path = HERE) -> dict[str, list[Row]]:
    """The questions of each file whose name matches, by name of file."""
    return {
        file.name: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for file in sorted(folder.glob(pattern))
    }


class Books:
    """The works of a library, by title, with their sections by name."""

    def __init__(self, library: Library) -> None:
        self.works: dict[str, Work] = {work.title: work for work in library.works()}
        self.texts = {title: library.text(work) for title, work in self.works.items()}
        self.sections = {title: library.sections(work) for title, work in self.works.items()}
        self.authors = {work.author for work in self.works.values()} - {""}
        self.years = {work.year for work in self.works.values()} - {None}

    def named(self, title: str, section: str) -> list[Chapter]:
        """The sections of a work with this name; a work may repeat one."""
        return [chapter for chapter in self.sections[title] if (chapter.label or chapter.title) == section]

    def places(self, title: str, span: str) -> list[tuple[str, str]]:
        """Section and verses of every place of a work where these words stand, white space aside."""
        found = []
        for match in re.finditer(r"\s+".join(map(re.escape, span.split())), self.texts[title]):
            inside = [c for c in self.sections[title] if c.start <= match.start() < c.end]
            found += [(c.label or c.title, c.verses(match.start(), match.end())) for c in inside[-1:]]
        return found


def answerable(row: Row, books: Books) -> Iterator[str]:
    """What is wrong with a question that a passage answers."""
    work = books.works.get(row["work"])
    if work is None or work.author != row["author"]:
        yield f"no work «{row['work']}» by «{row['author']}» in the records"
        return
    given = [row, *row["spans"]]
    for place in given:
        span, section = place["span"], place["section"]
        if not 1 <= len(span.split()) <= LONGEST:
            yield f"«{span}» has {len(span.split())} words; at most {LONGEST}"
        found = books.places(work.title, span)
        if section not in [name for name, _ in found]:
            yield f"«{span}» is not in {work.title}, {section or 'the section without a name'}; it is in {found}"
        elif "verses" in place and (section, place["verses"]) not in found:
            yield f"«{span}» is not in the verses {place['verses'] or '(none)'}; it is in {found}"
        named = [other["section"] for other in given if other["span"] == span]
        if Counter(name for name, _ in found) - Counter(named):
            yield f"«{span}» is in {work.title} {len(found)} times, in {sorted({name for name, _ in found})}: name every place"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _edges(right: Row, books: Books, work: str) -> Iterator[str]:
    """What is wrong with a section's title, first and last words: each must be those of one of the sections named."""
    chapters = [c for section in _listed(right["section"]) for c in books.named(work, section)]
    if len(chapters) < len(_listed(right["section"])):
        yield f"{work} has no section {right['section']}"
    text = books.texts[work]
    bodies = {c.id: " ".join(text[c.body : c.end].split()) for c in chapters}
    said: dict[str, Callable[[Chapter, str], bool]] = {
        "title": lambda c, words: c.title == words,
        "first": lambda c, words: bodies[c.id].lstrip("«\"'“-—– ").startswith(words.lstrip("«\"'“")),
        "last": lambda c, words: words in bodies[c.id][-2 * len(words) - 80 :],
    }
    for key, holds in said.items():
        for words in _listed(right.get(key, [])):
            if not any(holds(chapter, words) for chapter in chapters):
                yield f"«{words}» is not the {key} of {work}, {right['section']}"


def scope(row: Row, books: Books) -> Iterator[str]:
    """What is wrong with a question of scope or about the library."""
    right, titles = row["right"], set(books.works)
    if not right or set(right) - RIGHT:
        yield f"right is {right}; known are {', '.join(sorted(RIGHT))}"
        return
    named = {w for key in ("work", "from_work") for w in _listed(right.get(key, []))}
    if missing := (named | set(right.get("titles", ()))) - titles:
        yield f"not in the records: {', '.join(sorted(missing))}"
        return
    authors = {a for key in ("author", "from_author") for a in _listed(right.get(key, []))}
    if missing := authors - books.authors:
        yield f"no author {', '.join(sorted(missing))} in the records"
    works = [books.works[w] for w in _listed(right.get("work", []))]
    for key in sorted({"author", "year"} & set(right)):
        if works and getattr(works[0], key) not in _listed(right[key]):
            yield f"{works[0].title}: its {key} is {getattr(works[0], key)}, not {right[key]}"
    if "year" in right and right["year"] not in books.years:
        yield f"no work of {right['year']}"
    if "count" in right:
        numbered = {t: {len(c), len(c) - 1, len(c) - 2} for t, c in books.sections.items()}  # fronts, introductions
        by_author = Counter(work.author for work in books.works.values())
        everywhere = {len(books.works), len(books.authors), *by_author.values()}.union(*numbered.values())
        known = numbered[works[0].title] if works else everywhere
        if not known & set(_listed(right["count"])):
            yield f"{right['count']} is no number of the records; they have {sorted(known)}"
    if "section" in right and works:
        yield from _edges(right, books, works[0].title)
    if "word_any" in right:
        own = [text for title, text in books.texts.items() if books.works[title].author == right["from_author"]]
        pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, right['word_any']))})", re.IGNORECASE)
        if not any(map(pattern.search, own)):
            yield f"{right['from_author']} never writes {right['word_any']}"


def alike(files: dict[str, list[Row]]) -> Iterator[str]:
    """What is wrong with the files as a whole: an id or a question twice, a question without a mark, halves drawn in part."""
    every = [(name, row) for name, part in files.items() for row in part]
    for key in ("id", "question"):
        counts = Counter(row[key].casefold() for _, row in every)
        yield from (f"{key} «{value}» is there {n} times" for value, n in counts.items() if n > 1)
    yield from (
        f"{name}: «{row['question']}» has no ? or . at its end"
        for name, row in every
        if row["question"][-1:] not in "?.!"
    )
    drawn = [row.get("split", "") for name, row in every if name.startswith(("classroom_", "scope_"))]
    if any(drawn) and not set(drawn) <= {"dev", "test"}:
        yield f"halves are drawn for some questions only: {dict(Counter(drawn))}"


def held_out(asked: Sequence[Row]) -> Iterator[str]:
    """What is wrong with the test half, once halves are drawn: too few questions, or works."""
    test = [row for row in asked if row["split"] == "test"]
    if len(test) < HELD_OUT:
        yield f"the test half has {len(test)} answerable questions; {HELD_OUT} are needed"
    if len(works := {work_of(row) for row in test}) < HELD_OUT_WORKS:
        yield f"the test half has questions over {len(works)} works; {HELD_OUT_WORKS} are needed"


def work_of(row: Row) -> str:
    """The work of a question; the three parts of the Commedia count as three."""
    part = row["section"].partition(",")[0]
    return f"{row['work']}: {part}" if part in ("Inferno", "Purgatorio", "Paradiso") else row["work"]


def problems(files: dict[str, list[Row]], books: Books) -> Iterator[str]:
    """Everything that is wrong, a line each."""
    asked = []
    for name, part in files.items():
        kind = scope if name.startswith("scope_") else answerable
        if name.startswith("classroom_unanswerable") or not name.startswith(("classroom_", "scope_")):
            continue
        asked += part if kind is answerable else []
        yield from (f"{name}, {row['id']}: {wrong}" for row in part for wrong in kind(row, books))
    yield from alike(files)
    if any(row["split"] for row in asked):
        yield from held_out(asked)


def counts(files: dict[str, list[Row]]) -> Iterator[str]:
    """How many questions there are, by file, half, kind and work."""
    for name, part in files.items():
        halves = {half: n for half, n in sorted(Counter(row.get("split", "") for row in part).items()) if half}
        kinds = Counter(row["kind"] for row in part if "kind" in row)
        yield f"{name}: {len(part)} {halves or ''} {dict(kinds.most_common())}"
    works = Counter(work_of(row) for part in files.values() for row in part if "span" in row)
    yield f"answerable, by work ({len(works)}): {dict(works.most_common())}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--texts", type=Path, default=TEXTS, metavar="FOLDER", help="The folder of library/ and library_tei/."
    )
    folder = parser.parse_args().texts
    if not (folder / "library").is_dir():
        sys.exit(
            f"This needs the real texts in {folder.name}/ beside the project; they are not shipped. Or name --texts."
        )
    files = rows("*.jsonl")
    with Library.open(None) as library:
        for file in texts(folder):
            library.add(read(file))
        wrong = list(problems(files, Books(library)))
    print(*wrong, *counts(files), sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
