"""How sentences are chosen: what is measured of each, the two rankings, the confidence, and the fit of the coefficients."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from stilnovo.chat import choose as chooser
from stilnovo.chat.choose import WINDOW, choose, probability, ranked, shown_span
from stilnovo.chat.coefficients import CONFIDENCE, MEANING, RANKING, SURE
from stilnovo.chat.evidence import FEATURES, Evidence
from stilnovo.chat.question import Question
from stilnovo.library.location import sample_library
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.text.italian import words

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with sample_library() as library:
        yield library


def questions(library: Library, seed: int, count: int) -> list[str]:
    """Questions made of words of the library and others, with a seed."""
    draw = random.Random(seed)
    stock = [*sorted(set(words(library.text(library.works()[0])))), "Tecla", "Anselmo", "iperuranio", "alla fine"]
    opening = ["Chi", "Dove", "Perché", "Quanti", "Com'è d'aspetto", "Che parentela lega"]
    return [f"{draw.choice(opening)} {' '.join(draw.choices(stock, k=draw.randint(1, 5)))}?" for _ in range(count)]


def test_what_is_measured_lies_between_0_and_1(library: Library) -> None:
    for question in questions(library, 1, 25):
        for candidate in Evidence(Question(question), library).candidates:
            values = dict(zip(FEATURES, candidate.values, strict=True))
            assert all(-1e-9 <= value <= 1 + 1e-9 for value in candidate.values), (question, values)
            assert values["words"] <= values["passage"] + 1e-9
            start, end = shown_span(candidate)
            assert start <= candidate.start < candidate.end <= end
            assert end - start <= max(WINDOW, candidate.end - candidate.start)


def test_choices_are_of_different_passages_and_only_the_first_may_be_sure(library: Library) -> None:
    for question in questions(library, 2, 25):
        chosen = choose(Question(question), library, limit=4)
        assert len({choice.passage.id for choice in chosen}) == len(chosen) <= 4
        assert not any(choice.sure for choice in chosen[1:])
        assert all(0 < choice.confidence < 1 for choice in chosen[:1])
        assert [choice.text for choice in chosen] == [c.text for c in choose(Question(question), library, limit=4)]


def test_only_the_works_and_sections_named_are_looked_through(library: Library) -> None:
    for work in library.works():
        for section in library.sections(work)[:3]:
            question = Question("Chi vide il lume nella notte?")
            assert {c.passage.section.work.id for c in choose(question, library, [work])} <= {work.id}
            assert {c.passage.section.id for c in choose(question, library, [work], [section])} <= {section.id}


def test_a_person_is_sought_where_the_work_first_mentions_them() -> None:
    parts = ["Il molo era vuoto e le reti asciugavano al sole. " * 8 for _ in range(30)]
    parts[3] = "Entrò allora Berto, un fabbro dalla barba rossa. " + parts[3]
    for i in range(5, 30):
        parts[i] = "Berto parlava e parlava, e nessuno ascoltava più Berto, se non per ridere di Berto. " + parts[i]
    with Library.open(None) as made:
        made.add(Book(Names("Il molo", "A"), "\n\n".join(parts), "a"))
        for question in ("Chi è Berto?", "Che aspetto ha Berto?"):
            assert any("un fabbro dalla barba rossa" in one.text for one in choose(Question(question), made)), question


class Meaning:
    """Likes texts that speak of rain, whatever is asked; counts what it reads."""

    name = "rain"

    def __init__(self) -> None:
        self.read = 0

    def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.read += len(texts)
        return np.array([[1.0, 0.0] if "pioggia" in text else [0.0, 1.0] for text in texts], dtype=np.float32)

    def query(self, text: str) -> NDArray[np.float32]:
        return np.array([1.0, 0.0], dtype=np.float32)


def test_the_first_candidates_are_compared_by_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser, "MEANING", {"score": 0.1, "cosine": 1.0})
    text = "Il mugnaio vide il ponte. " * 3 + "Dopo la pioggia il mugnaio passò. " + "Il mugnaio salutò il ponte. " * 3
    with Library.open(None) as made:
        made.add(Book(Names("Il ponte", "A"), text, "a"))
        made.embedder = model = Meaning()  # type: ignore[assignment]
        made.embed()
        model.read = 0
        evidence = Evidence(Question("Quando passò il ponte il mugnaio?"), made)
        rows = ranked(evidence, RANKING["vectors"], {"score": 0.1, "cosine": 1.0})
        assert "pioggia" in rows[0].candidate.text
        assert rows[0].cosine == pytest.approx(1.0)
        assert model.read <= chooser.REREAD


def test_the_confidence_rises_with_what_speaks_for_it() -> None:
    for weights in CONFIDENCE.values():
        low, high = ({"chance": value, "lead": 4 * value, "passage": value, "cosine": value} for value in (0.1, 0.9))
        assert probability(low, weights) < probability(high, weights)
    assert set(RANKING) == set(CONFIDENCE) == set(SURE) == {"words", "vectors"}
    assert all(set(weights) == set(FEATURES) for weights in RANKING.values())
    assert set(MEANING) == {"score", "cosine"}


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path[:0] = [str(BENCH), str(BENCH / "questions")]
    pytest.importorskip("scipy")
    yield importlib.import_module("fit_chooser")
    del sys.path[:2]


def test_the_fit_finds_what_made_the_right_ones_right(bench: ModuleType) -> None:
    draw = np.random.default_rng(5)
    groups = []
    for _ in range(120):
        values = draw.random((30, 3))
        right = np.zeros(30)
        right[np.argmax(4 * values[:, 0] - 2 * values[:, 1] + draw.gumbel(size=30) / 2)] = 1
        groups.append((values, right))
    plus, minus, nothing = bench.conditional_logit(groups, 1.0)
    assert plus > 3
    assert minus < -1.5
    assert abs(nothing) < 1
    again = bench.conditional_logit(groups, 1.0)
    assert (plus, minus, nothing) == tuple(again)


def test_sure_begins_where_nine_of_ten_are_right(bench: ModuleType) -> None:
    draw = np.random.default_rng(6)
    chances = draw.random(400)
    right = draw.random(400) < chances**0.2
    case = bench.Case({}, None, [bench.Place(1, 0, 1)], set())
    found = [bench.Outcome(case, {}, section=True, sentence=True, shown=True, first=bool(hit)) for hit in right]
    least = bench.threshold(found, chances)
    assert right[chances >= least].mean() >= bench.RIGHT
    assert 0 < least < 1
    never = [bench.Outcome(case, {}, section=True, sentence=True, shown=True, first=False) for _ in right]
    assert bench.threshold(never, chances) == 1.0


def test_no_signal_makes_a_certainty() -> None:
    """Vectors of a foreign model may not be unit vectors: neither an overflow nor an answer that is sure comes of them."""
    for cosine in (-1e6, -1.0, 0.0, 1.0, 1e6):
        chance = probability({"cosine": cosine}, {"cosine": 13.6, "constant": -14.2})
        assert 0 < chance < 1
