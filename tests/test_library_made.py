"""Made files of every format, with any structure: each word of the author's stands once in the text, in order, the rest apart."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from made_files import KINDS, Maker, MarkdownFile
from stilnovo.library.conservation import compare
from stilnovo.library.read import understand

SEEDS = 80


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.replace("\u00ad", ""))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not MarkdownFile])
def test_every_word_is_in_its_place(kind: type[Maker]) -> None:
    for seed in range(SEEDS):
        check(kind(Random(seed)), seed)


def check(made: Maker, seed: int) -> None:
    data, name = made.file()
    book = understand(data, name)
    assert compare(data, name, book.text, book.apparatus).problems() == [], seed
    # Known by construction, without the law's own reading of the file.
    text = words(book.text)
    apart = Counter(word for item in book.apparatus for word in words(item.text))
    assert not set(text) & set(made.apart), seed
    assert not set(apart) & set(made.author), seed
    assert not set(made.apart) - set(apart), seed
    if name != "prova.txt":  # its hyphens may be kept
        assert text == made.author, seed


def test_a_fault_put_into_a_made_file_is_seen() -> None:
    """The law itself: whatever is taken out, put in, glued or moved is told."""
    for seed in range(40):
        random = Random(seed)
        made = random.choice(KINDS)(random)
        data, name = made.file()
        book = understand(data, name)
        places = [
            match
            for match in re.finditer(r"[^\W_]+ [^\W_]+ ", book.text)
            if not any(match.start() <= item.at <= match.end() for item in book.apparatus)
        ]
        if not places:
            continue
        start, end = random.choice(places).span()
        one, two, _ = book.text[start:end].split(" ")
        for wrong in (f"{one} ", f"{one}{two} ", f"{one} {two} {two} ", f"{two} {one} ", f"{one[:3]} {one[3:]} {two} "):
            text = book.text[:start] + wrong + book.text[end:]
            longer = len(text) - len(book.text)
            apart = [replace(item, at=item.at + longer) if item.at > start else item for item in book.apparatus]
            assert not compare(data, name, text, apart).kept, (seed, wrong)
