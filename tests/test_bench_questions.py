"""The check of the questions about books finds what is wrong with them; the questions that we have pass it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stilnovo.library.read import understand
from stilnovo.library.store import Library

ROOT = Path(__file__).parents[1]
BOOK = """Autore: Ada Rossi
Titolo: La barca
Anno: 1901

Capitolo I

Il pescatore partì di lunedì con la rete nuova, e nessuno lo accompagnò fino alla spiaggia, perché pioveva.

La sera il mare era grigio.

Capitolo II

Tornò di venerdì senza la rete, e raccontò a tutti che gliel'aveva presa un pesce più grande della barca.

La sera il mare era grigio.
"""
PART = {"section": "Capitolo I", "verses": "", "span": "partì di lunedì"}
ROW: dict[str, Any] = {
    "id": "q-1",
    "split": "",
    "kind": "when",
    "question": "Quando salpò?",
    "work": "La barca",
    "author": "Ada Rossi",
}
ROW |= {**PART, "spans": []}
EVENING = "La sera il mare era grigio"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_questions", ROOT / "bench" / "questions" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def books(check: ModuleType) -> Iterator[Any]:
    with Library.open(None) as library:
        library.add(understand(BOOK.encode("utf-8"), "barca.txt"))
        yield check.Books(library)


def test_a_right_question_is_right(check: ModuleType, books: Any) -> None:
    twice = {**ROW, "span": EVENING, "spans": [{"section": "Capitolo II", "verses": "", "span": EVENING}]}
    assert [*check.answerable(ROW, books), *check.answerable(twice, books)] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"work": "La Barca"}, "no work"),
        ({"author": "A. Rossi"}, "no work"),
        ({"span": "partì di martedì"}, "is not in La barca"),
        ({"section": "Capitolo II"}, "is not in La barca, Capitolo II"),
        ({"verses": "3"}, "is not in the verses 3"),
        ({"span": EVENING}, "name every place"),
        ({"span": " ".join(["rete"] * 15)}, "15 words"),
        (
            {"spans": [{"section": "Capitolo II", "verses": "", "span": "partì di lunedì"}]},
            "is not in La barca, Capitolo II",
        ),
    ],
)
def test_a_wrong_question_is_told(check: ModuleType, books: Any, change: dict[str, Any], said: str) -> None:
    assert said in " ".join(check.answerable({**ROW, **change}, books))


@pytest.mark.parametrize(
    ("right", "said"),
    [
        ({"author": "Ada Rossi", "work": "La barca"}, ""),
        ({"year": 1901, "work": "La barca"}, ""),
        ({"work": "La barca", "count": [2, 3]}, ""),
        ({"work": "La barca", "section": "Capitolo II", "first": "Tornò di venerdì", "last": "era grigio."}, ""),
        ({"work": "La barca", "section": ["Capitolo I", "Capitolo II"], "first": ["Il pescatore", "Tornò"]}, ""),
        ({"from_author": "Ada Rossi", "word_any": ["marin", "mare"]}, ""),
        ({"nothing": True}, ""),
        ({}, "known are"),
        ({"autore": "Ada Rossi"}, "known are"),
        ({"author": "Ida Rossi"}, "no author Ida Rossi"),
        ({"year": 1902, "work": "La barca"}, "its year is 1901"),
        ({"year": 1902}, "no work of 1902"),
        ({"titles": ["La barca", "Il molo"]}, "Il molo"),
        ({"work": "La barca", "count": 5}, "no number of the records"),
        ({"count": 4}, "no number of the records"),
        ({"work": "La barca", "section": "Capitolo III", "first": "Tornò"}, "has no section"),
        ({"work": "La barca", "section": "Capitolo II", "first": "senza la rete"}, "is not the first"),
        ({"work": "La barca", "section": "Capitolo I", "title": "IL MARE"}, "is not the title"),
        ({"from_author": "Ada Rossi", "word_any": ["monte"]}, "never writes"),
    ],
)
def test_a_right_answer_of_scope_is_in_the_records(
    check: ModuleType, books: Any, right: dict[str, Any], said: str
) -> None:
    found = " ".join(check.scope({"right": right}, books))
    assert said in found if said else found == ""


def test_the_files_are_told_apart_and_whole(check: ModuleType) -> None:
    doubled = {
        "classroom_a.jsonl": [ROW, {**ROW, "id": "q-2", "split": "dev", "question": "Quando  salpò"}],
        "scope_a.jsonl": [ROW],
    }
    told = " ".join(check.alike(doubled))
    assert "id «q-1» is there 2 times" in told
    assert "has no ? or . at its end" in told
    assert "drawn for some questions only" in told
    assert "the test half has 1 answerable" in " ".join(check.held_out([{**ROW, "split": "test"}]))


def test_our_questions_have_ids_of_their_own(check: ModuleType) -> None:
    assert list(check.alike(check.rows("*.jsonl"))) == []


@pytest.mark.slow
def test_our_questions_are_right(check: ModuleType, shared_data: Path) -> None:
    with Library.open(None) as library:
        for file in check.texts(shared_data):
            library.add(check.read(file))
        assert list(check.problems(check.rows("*.jsonl"), check.Books(library))) == []
