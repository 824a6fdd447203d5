"""Texts nobody here wrote: novels in every encoding, Dante, TEI; all are stored, found, cited and quoted truly."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import REAL_DATA
from stilnovo.chat.conversation import ask
from stilnovo.chat.extract import NEAREST
from stilnovo.chat.quotes import verify
from stilnovo.io.sample import library_texts
from stilnovo.library.read import files_in, read
from stilnovo.library.records import Work
from stilnovo.library.search import search
from stilnovo.library.store import Library
from stilnovo.reading.decoding import decode
from stilnovo.reading.sections import split
from stilnovo.text.italian import tokens


@pytest.fixture(scope="module")
def any_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Every text and TEI file of the real library, stored once for all tests here; where those are not, the sample."""
    path = tmp_path_factory.mktemp("library") / "libri.sqlite"
    with Library.open(path) as library:
        for file in files_in([REAL_DATA / "library"]) if REAL_DATA.is_dir() else library_texts():
            assert library.add(read(file)).new, file.name
        yield library


@pytest.fixture(scope="module")
def library(shared_data: Path, any_library: Library) -> Library:
    """The real texts, for what only they hold."""
    return any_library


def work(library: Library, title: str, author: str = "") -> Work:
    return next(w for w in library.works() if w.title == title and author in w.author)


def test_every_file_is_stored_with_its_names_and_structure(library: Library, shared_data: Path) -> None:
    works = library.works()
    assert len(works) == len(files_in([shared_data / "library"]))
    assert [w.title for w in works if not w.author] == ["Commedia"]  # the file says nowhere who wrote it
    assert sum(w.year is None for w in works) == 2
    assert all(w.passages > 50 for w in works)
    expected = {
        "I promessi sposi": 39,
        "Pinocchio": 36,
        "Malombra": 29,
        "Clelia ovvero il governo dei preti": 75,
        "Il Marchese Di Roccaverdina": 34,
        "Canne al vento": 17,
        "Tigre reale": 18,
        "Fosca": 51,  # fifty and the title page
        "Commedia": 100,
        "Con gli occhi chiusi": 1,
    }
    assert {w.title: w.sections for w in works if w.title in expected} == expected


def test_the_whole_library_is_sound(any_library: Library) -> None:
    assert any_library.check() == []


def test_dantes_verses_are_counted_right(library: Library) -> None:
    dante = work(library, "La Divina Commedia di Dante")
    text = library.text(dante)
    assert "Project Gutenberg" not in text
    cantos = [section for section in library.sections(dante) if "Canto" in section.label]
    counts = [len(canto.lines) for canto in cantos]
    assert (len(counts), sum(counts)) == (100, 14_233)
    assert (counts[0], counts[99]) == (136, 145)
    last = cantos[99]
    quote = verify("l'amor che move il sole e l'altre stelle", last, text)
    # The source has typographic apostrophes, which is no difference in wording; what is shown is the source's all the same.
    assert (quote.status, quote.verses) == ("verified", "145")
    assert quote.text == "l’amor che move il sole e l’altre stelle"
    assert quote.citation.endswith("Paradiso, canto XXXIII, v. 145")
    joined = verify("sì come rota ch'igualmente è mossa, / l'amor che move il sole e l'altre stelle", last, text)
    assert (joined.status, joined.verses) == ("verified", "144-145")
    slipped = verify("L'amor che muove il sole e l'altre stelle", last, text)
    assert (slipped.status, slipped.text, slipped.verses) == ("repaired", quote.text, "145")
    assert verify("l'amor che move il sole e le stelle", last, text).status == "unverified"


def check_forms(source: Path, folder: Path) -> None:
    """The same chapters without line breaks, the same text with CRLF, in Latin-1 and in cp1252."""
    text = read(source).text
    labels = [section.label for section in split(text)]
    assert [section.label for section in split(text.replace("\n", " "))] == labels
    (folder / "crlf.txt").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert read(folder / "crlf.txt").text == text
    plain = "".join(c if ord(c) < 256 else " " for c in text)
    assert decode(plain.encode("latin-1"), "latin.txt").split() == plain.split()
    assert decode(text.encode("cp1252", errors="replace"), "windows.txt").count("\n") == text.count("\n")


def test_the_same_book_without_breaks_in_latin_1_and_with_crlf(tmp_path: Path) -> None:
    books = [
        REAL_DATA / "library" / f"{name}.txt"
        for name in (
            "Manzoni-Alessandro_I-promessi-sposi_1840",
            "Verga-Giovanni_Tigre-reale_1875",
            "De-Marchi-Emilio_Il-cappello-del-prete_1888",
        )
    ]
    for book in books if REAL_DATA.is_dir() else library_texts()[:1]:
        check_forms(book, tmp_path)


QUESTIONS = [
    ("Chi è don Abbondio?", "I promessi sposi", "cuor di leone"),
    ("Chi è Perpetua?", "I promessi sposi", "la serva di don Abbondio"),
    ("Dove abita Lucia?", "I promessi sposi", "in fondo"),
    ("Dove si trova il palazzotto di don Rodrigo?", "I promessi sposi", "poggi"),
    ("Chi ha ucciso prete Cirillo?", "Il cappello del prete", "Cirillo"),
    ("Chi è il barone di Santafusca?", "Il cappello del prete", "non credeva in Dio"),
    ("Che mestiere faceva maestro Ciliegia?", "Pinocchio", "falegname"),
    ("Quante monete d'oro regala Mangiafoco a Pinocchio?", "Pinocchio", "cinque monete"),
    ("Chi è Efix?", "Canne al vento", "il servo delle dame Pintor"),
    ("Chi è Tremal-Naik?", "I misteri della giungla nera", "il cacciatore di serpenti"),
    ("Chi è il conte Ugolino?", "Commedia", "Ugolino"),
    ("amor ch'a nullo amato amar perdona", "Commedia", "nullo amato"),
]
SAMPLE_QUESTIONS = [
    ("Chi ha insegnato a leggere a Tecla?", "Il faro di Pietranera", "Anselmo avrebbe insegnato a leggere"),
]
NEAR = [
    ("Chi ha ucciso il signore di Santafusca?", "Il cappello del prete"),  # nobody: he is the murderer
    ("Dove abitano le dame Pintor?", "Canne al vento"),  # a boy "che abitava accanto" is no answer
]


def test_questions_get_true_quotations_from_a_sensible_work(any_library: Library) -> None:
    asked, right = QUESTIONS if REAL_DATA.is_dir() else SAMPLE_QUESTIONS, 0
    for question, title, words in asked:
        answer = ask(any_library, question)
        for quote in answer.quotes:
            assert quote.status == "verified", question
            assert quote.section is not None, question
            assert quote.text == any_library.text(quote.section.work)[quote.start : quote.end], question
        right += any(q.section and title in q.section.work.title and words in q.text for q in answer.quotes)
    assert right / len(asked) >= 0.7, f"{right} of {len(asked)}"


def test_what_only_comes_near_is_given_with_a_reserve(library: Library) -> None:
    for question, title in NEAR:
        answer = ask(library, question)
        quote = answer.quotes[0]
        assert not answer.sure, question
        assert answer.nearest, question
        assert answer.text.startswith(NEAREST), question
        assert quote.status == "verified", question
        assert quote.section is not None, question
        assert title in quote.section.work.title, question
        assert quote.text == library.text(quote.section.work)[quote.start : quote.end], question


@pytest.mark.parametrize("question", ["Chi è Harry Potter?", "Quando nacque Einstein?", "Come si installa Windows?"])
def test_what_no_book_knows_is_not_answered(any_library: Library, question: str) -> None:
    assert ask(any_library, question).quotes == ()


def test_remembered_words_without_accents_find_their_passage(any_library: Library) -> None:
    draw = random.Random(11)
    numbers = [number for (number,) in any_library.connection.execute("SELECT id FROM passages")]
    first = tenth = tried = 0
    for passage in any_library.passages(draw.sample(numbers, min(300, len(numbers)))):
        forms = [token.form for token in tokens(passage.text)]
        if len(forms) < 12:
            continue
        start = draw.randrange(len(forms) - 6)
        query = " ".join(forms[start : start + 6])
        assert unicodedata.is_normalized("NFKD", query)
        found = [query in " ".join(t.form for t in tokens(hit.passage.text)) for hit in search(any_library, query, 10)]
        tried, first, tenth = tried + 1, first + (found[:1] == [True]), tenth + any(found)
    assert first / tried >= 0.93
    assert tenth / tried >= 0.98
