"""Chapters asked for as a whole: which one is meant, its course in true sentences, and what a model gets to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stilnovo.chat.conversation import ChatSession, ask
from stilnovo.chat.events import Answer, Notice
from stilnovo.chat.extract import extract
from stilnovo.chat.question import Question
from stilnovo.chat.scope import NamedSection, follow_up, named_section, scope, without_section
from stilnovo.chat.units import central
from stilnovo.library.location import sample_library
from stilnovo.library.read import read
from stilnovo.library.store import Library
from stilnovo.reading.names import Names
from stilnovo.reading.text_builder import Book
from stilnovo.text.template import Message


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    with sample_library() as library:
        yield library


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Riassumi il capitolo VIII", NamedSection("capitolo", 8)),
        ("riassumi il cap. 8", NamedSection("capitolo", 8)),
        ("Di cosa parla il canto quinto dell'Inferno?", NamedSection("canto", 5, ("inferno",))),
        ("Che succede nel ventiseiesimo canto?", NamedSection("canto", 26)),
        ("Il capitolo II del libro primo", NamedSection("capitolo", 2, ("libro 1",))),
        ("Com'è l'introduzione?", NamedSection("introduzione", None)),
        ("Chi canta nel coro?", None),
        ("Capitolo ultimo", None),
    ],
)
def test_sections_are_named_in_many_ways(text: str, named: NamedSection | None) -> None:
    assert named_section(text) == named


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Riassumi il capitolo III del Faro di Pietranera", True),
        ("Di che cosa parla il terzo capitolo?", True),
        ("Che cosa succede nel capitolo III?", True),
        ("Chi insegna a leggere a Tecla nel capitolo III?", False),
    ],
)
def test_whole_chapters_are_told_from_questions_about_them(library: Library, text: str, whole: bool) -> None:
    found = scope(Question(text), library, [])
    assert found is not None
    assert [section.label for section in found.sections] == ["Capitolo III"]
    assert found.whole is whole


def test_the_course_of_a_chapter_is_true_and_in_order(library: Library) -> None:
    found = extract(library, "Riassumi il capitolo III")
    assert found.section is not None
    assert found.section.label == "Capitolo III"
    starts = [quote.start for quote in found.quotes]
    assert starts == sorted(set(starts))
    assert len(starts) >= 3
    # Beginning, middle and end have their say.
    size = found.section.end - found.section.body
    assert starts[0] - found.section.body < size / 3
    assert starts[-1] - found.section.body > size / 2
    assert {quote.status for quote in found.quotes} == {"verified"}
    assert len(found.passages) == len(library.passages_of(found.section))


def test_central_sentences_share_the_sections_words() -> None:
    with Library.open(None) as library:
        theme = "Il mugnaio portava la farina al forno del paese insieme al fornaio Berto. "
        aside = "Qualche nuvola grigia copriva intanto le colline lontane verso settentrione. "
        library.add(Book(Names("Farina", "A"), (theme + aside) * 3 + theme, "a"))
        section = library.sections(library.works()[0])[0]
        places = central(library.passages_of(section), 1)
        assert "mugnaio" in places[0][0].text[places[0][1] : places[0][2]]


def test_a_question_about_a_chapter_is_answered_from_it(library: Library) -> None:
    found = extract(library, "Chi insegna a leggere a Tecla nel capitolo III?")
    assert found.section is None
    assert found.quotes[0].section is not None
    assert found.quotes[0].section.label == "Capitolo III"
    assert without_section("Chi insegna a leggere nel capitolo III?") == "Chi insegna a leggere ?"


def test_several_such_chapters_are_asked_back() -> None:
    with Library.open(None) as library:
        for name, body in (
            (
                "Uno",
                "C'era una volta un mare azzurro e calmo. I pescatori partivano ogni mattina presto con le reti. " * 4,
            ),
            (
                "Due",
                "Sul monte Ceresolo nevicava da giorni. Il vecchio pastore contava le pecore rimaste al chiuso. " * 4,
            ),
        ):
            chapters = "\n\n".join(f"CAPITOLO {number}\n\n{body}" for number in ("I", "II", "III"))
            library.add(Book(Names(name, "A"), chapters, name))
        found = extract(library, "Riassumi il capitolo II")
        assert found.asks_back
        assert not found.quotes
        assert "Uno, Capitolo II" in found.text
        assert "Due, Capitolo II" in found.text
        named = extract(library, "Riassumi il capitolo II di Due")
        assert named.section is not None
        assert named.section.work.title == "Due"
        talk = ChatSession(library=library)
        list(talk.reply("Che cosa contava il vecchio pastore?"))
        done = list(talk.reply("Riassumi il capitolo II"))[-1]
        assert isinstance(done, Answer)
        assert "pastore" in done.text, "the work last quoted is meant"


def test_a_follow_up_takes_the_next_chapter() -> None:
    assert (
        follow_up("E il canto VI?", "Di cosa parla il canto V dell'Inferno?")
        == "Di cosa parla il canto VI dell'Inferno?"
    )
    assert follow_up("E il capitolo 4?", "Riassumi il terzo capitolo") == "Riassumi il capitolo 4"
    assert follow_up("E Tecla?", "Riassumi il terzo capitolo") == "E Tecla?"


class Reads:
    """A writer that remembers what it was given."""

    def __init__(self, context_tokens: int) -> None:
        self.context_tokens, self.given = context_tokens, list[Sequence[Message]]()

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def stream(self, messages: Sequence[Message], sampling: Any) -> Iterator[str]:
        self.given.append(messages)
        yield "Il capitolo racconta."


@pytest.mark.parametrize(("context", "cut"), [(100_000, False), (560, True)])
def test_a_model_reads_the_chapter_as_far_as_its_context_holds(library: Library, context: int, cut: bool) -> None:
    writer = Reads(context)
    events = list(ChatSession(writer, library=library, reserve=50).reply("Riassumi il capitolo III"))
    content = writer.given[0][-1].content
    every = extract(library, "Riassumi il capitolo III").passages
    kept = content.count("<<<")
    assert (kept < len(every)) is cut
    assert kept >= 1
    notices = [event for event in events if isinstance(event, Notice) and event.code == "section"]
    assert [notice.count for notice in notices] == ([len(every) - kept] if cut else [])
    assert writer.count(writer.given[0]) + 50 <= context


def test_a_poem_is_asked_for_by_its_title(tmp_path: Path) -> None:
    poems = {
        "XII. Il molo": "Sul molo antico batte l'onda scura,\ne il vento porta il sale alla finestra",
        "XIII. La sera di marzo": "Viene la sera di marzo coi suoi lumi,\ne la collina tace sotto il vento",
    }
    body = "".join(
        f"<div type='poem'><head>{head}</head>{''.join(f'<l>{line}</l>' for line in lines.splitlines())}</div>"
        for head, lines in poems.items()
    )
    names = "<title>Versi</title><author>Prova, Ada</author>"
    (tmp_path / "versi.xml").write_text(
        f"<TEI><teiHeader><fileDesc><titleStmt>{names}</titleStmt></fileDesc></teiHeader><text><body>{body}</body></text></TEI>",
        encoding="utf-8",
    )
    with Library.open(tmp_path / "libri.sqlite") as library:
        library.add(read(tmp_path / "versi.xml"))
        for question in (
            "Riassumi Il molo",
            "Riassumi «Il molo» di Ada Prova",
            "Di cosa parla Il molo?",
            "Riassumi la poesia XII",
        ):
            answer = ask(library, question)
            assert answer.quotes[0].citation.startswith("Ada Prova, Versi, XII. Il molo"), question
            assert answer.text.startswith("Versi, XII. Il molo,"), question
        assert not ask(library, "Dove batte l'onda?").text.startswith("Versi, XII")
